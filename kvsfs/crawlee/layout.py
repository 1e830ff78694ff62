"""How Crawlee names the files of a key-value store on disk, and what it writes beside them.

Seen from Crawlee for Python 1.11, `@crawlee/memory-storage` 3.18 and the source of 4, which writes as Python does:

    Python        KEY, percent-encoded     KEY.__metadata__.json: key, content_type (in 4: contentType, filename)
    JavaScript 3  KEY.EXT, as it is        KEY.__metadata__.json with DEBUG=* only: key, extension, contentType,
                                           as JSON in a JSON string

JavaScript 3 reads a file without its last extension as its key, whatever it was stored as: `a.html` is the key `a`.
"""

from __future__ import annotations

import enum
import json
import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from kvsfs.core import content_types

STORES = "key_value_stores"
"""The folder of a storage folder that holds a folder for each store."""

METADATA = "__metadata__.json"
"""Of a store; behind a dot: of one record."""

SIDECAR = f".{METADATA}"

_ANY_SIDECAR = ".__metadata__."
"""What JavaScript 3 looks for anywhere in a name."""

LONGEST_NAME = 255
"""Bytes of a file name (NAME_MAX of Linux's file systems)."""

_EXTENSIONS = {
    "application/geo+json": "geojson",
    "application/gzip": "gz",
    "application/json": "json",
    "application/ld+json": "jsonld",
    "application/pdf": "pdf",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/wasm": "wasm",
    "application/xml": "xml",
    "application/zip": "zip",
    "image/avif": "avif",
    "image/gif": "gif",
    "image/jpeg": "jpeg",
    "image/png": "png",
    "image/svg+xml": "svg",
    "image/webp": "webp",
    "text/css": "css",
    "text/csv": "csv",
    "text/html": "html",
    "text/plain": "txt",
    "video/mp4": "mp4",
    "video/webm": "webm",
}
"""As mime-types 2 has them: JavaScript looks for a record under that extension and no other."""

ANY_EXTENSION = "bin"
"""Of all other types."""


class Layout(enum.Enum):
    """Which Crawlee is to read it."""

    PYTHON = "python"
    JAVASCRIPT = "javascript"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What Crawlee noted of a record."""

    key: str
    content_type: str | None = None
    extension: str | None = None
    """Given by JavaScript 3, whose file is KEY.EXT."""
    filename: str | None = None
    """Given by version 4 where the file is not named by the key."""


@dataclass(frozen=True, slots=True)
class Named:
    """The files of a record."""

    file: str
    sidecar: str | None
    noted: bytes = b""
    """What the sidecar holds."""


def named(key: str, content_type: str, size: int, layout: Layout) -> Named:
    """Name the files of a record, and write its sidecar. Raises ValueError that says why a folder cannot hold it."""
    python = layout is Layout.PYTHON
    names = _for_python(key, content_type, size) if python else _for_javascript(key, content_type)
    for name in filter(None, (names.file, names.sidecar)):
        if len(name) > LONGEST_NAME:
            raise ValueError(
                f"its file name would be {len(name)} characters long, {LONGEST_NAME} are possible"
            )
    if names.file in (".", ".."):
        raise ValueError("no file can have this name")
    if names.file == METADATA or (names.file.endswith(SIDECAR) if python else _ANY_SIDECAR in names.file):
        raise ValueError("Crawlee keeps what it notes of others under this name")
    return names


def _for_python(key: str, content_type: str, size: int) -> Named:
    file = quote(key, safe="")
    return Named(file, file + SIDECAR, _json({"key": key, "content_type": content_type, "size": size}))


def _for_javascript(key: str, content_type: str) -> Named:
    extension = _EXTENSIONS.get(content_type.partition(";")[0].strip().lower(), ANY_EXTENSION)
    file = f"{key}.{extension}"
    if type_of_extension(extension) == content_type:
        return Named(file, None)  # nor does JavaScript write one
    return Named(
        file, key + SIDECAR, _json({"extension": extension, "key": key, "contentType": content_type})
    )


def parse_sidecar(content: bytes, stem: str) -> Sidecar:
    """Read a sidecar that is named `stem` and `SIDECAR`. Raises ValueError for what is none."""
    try:
        noted = json.loads(content)
        if isinstance(noted, str):  # JavaScript 3 encodes it twice
            noted = json.loads(noted)
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(noted, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - as of any other text
    return Sidecar(
        _text(noted, "key") or unquote(stem),
        _text(noted, "contentType") or _text(noted, "content_type"),
        _text(noted, "extension"),
        _text(noted, "filename"),
    )


def files_of(sidecar: Sidecar, stem: str) -> list[str]:
    """Give the names that a sidecar's record may have, the likeliest first."""
    names = [] if sidecar.filename is None else [sidecar.filename]
    if sidecar.extension is not None:
        names.append(f"{stem}.{sidecar.extension}")
    return [*names, stem]


def key_without_sidecar(name: str) -> str:
    """Give the key of a file of which nothing is noted: without its extension, if that is one."""
    stem, dot, extension = name.rpartition(".")
    if not (dot and stem):
        return name
    return stem if extension == ANY_EXTENSION or type_of_extension(extension) is not None else name


def type_of_extension(extension: str) -> str | None:
    """Give the type that an extension stands for; None where it is not known."""
    return content_types.by_name(os.fsencode(f"x.{extension}"))


def _text(noted: dict[str, Any], field: str) -> str | None:
    value = noted.get(field)
    return value if isinstance(value, str) and value else None


def _json(noted: dict[str, Any]) -> bytes:
    return json.dumps(noted, ensure_ascii=False, indent=2).encode()
