"""The inode table: files and folders, their attributes, and how often the kernel knows each."""

from __future__ import annotations

import bisect
import errno
import itertools
import math
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio

from kvsfs.cache.journal import NO_RECORD, Base
from kvsfs.core import names
from kvsfs.core.content import Content
from kvsfs.core.numbers import Numbers
from kvsfs.core.pages_ahead import PagesAhead
from kvsfs.errors import FileError, StoreError
from kvsfs.store.bodies import FileBody
from kvsfs.types import RecordHead, RecordKey

if TYPE_CHECKING:
    from kvsfs.core.moves import Move


@dataclass(slots=True, eq=False)
class Inode:
    """What files and folders have in common.

    `changed_at` says when this mount last changed it in the store (trio time): a listing that was asked for
    before knows nothing of that change. It is infinite while the store does not have it yet.
    """

    number: int
    parent: Folder | None
    component: bytes
    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    lookup_count: int = 0
    changed_at: float = -math.inf
    listed_by: int = 0
    """Number of the last listing pass that saw it."""

    def touch(self) -> None:
        """Set mtime and ctime to now, as a write does."""
        self.mtime_ns = self.ctime_ns = time.time_ns()

    @property
    def removed(self) -> bool:
        """Whether no name leads here any more."""
        return self.parent is None


@dataclass(slots=True, eq=False)
class File(Inode):
    """A record, or a file that is to become one.

    INVARIANT: `content` is None while nothing of the bytes is here; `stored` tells whether the store has,
    had when last heard, or may have (an upload without an answer) a record under `key`; a file that is not
    stored has content.
    """

    key: RecordKey = field(kw_only=True)
    stored: bool = False
    origin: RecordKey | None = None
    """The key of the record that has the bytes, while the file has another name and the store knows nothing of it:
    `head` and `listed_size` are that record's then."""
    beneath: Base = NO_RECORD
    """What was known of the record under `key` when the file got this name, while `origin` is another one."""
    listed_size: int = 0
    """Stored bytes, as the last listing said."""
    head: RecordHead | None = None
    """The newest headers seen, those of `content` when there is one."""
    length: int | None = None
    """True length in bytes, None until the headers or the bytes were seen."""
    content_type: str | None = None
    type_guessed: bool = False
    """The type came from the name or bytes in this mount: the next upload may guess better."""
    content: Content | None = None
    validated_at: float = -math.inf
    kernel_content: Content | None = None
    """What the kernel's cached pages of this inode were read from."""
    temporary: bool = False
    """Made to be renamed or removed soon: its close keeps the bytes here for a moment."""
    failure: StoreError | OSError | None = None
    """Why the last upload failed; None since the store took the newest bytes."""
    late: bool = False
    """Its bytes come later than their close said: others have had time to write the record."""
    unanswered: frozenset[int | None] = frozenset()
    """Sizes of versions that were sent since the last answer, None for those sent compressed, whose size no headers
    tell: one of them may be what the store has."""
    missed_at: float = -math.inf
    """When the store last said that there is no such record, while the file was open."""
    superseded: bool = False
    """Stays with an older version for those who have that open: a newer one has the name, and another number."""
    handles: int = 0
    inherits: list[RecordKey] = field(default_factory=list)
    """Keys of records that are gone here, and whose bytes it has."""
    move: Move | None = None
    """The rename of a folder that waits for it."""
    # Made when they are needed: of a million files that are only listed, these two would take 450 MB, and half of
    # the time in which a listing makes its inodes.
    sending: FileBody | None = None
    """What is on its way to the store just now."""
    _uploading: trio.CancelScope | None = None
    _remote: trio.Lock | None = None

    @property
    def uploading(self) -> trio.CancelScope:
        """That of the upload under way."""
        if self._uploading is None:
            self._uploading = trio.CancelScope()
        return self._uploading

    @uploading.setter
    def uploading(self, scope: trio.CancelScope) -> None:
        self._uploading = scope

    def stop_upload(self) -> None:
        """End an upload under way: what comes next does not wait for it.

        Not one that the store may have all bytes of: it would go on there, and could come after what is asked next.
        """
        if self.sending is None or not self.sending.all_read:
            self.uploading.cancel()

    @property
    def remote(self) -> trio.Lock:
        """Held around everything that changes the record or decides which version `content` is."""
        if self._remote is None:
            self._remote = trio.Lock()
        return self._remote

    @property
    def is_asked_for(self) -> bool:
        """Whether somebody holds `remote`."""
        return self._remote is not None and self._remote.locked()

    @property
    def record_key(self) -> RecordKey:
        """The key of the record to read the bytes from."""
        return self.key if self.origin is None else self.origin

    @property
    def in_store(self) -> bool:
        """Whether there is a record to read the bytes from."""
        return self.stored or self.origin is not None

    @property
    def base(self) -> Base:
        """The version of the record under `key` that the bytes replace, as far as it is known."""
        sent = tuple(self.unanswered)
        if self.origin not in (None, self.key):
            return replace(self.beneath, stored=self.stored, sent=sent)
        return Base(self.stored, None if self.head is None else self.head.validator, self.listed_size, sent)

    def replaces(self, base: Base) -> None:
        """Take over what is known of the record under a key that is the file's own by now."""
        self.stored, self.unanswered = base.stored, frozenset(base.sent)
        if self.origin is not None:
            self.beneath = base
            return
        self.listed_size = base.size
        self.head = None
        if base.validator is not None:
            self.head = RecordHead.remembered(self.content_type or "", base.validator)

    @property
    def size(self) -> int:
        """Bytes to show: exact when known, else the stored size as a provisional answer."""
        if self.content is not None:
            return self.content.size
        return self.listed_size if self.length is None else self.length

    @property
    def size_is_exact(self) -> bool:
        """Whether `size` may be cached by the kernel."""
        return self.length is not None or self.content is not None

    @property
    def local_only(self) -> bool:
        """Whether no store is to have it."""
        return self.content is not None and self.content.local_only

    @property
    def dirty(self) -> bool:
        """Whether bytes are here that the store has not confirmed."""
        return self.content is not None and self.content.dirty

    @property
    def state(self) -> str:
        """`clean`, `dirty`, `uploading`, `failed: …` or `local-only`: the value of user.kvsfs.state.

        It is clean when the store has the bytes under the file's own name.
        """
        if self.local_only:
            return "local-only"
        if not self.dirty and self.origin is None:
            return "clean"
        if self.content is not None and self.content.uploading:
            return "uploading"
        return "dirty" if self.failure is None else f"failed: {self.failure}"


