"""A store that speaks as much of S3 as rclone and s3fs ask for, in memory: what kvsfs is compared with needs a
server that is as far away as ours.

It stands below the very middleware that delays and logs requests in `kvsfs serve`, on the same HTTP server, so
that a round trip costs the same and is counted the same. It checks no signature, and holds what it is given.

    python bench/_s3.py PORT --latency 0.02 --request-log FILE
"""

from __future__ import annotations

import argparse
import hashlib
import re
import time
from bisect import bisect_right, insort
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import unquote
from xml.sax.saxutils import escape

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from kvsfs.server.observing import Observed, request_log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

PAGE = 1000
"""Keys in a page, as S3 has it, and Apify."""

KEPT_HEADERS = re.compile(r"x-amz-meta-|content-type$")


@dataclass(frozen=True)
class Object:
    content: bytes
    headers: dict[str, str]
    modified: float = field(default_factory=time.time)

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.content, usedforsecurity=False).hexdigest()}"'

    def answer_headers(self) -> dict[str, str]:
        modified = formatdate(self.modified, usegmt=True)
        return {"ETag": self.etag, "Last-Modified": modified, "Accept-Ranges": "bytes", **self.headers}


@dataclass
class Bucket:
    objects: dict[str, Object] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)

    def put(self, key: str, stored: Object) -> None:
        if key not in self.objects:
            insort(self.order, key)
        self.objects[key] = stored

    def delete(self, key: str) -> None:
        if self.objects.pop(key, None) is not None:
            self.order.remove(key)

    def page(self, prefix: str, delimiter: str, after: str, limit: int) -> Page:
        """Give the keys and the folders that follow `after`; a folder is what ends at the next delimiter."""
        found = Page()
        place = bisect_right(self.order, after)
        while place < len(self.order) and (key := self.order[place]) <= prefix + "\U0010ffff":
            place += 1
            if not key.startswith(prefix):
                continue
            if len(found.keys) + len(found.folders) == limit:
                found.truncated = True
                break
            head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            if cut:
                found.last = prefix + head + cut + "\U0010ffff"
                found.folders.append(prefix + head + cut)
                place = bisect_right(self.order, found.last)
            else:
                found.last = key
                found.keys.append(key)
        return found


@dataclass
class Page:
    keys: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    last: str = ""
    truncated: bool = False


buckets: dict[str, Bucket] = {}


async def bucket(request: Request) -> Response:
    """HEAD, PUT and ListObjects of a bucket, which is there once it is asked for."""
    name = request.path_params["bucket"]
    held = buckets.setdefault(name, Bucket())
    if request.method != "GET":
        return Response()
    query = request.query_params
    if "location" in query:
        return _xml("<LocationConstraint/>")
    after = query.get("continuation-token") or query.get("start-after") or query.get("marker") or ""
    limit = min(int(query.get("max-keys") or PAGE), PAGE)
    page = held.page(query.get("prefix", ""), query.get("delimiter", ""), after, limit)
    return _xml("".join(_listing(held, page, name, query.get("prefix", ""), after)))


def _listing(held: Bucket, page: Page, name: str, prefix: str, after: str) -> Iterator[str]:
    yield '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    yield f"<Name>{name}</Name><Prefix>{escape(prefix)}</Prefix><Marker>{escape(after)}</Marker>"
    yield f"<KeyCount>{len(page.keys)}</KeyCount><MaxKeys>{PAGE}</MaxKeys>"
    yield f"<IsTruncated>{str(page.truncated).lower()}</IsTruncated>"
    if page.truncated:
        last = escape(page.last)
        yield f"<NextMarker>{last}</NextMarker><NextContinuationToken>{last}</NextContinuationToken>"
    for key in page.keys:
        stored = held.objects[key]
        modified = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(stored.modified))
        yield f"<Contents><Key>{escape(key)}</Key><LastModified>{modified}</LastModified>"
        yield f"<ETag>{escape(stored.etag)}</ETag><Size>{len(stored.content)}</Size>"
        yield "<StorageClass>STANDARD</StorageClass></Contents>"
    for folder in page.folders:
        yield f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
    yield "</ListBucketResult>"


async def read(request: Request) -> Response:
    """GET, whole or one range, and HEAD of an object."""
    stored = _bucket_of(request).objects.get(request.path_params["key"])
    if stored is None:
        return _xml("<Error><Code>NoSuchKey</Code></Error>", 404)
    headers = stored.answer_headers()
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if asked is None:
        return Response(stored.content, 200, headers)
    first, size = int(asked[1]), len(stored.content)
    last = min(int(asked[2] or size), size - 1)
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return Response(stored.content[first : last + 1], 206, headers)


async def write(request: Request) -> Response:
    """PUT of an object, or of a copy of one."""
    headers = {name: value for name, value in request.headers.items() if KEPT_HEADERS.match(name)}
    source = unquote(request.headers.get("x-amz-copy-source", "")).lstrip("/")
    if not source:
        try:
            stored = Object(await request.body(), headers)
        except ClientDisconnect:  # a mount that is unmounted amid an upload
            return Response(status_code=400)
        _bucket_of(request).put(request.path_params["key"], stored)
        return Response(headers={"ETag": stored.etag})
    name, _, key = source.partition("/")
    stored = Object(buckets[name].objects[key].content, headers)
    _bucket_of(request).put(request.path_params["key"], stored)
    return _xml(f"<CopyObjectResult><ETag>{escape(stored.etag)}</ETag></CopyObjectResult>")


async def delete(request: Request) -> Response:
    _bucket_of(request).delete(request.path_params["key"])
    return Response(status_code=204)


def _bucket_of(request: Request) -> Bucket:
    return buckets.setdefault(request.path_params["bucket"], Bucket())


def _xml(body: str, status: int = 200) -> Response:
    return Response(f'<?xml version="1.0" encoding="UTF-8"?>\n{body}', status, media_type="application/xml")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds")
    parser.add_argument("--request-log", required=True)
    arguments = parser.parse_args()
    routes = [
        Route("/{bucket}", bucket, methods=["GET", "HEAD", "PUT"]),
        Route("/{bucket}/", bucket, methods=["GET", "HEAD", "PUT"]),
        Route("/{bucket}/{key:path}", read, methods=["GET", "HEAD"]),
        Route("/{bucket}/{key:path}", write, methods=["PUT"]),
        Route("/{bucket}/{key:path}", delete, methods=["DELETE"]),
    ]
    observed = Observed(Starlette(routes=routes), [request_log(arguments.request_log)], arguments.latency)
    uvicorn.run(
        observed,
        port=arguments.port,
        http="h11",
        loop="asyncio",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
