"""Cache files. A blob holds the bytes of one file: those that were fetched, and those that were written."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import secrets
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from kvsfs.cache.ranges import Ranges
from kvsfs.errors import CommandError, ExitCode

log = logging.getLogger(__name__)

_COPY_BYTES = 16 * 1024 * 1024
"""One copy_file_range call: long enough to amortise the call, short enough to stay interruptible by signals."""

_CHECK_BYTES = 1024 * 1024
"""Bytes at a time for a checksum: a few of these buffers fit the processor's cache."""

LABEL_LENGTH = 200
"""Characters of a key that a cache file's name carries: with 33 before it, below the 255 of ext4."""

DIRTY, ASIDE = "dirty", "not-uploaded"
"""The folders of what no store has."""

LOCK = "lock"
"""The file that a running daemon holds locked; what it has mounted stands in it."""

BLOB_NAME = re.compile(r"[0-9a-f]{32}(\..*)?", re.DOTALL)
"""Sixteen random bytes, and the record's key once the blob is dirty."""


class Blob:
    """One cache file: `size` bytes long, of which `present` are there.

    The descriptor is open while somebody uses the blob (`acquire`, `release`), so that a cache of many
    thousand clean files holds no descriptors. All methods do file I/O inline: these are page-cache operations
    of at most some MiB (a thread for each costs three times the write itself, PERFORMANCE.md).

    INVARIANT: the file on disk is `size` bytes long, and zero wherever nothing was fetched or written.
    """

    def __init__(
        self,
        path: str,
        make_room: Callable[[], bool] = lambda: False,
        keep_free: Callable[[], None] = lambda: None,
    ) -> None:
        """`make_room` is called on a full disk; True when it has freed something. `keep_free`: before each write."""
        self.path = path
        self._make_room = make_room
        self._keep_free = keep_free
        self.size = 0
        self.present = Ranges()
        self._fd = -1
        self._users = 0
        self._removed = False

    @classmethod
    def existing(cls, path: str) -> Blob:
        """Take a complete cache file as it lies there. Raises OSError."""
        blob = cls(path)
        blob.size = os.path.getsize(path)
        blob.present.add(0, blob.size)
        return blob

    @property
    def fd(self) -> int:
        """The open descriptor; valid between `acquire` and the last `release`."""
        assert self._fd >= 0, "blob used while not acquired"
        return self._fd

    def acquire(self) -> None:
        """Open the cache file, or count one more user of it. Raises OSError."""
        if self._users == 0:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._users += 1

    def release(self) -> None:
        """Count one user less; the last one closes the file."""
        self._users -= 1
        if self._users == 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def in_use(self) -> bool:
        """Whether anybody has it acquired."""
        return self._users > 0

    @property
    def complete(self) -> bool:
        """Whether every byte is there."""
        return self.present.covers(0, self.size)

    def pread(self, length: int, offset: int) -> bytes:
        """Read what is there now: at most `length` bytes, fewer only at the end of the file."""
        return os.pread(self.fd, max(0, min(length, self.size - offset)), offset)

    def pwrite(self, data: bytes | memoryview, offset: int) -> None:
        """Write all of `data`; a gap between the old end and `offset` becomes zeros that are there.

        Nothing written changes nothing, as write(2) says. Raises OSError (a full disk): then nothing has changed
        either. A clean blob stays what the store has.
        """
        view = memoryview(data)
        if not view:
            return
        self._write_all(view, offset)
        if offset > self.size:
            self.present.add(self.size, offset)
        self.size = max(self.size, offset + len(view))
        self.present.add(offset, offset + len(view))

    def _write_all(self, view: memoryview, offset: int) -> None:
        before = self._overwritten(offset, min(offset + len(view), self.size))
        self._keep_free()
        done = 0
        while done < len(view):
            try:
                done += os.pwrite(self.fd, view[done:], offset + done)
            except OSError as error:
                if error.errno == errno.ENOSPC and self._make_room():
                    continue
                os.ftruncate(
                    self.fd, self.size
                )  # a lengthening later shall find zeros there, not half a write
                if before and done:
                    os.pwrite(
                        self.fd, before[:done], offset
                    )  # into blocks that were just written: room is there
                raise

    def _overwritten(self, start: int, stop: int) -> bytes:
        """Give the bytes that a write is about to replace; none where all are still to be fetched."""
        if start >= stop or self.present.gap(start, stop) == (start, stop):
            return b""
        return self.pread(stop - start, start)

    def fill(self, data: bytes, offset: int, limit: int) -> None:
        """Write fetched bytes, below `limit` and only where nothing is yet: what was written here stays."""
        stop = min(offset + len(data), limit, self.size)
        view = memoryview(data)
        while (gap := self.present.gap(offset, stop)) is not None:
            start, end = gap
            self.pwrite(view[start - offset : end - offset], start)

    def truncate(self, size: int) -> None:
        """Cut, or lengthen with zeros that are there."""
        os.ftruncate(self.fd, size)
        if size < self.size:
            self.present.cut(size)
        else:
            self.present.add(self.size, size)
        self.size = size

    def expect(self, size: int) -> None:
        """Lengthen to `size` with bytes that are still to be fetched."""
        os.ftruncate(self.fd, size)
        self.size = size

    def copy_to(self, other: Blob) -> None:
        """Copy this complete blob into the empty `other`. Blocks for as long as the disk takes: use a thread.

        copy_file_range shares extents where the file system can (btrfs, xfs) and copies in the kernel elsewhere.
        """
        assert self.complete
        done = 0
        while done < self.size:
            try:
                copied = os.copy_file_range(self.fd, other.fd, min(_COPY_BYTES, self.size - done), done, done)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise
                copied = os.pwrite(other.fd, os.pread(self.fd, _COPY_BYTES, done), done)
            if copied == 0:
                raise OSError(errno.EIO, "cache file shorter than known", self.path)
            done += copied
        other.size = self.size
        other.present.add(0, self.size)

    def checksum(self) -> int:
        """Give the CRC-32 of this complete blob: it finds what a disk has damaged. 2.9 GB/s: large ones in a thread."""
        found = 0
        for offset in range(0, self.size, _CHECK_BYTES):
            found = zlib.crc32(self.pread(_CHECK_BYTES, offset), found)
        return found

    def check_invariants(self) -> None:
        """For tests."""
        self.present.check_invariants()
        assert (self._fd >= 0) == self.in_use
        found = os.fstat(self._fd) if self.in_use else os.stat(self.path)
        assert found.st_size == self.size
        assert self.present.gap(self.size, 2**63) == (self.size, 2**63), "bytes behind the end"

    def give_up(self) -> None:
        """Leave the cache file to the person who finds it: `remove` does nothing from now on."""
        self._removed = True

    def remove(self) -> None:
        """Unlink the cache file, once, unless it was set aside; users that have it open keep their bytes."""
        if not self._removed:
            self._removed = True
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)


