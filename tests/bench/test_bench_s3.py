"""The store that rclone and s3fs are measured against: a wrong answer of it would make them look slow."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.mounting import wait_until

SCRIPT = Path(__file__).parents[2] / "bench" / "_s3.py"


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[httpx.Client]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path / "requests"
    with (
        subprocess.Popen([sys.executable, str(SCRIPT), str(port), "--request-log", str(log)]) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}/bucket/") as client,
    ):
        try:
            wait_until(lambda: _answers(client))
            yield client
        finally:
            process.terminate()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.head("").is_success
    except httpx.ConnectError:
        return False


def listed(client: httpx.Client, **query: str) -> list[str]:
    """Keys and folders of all pages, in the order of the answers."""
    found: list[str] = []
    while True:
        page = client.get("", params={"list-type": "2", **query}).text
        found += re.findall(r"(?<=<Key>).*?(?=</Key>)|(?<=<CommonPrefixes><Prefix>).*?(?=</Prefix>)", page)
        more = re.search("<NextContinuationToken>(.*?)</NextContinuationToken>", page)
        if more is None:
            return found
        query["continuation-token"] = more[1]


def test_lists_page_by_page(bucket: httpx.Client) -> None:
    keys = ["a", "b/1", "b/2", "c"]
    for key in keys:
        bucket.put(key, content=b"x").raise_for_status()
    assert listed(bucket) == listed(bucket, **{"max-keys": "1"}) == keys
    assert sorted(listed(bucket, delimiter="/", **{"max-keys": "1"})) == ["a", "b/", "c"]
    assert listed(bucket, prefix="b/", delimiter="/") == ["b/1", "b/2"]


def test_keeps_bytes_and_metadata(bucket: httpx.Client) -> None:
    bucket.put("a", content=b"0123456789", headers={"x-amz-meta-mtime": "1"}).raise_for_status()
    head = bucket.head("a")
    assert (head.headers["content-length"], head.headers["x-amz-meta-mtime"]) == ("10", "1")
    part = bucket.get("a", headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    bucket.put("b", headers={"x-amz-copy-source": "/bucket/a", "x-amz-meta-mtime": "2"}).raise_for_status()
    copied = bucket.get("b")
    assert (copied.content, copied.headers["x-amz-meta-mtime"]) == (b"0123456789", "2")
    bucket.delete("a").raise_for_status()
    assert bucket.get("a").status_code == 404
    assert listed(bucket) == ["b"]
