"""A store's folder on disk: its files are reached by their names in it, and by no symbolic link."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from kvsfs.crawlee.layout import METADATA, STORES
from kvsfs.errors import CommandError, ExitCode

_STORAGE = "storage"
"""What Crawlee calls its folder where nobody says otherwise."""

DEFAULT_STORE = "default"
"""Crawlee's folder of a store without a name."""

LARGEST_SIDECAR = 64 * 1024
"""Bytes: a key and a content type take a few hundred."""

_TEMPORARY = re.compile(r"\.kvsfs-[0-9a-f]{16}\.tmp")
"""Names of unfinished files."""


class StoreFolder:
    """An open folder. A context manager: leaving it closes the folder.

    INVARIANT: what is named in it is opened without following a link, so that nothing outside is read or written.
    """

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def entries(self) -> list[os.DirEntry[str]]:
        """List what is in it but unfinished files, by name."""
        with os.scandir(self._fd) as found:
            entries = [entry for entry in found if not _TEMPORARY.fullmatch(entry.name)]
        return sorted(entries, key=lambda entry: os.fsencode(entry.name))

    def open(self, name: str) -> int:
        """Open a file to read. Raises OSError, for what is no regular file, too."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not make us wait
        fd = os.open(name, flags, dir_fd=self._fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError("it is no regular file")
        return fd

    def read_small(self, name: str) -> bytes:
        """Read a sidecar. Raises OSError, and ValueError for what is too large for one."""
        fd = self.open(name)
        try:
            content = os.read(fd, LARGEST_SIDECAR + 1)
        finally:
            os.close(fd)
        if len(content) > LARGEST_SIDECAR:
            raise ValueError("too large")
        return content

    @contextmanager
    def new_file(self) -> Iterator[NewFile]:
        """Make a file that has no name of its own before `NewFile.name_it`; without that it is gone at the end."""
        temporary = f".kvsfs-{secrets.token_hex(8)}.tmp"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o666, dir_fd=self._fd)
        try:
            yield NewFile(self._fd, fd, temporary)
        finally:
            os.close(fd)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self._fd)

    def remove(self, name: str) -> None:
        """Remove a file; no error when there is none."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)


class NewFile:
    """A file that is being written."""

    def __init__(self, folder_fd: int, fd: int, temporary: str) -> None:
        self._folder_fd = folder_fd
        self.fd = fd
        self._temporary = temporary

    def write(self, piece: bytes) -> None:
        """Append. Raises OSError."""
        left = memoryview(piece)
        while left:
            left = left[os.write(self.fd, left) :]

    def name_it(self, name: str) -> None:
        """Put it in the place of what has this name."""
        os.rename(self._temporary, name, src_dir_fd=self._folder_fd, dst_dir_fd=self._folder_fd)


def to_read(path: str, store: str | None) -> StoreFolder:
    """Open the folder of one store below `path`, which may be that, or hold one. Raises CommandError."""
    try:
        return _below(path, _parts_to_read(path, store), make=False)
    except OSError as error:
        raise _unusable(path, error) from None


def to_write(path: str, store: str, *, make: bool = True) -> StoreFolder | None:
    """Open the folder of a store below `path`; where there is none, make it or give None. Raises CommandError."""
    if not _is_one_name(store):
        raise CommandError(ExitCode.USAGE, f"{store!r} is no folder's name")
    try:
        parts = [] if _is_store(path) else [store] if _is_of_stores(path) else [STORES, store]
        if make and not os.path.exists(path):
            os.makedirs(path)
        return _below(path, parts, make=make)
    except FileNotFoundError:
        if not make:
            return None
        raise
    except OSError as error:
        raise _unusable(path, error) from None


def _parts_to_read(path: str, store: str | None) -> list[str]:
    if _is_of_stores(path):
        parts = []
    elif os.path.isdir(os.path.join(path, STORES)):
        parts = [STORES]
    elif os.path.isdir(os.path.join(path, _STORAGE, STORES)):
        # A crawler's own folder: its sources, and what is in its .env, are no records.
        raise CommandError(
            ExitCode.USAGE, f"{path} holds a storage folder: give {os.path.join(path, _STORAGE)}"
        )
    elif store is None:
        return []
    else:
        raise CommandError(ExitCode.USAGE, f"{path} is one store's folder: --store is for a folder of stores")
    there_are = _folders_in(os.path.join(path, *parts))
    if store is None and len(there_are) == 1:
        store = there_are[0]
    if store is None or store not in there_are:
        listed = f"it holds {', '.join(there_are)}" if there_are else "it holds none"
        wanted = "name a store with --store" if store is None else f"there is no store {store}"
        raise CommandError(ExitCode.USAGE, f"{os.path.join(path, *parts)}: {wanted}; {listed}")
    return [*parts, store]


def _below(path: str, parts: list[str], *, make: bool) -> StoreFolder:
    """Open a folder: `path` is the user's word and may lead anywhere, what is below it may not."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    fd = os.open(path, flags)
    for part in parts:
        try:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=fd)
            below = os.open(part, flags | os.O_NOFOLLOW, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return StoreFolder(os.path.join(path, *parts), fd)


def _is_store(path: str) -> bool:
    parent = os.path.basename(os.path.dirname(os.path.abspath(path)))
    return parent == STORES or os.path.isfile(os.path.join(path, METADATA))


def _is_of_stores(path: str) -> bool:
    return os.path.basename(os.path.abspath(path)) == STORES


def _folders_in(path: str) -> list[str]:
    with os.scandir(path) as found:
        return sorted(entry.name for entry in found if entry.is_dir(follow_symlinks=False))


def _is_one_name(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def _unusable(path: str, error: OSError) -> CommandError:
    where = error.filename if isinstance(error.filename, str) and "/" in error.filename else path
    return CommandError(ExitCode.USAGE, f"{where} cannot be used: {error.strerror or error}")