@dataclass(slots=True, eq=False)
class ListingPass:
    """One walk through the keys of a folder, page by page, as far as somebody needed it."""

    number: int
    started: float
    cursor: str | None = None
    """Where the next page starts; every key up to it was seen."""
    pages: int = 0
    barren: int = 0
    """The last so many pages brought nothing."""
    asked: list[tuple[str, float]] = field(default_factory=list)
    """The last key that each page went past, and when the page was asked for."""
    took: float = 0.0
    """Seconds that the pages cost so far."""
    complete: bool = False
    lookups: int = 0
    """Names that had to be looked up beside it."""
    arrivals: list[File | Folder] = field(default_factory=list)
    """In the order of their keys."""
    ahead: PagesAhead | None = None
    """The pages that come next."""
    lock: trio.Lock = field(default_factory=trio.Lock)
    """Held while a page is waited for."""

    def asked_about(self, key: str) -> float:
        """When the page was asked for that shows a key, or shows that it is not there; -inf when none did."""
        page = bisect.bisect_left(self.asked, (key, -math.inf))
        return self.asked[page][1] if page < len(self.asked) else -math.inf


@dataclass(slots=True, eq=False)
class Folder(Inode):
    """A key prefix that ends in an encoded slash, or the root.

    INVARIANT: `files` and `folders` are keyed by raw component; their inodes' `parent` is this folder.
    """

    path: bytes = b""
    """Raw path from the root with a slash behind it; empty for the root."""
    prefix: str = ""
    marker: bool = False
    """Whether the store has this folder's marker record."""
    marker_changed_at: float = -math.inf
    """When this mount last put or deleted it (trio time): an earlier page knows nothing of that."""
    marker_request: trio.Lock = field(default_factory=trio.Lock)
    """Held around requests for it: none arrives after the folder was removed."""
    local_only: bool = False
    """Whether what is made in it never reaches the store: by its own name, or that of a folder above."""
    listed: bool = False
    """Whether a listing has shown a key below it."""
    files: dict[bytes, File] = field(default_factory=dict)
    folders: dict[bytes, Folder] = field(default_factory=dict)
    listing: ListingPass | None = None
    listed_once: bool = False
    """Whether a listing pass was ever completed: what is known can then stand in for a store out of reach."""
    removals: dict[bytes, float] = field(default_factory=dict)
    """Component of a file that this mount removed -> when, until a later listing has confirmed it."""

    @property
    def removed(self) -> bool:
        """Whether no name leads here any more; the root needs none."""
        return self.parent is None and bool(self.path)

    def shown_path(self, name: bytes = b"") -> bytes:
        """Give the path from the mount's root as file names, of the folder or of a name in it."""
        components = self.path.split(b"/")[:-1]
        return b"/".join([names.display(component) for component in components] + [name])

    @property
    def empty(self) -> bool:
        """Whether nothing is known to be in it."""
        return not self.files and not self.folders

    @property
    def bare(self) -> bool:
        """Whether nothing is known to be in it that a store has or is to have."""
        return all(child.local_only for child in self.children())

    @property
    def unknown_to_store(self) -> bool:
        """Whether the store need not be asked for what is in it."""
        return self.local_only and not self.listed

    def child(self, name: bytes) -> File | Folder | None:
        """Find what the file name `name` stands for, among what is known. Raises FileError(EINVAL)."""
        beside = names.record_beside_folder(name)
        if beside is not None:
            component = names.component(beside)
            return self.files.get(component) if component in self.folders else None
        component = names.component(name)
        return self.folders.get(component) or self.files.get(component)

    def note_removal(self, component: bytes, at: float) -> None:
        """Note that this mount took a name away: listings that were asked for before do not bring it back."""
        self.removals[component] = max(at, self.removals.get(component, -math.inf))

    def name_of(self, child: Inode) -> bytes:
        """Give the file name under which a child is shown."""
        name = names.display(child.component)
        if isinstance(child, File) and child.component in self.folders:
            return names.beside_folder(name)
        return name

    def children(self) -> Iterator[File | Folder]:
        """All that is known to be in it."""
        yield from self.folders.values()
        yield from self.files.values()


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

    def __init__(self, ownership: Ownership, default_time_ns: int, numbers: Numbers | None = None) -> None:
        numbers = numbers or Numbers()
        self.ownership = ownership
        self.default_time_ns = default_time_ns
        """Shown for records of which no time is known: one fixed value, or `rsync` would copy all again."""
        self._by_number: dict[int, Inode] = {}
        self._numbers = itertools.chain((numbers.root,), numbers.inodes)
        self.root = self._new_folder(None, b"", b"")

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
        file = File(
            number=self._take_number(),
            parent=parent,
            component=component,
            mode=stat.S_IFREG | self.ownership.file_mode,
            uid=self.ownership.uid,
            gid=self.ownership.gid,
            atime_ns=self.default_time_ns,
            mtime_ns=self.default_time_ns,
            ctime_ns=self.default_time_ns,
            key=key,
        )
        self._by_number[file.number] = file
        parent.files[component] = file
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
        folder.parent, folder.component = parent, component
        parent.folders[component] = folder
        parent.removals.pop(component + b"/", None)
        self._move_below(folder, parent.path + component + b"/")

    def _move_below(self, folder: Folder, path: bytes) -> None:
        folder.path, folder.prefix, folder.changed_at = path, names.encode_prefix(path), math.inf
        folder.removals.clear()
        for file in folder.files.values():
            file.key, file.changed_at = names.encode_local(path + file.component), math.inf
        for below in folder.folders.values():
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
        older = replace(
            file,
            parent=None,
            stored=False,
            origin=None,
            superseded=True,
            missed_at=-math.inf,
            inherits=[],
            move=None,
            unanswered=frozenset(),
            sending=None,
            _uploading=None,
            _remote=None,
        )
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
            prefix=names.encode_local(path) if local_only else names.encode_prefix(path),
            local_only=local_only,
        )
        self._by_number[folder.number] = folder
        return folder

    def _take_number(self) -> int:
        return next(self._numbers)
