"""Under which names files are shown: their own or, with `--extensions`, with the extension of their type.

With the option the record `INPUT` of type `application/json` is listed as `INPUT.json`, as in the folders that Crawlee
keeps on disk. It is found under both names; what is made here still gets the name that it is made under as its key.

Why no two records have one name: only a name without an extension gets one, and not where something else has the
longer name. So a longer name is a record's own, or stands for the one record whose name it is without its extension.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cachetools import LRUCache

from kvsfs.core import content_types, names
from kvsfs.core.background import Background
from kvsfs.core.heads import ENTRIES_AT_A_TIME, Heads
from kvsfs.core.inodes import File, Folder
from kvsfs.core.kernel import KernelCaches
from kvsfs.core.listing import Lister
from kvsfs.core.versions import Versions

NAMES_KEPT = 10_000
"""Longer names that records had which were removed or renamed here: some MB. A save by an editor needs one."""


class ShownNames:
    """Shows each file under its own name."""

    def __init__(self, lister: Lister) -> None:
        self._lister = lister

    async def find(self, folder: Folder, name: bytes) -> File | Folder | None:
        """Find what a name stands for. Checkpoints and raises as `Lister.find` does."""
        return await self._lister.find(folder, name)

    def child(self, folder: Folder, name: bytes) -> File | Folder | None:
        """Find what a name stands for, among what is known. Raises FileError(EINVAL). No checkpoint."""
        return folder.child(name)

    def name_of(self, inode: File | Folder) -> bytes:
        """Give the name that is listed, of what is in a folder."""
        assert inode.parent is not None
        return inode.parent.name_of(inode)

    def name_for(self, folder: Folder, name: bytes, renamed: File | None = None) -> bytes:  # noqa: ARG002
        """Give the name of its own that a file gets which is made, or renamed, to be shown under one."""
        return name

    def restore_type(self, file: File, folder: Folder, name: bytes, own_name: bytes) -> None:
        """Let a file whose type nobody has told have that of the record which it takes the place of."""

    async def learn(self, entries: list[File | Folder]) -> list[File | Folder]:
        """Wait until some of the entries, from the first on, have the names that they are to be listed under."""
        return entries

    @contextmanager
    def changing(self, inode: File | Folder) -> Iterator[None]:  # noqa: ARG002
        """Enclose what may take away a name of something."""
        yield


class NamesWithExtensions(ShownNames):
    """Shows files whose names have no extension with that of their content type, as far as it is known."""

    def __init__(
        self, lister: Lister, versions: Versions, kernel: KernelCaches, background: Background
    ) -> None:
        super().__init__(lister)
        lister.with_extensions = True
        versions.names_of = self._names_of
        self._kernel = kernel
        self._types = Heads(
            versions, background, _lacks_type, whole=False, otherwise="names without extensions"
        )
        self._left: LRUCache[tuple[bytes, bytes], str] = LRUCache(NAMES_KEPT)
        """A folder's path and the component of a longer name that went here -> the type that it was made of."""

    async def find(self, folder: Folder, name: bytes) -> File | Folder | None:
        """Find what a name stands for: asks for a record's own name first, then for that without the extension."""
        found = await self._lister.find(folder, name)
        stem = _stem(name)
        if found is not None or stem is None:
            return found
        own = names.display(stem)
        if isinstance(await self._lister.find(folder, own), Folder):
            await self._lister.find(folder, names.beside_folder(own))
        file = folder.files.get(stem)
        if file is not None:
            await self._types.exact([file])
        named = self.child(folder, name)
        if isinstance(named, File):
            # Who writes to `x.json` does not want it to be `x.txt` for a slip in the JSON.
            named.type_guessed = False
        return named

    def child(self, folder: Folder, name: bytes) -> File | Folder | None:
        """Find what a name stands for, among what is known."""
        found, stem = folder.child(name), _stem(name)
        if found is not None or stem is None:
            return found
        file = folder.files.get(stem)
        return file if file is not None and self.name_of(file) == name else None

    def name_of(self, inode: File | Folder) -> bytes:
        """Give the name that is listed."""
        folder = inode.parent
        assert folder is not None
        longer = _longer(inode) if isinstance(inode, File) else None
        if longer is None or longer in folder.files or longer in folder.folders:
            return folder.name_of(inode)
        return names.display(longer)

    def name_for(self, folder: Folder, name: bytes, renamed: File | None = None) -> bytes:
        """Give the name of its own that a file gets.

        That is the name, but for two: one that a record was shown under which was removed or renamed here gives its
        own name back (vim renames `INPUT.json` and makes it anew: the key shall stay `INPUT`), and a record that is
        shown with its extension has none in its key after a rename, either.
        """
        stem = _stem(name)
        if stem is None or stem in folder.files or stem in folder.folders:
            return name
        own, was_here = names.display(stem), (folder.path, names.component(name)) in self._left
        if renamed is None or (was_here and _has_no_type_of_its_own(renamed)):
            return own if was_here else name
        is_longer = self.name_of(renamed) != renamed.parent.name_of(renamed) if renamed.parent else False
        will_have_it = _extension_of(renamed) == os.path.splitext(name)[1]
        return own if will_have_it and (was_here or is_longer) else name

    def restore_type(self, file: File, folder: Folder, name: bytes, own_name: bytes) -> None:
        """Let a file whose type nobody has told have that of the record which it takes the place of."""
        kept = self._left.get((folder.path, names.component(name)))
        if own_name != name and kept is not None and _has_no_type_of_its_own(file):
            file.content_type, file.type_guessed = kept, False

    async def learn(self, entries: list[File | Folder]) -> list[File | Folder]:
        """Wait until some of the entries have their extensions, and have the next ones asked for."""
        self._types.ahead(entries)
        entries = entries[:ENTRIES_AT_A_TIME]
        await self._types.exact(entries)
        return entries

    @contextmanager
    def changing(self, inode: File | Folder) -> Iterator[None]:
        """Enclose what may take away a name of something: the kernel is told of each that is gone then."""
        if not isinstance(inode, File) or inode.parent is None:
            yield
            return
        parent, own, before = inode.parent, inode.component, self._names_of(inode)
        kept = inode.content_type
        yield
        after = self._names_of(inode) if inode.parent is parent else []
        for name in before:
            if name not in after:
                self._kernel.entry_gone(parent.number, name, inode.number)
        if len(before) > 1 and kept is not None and (inode.parent is not parent or inode.component != own):
            extension = content_types.extension(kept)
            assert extension is not None
            self._left[parent.path, own + b"." + extension] = kept

    def _names_of(self, inode: File | Folder) -> Sequence[bytes]:
        if inode.parent is None:
            return []
        own, listed = inode.parent.name_of(inode), self.name_of(inode)
        return [own] if own == listed else [own, listed]


