"""Content types of new records: tables of names and bodies, cut JSON, and what may stand in a header."""

from __future__ import annotations

import gzip
import json
import mimetypes
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsfs.core import content_types
from tests.support.typed import BODIES, JSON, NAMES, TEXT, UNKNOWN


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_types_by_name(name: str, expected: str | None) -> None:
    assert content_types.by_name(name.encode()) == expected


def test_a_name_need_not_be_utf8() -> None:
    assert content_types.by_name(b"\xff\xfe.txt") == TEXT
    assert content_types.by_name(b"a.\xff") is None


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
        (b"a.json.gz", gzip.compress(b"{}", mtime=0), "application/gzip"),
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
