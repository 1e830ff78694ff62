"""The bytes of records: one file for each version of a record, but for small ones.

A small value is a row of the index: it shares the fsync of a commit, where a file needs two of its own
(a PUT of 4 KiB took 1.8 ms of CPU as a file, 0.3 ms as a row).

    values/incoming/NAME    being received
    values/ab/NAME          received whole and durable; NAME starts with "ab"

Whoever writes a file holds its flock from its creation until the index names it. So a file that is not
locked and not in the index belongs to nobody (its writer crashed), whatever the clock says, and `collect` may
remove it while other processes write.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from kvsfs.server.durable import fsync_folder, make_folder

ETAG_BYTES = 16
"""Length of the hash in a record's ETag: 128 bits, no two versions of a record will meet."""

INCOMING = "incoming"

SMALL_BYTES = 16 * 1024
"""The largest value that is a row: what goes through SQLite's log is written twice."""

SMALL_MARK = "="
"""Begins the name of a small value; those of files are hexadecimal."""

PIECE_BYTES = 256 * 1024
"""What is read at once by who reads a whole file."""


def etag_of(described_by: str, pieces: Iterable[bytes]) -> str:
    """Compute the ETag of a value anew, as Upload does while it arrives."""
    hasher = _hasher(described_by)
    for piece in pieces:
        hasher.update(piece)
    return hasher.hexdigest()


def small_name() -> str:
    """Make the name of a new small value."""
    return SMALL_MARK + secrets.token_hex(16)


def is_small(name: str) -> bool:
    """Whether a value is a row of the index."""
    return name.startswith(SMALL_MARK)


def _hasher(described_by: str) -> hashlib.blake2b:
    return hashlib.blake2b(described_by.encode() + b"\0", digest_size=ETAG_BYTES)


class Values:
    """The folder of values."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._durable_folders: set[str] = set()
        make_folder(os.path.join(root, INCOMING))

    def receive(self, described_by: str) -> Upload:
        """Begin a new file. `described_by` goes into its ETag beside the bytes."""
        return Upload(self._root, described_by, self._durable_folders)

    def open(self, name: str) -> ValueFile:
        """Open a file. Raises FileNotFoundError."""
        return ValueFile(_path(self._root, name))

    def remove(self, name: str) -> None:
        """Remove a file that the index no longer names. No error when it is gone."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_path(self._root, name))

    def collect(self, unknown: Callable[[Sequence[str]], Sequence[str]]) -> int:
        """Remove what crashed writers left; `unknown` gives the names that the index does not hold.

        Safe beside running servers. Returns how many files were removed.
        """
        removed = 0
        for folder in sorted(os.listdir(self._root)):
            path = os.path.join(self._root, folder)
            for name in unknown(os.listdir(path)):
                removed += _remove_if_abandoned(os.path.join(path, name), unknown)
        return removed


class Upload:
    """A file being received. Any thread may call it, one after the other.

    INVARIANT: `_descriptor` is open (and locked) from `append` or `publish` until `close` or `discard`.
    """

    def __init__(self, root: str, described_by: str, durable_folders: set[str]) -> None:
        self.name = secrets.token_hex(16)
        self.size = 0
        self._root = root
        self._durable_folders = durable_folders
        self._hash = _hasher(described_by)
        self._descriptor: int | None = None
        self._published = False
        # `discard` may be called while another thread still writes: a descriptor closed under a write could
        # by then be another file's.
        self._lock = threading.Lock()

    @property
    def etag(self) -> str:
        """Names the bytes received so far, with what describes them."""
        return self._hash.hexdigest()

    def append(self, pieces: Sequence[bytes]) -> None:
        """Write pieces at the end."""
        with self._lock:
            descriptor = self._opened()
            for piece in pieces:
                self._hash.update(piece)
                self.size += len(piece)
                _write_all(descriptor, piece)

    def publish(self) -> None:
        """Make the file durable under its final name. It stays locked until `close`."""
        with self._lock:
            os.fsync(self._opened())
            folder = os.path.join(self._root, self.name[:2])
            if folder not in self._durable_folders:
                # Another process may have made it just now, and not made that durable yet.
                make_folder(folder)
                fsync_folder(self._root)
                self._durable_folders.add(folder)
            os.rename(self._incoming, _path(self._root, self.name))
            fsync_folder(folder)
            self._published = True

    def close(self) -> None:
        """Let go of the file: to be called when the index names it."""
        with self._lock:
            self._close()

    def discard(self) -> None:
        """Remove the file unless it was published. May be called at any time and twice."""
        with self._lock:
            if self._descriptor is not None and not self._published:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._incoming)
            self._close()

    @property
    def _incoming(self) -> str:
        return os.path.join(self._root, INCOMING, self.name)

    def _opened(self) -> int:
        if self._descriptor is None:
            self._descriptor = _create_locked(self._incoming)
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Value(Protocol):
    """The bytes of one version of a record, being read. Any thread may call it."""

    @property
    def size(self) -> int:
        """Bytes that are there."""

    def read(self, start: int, count: int) -> bytes:
        """Read at most `count` bytes."""

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the first `size` bytes."""

    def close(self) -> None:
        """Let go of it. May be called twice."""


class SmallValue:
    """A value that came with its row."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return len(self._content)

    def read(self, start: int, count: int) -> bytes:
        """Read at most `count` bytes."""
        return self._content[start : start + count]

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the first `size` bytes."""
        yield self._content[:size]

    def close(self) -> None:
        """Do nothing."""


class ValueFile:
    """A file being read. Any thread may call it."""

    def __init__(self, path: str) -> None:
        self._descriptor: int | None = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._lock = threading.Lock()  # as in Upload: `close` may come while another thread reads

    def read(self, start: int, count: int) -> bytes:
        """Read at most `count` bytes. Raises ValueError after `close`."""
        with self._lock:
            if self._descriptor is None:
                raise ValueError("read of a closed value")
            return os.pread(self._descriptor, count, start)

    @property
    def size(self) -> int:
        """Bytes in the file. Raises ValueError after `close`."""
        with self._lock:
            if self._descriptor is None:
                raise ValueError("look at a closed value")
            return os.fstat(self._descriptor).st_size

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the first `size` bytes. Raises ValueError when the file is shorter."""
        start = 0
        while start < size:
            piece = self.read(start, min(PIECE_BYTES, size - start))
            if not piece:
                raise ValueError("the file of a record is shorter than the index says")
            start += len(piece)
            yield piece

    def close(self) -> None:
        """Close the file. May be called twice."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None


def _path(root: str, name: str) -> str:
    return os.path.join(root, name[:2], name)


def _create_locked(path: str) -> int:
    """Create a file and lock it. `collect` may come between the two, so look whether it is still there."""
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def _remove_if_abandoned(path: str, unknown: Callable[[Sequence[str]], Sequence[str]]) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its writer may have been acknowledged between the first look at the index and the lock.
        if not unknown([os.path.basename(path)]):
            return False
        os.unlink(path)
    except (BlockingIOError, FileNotFoundError):
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]
