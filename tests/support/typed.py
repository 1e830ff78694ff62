"""Names and bodies with the content types that new records of them get."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

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


def zip_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), "x")
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
    (gzip.compress(b"x", mtime=0), "application/gzip"),
    (bz2.compress(b"x"), "application/x-bzip2"),
    (lzma.compress(b"x"), "application/x-xz"),
    (zip_of("a.txt"), "application/zip"),
    (tar_of("a.txt"), "application/x-tar"),
    (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "application/pdf"),
    (b"PAR1" + bytes(20) + b"PAR1", "application/vnd.apache.parquet"),
    (b"\0asm\1\0\0\0", "application/wasm"),
]