class BlobFolder:
    """The cache folder of one mount, locked against a second daemon.

    - `clean/`: fetched bytes. Worth nothing without the daemon that knows them: removed at the next start.
    - `dirty/`: written bytes that no store has confirmed, from the first write on. Which of them were closed the
      journal knows; what a killed daemon leaves besides is set aside at the next start, never removed and never
      uploaded by itself.
    - `not-uploaded/`: what was set aside.
    - `local/`: files that no store is to have (editors' swap files), under their own names; they stay.

    A blob's name is random, with the record's key behind it once it is dirty, for the person who looks. Files
    that do not have such a name are somebody else's, and never touched.
    """

    def __init__(self, path: str, min_free: int = 0) -> None:
        """Take a folder that is missing, empty or our own. Raises CommandError for any other.

        `min_free`: bytes of its disk that clean blobs leave to others.
        """
        self._min_free = min_free
        self.make_room: Callable[[], bool] = lambda: False
        """What frees space on a full disk: set by whoever keeps clean blobs."""
        self.path = os.path.abspath(path)
        self._clean, self._dirty, self._aside, self._local = (
            os.path.join(self.path, name) for name in ("clean", DIRTY, ASIDE, "local")
        )
        with self._usable(), contextlib.ExitStack() as stack:
            _make_folder(self.path)
            self._lock_fd = self._open_lock()
            stack.callback(os.close, self._lock_fd)
            self._lock()
            for folder in (self._clean, self._dirty, self._aside, self._local):
                os.makedirs(folder, mode=0o700, exist_ok=True)
            self._remove_clean()
            stack.pop_all()

    def note_mount(self, about: Mapping[str, str]) -> None:
        """Note what is mounted with this folder, for those who look at it from outside. Raises OSError."""
        os.ftruncate(self._lock_fd, 0)
        os.pwrite(self._lock_fd, json.dumps(about).encode(), 0)

    def create(self) -> Blob:
        """Make a new, empty, clean blob, acquired once. Raises OSError."""
        blob = Blob(os.path.join(self._clean, secrets.token_hex(16)), self.make_room, self._keep_free)
        blob.acquire()
        return blob

    def mark_dirty(self, blob: Blob, key: str) -> None:
        """Note on disk that the blob holds bytes that only we have. Does nothing when it is noted."""
        if not self.is_dirty(blob):
            name = secrets.token_hex(16)
            self._move(blob, os.path.join(self._dirty, f"{name}.{key[:LABEL_LENGTH]}"))

    def mark_clean(self, blob: Blob) -> None:
        """Note on disk that a store has the blob's bytes."""
        if self.is_dirty(blob):
            self._move(blob, os.path.join(self._clean, os.path.basename(blob.path).partition(".")[0]))

    def is_dirty(self, blob: Blob) -> bool:
        """Tell whether the blob holds bytes that only we have."""
        return os.path.dirname(blob.path) == self._dirty

    def left_dirty(self, name: str) -> Blob | None:
        """Give the dirty blob of this name that an earlier daemon left; None if there is none."""
        path = os.path.join(self._dirty, os.path.basename(name))
        return Blob.existing(path) if os.path.isfile(path) else None

    def set_aside_others(self, known: set[str]) -> None:
        """Move the dirty blobs that an earlier daemon left to where no start removes them, but for the known ones."""
        left = [path for path in _blob_files(self._dirty) if os.path.basename(path) not in known]
        for path in left:
            os.rename(path, os.path.join(self._aside, os.path.basename(path)))
        if left:
            log.warning(
                "an earlier mount was killed: %d files that were never closed are in %s",
                len(left),
                self._aside,
            )

    def set_aside(self, blob: Blob) -> str:
        """Move a dirty blob to where no start removes it; its new path."""
        self._move(blob, os.path.join(self._aside, os.path.basename(blob.path)))
        blob.give_up()
        return blob.path

    def create_local(self, path: bytes) -> Blob:
        """Make or open the blob of a file that no store will have, under the file's own path. Raises OSError."""
        blob = Blob(self._local_path(path))
        os.makedirs(os.path.dirname(blob.path), mode=0o700, exist_ok=True)
        blob.acquire()
        return blob

    def make_local(self, blob: Blob, path: bytes) -> None:
        """Move a blob to where files are kept that no store will have. Raises OSError."""
        target = self._local_path(path)
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        self._move(blob, target)

    def syncs(self, blob: Blob) -> list[Callable[[], None]]:
        """Give what lets the blob's bytes and its name outlast a power failure: all of it, in any order.

        Each call blocks for as long as the disk takes, and raises OSError; keep the blob acquired meanwhile. Every
        folder between the blob and the cache folder is written: `create_local` may just have made some of them. Not
        the cache folder itself: what is in it has been there since `make_names_durable`.
        """
        calls: list[Callable[[], None]] = [partial(os.fsync, blob.fd)]
        folder = os.path.dirname(blob.path)
        while len(folder) > len(self.path):
            calls.append(partial(_fsync_folder, folder))
            folder = os.path.dirname(folder)
        return calls

    def make_names_durable(self) -> None:
        """Let what is in the cache folder outlast a power failure by its name. Raises OSError. Blocks."""
        _fsync_folder(self.path)

    def local_files(self, folder: bytes) -> list[tuple[bytes, Blob]]:
        """Give the names and blobs of a folder's files that no store has."""
        try:
            with os.scandir(self._local_path(folder)) as entries:
                files = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        return [(os.fsencode(file.name), Blob.existing(file.path)) for file in files]

    def local_folders(self, folder: bytes) -> list[bytes]:
        """Give the names of the folders in a folder that hold files, or are folders, that no store has."""
        try:
            with os.scandir(self._local_path(folder)) as entries:
                return [os.fsencode(e.name) for e in entries if e.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []

    def make_local_folder(self, path: bytes) -> None:
        """Make a folder that no store will have. Raises OSError."""
        os.makedirs(self._local_path(path), mode=0o700, exist_ok=True)

    def remove_local_folder(self, path: bytes) -> None:
        """Remove an empty folder that no store has, if it is there. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self._local_path(path))

    def free_bytes(self) -> int:
        """Give the free space of the disk below the folder."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def _keep_free(self) -> None:
        """Let clean blobs go while the disk has less left than it should. A statvfs a write: 2 µs, beside 30."""
        while self._min_free and self.free_bytes() < self._min_free and self.make_room():
            pass

    def close(self) -> None:
        """Give the folder up, without the clean blobs. Dirty ones stay."""
        try:
            self._remove_clean()
        except OSError as error:  # the folder was removed meanwhile: no reason to end otherwise than usual
            log.warning("%s could not be tidied: %s", self.path, error)
        os.close(self._lock_fd)

    def _open_lock(self) -> int:
        """Open the file that marks the folder as ours. It is made before all others: they are never alone."""
        names, lock = os.listdir(self.path), os.path.join(self.path, LOCK)
        if names and not (LOCK in names and os.path.isfile(lock)):
            message = (
                f"the cache folder {self.path} holds files that are not kvsfs's: "
                "name a folder that is empty or does not exist yet with --cache-dir"
            )
            raise CommandError(ExitCode.CACHE_UNUSABLE, message)
        return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = (
                f"the cache folder {self.path} belongs to a running mount of the same store: "
                "unmount that one, or give this one a folder of its own with --cache-dir"
            )
            raise CommandError(ExitCode.CACHE_UNUSABLE, message) from error

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = (
                f"cannot use the cache folder {self.path}: {error.strerror}; choose another with --cache-dir"
            )
            raise CommandError(ExitCode.CACHE_UNUSABLE, message) from error

    def _remove_clean(self) -> None:
        for path in _blob_files(self._clean):
            os.unlink(path)

    def _local_path(self, path: bytes) -> str:
        """Give the place of a path of file names, none of which is `.`, `..` or empty: it cannot lead out."""
        return os.path.join(self._local, os.fsdecode(path))

    @staticmethod
    def _move(blob: Blob, target: str) -> None:
        os.rename(blob.path, target)
        blob.path = target


def _blob_files(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return [e.path for e in entries if BLOB_NAME.fullmatch(e.name) and e.is_file(follow_symlinks=False)]


def _make_folder(path: str) -> None:
    """Make a folder and its parents where they are missing, each durable (fsync(2): its name is its parent's)."""
    if not os.path.isdir(path):
        _make_folder(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):  # made by another daemon just now
            os.mkdir(path, mode=0o700)
        _fsync_folder(os.path.dirname(path))


def _fsync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has no fsync of folders
            raise
    finally:
        os.close(fd)
