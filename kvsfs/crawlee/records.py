"""What a store's folder holds: its records, and what is none."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from kvsfs.core import content_types, names
from kvsfs.crawlee.folder import StoreFolder
from kvsfs.crawlee.layout import (
    METADATA,
    SIDECAR,
    Sidecar,
    files_of,
    key_without_sidecar,
    parse_sidecar,
)
from kvsfs.types import RecordKey


@dataclass(frozen=True, slots=True)
class LocalRecord:
    """A record on disk."""

    key: RecordKey
    file: str
    size: int
    content_type: str | None = None
    """As Crawlee noted it; None: it is to be guessed."""
    sidecar: str | None = None


@dataclass(frozen=True, slots=True)
class Misfit:
    """What cannot be copied, and why."""

    name: str
    why: str


@dataclass(slots=True)
class Contents:
    """Records by their keys, and the rest."""

    records: dict[str, LocalRecord] = field(default_factory=dict)
    misfits: list[Misfit] = field(default_factory=list)


def contents(folder: StoreFolder) -> Contents:
    """Read which records a folder holds; of their bytes none. Raises OSError."""
    return _Reader(folder).read()


class _Reader:
    def __init__(self, folder: StoreFolder) -> None:
        self._folder = folder
        self._found = Contents()
        self._files: dict[str, os.DirEntry[str]] = {}
        """Those that belong to no record yet."""

    def read(self) -> Contents:
        for entry in self._folder.entries():
            if entry.is_file(follow_symlinks=False):
                self._files[entry.name] = entry
            else:
                self._refuse(entry.name, _why_no_file(entry))
        self._files.pop(METADATA, None)
        # The longest first: Python's key `k.__metadata__.json` looks like the sidecar of `k`, but has one itself.
        for name in sorted((n for n in self._files if n.endswith(SIDECAR)), key=len, reverse=True):
            if name in self._files:
                self._take_sidecar(name)
        for name in list(self._files):
            self._add(key_without_sidecar(name), name)
        return self._found

    def _take_sidecar(self, name: str) -> None:
        stem = name.removesuffix(SIDECAR)
        del self._files[name]
        try:
            noted = parse_sidecar(self._folder.read_small(name), stem)
        except (OSError, ValueError) as error:
            self._refuse(name, f"it is no metadata of Crawlee's: {error}")
            return
        file = next((file for file in files_of(noted, stem) if file in self._files), None)
        if file is None:
            self._refuse(name, f"the file of its record {noted.key!r} is not there")
        elif noted.content_type is not None and not content_types.is_valid(noted.content_type):
            self._refuse(file, f"its content type is none: {noted.content_type!r}")
            del self._files[file]
        else:
            self._add(noted.key, file, noted, name)

    def _add(self, key: str, file: str, noted: Sidecar | None = None, sidecar: str | None = None) -> None:
        entry = self._files.pop(file)
        other = self._found.records.get(key)
        if not names.is_key(key):
            self._refuse(file, _why_no_key(key))
        elif other is not None:
            self._refuse(file, f"its key would be {key}, and that is the one of {other.file}")
        else:
            content_type = noted.content_type if noted is not None else None
            size = entry.stat(follow_symlinks=False).st_size
            self._found.records[key] = LocalRecord(RecordKey(key), file, size, content_type, sidecar)

    def _refuse(self, name: str, why: str) -> None:
        self._found.misfits.append(Misfit(name, why))


def _why_no_file(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "a symbolic link, which is not followed"
    return (
        "a folder: no key holds a slash" if entry.is_dir(follow_symlinks=False) else "neither file nor folder"
    )


def _why_no_key(key: str) -> str:
    if len(key) > names.MAX_KEY_LENGTH:
        return f"its key would be {len(key)} characters long, the API allows {names.MAX_KEY_LENGTH}"
    return f"its key would be {key!r}, and keys allow a-zA-Z0-9!-_.'() only"
