"""Bytes that nobody closed, or that no store took and nothing tries again: found, copied out, removed."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from kvsfs.cache.blobs import ASIDE, BLOB_NAME, DIRTY, LABEL_LENGTH
from kvsfs.control import left
from kvsfs.core import names
from kvsfs.errors import CommandError, ExitCode
from kvsfs.fuse.mount_points import resolved
from kvsfs.types import RecordKey


@dataclass(frozen=True, slots=True)
class Found:
    """A cache file that was set aside, or will be at the next mount."""

    file: str
    path: str
    """That it had in the mount, as file names; cut short where `cut`."""
    cut: bool
    size: int
    written_at: float
    """Seconds since 1970."""


def folders(source: str | None, cache_dir: str | None) -> list[str]:
    """Give the cache folders to look at: a named one, those of a source or mount point, or all. Raises CommandError."""
    if cache_dir is not None:
        path = os.path.abspath(cache_dir)
        if not left.is_cache_folder(path):
            raise CommandError(ExitCode.USAGE, f"{cache_dir} is no cache folder of kvsfs")
        return left.with_stores(path)
    if source is None:
        return left.cache_folders()
    found = left.folders_of(source, resolved(source))
    if not found:
        message = f"nothing is kept here of {source}: name it by its store's ID, or as it was mounted"
        raise CommandError(ExitCode.NO_SUCH_STORE, message)
    return found


def find(folder: str) -> list[Found]:
    """Find what was never closed in a cache folder, oldest first; with no daemon also what is not set aside yet."""
    paths = [*_blobs(os.path.join(folder, ASIDE)), *_never_closed(folder)]
    found = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # a daemon has just begun
            found.append(_described(path))
    return sorted(found, key=lambda one: one.written_at)


def save(found: Found, target: str) -> str:
    """Copy one below a folder, under its own path, durably; the file that was made. Overwrites nothing.

    Raises CommandError.
    """
    try:
        with open(found.file, "rb") as source:
            made, fd = _new_file(os.path.join(target, found.path))
            with os.fdopen(fd, "wb") as copy:
                shutil.copyfileobj(source, copy)
                copy.flush()
                os.fsync(copy.fileno())
    except OSError as error:
        message = f"cannot save {found.path} below {target}: {error.strerror}"
        raise CommandError(ExitCode.UNEXPECTED, message) from None
    return made


def remove(found: Found) -> None:
    """Remove one from the cache folder. Raises CommandError."""
    try:
        os.unlink(found.file)
    except OSError as error:
        raise CommandError(ExitCode.UNEXPECTED, f"cannot remove {found.file}: {error.strerror}") from None


def _never_closed(folder: str) -> list[str]:
    closed = left.closed_blobs(folder)
    if closed is None:
        return []
    return [path for path in _blobs(os.path.join(folder, DIRTY)) if os.path.basename(path) not in closed]


def _blobs(folder: str) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if BLOB_NAME.fullmatch(name):
                yield os.path.join(folder, name)


def _described(path: str) -> Found:
    label = os.path.basename(path).partition(".")[2]
    status = os.stat(path)
    return Found(path, _shown(label), len(label) >= LABEL_LENGTH, status.st_size, status.st_mtime)


def _shown(label: str) -> str:
    """Give the path that a label stands for: file names, none of which leads out of a folder."""
    raw = names.decode(RecordKey(label)) if names.is_key(label, names.MAX_SHOWN_LENGTH) else b"unknown"
    return os.fsdecode(b"/".join(map(names.display, raw.split(b"/"))))


def _new_file(path: str) -> tuple[str, int]:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    for number in itertools.count(1):
        candidate = path if number == 1 else f"{path}.{number}"
        with contextlib.suppress(FileExistsError):
            return candidate, os.open(candidate, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    raise AssertionError("unreachable")