def _has_no_type_of_its_own(file: File) -> bool:
    return file.content_type is None or file.type_guessed


def _lacks_type(file: File) -> bool:
    return file.content_type is None and _takes_extension(file)


def _takes_extension(file: File) -> bool:
    """Tell whether a file's name has no extension; one that is about to be renamed or removed shall get none."""
    if file.local_only or file.temporary or not file.component.strip(b"."):
        return False
    return not os.path.splitext(file.component)[1]


def _extension_of(file: File) -> bytes:
    """Give the extension of a file's type with its dot; nothing for one without."""
    extension = None if file.content_type is None else content_types.extension(file.content_type)
    return b"" if extension is None else b"." + extension


def _longer(file: File) -> bytes | None:
    """Give a file's component with the extension of its type; None for one that gets none."""
    if not _takes_extension(file):
        return None
    extension = _extension_of(file)
    return file.component + extension if extension else None


def _stem(name: bytes) -> bytes | None:
    """Give the component of the record that a name with an extension may stand for; None where it cannot."""
    if names.record_beside_folder(name) is not None:
        return None
    stem, extension = os.path.splitext(names.component(name))
    if extension[1:] not in content_types.EXTENSIONS or os.path.splitext(stem)[1] or not stem.strip(b"."):
        return None
    return stem
