"""All records of a store as one ZIP archive."""

from __future__ import annotations

import gzip
import io
import random
import threading
import time
import zipfile
from pathlib import Path

import brotli  # type: ignore[import-untyped]
import httpx
import pytest

from kvsfs.signatures import sign_record, sign_storage
from tests.server.test_server_process import MIB, connected, new_store, peak_rss
from tests.support.serving import running_server

KEYS = ["a", "..", ".", "it's(1)!", "img!2Fa.png", "-z", "z" * 256]


def entries(answer: httpx.Response) -> dict[str, bytes]:
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        return {info.filename: archive.read(info) for info in archive.infolist()}


def test_every_record_is_an_entry_named_by_its_key(joe: httpx.Client, store: str) -> None:
    contents = {key: random.Random(n).randbytes(n * 40_000) for n, key in enumerate(KEYS)}
    for key, content in contents.items():
        joe.put(f"{store}/records/{key.replace('.', '%2E')}", content=content)
    answer = joe.get(f"{store}/records")
    assert entries(answer) == contents
    assert answer.headers["content-disposition"].endswith('.zip"')


def test_an_empty_store_is_an_empty_archive(joe: httpx.Client, store: str) -> None:
    assert entries(joe.get(f"{store}/records")) == {}


def test_encoded_records_are_decoded(joe: httpx.Client, store: str) -> None:
    content = b"text " * 100_000
    for encoding, encode in (("gzip", gzip.compress), ("br", brotli.compress)):
        headers = {"Content-Encoding": encoding, "Content-Type": "text/plain"}
        joe.put(f"{store}/records/{encoding}", content=encode(content), headers=headers)
    assert entries(joe.get(f"{store}/records")) == {"gzip": content, "br": content}


def test_head_tells_the_type_and_makes_no_archive(joe: httpx.Client, store: str) -> None:
    joe.put(f"{store}/records/a", content=b"no gzip", headers={"Content-Encoding": "gzip"})
    head = joe.head(f"{store}/records")  # a GET of it would break off
    assert (head.status_code, head.headers["content-type"]) == (200, "application/zip")
    assert "content-length" not in head.headers


def test_prefix_narrows_the_archive(joe: httpx.Client, store: str) -> None:
    for key in ("a", "b1", "b2", "c"):
        joe.put(f"{store}/records/{key}", content=key.encode())
    assert entries(joe.get(f"{store}/records", params={"prefix": "b"})) == {"b1": b"b1", "b2": b"b2"}


def test_a_record_that_cannot_be_decoded_cuts_the_archive(joe: httpx.Client, store: str) -> None:
    joe.put(f"{store}/records/a", content=b"no gzip", headers={"Content-Encoding": "gzip"})
    with pytest.raises(httpx.RemoteProtocolError):
        joe.get(f"{store}/records")


def test_signatures_open_the_archive_as_they_open_the_keys(
    joe: httpx.Client, ann: httpx.Client, nobody: httpx.Client, store: str
) -> None:
    joe.put(f"{store}/records/a", content=b"1")
    described = joe.get(store).json()["data"]
    secret, store_id = described["urlSigningSecretKey"], described["id"]
    assert entries(nobody.get(described["recordsPublicUrl"])) == {"a": b"1"}
    expired = sign_storage(secret, store_id, int(time.time() * 1000) - 1)
    for client, signature in ((nobody, expired), (ann, "x"), (nobody, sign_record(secret, "a"))):
        refused = client.get(f"{store}/records", params={"signature": signature})
        assert (refused.status_code, refused.json()["error"]["type"]) == (403, "insufficient-permissions")


def test_an_archive_streams_in_bounded_memory_while_records_change(tmp_path: Path) -> None:
    size, count = 20 * MIB, 8
    with running_server(tmp_path / "data") as server, connected(server) as client:
        store = new_store(client)
        contents = {f"r{n}": random.Random(n).randbytes(size) for n in range(count)}
        for key, content in contents.items():
            client.put(f"{store}/records/{key}", content=content)
        for n in range(1500):  # more than one page of rows
            client.put(f"{store}/records/s{n:04}", content=b"%d" % n)
        before = peak_rss(server.pid)
        ended = threading.Event()

        def rewrite() -> None:
            with connected(server) as writer:
                n = 0
                while not ended.is_set():
                    writer.put(f"{store}/records/s{n % 1500:04}", content=b"new")
                    n += 1

        rewriter = threading.Thread(target=rewrite)
        rewriter.start()
        try:
            found = entries(client.get(f"{store}/records"))
        finally:
            ended.set()
            rewriter.join()
        assert peak_rss(server.pid) - before < 30 * MIB
        assert len(found) == count + 1500
        assert {key: found[key] for key in contents} == contents
        assert all(found[f"s{n:04}"] in (b"new", b"%d" % n) for n in range(1500))
