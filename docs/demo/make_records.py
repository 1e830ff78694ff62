"""Fill a folder with what an Actor's run leaves behind: INPUT, OUTPUT, a page, a picture, an archive, notes."""

from __future__ import annotations

import gzip
import json
import struct
import sys
import zlib
from pathlib import Path

SIDE = 256
PRODUCTS = [
    {"title": "Red kettle", "price": 24.9, "url": "https://shop.example/red-kettle"},
    {"title": "Blue teapot", "price": 31.5, "url": "https://shop.example/blue-teapot"},
    {"title": "Green mug", "price": 7.2, "url": "https://shop.example/green-mug"},
]


def main(folder: Path) -> None:
    """Write every record; each close is one setRecord."""
    (folder / "INPUT").write_text(
        json.dumps({"startUrls": ["https://shop.example"], "maxItems": 3}, indent=2)
    )
    (folder / "OUTPUT").write_text(json.dumps(PRODUCTS, indent=2))
    (folder / "page.html").write_text(page())
    (folder / "screenshot.png").write_bytes(picture())
    (folder / "crawl.log.gz").write_bytes(gzip.compress(log().encode(), mtime=0))
    (folder / "notes").mkdir(exist_ok=True)
    (folder / "notes" / "readme.txt").write_text(
        "Records whose keys hold an encoded slash are shown in folders.\n"
    )
    (folder / "what I found.txt").write_text("The blue teapot is the best of them.\n")


def page() -> str:
    """Give the products as a web page."""
    rows = "".join(f"<li><a href={p['url']!r}>{p['title']}</a>: {p['price']} EUR</li>" for p in PRODUCTS)
    return f"<!doctype html><title>Shop</title><h1>Kettles and mugs</h1><ul>{rows}</ul>\n"


def log() -> str:
    """Give the lines that a crawler prints."""
    return "".join(f"INFO  crawled {p['url']} in {n * 37 + 80} ms\n" for n, p in enumerate(PRODUCTS))


def picture() -> bytes:
    """Draw a colour wheel of SIDE by SIDE pixels as a PNG (RFC 2083)."""
    rows = b"".join(b"\0" + bytes(c for x in range(SIDE) for c in (x, y, x ^ y)) for y in range(SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
