"""What an earlier mount has left to do: its closed versions are files again, its ghosts stay hidden."""

from __future__ import annotations

import logging
import math
import stat

from kvsfs.cache.folder import CacheFolder
from kvsfs.cache.journal import Base, Removed, Upload
from kvsfs.core import names
from kvsfs.core.deletes import DeferredDeletes, Ghost
from kvsfs.core.inodes import File, Folder, InodeTable
from kvsfs.core.uploads import Uploads
from kvsfs.core.versions import DAMAGED, Versions
from kvsfs.errors import StoreError
from kvsfs.types import RecordKey

log = logging.getLogger(__name__)


class Resumption:
    """Restores files before the mount answers; their uploads then go on in the background. No checkpoint."""

    def __init__(
        self,
        inodes: InodeTable,
        versions: Versions,
        cache: CacheFolder,
        deletes: DeferredDeletes,
        uploads: Uploads,
    ) -> None:
        self._inodes = inodes
        self._versions = versions
        self._blobs = cache.blobs
        self._journal = cache.journal
        self._deletes = deletes
        self._uploads = uploads

    def resume(self) -> None:
        """Take up all that the journal knows; set aside what it does not know. Raises OSError."""
        uploads = self._journal.uploads()
        self._blobs.set_aside_others({upload.closed.blob for upload in uploads})
        for upload in uploads:
            self._resume_upload(upload)
        # Those that have bytes first: an heir of several records is read from the one.
        for removed in sorted(self._journal.all_removed(), key=lambda removed: not removed.moving):
            self._resume_ghost(removed)
        if uploads:
            log.warning("%d files of an earlier mount were not uploaded yet: they are now", len(uploads))

    def leave(self) -> None:
        """Leave all to the next mount that may write: this one shows what the store has."""
        left = len(self._journal.uploads()) + len(self._journal.all_removed())
        if left:
            log.warning("%d changes of an earlier mount wait for one that is not read-only", left)

    def _resume_upload(self, upload: Upload) -> None:
        closed = upload.closed
        blob = self._blobs.left_dirty(closed.blob)
        if blob is None:  # the store had just confirmed it
            self._journal.forget(upload.row)
            return
        if closed.size not in (-1, blob.size):
            log.error(DAMAGED, closed.key, self._blobs.set_aside(blob))
            self._journal.forget(upload.row)
            return
        file = self._file_at(closed.key)
        if file.content is not None:  # an older version of the same key, which was about to be forgotten
            self._versions.drop(file)
        file.content = self._versions.resumed(blob, upload.row, upload.checksum)
        file.content_type, file.type_guessed = closed.content_type, closed.type_guessed
        file.replaces(closed.base)
        file.stored = True  # for all we know: an upload may have been under way when the earlier mount ended
        file.mtime_ns = file.ctime_ns = closed.mtime_ns
        file.mode, file.uid, file.gid = stat.S_IFREG | closed.mode, closed.uid, closed.gid
        file.late = True
        if upload.failure is not None:
            file.failure = StoreError(upload.failure)
        if not upload.final:
            self._uploads.retry(file)

    def _resume_ghost(self, removed: Removed) -> None:
        heir = None if removed.heir is None else self._inodes.find(removed.heir)
        if removed.heir is not None and heir is None:  # nothing newer was closed under the new name
            heir = self._file_at(removed.heir)
            heir.origin, heir.listed_size = removed.key, removed.size
            heir.content_type, heir.type_guessed = removed.content_type, removed.type_guessed
            self._versions.attributes.restore([heir])
            self._uploads.retry(heir)
        path = names.decode(removed.key)
        folder, component = self._inodes.folder_at(path), path.rpartition(b"/")[2]
        ghost = Ghost(
            removed.key,
            folder,
            component,
            removed.content_type,
            removed.type_guessed,
            Base(True, removed.validator, removed.size),  # noqa: FBT003
            heir,
        )
        self._deletes.restore(ghost)

    def _file_at(self, key: RecordKey) -> File:
        path = names.decode(key)
        folder, component = self._inodes.folder_at(path), path.rpartition(b"/")[2]
        self._restore(folder)
        file = folder.files.get(component) or self._inodes.add_file(folder, component, key)
        file.changed_at = math.inf
        return file

    def _restore(self, folder: Folder) -> None:
        """Let a folder and those above it be there until a listing shows them."""
        while folder.parent is not None:
            folder.changed_at = math.inf
            folder = folder.parent
