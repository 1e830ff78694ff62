"""What a store cannot hold of a folder on disk, told before a copy: from names and lstat(2), never from content."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from kvsfs.core import names
from kvsfs.core.name_rules import NameRules
from kvsfs.errors import FileError

_SPECIAL = {
    stat.S_IFLNK: "a symbolic link, and a store has none: cp -L copies what it points to",
    stat.S_IFIFO: "a named pipe, and a store has none",
    stat.S_IFSOCK: "a socket, and a store has none",
    stat.S_IFCHR: "a device, and a store has none",
    stat.S_IFBLK: "a device, and a store has none",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a copy will not be like the original in."""

    path: bytes
    """Below the folder that is checked; empty for itself."""
    why: str
    fits: bool
    """It is copied all the same: worth knowing, no obstacle."""


def raw_folder(shown: bytes, *, strict: bool = False) -> bytes:
    """Give the raw path, with a slash behind it, of a folder in a mount; empty for the mount itself.

    Raises FileError for what cannot be a folder there.
    """
    parts = [part for part in shown.split(b"/") if part not in (b"", b".")]
    raw = b"".join(_component(part, strict=strict) + b"/" for part in parts)
    names.encode_prefix(raw)
    return raw


class TreeCheck:
    """Walks a folder, as `cp -r` would, for a copy of what is in it to a folder of a mount.

    What cannot be read is a finding; what goes away meanwhile is none. Of a folder that does not fit nothing does:
    it is one finding.
    """

    def __init__(self, root: bytes, *, target: bytes = b"", strict: bool = False) -> None:
        """`target`: the raw path that `raw_folder` gives. `strict`: for a mount with `--names strict`."""
        self._root = root
        self._strict = strict
        self._rules = NameRules()
        self._waiting = [(b"", target)]
        self._linked: dict[tuple[int, int], bytes] = {}
        self.entries = 0
        """Files, folders and others looked at so far."""

    def findings(self) -> Iterator[Finding]:
        """Give what does not fit, and what is worth knowing; a folder's entries in the order of their names."""
        while self._waiting:
            path, raw = self._waiting.pop()
            try:
                with os.scandir(os.path.join(self._root, path)) as found:
                    entries = sorted(found, key=lambda entry: entry.name, reverse=True)
            except FileNotFoundError:
                continue
            except OSError as error:
                yield _unreadable(path, error)
                continue
            below = len(self._waiting)
            for entry in reversed(entries):
                yield from self._look_at(entry, os.path.join(path, entry.name), raw)
            self._waiting[below:] = reversed(self._waiting[below:])

    def _look_at(self, entry: os.DirEntry[bytes], path: bytes, folder: bytes) -> Iterator[Finding]:
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        except OSError as error:
            yield _unreadable(path, error)
            return
        self.entries += 1
        kind = stat.S_IFMT(found.st_mode)
        if kind in _SPECIAL:
            yield Finding(path, _SPECIAL[kind], fits=False)
        elif self._rules.is_local_name(entry.name):
            yield _staying(entry.name, path)
        elif kind == stat.S_IFDIR:
            yield from self._look_at_folder(entry.name, path, folder)
        else:
            yield from self._look_at_file(entry.name, path, folder, found)

    def _look_at_folder(self, name: bytes, path: bytes, folder: bytes) -> Iterator[Finding]:
        try:
            raw = folder + _component(name, strict=self._strict) + b"/"
            names.encode_prefix(raw)
        except FileError as error:
            yield Finding(path, f"{error}; nothing in it fits", fits=False)
        else:
            self._waiting.append((path, raw))

    def _look_at_file(
        self, name: bytes, path: bytes, folder: bytes, found: os.stat_result
    ) -> Iterator[Finding]:
        try:
            names.encode(folder + _component(name, strict=self._strict))
        except FileError as error:
            yield Finding(path, str(error), fits=False)
            return
        if found.st_nlink > 1:
            first = self._linked.setdefault((found.st_dev, found.st_ino), path)
            if first != path:
                why = f"a hard link to {readable(first)}: becomes a file of its own"
                yield Finding(path, why, fits=True)


def readable(path: bytes) -> str:
    """Write a path in one line: what cannot be printed, or is not UTF-8, as an escape."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _component(name: bytes, *, strict: bool) -> bytes:
    return names.strict_component(name) if strict else names.component(name)


def _staying(name: bytes, path: bytes) -> Finding:
    """Tell of what is local-only, which any name that a mount can show may be."""
    try:
        names.component(name)
    except FileError as error:
        return Finding(path, str(error), fits=False)
    return Finding(path, "stays on this machine: such a name never reaches a store", fits=True)


def _unreadable(path: bytes, error: OSError) -> Finding:
    return Finding(path, f"cannot be read: {os.strerror(error.errno or 0)}", fits=False)
