"""Extended attributes: a record's content type, its key and URL, and how its upload is doing.

Only `user.mime_type` is listed, so that `cp -a` and backups carry the type but never a signed URL; the others
answer by name. Names outside `user.` get EOPNOTSUPP, after which `ls` stops asking (PERFORMANCE.md).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta

from kvsfs.core import content_types
from kvsfs.core.inodes import File, Folder
from kvsfs.core.name_rules import NameRules
from kvsfs.core.records import Records
from kvsfs.core.store_xattrs import StoreXattrs
from kvsfs.core.versions import Versions
from kvsfs.errors import FileError
from kvsfs.store.protocol import Store

MIME_TYPE = b"user.mime_type"
PUBLIC_URL = b"user.apify.public_url"
"""A folder's takes parameters, as in `user.apify.public_url?expires=3600&limit=10`: seconds, and keys at a time."""

FileReader = Callable[[File], Awaitable[str | None]]


class Xattrs:
    """Reads and writes extended attributes. Every method raises FileError with the errno of xattr(7)."""

    def __init__(self, store: Store, versions: Versions, records: Records, rules: NameRules) -> None:
        self.type_asked: Callable[[], None] = lambda: None
        """Called before a type is given."""
        self._store = store
        self._rules = rules
        self._versions = versions
        self._records = records
        self._of_store = StoreXattrs(store)
        self._of_file: dict[bytes, FileReader] = {
            MIME_TYPE: self._mime_type,
            b"user.apify.key": self._key,
            PUBLIC_URL: self._public_url,
            b"user.apify.content_encoding": self._content_encoding,
            b"user.kvsfs.state": self._state,
        }

    async def get(self, inode: File | Folder, name: bytes) -> bytes:
        """Give a value. ENODATA where there is none, EOPNOTSUPP outside `user.`."""
        _require_user(name)
        value: str | None = None
        if isinstance(inode, Folder) and name.partition(b"?")[0] == PUBLIC_URL:
            value = await self._url_of_folder(inode, name.partition(b"?")[2])
        elif isinstance(inode, File):
            reader = self._of_file.get(name)
            value = await reader(inode) if reader is not None else None
        elif inode.parent is None:
            value = await self._of_store.get(name)
        if value is None:
            raise FileError(errno.ENODATA)
        return value.encode()

    async def list(self, inode: File | Folder) -> list[bytes]:
        """Give the names that backups should carry."""
        has_type = isinstance(inode, File) and (inode.in_store or inode.content_type is not None)
        return [MIME_TYPE] if has_type else []

    async def set(self, inode: File | Folder, name: bytes, value: bytes) -> None:
        """Change a value. EPERM where it is read-only, EINVAL where it is refused, EOPNOTSUPP for other names."""
        _require_user(name)
        if isinstance(inode, File) and name == MIME_TYPE:
            await self._set_mime_type(inode, value)
        elif isinstance(inode, Folder) and inode.parent is None and name.startswith(b"user.apify."):
            await self._of_store.set(name, value)
        elif name.startswith((b"user.apify.", b"user.kvsfs.")):
            raise FileError(errno.EPERM)
        else:
            raise FileError(errno.EOPNOTSUPP)

    async def remove(self, inode: File | Folder, name: bytes) -> None:
        """Take back a type: what is left is the guess, if the store has nothing else. EPERM for all the rest.

        `rsync -X` does so where the source has none.
        """
        await self.get(inode, name)
        if name != MIME_TYPE or not isinstance(inode, File) or (inode.stored and not inode.type_guessed):
            raise FileError(errno.EPERM)
        if not inode.stored:
            inode.content_type = None

    async def _mime_type(self, file: File) -> str | None:
        if not file.in_store and file.content_type is None:
            return None
        self.type_asked()
        await self._versions.learn_type(file)
        return file.content_type

    async def _key(self, file: File) -> str | None:
        return self._rules.key_in_store(file.key)

    async def _public_url(self, file: File) -> str | None:
        return await self._store.record_public_url(file.key) if file.stored else None

    async def _url_of_folder(self, folder: Folder, parameters: bytes) -> str:
        """Give the URL that lists what is in a folder. EINVAL for parameters that there are not."""
        wanted = _parameters(parameters)
        seconds = wanted.get("expires")
        return await self._store.keys_public_url(
            prefix=folder.prefix or None,
            limit=wanted.get("limit"),
            expires_in=None if seconds is None else timedelta(seconds=seconds),
        )

    async def _content_encoding(self, file: File) -> str | None:
        await self._versions.learn_type(file)
        return file.head.content_encoding if file.head is not None else None

    async def _state(self, file: File) -> str | None:
        return file.state

    async def _set_mime_type(self, file: File, value: bytes) -> None:
        content_type = value.decode("ascii", errors="replace").strip("\0 ")
        if not content_types.is_valid(content_type):
            raise FileError(errno.EINVAL)
        uploading = file.content is not None and file.content.uploading  # with the type it had
        if (file.dirty or not file.in_store) and not uploading:
            file.content_type, file.type_guessed = content_type, False
            self._records.describe(file)
            return
        await self._versions.learn_type(file)
        if file.content_type != content_type:
            await self._records.retype(file, content_type)


def _parameters(text: bytes) -> dict[str, int]:
    found = {}
    for parameter in filter(None, text.decode(errors="replace").split("&")):
        name, _, value = parameter.partition("=")
        if name not in ("expires", "limit") or not re.fullmatch("[0-9]{1,9}", value):
            raise FileError(errno.EINVAL)
        found[name] = int(value)
    return found


def _require_user(name: bytes) -> None:
    if not name.startswith(b"user."):
        raise FileError(errno.EOPNOTSUPP)
