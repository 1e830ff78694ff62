"""The content type of a new record: by the name's extension, else by the first bytes.

The answers are the same on each machine: neither `/etc/mime.types` nor the Python version decides about a
type that people keep in stores (Python 3.11 lacks Markdown, YAML and WebP, and 3.12 renamed JavaScript).

Text, JSON and XML get `; charset=utf-8`, as Apify's clients write for what they store (`application/json;
charset=utf-8`, `text/plain; charset=utf-8`). HTML, CSV and XML too: a browser that opens the record's public
URL takes text without it for windows-1252. It is left out where the bytes are not UTF-8.
"""

from __future__ import annotations

import codecs
import json
import mimetypes
import re
from typing import NoReturn

import puremagic  # 5 ms to import

MARKER = "application/x-directory"
"""The type of the empty record that stands for an empty folder."""

UNKNOWN = "application/octet-stream"

MAX_LENGTH = 512
"""Characters: two names of 127 (RFC 6838, 4.2) and room for parameters such as a multipart boundary."""

# Own words first: what Python lacks, names differently from one version to the next, or (None) cannot know.
_BY_EXTENSION: dict[str, str | None] = {
    "7z": "application/x-7z-compressed",
    "aac": "audio/aac",
    "avif": "image/avif",
    "br": "application/x-brotli",
    "bz2": "application/x-bzip2",
    "cfg": "text/plain",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "epub": "application/epub+zip",
    "flac": "audio/flac",
    "geojson": "application/geo+json",
    "gz": "application/gzip",
    "har": "application/json",
    "heic": "image/heic",
    "ico": "image/vnd.microsoft.icon",
    "ics": "text/calendar",
    "ini": "text/plain",
    "ipynb": "application/x-ipynb+json",
    "jpg": "image/jpeg",
    "js": "text/javascript",
    "jsonl": "application/x-ndjson",
    "jsonld": "application/ld+json",
    "jsx": "text/javascript",
    "log": "text/plain",
    "m4a": "audio/mp4",
    "map": "application/json",
    "markdown": "text/markdown",
    "md": "text/markdown",
    "mjs": "text/javascript",
    "mkv": "video/x-matroska",
    "ndjson": "application/x-ndjson",
    "odt": "application/vnd.oasis.opendocument.text",
    "ogg": "audio/ogg",
    "otf": "font/otf",
    "parquet": "application/vnd.apache.parquet",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "rar": "application/vnd.rar",
    "rss": "application/rss+xml",
    "rst": "text/x-rst",
    "rtf": "application/rtf",
    "sql": "application/sql",
    "sqlite": "application/vnd.sqlite3",
    "tar": "application/x-tar",
    "tbz2": "application/x-bzip2",
    "tgz": "application/gzip",
    "toml": "application/toml",
    "ts": None,  # TypeScript or an MPEG transport stream
    "tsx": "text/plain",
    "ttf": "font/ttf",
    "txz": "application/x-xz",
    "warc": "application/warc",
    "wav": "audio/wav",
    "webm": "video/webm",
    "webp": "image/webp",
    "woff": "font/woff",
    "woff2": "font/woff2",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xml": "application/xml",
    "xz": "application/x-xz",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "z": "application/x-compress",
    "zip": "application/zip",
    "zst": "application/zstd",
}
_PYTHONS = {
    suffix.removeprefix("."): content_type
    for suffix, content_type in mimetypes.MimeTypes(filenames=()).types_map[True].items()
}

# Where several extensions stand for a type, the one that people and Crawlee's local storage use.
_USUAL = {
    "application/gzip": "gz",
    "application/json": "json",
    "application/octet-stream": "bin",
    "application/x-bzip2": "bz2",
    "application/x-ndjson": "jsonl",
    "application/x-xz": "xz",
    "application/xml": "xml",
    "application/yaml": "yaml",
    "image/jpeg": "jpg",
    "text/javascript": "js",
    "text/markdown": "md",
    "text/html": "html",
    "text/plain": "txt",
}
_EXTENSIONS: dict[str, bytes] = {
    **{known: suffix.encode() for suffix, known in reversed(_PYTHONS.items())},
    **{known: suffix.encode() for suffix, known in reversed(_BY_EXTENSION.items()) if known},
    **{known: suffix.encode() for known, suffix in _USUAL.items()},
}
EXTENSIONS = frozenset(_EXTENSIONS.values())
"""All that `extension` gives."""

# What puremagic 1.30 does not know, or takes for one of the many formats that are built on it.
_BY_MAGIC: dict[bytes, str] = {
    b"PK\x03\x04": "application/zip",
    b"PAR1": "application/vnd.apache.parquet",
    b"\0asm": "application/wasm",
    b"\x1f\x8b": "application/gzip",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "application/x-ole-storage",
}
_LEAST_CONFIDENCE = (
    0.3  # puremagic gives 0.1 a byte: JPEG and gzip have three, what matches on fewer is chance
)

