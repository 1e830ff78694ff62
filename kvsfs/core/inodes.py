"""The inode table: files and folders by number, and how often the kernel knows each."""

from __future__ import annotations

import errno
import itertools
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from kvsfs.core import names
from kvsfs.core.files import Defaults, File, Inode
from kvsfs.core.folders import Folder, ListingPass
from kvsfs.core.numbers import Numbers
from kvsfs.errors import FileError
from kvsfs.types import RecordKey

__all__ = ["File", "Folder", "Inode", "InodeTable", "ListingPass", "Ownership"]


@dataclass(frozen=True, slots=True)
class Ownership:
    """Owner and permission bits of what has none of its own. Modes are without file type bits."""

    uid: int = field(default_factory=os.getuid)
    gid: int = field(default_factory=os.getgid)
    file_mode: int = 0o644
    folder_mode: int = 0o755


class InodeTable:
    """All inodes by number.

    An inode stays in the table while a folder holds it (its number is then stable, as `rsync` and `tar`
    expect) or the kernel knows it.
    """

    def __init__(
        self,
        ownership: Ownership,
        default_time_ns: int,
        numbers: Numbers | None = None,
        *,
        has_layout: bool = False,
    ) -> None:
        """With a layout the first folder of a path is in no record's key."""
        self._has_layout = has_layout
        numbers = numbers or Numbers()
        self.ownership = ownership
        self.default_time_ns = default_time_ns
        self._by_number: dict[int, Inode] = {}
        self._numbers = itertools.chain((numbers.root,), numbers.inodes)
        self.root = self._new_folder(None, b"", b"")

    @property
    def default_time_ns(self) -> int:
        """Shown for records of which no time is known: one fixed value, or `rsync` would copy all again."""
        return self._file_defaults.time_ns

    @default_time_ns.setter
    def default_time_ns(self, time_ns: int) -> None:
        own = self.ownership
        self._file_defaults = Defaults(stat.S_IFREG | own.file_mode, own.uid, own.gid, time_ns)

    def get(self, number: int) -> File | Folder:
        """Find an inode that the kernel knows. Raises FileError(ESTALE)."""
        inode = self._by_number.get(number)
        if not isinstance(inode, File | Folder):
            raise FileError(errno.ESTALE)
        return inode

    def file(self, number: int) -> File:
        """Find a file. Raises FileError(EISDIR)."""
        inode = self.get(number)
        if isinstance(inode, Folder):
            raise FileError(errno.EISDIR)
        return inode

    def folder(self, number: int) -> Folder:
        """Find a folder. Raises FileError(ENOTDIR)."""
        inode = self.get(number)
        if isinstance(inode, File):
            raise FileError(errno.ENOTDIR)
        return inode

    def add_file(self, parent: Folder, component: bytes, key: RecordKey) -> File:
        """Make a file and put it into its folder."""
        number = next(self._numbers)
        file = File(number, parent, component, self._file_defaults, key)
        self._by_number[number] = file
        parent.files[component] = file
        if parent.removals:
            parent.removals.pop(component, None)
        return file

    def add_folder(self, parent: Folder, component: bytes, *, local_only: bool = False) -> Folder:
        """Make a folder and put it into its parent. Raises FileError(ENAMETOOLONG) unless it is local-only."""
        folder = self._new_folder(parent, component, parent.path + component + b"/", local_only=local_only)
        parent.folders[component] = folder
        return folder

    def detach(self, inode: File | Folder) -> None:
        """Take an inode out of its folder: no name leads to it any more; the kernel may still know it."""
        parent = inode.parent
        if parent is None:
            return
        names_here: dict[bytes, File] | dict[bytes, Folder] = (
            parent.files if isinstance(inode, File) else parent.folders
        )
        if names_here.get(inode.component) is inode:
            del names_here[inode.component]
        if isinstance(inode, File):
            inode.leave()
        inode.parent = None
        self._drop_if_unknown(inode)

    def move(self, file: File, parent: Folder, component: bytes, key: RecordKey) -> None:
        """Give a file another name; what was under that name must have been detached."""
        if file.parent is not None:
            del file.parent.files[file.component]
        assert component not in parent.files
        file.parent, file.component, file.key = parent, component, key
        parent.files[component] = file
        parent.removals.pop(component, None)

    def move_folder(self, folder: Folder, parent: Folder, component: bytes) -> None:
        """Give a folder another name, which nothing else has: all keys below it change."""
        if folder.parent is not None:
            del folder.parent.folders[folder.component]
        folder.parent, folder.component, folder.longest_key = parent, component, parent.longest_key
        parent.folders[component] = folder
        parent.removals.pop(component + b"/", None)
        self._move_below(folder, parent.path + component + b"/")

    def _move_below(self, folder: Folder, path: bytes) -> None:
        folder.path, folder.prefix, folder.changed_at = path, names.encode_local(path), math.inf
        folder.removals.clear()
        for file in folder.files.values():
            file.key, file.changed_at = names.encode_local(path + file.component), math.inf
        for below in folder.folders.values():
            below.longest_key = folder.longest_key
            self._move_below(below, path + below.component + b"/")

    def folder_at(self, path: bytes) -> Folder:
        """Give the folder that holds a raw path, made with those above it where they are not known."""
        folder = self.root
        for component in path.split(b"/")[:-1]:
            folder = folder.folders.get(component) or self.add_folder(folder, component)
        return folder

    def find(self, key: RecordKey) -> File | None:
        """Find the file that is known under a key."""
        folder = self.root
        *above, component = names.decode(key).split(b"/")
        for name in above:
            below = folder.folders.get(name)
            if below is None:
                return None
            folder = below
        return folder.files.get(component)

    def part(self, file: File) -> File:
        """Give a file another number, and its old one to an inode without a name: what the kernel has open.

        As if the record had been replaced by a rename: pages and size of the old number stay those of the older
        version, until its last handle closes.
        """
        older = file.older()
        self._by_number[older.number] = older
        file.number = self._take_number()
        self._by_number[file.number] = file
        file.lookup_count = file.handles = 0
        file.kernel_content = None
        return older

    def looked_up(self, inode: Inode) -> None:
        """Count one lookup: the kernel was told of the inode."""
        inode.lookup_count += 1

    def forget(self, number: int, nlookup: int) -> None:
        """Count lookups back. Never raises."""
        inode = self._by_number.get(number)
        if inode is not None:
            inode.lookup_count = max(0, inode.lookup_count - nlookup)
            self._drop_if_unknown(inode)

    def files(self) -> Iterator[File]:
        """All files in the table, also removed ones that are still open."""
        yield from [inode for inode in self._by_number.values() if isinstance(inode, File)]

    def folders(self) -> Iterator[Folder]:
        """All folders in the table, also removed ones that the kernel still knows."""
        yield from [inode for inode in self._by_number.values() if isinstance(inode, Folder)]

    def __len__(self) -> int:
        return len(self._by_number)

    def drop_unused(self, file: File) -> None:
        """Drop a removed file whose last handle went, unless the kernel still knows it."""
        self._drop_if_unknown(file)

    def check_invariants(self) -> None:
        """For tests."""
        for number, inode in self._by_number.items():
            assert inode.number == number
            if isinstance(inode, Folder):
                self._check_folder(inode)
            else:
                assert isinstance(inode, File)
                assert not inode.removed or inode.lookup_count or inode.handles

    def _check_folder(self, folder: Folder) -> None:
        for children in (folder.files, folder.folders):
            for component, child in children.items():
                assert child.parent is folder
                assert child.component == component
                assert self._by_number[child.number] is child
        assert all(
            file.key == names.encode_local(folder.path + file.component) for file in folder.files.values()
        )

    def _drop_if_unknown(self, inode: Inode) -> None:
        held = isinstance(inode, File) and inode.handles > 0
        if inode.removed and inode.lookup_count == 0 and not held:
            self._by_number.pop(inode.number, None)

    def _new_folder(
        self, parent: Folder | None, component: bytes, path: bytes, *, local_only: bool = False
    ) -> Folder:
        longest = names.MAX_KEY_LENGTH if parent is None else parent.longest_key
        if self._has_layout and parent is not None and parent.parent is None and not local_only:
            longest += len(names.encode_prefix(path))
        folder = Folder(
            number=self._take_number(),
            parent=parent,
            component=component,
            mode=stat.S_IFDIR | self.ownership.folder_mode,
            uid=self.ownership.uid,
            gid=self.ownership.gid,
            atime_ns=self.default_time_ns,
            mtime_ns=self.default_time_ns,
            ctime_ns=self.default_time_ns,
            path=path,
            prefix=names.encode_local(path) if local_only else names.encode_prefix(path, longest),
            longest_key=longest,
            local_only=local_only,
        )
        self._by_number[folder.number] = folder
        return folder

    def _take_number(self) -> int:
        return next(self._numbers)
