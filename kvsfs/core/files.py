"""Inodes, and files: a record, or what is to become one."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeVar, overload

import trio

from kvsfs.cache.journal import NO_RECORD, Base
from kvsfs.core.content import Content
from kvsfs.errors import StoreError
from kvsfs.store.bodies import FileBody
from kvsfs.types import RecordHead, RecordKey

if TYPE_CHECKING:
    from kvsfs.core.folders import Folder
    from kvsfs.core.moves import Move

T = TypeVar("T")

NEVER = -math.inf
"""One object for all: a float for each of a million files takes 24 MB."""


class Defaults(NamedTuple):
    """What an inode shows that nobody has touched. All three times are one."""

    mode: int
    uid: int
    gid: int
    time_ns: int


class Rare(Generic[T]):
    """A field of files that few ever set: of a million files that are only listed it takes no memory.

    All such fields as slots took 300 bytes each, and half of the time in which a listing makes its inodes. One that was
    set costs 0.1 µs to read.
    """

    def __init__(self, default: T) -> None:
        self._default = default
        self._name: str

    def __set_name__(self, owner: type[File], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, file: None, owner: type[File]) -> Self: ...
    @overload
    def __get__(self, file: File, owner: type[File]) -> T: ...
    def __get__(self, file: File | None, owner: type[File]) -> Self | T:
        if file is None:
            return self
        rare = file._rare  # noqa: SLF001 - a part of it
        value: T = self._default if rare is None else rare.get(self._name, self._default)
        return value

    def __set__(self, file: File, value: T) -> None:
        rare = file._rare  # noqa: SLF001
        if rare is not None:
            rare[self._name] = value
        elif value != self._default:
            file._rare = {self._name: value}  # noqa: SLF001


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
    changed_at: float = NEVER
    listed_by: int = 0
    """Number of the last listing pass that saw it."""

    def touch(self) -> None:
        """Set mtime and ctime to now, as a write does."""
        self.mtime_ns = self.ctime_ns = time.time_ns()

    @property
    def removed(self) -> bool:
        """Whether no name leads here any more."""
        return self.parent is None


class File(Inode):
    """A record, or a file that is to become one.

    INVARIANT: `content` is None while nothing of the bytes is here; `stored` tells whether the store has,
    had when last heard, or may have (an upload without an answer) a record under `key`; a file that is not
    stored has content.
    """

    __slots__ = ("_key", "_rare", "content", "length", "listed_size", "stored")

    _rare: dict[str, Any] | None
    stored: bool
    listed_size: int
    """Stored bytes, as the last listing said."""
    length: int | None
    """True length in bytes, None until the headers or the bytes were seen."""
    content: Content | None

    origin = Rare[RecordKey | None](None)
    """The key of the record that has the bytes, while the file has another name and the store knows nothing of it:
    `head` and `listed_size` are that record's then."""
    beneath = Rare[Base](NO_RECORD)
    """What was known of the record under `key` when the file got this name, while `origin` is another one."""
    head = Rare[RecordHead | None](None)
    """The newest headers seen, those of `content` when there is one."""
    content_type = Rare[str | None](None)
    type_guessed = Rare[bool](default=False)
    """The type came from the name or bytes in this mount: the next upload may guess better."""
    validated_at = Rare[float](NEVER)
    kernel_content = Rare[Content | None](None)
    """What the kernel's cached pages of this inode were read from."""
    temporary = Rare[bool](default=False)
    """Made to be renamed or removed soon: its close keeps the bytes here for a moment."""
    failure: Rare[StoreError | OSError | None] = Rare(None)
    """Why the last upload failed; None since the store took the newest bytes."""
    late = Rare[bool](default=False)
    """Its bytes come later than their close said: others have had time to write the record."""
    unanswered = Rare[frozenset[int | None]](frozenset())
    """Sizes of versions that were sent since the last answer, None for those sent compressed, whose size no headers
    tell: one of them may be what the store has."""
    missed_at = Rare[float](NEVER)
    """When the store last said that there is no such record, while the file was open."""
    superseded = Rare[bool](default=False)
    """Stays with an older version for those who have that open: a newer one has the name, and another number."""
    handles = Rare[int](0)
    move: Rare[Move | None] = Rare(None)
    """The rename of a folder that waits for it."""
    sending = Rare[FileBody | None](None)
    """What is on its way to the store just now."""
    _inherits = Rare[list[RecordKey] | None](None)
    _uploading = Rare[trio.CancelScope | None](None)
    _remote = Rare[trio.Lock | None](None)

    def __init__(
        self, number: int, parent: Folder | None, component: bytes, defaults: Defaults, key: RecordKey
    ) -> None:
        # Assigned one by one: a dataclass with these fields takes five times as long.
        self.number = number
        self.parent = parent
        self.component = component
        self.mode, self.uid, self.gid, self.atime_ns = defaults
        self.mtime_ns = self.ctime_ns = self.atime_ns
        self.lookup_count = self.listed_by = self.listed_size = 0
        self.changed_at = NEVER
        self.stored = False
        self.length = self.content = self._rare = None
        self.key = key

    @property
    def key(self) -> RecordKey:
        """The record's key."""
        if self._key is None:
            assert self.parent is not None
            return RecordKey(self.parent.prefix + self.component.decode("ascii"))
        return self._key

    @key.setter
    def key(self, key: RecordKey) -> None:
        is_spelled = self.parent is not None and key == self.parent.prefix + self.component.decode("latin-1")
        self._key: RecordKey | None = None if is_spelled else key  # a text for each of a million files: 80 MB

    @property
    def is_plain(self) -> bool:
        """Whether its name and the end of its key read the same."""
        return self._key is None

    def leave(self) -> None:
        """Lose the name, and keep the key."""
        self._key, self.parent = self.key, None

    def older(self) -> File:
        """Give an inode with this number and what is known by now, for those who have that open: without a name."""
        older = copy.copy(self)
        older.lose(
            ("_inherits", "move", "origin", "missed_at", "sending", "unanswered", "_remote", "_uploading")
        )
        older.leave()
        older.stored, older.superseded = False, True
        return older

    def lose(self, names: Collection[str]) -> None:
        """Have the defaults of rare fields, and no dictionary of another file."""
        if self._rare is not None:
            self._rare = {name: value for name, value in self._rare.items() if name not in names}

    @property
    def inherits(self) -> list[RecordKey]:
        """Keys of records that are gone here, and whose bytes it has."""
        if self._inherits is None:
            self._inherits = []
        return self._inherits

    @inherits.setter
    def inherits(self, keys: list[RecordKey]) -> None:
        self._inherits = keys

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
        is_of_others = self.content is not None and self.content.lacks_headers  # maybe: a newer version's
        validator = None if self.head is None or is_of_others else self.head.validator
        return Base(self.stored, validator, self.listed_size, sent)

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