_CONTROL = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f]")  # in no text: what file(1) also takes for binary
_STRING = r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)'  # or the beginning of one, up to the end of what is known
_JSON_TOKEN = re.compile(rf"{_STRING}|[\[\]{{}},]", re.DOTALL)
_JSON_REST = re.compile(rf"\s*(?:{_STRING}\s*:?\s*)?(?:{_STRING}|[-+.\w]*)\s*", re.DOTALL)
_CLOSED_BY = {"{": "}", "[": "]"}

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 - RFC 9110, 5.6.2
_QUOTED = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
_MEDIA_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}(?:[ \t]*;[ \t]*(?:{_TOKEN}=(?:{_TOKEN}|{_QUOTED}))?)*")


def guess(name: bytes, head: bytes, *, whole: bool) -> str:
    """Return the type of a new record from its file name, else from its first bytes (64 KiB are plenty).

    `whole` tells that `head` is the entire body. A type with a charset loses it where `head` is not UTF-8.
    """
    named = by_name(name)
    if named is None:
        return by_content(head, whole=whole)
    if _utf8(head, whole=whole) is None:
        return named.partition(";")[0]
    return named


def by_name(name: bytes) -> str | None:
    """Return the type that the last extension stands for; None where it is missing or not known."""
    stem, dot, extension = name.rpartition(b".")
    if not dot or not stem.strip(b"."):  # `.env` is hidden, not an extension
        return None
    suffix = extension.decode("ascii", "replace").lower()
    found = _BY_EXTENSION[suffix] if suffix in _BY_EXTENSION else _PYTHONS.get(suffix)
    return None if found is None else _with_charset(found)


def extension(content_type: str) -> bytes | None:
    """Return the extension, without its dot, of the names that records of a type get; None for a type without."""
    return _EXTENSIONS.get(content_type.partition(";")[0].strip().lower())


def by_content(head: bytes, *, whole: bool) -> str:
    """Return the type that the first bytes tell: JSON, UTF-8 text, a magic number, else `UNKNOWN`.

    JSON means an object or an array: `42` or `true` in a file is more likely somebody's text. Where `head` is
    not all of it, a beginning that is correct up to the cut is JSON too: an `OUTPUT` of many megabytes must
    come back from Apify's clients as an object, not as a string. An empty body tells nothing.
    """
    if not head:
        return UNKNOWN
    text = None if _CONTROL.search(head) else _utf8(head, whole=whole)
    if text is None:
        return _by_magic(head)
    if _is_json(text, whole=whole):
        return _with_charset("application/json")
    return _with_charset("text/plain")


def is_valid(content_type: str) -> bool:
    """Whether this is a media type with its parameters as RFC 9110, 8.3.1 writes it."""
    return len(content_type) <= MAX_LENGTH and _MEDIA_TYPE.fullmatch(content_type) is not None


def _with_charset(content_type: str) -> str:
    textual = content_type.startswith("text/") or content_type.endswith(("json", "/xml", "+xml"))
    # An SVG says its own encoding, and nobody writes a charset there.
    return f"{content_type}; charset=utf-8" if textual and content_type != "image/svg+xml" else content_type


def _utf8(head: bytes, *, whole: bool) -> str | None:
    try:  # the last character may be cut where more follows
        return codecs.getincrementaldecoder("utf-8-sig")().decode(head, final=whole)
    except UnicodeDecodeError:
        return None


def _is_json(text: str, *, whole: bool) -> bool:
    if not text.lstrip().startswith(("{", "[")):
        return False
    return _parses(text) or (not whole and _begins_json(text))


def _begins_json(text: str) -> bool:
    """Whether `text`, cut after its last bracket or comma and closed, is JSON and the rest may go on so."""
    closers: list[str] = []
    known = rest = 0
    for token in _JSON_TOKEN.finditer(text):
        match token[0]:
            case "{" | "[":
                closers.append(_CLOSED_BY[token[0]])
            case "}" | "]":
                if not closers or closers.pop() != token[0]:
                    return False
            case ",":
                pass
            case _:
                continue
        known, rest = token.start() if token[0] == "," else token.end(), token.end()
    closed = text[:known] + "".join(reversed(closers))
    return _JSON_REST.fullmatch(text, rest) is not None and _parses(closed)


def _parses(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(name: str) -> NoReturn:
    """Raise for NaN and Infinity, which Python reads and JSON has not."""
    raise ValueError(name)


def _by_magic(head: bytes) -> str:
    for magic, content_type in _BY_MAGIC.items():
        if head.startswith(magic):
            return content_type
    try:
        matches = puremagic.magic_string(head)
    except puremagic.PureError:
        return UNKNOWN
    best = max(matches, key=lambda match: match.confidence, default=None)
    if best is None or best.confidence < _LEAST_CONFIDENCE or not is_valid(best.mime_type):
        return UNKNOWN
    return str(best.mime_type)
