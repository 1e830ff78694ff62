"""Filling a cache file with one version of a record, as readers need it."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field, replace

import trio

from kvsfs.cache.blobs import Blob
from kvsfs.errors import ProtocolViolation, RecordChanged, RecordTooLarge, RequestRefused, StoreUnreachable
from kvsfs.store.protocol import RecordStream, Store
from kvsfs.types import ByteRange, RecordHead, RecordKey

SEEK_BYTES = 8 * 1024 * 1024
"""A read this far ahead of every stream gets a stream of its own: at 50 ms a request and 100 MB/s a line,
waiting for 5 MB costs as much as asking; rclone and mountpoint-s3 draw the line at 8 to 16 MiB."""

AHEAD_BYTES = 64 * 1024 * 1024
"""A stream ends when it is this far ahead of the readers: who looks at the head of a 10 GiB record does not
pay for all of it, and no connection is held by a reader that pauses."""

MAX_STREAMS = 4
"""Streams of one file at a time; the client has 64 connections for all files."""

ROOM_SECONDS, ROOM_PAUSE = 2.0, 0.05
"""How long, and how often, room is looked for on a full disk: a release comes milliseconds after its close."""

OPEN_ATTEMPTS = 3
"""Tries for a record that must be read whole before its length is known; one with a length resumes instead."""


@dataclass(eq=False)
class _Stream:
    """One request for the bytes from `asked` on. `failure` is for those who wait for its bytes."""

    asked: int
    position: int = field(init=False)
    """Where its next byte belongs: before `asked` when a whole record was the answer to a range."""
    answered: bool = False
    holds_blob: bool = True
    """From its start until its last byte is there."""
    failure: Exception | None = None
    waiting: int = 0
    """Readers that wait for its bytes."""
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def __post_init__(self) -> None:
        self.position = self.asked

    @property
    def brought_something(self) -> bool:
        """Whether a byte came that was asked for."""
        return self.position > self.asked

    def reaches(self, offset: int) -> bool:
        return self.position <= offset < self.position + SEEK_BYTES


class Fetch:
    """Fills `blob` with the version of a record that its first answer named.

    Readers call `ensure`; streams run in `nursery` and are started by demand. Later streams (ranges) must be
    of the same version, else their readers get RecordChanged: old and new bytes never mix. Without a validator
    no range is asked for, since nothing could prove that it is of the same version.

    `length` is None until known, then exact. `limit` is where the record's bytes stop to matter: its length,
    or less after a truncation.

    INVARIANT: a stream that writes is in `_streams` and has the blob acquired.
    """

    def __init__(self, store: Store, key: RecordKey, blob: Blob, nursery: trio.Nursery) -> None:
        self._store = store
        self._key = key
        self._nursery = nursery
        self.blob = blob
        self.head: RecordHead | None = None
        self.contradicted = False
        """Whether later answers did not fit the first: it was of another version by now, or told a wrong length."""
        self.length: int | None = None
        self.limit = 0
        self._streams: list[_Stream] = []
        self._wanted = 0
        self._at_most: int | None = None
        self._changed = trio.Event()

    async def open(self, if_none_match: RecordHead | None, *, at_most: int | None = None) -> bool:
        """Ask for the record; wait for its headers, and for all of it when they do not tell its length.

        Returns False when the record is still `if_none_match`. Raises StoreError, OSError; RecordTooLarge when a
        record of unknown length turns out to have more than `at_most` bytes. Checkpoints.
        """
        self._at_most = at_most
        for attempt in range(1, OPEN_ATTEMPTS + 1):
            stream = _Stream(0)
            if not await self._nursery.start(self._run_first, stream, if_none_match):
                return False
            while self.length is None and stream.failure is None:
                await self._changed.wait()
            if stream.failure is None or self.length is not None:
                return True
            if attempt == OPEN_ATTEMPTS or not isinstance(stream.failure, StoreUnreachable):
                raise stream.failure
            self.blob.truncate(0)
        raise AssertionError("unreachable")

    async def ensure(self, start: int, stop: int) -> None:
        """Wait until the bytes from `start` to before `stop` (cut at the limit) are in the blob.

        A stream that broke off is resumed as long as each brings something. Raises StoreError (ProtocolViolation
        when a stream ends as if all were there, and brings nothing), OSError.
        Checkpoints only when something is missing.
        """
        self._wanted = max(self._wanted, stop)
        while (gap := self.blob.present.gap(start, min(stop, self.limit))) is not None:
            stream = self._stream_for(gap[0]) or self._start_range(gap[0])
            if stream is None:
                await self._changed.wait()
                continue
            stream.waiting += 1
            try:
                await self._changed.wait()
            finally:
                stream.waiting -= 1
            if stream not in self._streams:
                self._check_end(stream)

    @property
    def complete(self) -> bool:
        """Whether nothing of the record is missing any more."""
        return self.length is not None and self.blob.present.covers(0, self.limit)

    def cut(self, limit: int) -> None:
        """Forget the record's bytes from `limit` on: they were truncated."""
        self.limit = min(self.limit, limit)
        self._notify()

    def stop(self) -> None:
        """End all streams. What was fetched stays; `ensure` may start new ones."""
        for stream in self._streams:
            stream.scope.cancel()
        self._streams.clear()

    @property
    def resumable(self) -> bool:
        """Whether missing bytes can be fetched later, and proven to be of the same version."""
        if self.head is None or self.contradicted:
            return False
        return self.head.accepts_ranges and self.head.validator is not None

    def _stream_for(self, offset: int) -> _Stream | None:
        """Find a stream that will bring a byte soon, or at all where no other can be asked for."""
        for stream in self._streams:
            if stream.reaches(offset) or (not self.resumable and stream.position <= offset):
                return stream
        return None

    def _check_end(self, stream: _Stream) -> None:
        """Raise what ended a stream, unless asking again for the rest can be of use."""
        if stream.failure is None:
            if not stream.brought_something and not stream.scope.cancel_called:
                self.contradicted = True
                raise ProtocolViolation(f"reading {self._key}: the answer ends before the bytes asked for")
        elif not (isinstance(stream.failure, StoreUnreachable) and stream.brought_something):
            raise stream.failure

    def _start_range(self, position: int) -> _Stream | None:
        """Start a stream; None when there are too many already and each of them has a reader that waits."""
        if not self.resumable:
            raise RecordChanged(f"reading {self._key} broke off and cannot be resumed: open it again")
        if len(self._streams) >= MAX_STREAMS:
            idle = next((stream for stream in self._streams if not stream.waiting), None)
            if idle is None:
                return None
            self._streams.remove(idle)
            idle.scope.cancel()
        stream = _Stream(position)
        self._streams.append(stream)
        self._nursery.start_soon(self._run_range, stream)
        return stream

    async def _run_first(
        self, stream: _Stream, if_none_match: RecordHead | None, task_status: trio.TaskStatus[bool]
    ) -> None:
        def answer(*, modified: bool) -> None:
            stream.answered = True
            task_status.started(modified)

        self._streams.append(stream)
        self.blob.acquire()
        try:
            with stream.scope:
                async with self._store.get_record(self._key, if_none_match=if_none_match) as record:
                    if record is None:
                        answer(modified=False)
                    else:
                        self._learn(record.head)
                        answer(modified=True)
                        await self._copy(record, stream)
                        self._learn_end(stream)
            if not stream.answered:
                raise StoreUnreachable(f"reading {self._key} was stopped")  # noqa: TRY301
        except Exception as error:
            if not stream.answered:
                raise  # to `open`, through nursery.start
            stream.failure = error  # to those who wait for bytes, not to the mount
        finally:
            self._let_go(stream)

    async def _run_range(self, stream: _Stream) -> None:
        self.blob.acquire()
        try:
            with stream.scope:
                async with self._store.get_record(self._key, byte_range=ByteRange(stream.position)) as record:
                    assert record is not None
                    self._check_version(record.head)
                    stream.position = record.start
                    if record.start < stream.asked:  # all of it, each time: one stream has to do
                        self.head = replace(record.head, accepts_ranges=False)
                    await self._copy(record, stream)
        except RequestRefused as error:
            # 416: shorter by now than where we wanted to read on.
            stream.failure = self._change() if error.status == 416 else error
        except Exception as error:  # noqa: BLE001 - belongs to those who wait, not to the mount
            self.contradicted = self.contradicted or isinstance(error, ProtocolViolation)
            stream.failure = error
        finally:
            self._let_go(stream)

    def _learn(self, head: RecordHead) -> None:
        self.head = head
        if head.length is not None:
            self.length = self.limit = head.length
            self.blob.expect(head.length)

    def _learn_end(self, stream: _Stream) -> None:
        if self.length is None and stream in self._streams:
            self.length = self.limit = stream.position

    def _check_version(self, head: RecordHead) -> None:
        assert self.head is not None
        if head.validator != self.head.validator:
            raise self._change()

    def _change(self) -> RecordChanged:
        self.contradicted = True
        return RecordChanged(f"{self._key} was changed in the store while it was read: open it again")

    async def _copy(self, record: RecordStream, stream: _Stream) -> None:
        async for chunk in record.chunks():
            if stream not in self._streams:  # stopped while this chunk was on its way
                return
            if (
                self.length is None
                and self._at_most is not None
                and stream.position + len(chunk) > self._at_most
            ):
                raise RecordTooLarge(f"{self._key} has more than {self._at_most} bytes")
            await self._write(chunk, stream.position)
            stream.position += len(chunk)
            self._notify()
            if stream.position == self.length:
                # What is left is the end of the message, which came with the last byte. Cut off before it, each
                # record cost a connection: on a TLS line two or three round trips.
                self._let_go(stream)
            elif self._has_no_use(stream):
                return

    async def _write(self, chunk: bytes, position: int) -> None:
        """Write what has come. A full disk is given a moment: other fetches end, closed files are released."""
        deadline = trio.current_time() + ROOM_SECONDS
        while True:
            try:
                if self.length is None:
                    self.blob.pwrite(chunk, position)
                else:
                    self.blob.fill(chunk, position, self.limit)
            except OSError as error:
                if error.errno != errno.ENOSPC or trio.current_time() >= deadline:
                    raise
            else:
                return
            await trio.sleep(ROOM_PAUSE)

    def _has_no_use(self, stream: _Stream) -> bool:
        """Tell whether all behind the stream is there, or it is far ahead of all readers."""
        if self.length is None:
            return False
        if self.blob.present.gap(stream.position, self.limit) is None:
            return True
        return self.resumable and stream.position > self._wanted + AHEAD_BYTES

    def _let_go(self, stream: _Stream) -> None:
        if not stream.holds_blob:
            return
        stream.holds_blob = False
        if stream in self._streams:
            self._streams.remove(stream)
        self.blob.release()
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
