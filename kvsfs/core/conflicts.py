"""What happens when somebody else has written a record since the copy that was edited here was read.

The API has no conditional PUT: the record is asked about just before, and whoever writes between that answer and our
PUT is overwritten. Where nobody was told that the bytes are safe, the last writer wins and nothing is asked.
"""

from __future__ import annotations

import itertools
import logging
import math
import socket
import time

import trio

from kvsfs.cache.blobs import Blob
from kvsfs.core import content_types, names, provenance
from kvsfs.core.content import Content, Sent
from kvsfs.core.inodes import File, Folder, InodeTable
from kvsfs.core.name_rules import NameRules
from kvsfs.errors import FileError
from kvsfs.store.bodies import FileBody
from kvsfs.store.protocol import Store
from kvsfs.types import RecordHead

log = logging.getLogger(__name__)


class Conflicts:
    """Compares before uploads that come late, and before all of them with `keep_both`.

    All methods are called with the file's `remote` lock held, and raise StoreError, OSError.
    """

    def __init__(self, store: Store, inodes: InodeTable, rules: NameRules, *, keep_both: bool) -> None:
        self._store = store
        self._rules = rules
        self._inodes = inodes
        self._keep_both = keep_both

    async def look(self, file: File, content: Content) -> RecordHead | None:
        """Give the headers of what is in the way of an upload: a record that is not the one we started from."""
        asks = file.late or self._keep_both or content.superseded
        if not asks or file.origin is not None:
            return None
        head = await self._store.head_record(file.key)
        if head is None and not file.unanswered:
            file.stored = False
        if head is None or not (content.superseded or _is_anothers(file, content, head)):
            return None
        return head

    async def compare(self, file: File, content: Content, head: RecordHead) -> Sent | None:
        """Tell whether that record is ours after all: the answer to an upload may have been lost."""
        with content.frozen() as (blob, version):
            if not await self._has_these_bytes(file, head, blob):
                return None
            stored_size = blob.size if head.content_encoding is None else file.listed_size
            return Sent(content, version, blob.size, stored_size, head)

    async def store_beside(self, file: File, content: Content, head: RecordHead) -> None:
        """Let somebody else's record stay, and store our bytes under a name of their own."""
        with content.frozen() as (blob, version):
            await self._store_beside(file, blob)
        content.confirm(version)
        _show_the_other(file, content, head)

    async def _has_these_bytes(self, file: File, head: RecordHead, blob: Blob) -> bool:
        """Compare a record with our bytes, unless its length tells: our own PUT may have come through unheard."""
        if head.length not in (None, blob.size):
            return False
        place = 0
        async with self._store.get_record(file.key) as stream:
            assert stream is not None
            async for piece in stream.chunks():
                if blob.pread(len(piece), place) != piece:
                    return False
                place += len(piece)
        return place == blob.size

    async def _store_beside(self, file: File, blob: Blob) -> None:
        """Store our bytes under a name of their own, beside the record."""
        assert file.parent is not None
        folder, component = self._place_beside(file.parent, file.component)
        key = names.encode(folder.path + component, folder.longest_key)
        kind = file.content_type or content_types.guess(file.component, blob.pread(64 * 1024, 0), whole=False)
        await self._store.set_record(key, FileBody(blob.fd, blob.size), content_type=kind)
        if component not in folder.files:  # else a listing was quicker
            other = self._inodes.add_file(folder, component, key)
            other.stored, other.changed_at = True, trio.current_time()
            other.listed_size = other.length = blob.size
            other.touch()
        log.warning(
            "%s was written by somebody else meanwhile: their version stays, ours is %s", file.key, key
        )

    def _place_beside(self, folder: Folder, component: bytes) -> tuple[Folder, bytes]:
        """Give a folder and a new component `NAME.conflict-HOST-TIME`, its NAME cut where a key would get too long.

        The root where not even that is enough; where the layout has another place for that name, that one.
        """
        suffix = f".conflict-{socket.gethostname()}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}".encode()
        for number in itertools.count(1):
            ending = suffix if number == 1 else suffix + b"-%d" % number
            place = folder if _fits(folder, ending) else self._inodes.root
            length = max(n for n in range(len(component) + 1) if _fits(place, component[:n] + ending))
            path = self._rules.home(place.path + component[:length] + ending)
            place, candidate = self._inodes.folder_at(path), path.rpartition(b"/")[2]
            if candidate not in place.files and candidate not in place.folders:
                return place, candidate
        raise AssertionError("unreachable")


def _is_anothers(file: File, content: Content, head: RecordHead) -> bool:
    """Tell whether a record is neither what we started from nor, by its size, what we have sent.

    Of bytes that came without headers the time tells: nobody has changed the record since before they were sent.
    Without validators only the size tells. Nothing is known of what was there when a record was replaced unread:
    its listed size then has to do.
    """
    if head.length in file.unanswered:
        return False
    if not file.stored and not file.unanswered:
        return True  # there was none
    if content.lacks_headers and None not in (content.asked_for, head.last_modified):
        return not provenance.is_older(head.last_modified, content.asked_for)
    known = None if content.lacks_headers else file.head
    if known is not None and None not in (known.validator, head.validator):
        return known.validator != head.validator
    if known is None and not file.listed_size:
        return head.length != 0  # there was none, or an empty one
    return head.length is not None and head.content_encoding is None and head.length != file.listed_size


def _show_the_other(file: File, content: Content, head: RecordHead) -> None:
    """Forget what is known of a record: the next open fetches somebody else's version."""
    file.stored, file.head, file.length = True, None, None
    file.listed_size = file.listed_size if head.length is None else head.length
    file.content_type, file.type_guessed = head.content_type, False
    file.validated_at = -math.inf
    file.changed_at = trio.current_time()
    file.failure, file.late = None, False
    file.unanswered = frozenset()
    content.superseded = True


def _fits(folder: Folder, component: bytes) -> bool:
    try:
        names.encode(folder.path + component, folder.longest_key)
    except FileError:
        return False
    return True
