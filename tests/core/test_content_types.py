"""Content types of new records: tables of names and bodies, cut JSON, and what may stand in a header."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import mimetypes
import subprocess
import sys
import tarfile
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsfs.core import content_types

JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
UNKNOWN = "application/octet-stream"
OFFICE = "application/vnd.openxmlformats-officedocument"

NAMES: list[tuple[str, str | None]] = [
    ("INPUT", None),
    ("OUTPUT.json", JSON),
    ("x.json.gz", "application/gzip"),
    ("x.tar.gz", "application/gzip"),
    ("x.tgz", "application/gzip"),
    ("x.svg.br", "application/x-brotli"),
    ("x.tar", "application/x-tar"),
    ("x.csv.bz2", "application/x-bzip2"),
    ("x.txt.xz", "application/x-xz"),
    ("x.zst", "application/zstd"),
    ("x.zip", "application/zip"),
    ("x.Z", "application/x-compress"),
    ("a.txt", TEXT),
    ("a.log", TEXT),
    ("README.md", "text/markdown; charset=utf-8"),
    ("page.html", "text/html; charset=utf-8"),
    ("page.HTM", "text/html; charset=utf-8"),
    ("t.csv", "text/csv; charset=utf-8"),
    ("t.tsv", "text/tab-separated-values; charset=utf-8"),
    ("t.xml", "application/xml; charset=utf-8"),
    ("feed.rss", "application/rss+xml; charset=utf-8"),
    ("s.css", "text/css; charset=utf-8"),
    ("s.js", "text/javascript; charset=utf-8"),
    ("s.mjs", "text/javascript; charset=utf-8"),
    ("s.py", "text/x-python; charset=utf-8"),
    ("s.ts", None),
    ("c.yaml", "application/yaml"),
    ("c.yml", "application/yaml"),
    ("c.toml", "application/toml"),
    ("r.jsonl", "application/x-ndjson; charset=utf-8"),
    ("r.ndjson", "application/x-ndjson; charset=utf-8"),
    ("m.geojson", "application/geo+json; charset=utf-8"),
    ("i.png", "image/png"),
    ("i.PNG", "image/png"),
    ("i.jpg", "image/jpeg"),
    ("i.jpeg", "image/jpeg"),
    ("i.gif", "image/gif"),
    ("i.webp", "image/webp"),
    ("i.avif", "image/avif"),
    ("i.svg", "image/svg+xml"),
    ("f.woff2", "font/woff2"),
    ("d.parquet", "application/vnd.apache.parquet"),
    ("d.pdf", "application/pdf"),
    ("d.xlsx", f"{OFFICE}.spreadsheetml.sheet"),
    ("d.docx", f"{OFFICE}.wordprocessingml.document"),
    ("v.mp4", "video/mp4"),
    ("v.mp3", "audio/mpeg"),
    ("b.wasm", "application/wasm"),
    ("b.bin", UNKNOWN),
    (".json", None),
    (".env", None),
    ("..json", None),
    (".hidden.json", JSON),
    ("name.", None),
    ("json", None),
    ("a.unheard-of", None),
    ("my file.with spaces.txt", TEXT),
    ("data:text/html,a.json", JSON),
    ("a.jsön", None),
]


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_types_by_name(name: str, expected: str | None) -> None:
    assert content_types.by_name(name.encode()) == expected


def test_a_name_need_not_be_utf8() -> None:
    assert content_types.by_name(b"\xff\xfe.txt") == TEXT
    assert content_types.by_name(b"a.\xff") is None


def zip_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "x")
    return buffer.getvalue()


def tar_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


BODIES: list[tuple[bytes, str]] = [
    (b"", UNKNOWN),
    (b"{}", JSON),
    (b" \n[1, 2]\n", JSON),
    (b'\xef\xbb\xbf{"a": 1}', JSON),
    ('{"a": "ö"}'.encode(), JSON),
    (b"42", TEXT),
    (b"true", TEXT),
    (b'"quoted"', TEXT),
    (b"{a: 1}", TEXT),
    (b"[NaN]", TEXT),
    (b'{"a": 1}\n{"a": 2}\n', TEXT),
    (b'{"a": ', TEXT),
    (b"[" * 60_000, TEXT),
    (b"[section]\nkey = 1\n", TEXT),
    (b"hello\n", TEXT),
    ("Größe 漢".encode(), TEXT),
    (b"\x1b[31mred\x1b[0m\ttab\r\n", TEXT),
    ("Größe".encode("latin-1"), UNKNOWN),
    ("Größe 漢".encode()[:-1], UNKNOWN),
    (b"a\0b", UNKNOWN),
    (bytes(100), UNKNOWN),
    (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(17), "image/png"),
    (b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(20), "image/jpeg"),
    (b"GIF89a" + bytes(20), "image/gif"),
    (b"RIFF\x24\0\0\0WEBPVP8 " + bytes(20), "image/webp"),
    (gzip.compress(b"x"), "application/gzip"),
    (bz2.compress(b"x"), "application/x-bzip2"),
    (lzma.compress(b"x"), "application/x-xz"),
    (zip_of("a.txt"), "application/zip"),
    (tar_of("a.txt"), "application/x-tar"),
    (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "application/pdf"),
    (b"PAR1" + bytes(20) + b"PAR1", "application/vnd.apache.parquet"),
    (b"\0asm\1\0\0\0", "application/wasm"),
]


@pytest.mark.parametrize(("body", "expected"), BODIES)
def test_types_by_content(body: bytes, expected: str) -> None:
    assert content_types.by_content(body, whole=True) == expected


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        (b"a.csv", "Größe;1".encode("latin-1"), "text/csv"),
        (b"a.csv", "Größe;1".encode(), "text/csv; charset=utf-8"),
        (b"a.txt", "Größe".encode("utf-16"), "text/plain"),
        (b"a.html", b"", "text/html; charset=utf-8"),
        (b"a.json", b"not json", JSON),
        (b"a.json.gz", gzip.compress(b"{}"), "application/gzip"),
        (b"a.png", b"not a picture", "image/png"),
        (b"a.ts", b"const a = 1\n", TEXT),
        (b"a.ts", (b"G\x40\0\x10" + b"\xff" * 184) * 3, UNKNOWN),
        (b"OUTPUT", b'{"a": 1}', JSON),
        (b".env", b"A=1\n", TEXT),
    ],
)
def test_the_name_goes_before_the_content(name: bytes, body: bytes, expected: str) -> None:
    assert content_types.guess(name, body, whole=True) == expected


@pytest.mark.parametrize("cut", [1, 2])
def test_a_cut_character_is_still_text(cut: int) -> None:
    head = ("x" * 100 + "漢").encode()[:-cut]
    assert content_types.by_content(head, whole=False) == TEXT
    assert content_types.guess(b"a.csv", head, whole=False) == "text/csv; charset=utf-8"
    assert content_types.guess(b"a.csv", head, whole=True) == "text/csv"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.one_of(st.lists(json_values), st.dictionaries(st.text(), json_values)), st.data(), st.booleans())
@settings(max_examples=200)
def test_json_is_recognised_wherever_it_is_cut(value: object, data: st.DataObject, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only, indent=2).encode()
    cut = data.draw(st.integers(1, len(body)))
    assert content_types.by_content(body[:cut], whole=False) == JSON
    assert content_types.by_content(body, whole=True) == JSON


@pytest.mark.parametrize(
    "head",
    [
        b"{ this is a sentence that goes on",
        b"[section]\nkey = 1\n",
        b"{{ template }} and",
        b"[1, 2] and then",
        b'{"a": 1}\n{"b": 2',
        b"{a: 1, b: [",
        b"[1,, 2",
        b"[1}",
        b"]",
        b'{"a" "b", "c',
        b"/* { */ a {",
    ],
)
def test_a_beginning_that_no_json_has_is_text(head: bytes) -> None:
    assert content_types.by_content(head, whole=False) == TEXT


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/json; charset=utf-8",
        "application/json;charset=utf-8",
        'text/plain; charset="utf-8"; format=flowed',
        "application/vnd.api+json",
        'multipart/form-data; boundary="a \\" b"',
        "text/plain;",
        content_types.MARKER,
        "a/" + "b" * 510,
    ],
)
def test_valid_types(content_type: str) -> None:
    assert content_types.is_valid(content_type)


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text",
        "text/",
        "/plain",
        "text/plain\n",
        "text/plain\r\nX-Evil: 1",
        "text/plain; charset=utf-8\n",
        "text/plain; charset",
        "text/plain; charset=ü",
        "text/plain charset=utf-8",
        "text /plain",
        " text/plain",
        "text/plain\0",
        'text/plain; a="b\x01"',
        'text/plain; a="b',
        "text/plain, text/html",
        "a/" + "b" * 511,
    ],
)
def test_invalid_types(content_type: str) -> None:
    assert not content_types.is_valid(content_type)


@given(st.binary(max_size=300), st.booleans())
def test_every_guess_may_stand_in_a_header(head: bytes, whole: bool) -> None:
    assert content_types.is_valid(content_types.by_content(head, whole=whole))


def test_every_extension_has_a_type_that_may_stand_in_a_header() -> None:
    extensions = {*mimetypes.MimeTypes(filenames=()).types_map[True], ".md", ".yaml", ".7z", ".har"}
    types = {content_types.by_name(b"x" + extension.encode()) for extension in extensions}
    assert all(found is not None and content_types.is_valid(found) for found in types)


def test_the_machines_own_tables_do_not_matter() -> None:
    told = "import mimetypes; mimetypes.knownfiles[:] = []; mimetypes.add_type('text/x-evil', '.png')"
    ask = "from kvsfs.core import content_types; print(content_types.by_name(b'x.png'))"
    done = subprocess.run(
        [sys.executable, "-c", f"{told}; {ask}"], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "image/png\n"
