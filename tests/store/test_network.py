"""Small writes travel together, large ones at once, and none overtakes another."""

# ruff: noqa: ARG002, ASYNC109 - httpcore's signatures

from __future__ import annotations

from collections.abc import Iterable

import httpcore
import pytest
import trio

from kvsfs.store.network import HELD_BYTES, READ_BYTES, Network


class Wire(httpcore.AsyncNetworkStream):
    """What was written, a send each; `read` gives what was asked for."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.fault: Exception | None = None

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self.fault is not None:
            raise self.fault
        self.sent.append(bytes(buffer))

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return b"%d" % max_bytes


class Backend(httpcore.AsyncNetworkBackend):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return self._wire


async def connected(wire: Wire) -> httpcore.AsyncNetworkStream:
    return await Network(Backend(wire)).connect_tcp("host", 80)


def test_a_head_and_a_small_body_are_one_send() -> None:
    async def main() -> None:
        wire = Wire()
        stream = await connected(wire)
        await stream.write(b"head")
        await stream.write(b"body")
        assert wire.sent == []
        assert await stream.read(1) == b"%d" % READ_BYTES
        assert wire.sent == [b"headbody"]
        await stream.read(1)
        assert wire.sent == [b"headbody"]

    trio.run(main)


def test_large_pieces_are_sent_as_they_come() -> None:
    async def main() -> None:
        wire = Wire()
        stream = await connected(wire)
        pieces = [b"head", b"a" * HELD_BYTES, b"b" * (HELD_BYTES + 1), b"c"]
        for piece in pieces:
            await stream.write(piece)
        assert wire.sent == [b"head" + pieces[1], pieces[2]]
        await stream.read(1)
        assert b"".join(wire.sent) == b"".join(pieces)

    trio.run(main)


def test_who_closes_early_is_heard() -> None:
    async def main() -> None:
        wire = Wire()
        stream = await connected(wire)
        await stream.write(b"head")
        wire.fault = httpcore.WriteError()
        assert await stream.read(1) == b"%d" % READ_BYTES
        await stream.write(b"head")
        wire.fault = httpcore.WriteTimeout()
        with pytest.raises(httpcore.WriteTimeout):
            await stream.read(1)

    trio.run(main)
