"""A tree of files as people have them, the same each time; and what is in a folder, to compare."""

from __future__ import annotations

import gzip
import json
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

Maker = Callable[[random.Random], bytes]

WORDS = ["Žluťoučký", "kůň", "pěl", "ďábelské", "ódy", "crawl", "dataset", "request", "日本語", "naïve"]

AWKWARD_NAMES = [
    "with a space.txt",
    " leading and trailing ",
    "tilde~",
    "#hash",
    "100%.txt",
    "bang!.txt",
    "ends in bang!",
    "!21!20!2E literal",
    "!2E",
    "a&b",
    "it's (fine).txt",
    "co:lon;semi,comma",
    "star*question?",
    "back\\slash",
    "new\nline",
    'quo"te',
    "$HOME `x`",
    "-dash",
    "...",
    ".hidden",
    "Příliš žluťoučký.json",
    "日本語.txt",
    "e\u0301 decomposed",
    "é composed",
    "[brackets] {braces}.csv",
    "UPPER.TXT",
    "upper.txt",
    "n" * 230,  # with the folder and rsync's `.NAME.XXXXXX` just below the 256 characters of a key
]


def make_tree(root: Path, *, seed: int = 2) -> None:
    """Fill `root` with a few hundred files and folders, some of them empty."""
    source = random.Random(seed)
    kinds = list(_MAKERS.items())
    for number in range(220):
        suffix, maker = kinds[number % len(kinds)]
        folder = root / _folder(source)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:03d}{suffix}").write_bytes(maker(source))
    awkward = root / "awkward"
    awkward.mkdir()
    for name in AWKWARD_NAMES:
        (awkward / name).write_bytes(name.encode())
    (awkward / os.fsdecode(b"not utf-8 \xff\xfe")).write_bytes(b"bytes")
    for path in ("empty", "nested/empty/deeper", "folder with ~ # % ! & ' ( )", "dots.in.name/..."):
        (root / path).mkdir(parents=True)
    (root / "folder with ~ # % ! & ' ( )" / "file").write_bytes(b"in an awkward folder")


def snapshot(root: Path) -> dict[bytes, bytes | None]:
    """Give every path below `root` with its bytes; None for a folder."""
    found: dict[bytes, bytes | None] = {}
    base = os.fsencode(root)
    for folder, folders, files in os.walk(base, onerror=_raise):
        for name in folders:
            found[os.path.relpath(os.path.join(folder, name), base)] = None
        for name in files:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, base)] = file.read()
    return found


def _raise(error: OSError) -> None:
    raise error


def _folder(source: random.Random) -> str:
    names = ["img", "pages", "data", "a", "b.d", "run 1"]
    return "/".join(source.choice(names) for _ in range(source.randrange(4)))


def _text(source: random.Random) -> bytes:
    lines = (" ".join(source.choices(WORDS, k=8)) for _ in range(source.randrange(1, 60)))
    return "\n".join(lines).encode() + b"\n"


def _json(source: random.Random) -> bytes:
    items = [{"id": i, "word": source.choice(WORDS), "value": source.random()} for i in range(20)]
    return json.dumps(items, ensure_ascii=False, indent=2).encode()


def _html(source: random.Random) -> bytes:
    return f"<!doctype html>\n<title>{source.choice(WORDS)}</title>\n<p>{source.random()}\n".encode()


def _png(source: random.Random) -> bytes:
    width = height = 16
    rows = b"".join(b"\0" + source.randbytes(3 * width) for _ in range(height))

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _gzip(source: random.Random) -> bytes:
    return gzip.compress(_text(source), mtime=0)


def _binary(source: random.Random) -> bytes:
    return source.randbytes(source.choice([1, 4095, 4096, 4097, 131072, 200_001]))


def _empty(_source: random.Random) -> bytes:
    return b""


_MAKERS: dict[str, Maker] = {
    ".txt": _text,
    ".json": _json,
    ".html": _html,
    ".png": _png,
    ".json.gz": _gzip,
    ".bin": _binary,
    "": _text,
    ".empty": _empty,
}
