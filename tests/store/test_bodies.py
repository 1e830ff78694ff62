"""Bodies: read twice the same, in pieces, never more and never silently less than promised."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvsfs.errors import RequestRefused
from kvsfs.metrics import StoreMeter
from kvsfs.store.bodies import PIECE, BytesBody, FileBody
from kvsfs.store.protocol import RecordBody
from tests.support.running import run_async

SIZES = [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5]


def pieces(body: RecordBody) -> list[bytes]:
    async def collect() -> list[bytes]:
        return [piece async for piece in body.chunks()]

    return run_async(collect)


@pytest.mark.parametrize("size", SIZES)
def test_bodies_can_be_read_again_from_the_start(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(content + b"behind the length")
    with path.open("rb") as file:
        for body in (BytesBody(content), FileBody(file.fileno(), size)):
            for _ in range(2):
                assert b"".join(pieces(body)) == content
                assert all(0 < len(piece) <= PIECE for piece in pieces(body))
            assert body.length == size
        assert file.tell() == 0


def test_a_file_that_got_shorter_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(PIECE + 10))
    with path.open("rb") as file, pytest.raises(RequestRefused, match=f"byte {PIECE + 10} of {2 * PIECE}"):
        pieces(FileBody(file.fileno(), 2 * PIECE))


def test_a_snapshot_of_the_meter_stays_as_it_is() -> None:
    meter = StoreMeter()
    meter.count_request("get_record")
    before = meter.snapshot()
    meter.count_request("get_record")
    meter.count_request("list_keys")
    meter.count_sent(3)
    meter.count_received(4)
    meter.count_retry()
    meter.count_rate_limited()
    assert (before.requests, before.total_requests) == ({"get_record": 1}, 1)
    after = meter.snapshot()
    assert (after.requests, after.total_requests) == ({"get_record": 2, "list_keys": 1}, 3)
    assert (after.sent_bytes, after.received_bytes, after.retries, after.rate_limited) == (3, 4, 1, 1)
