"""The extended attributes of a store's folder: what the API tells of a store, and lets its owner change."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import get_args

from kvsfs.errors import FileError, RequestRefused, StoreNotFound
from kvsfs.store.protocol import Store
from kvsfs.store.sources import is_store_name
from kvsfs.types import GeneralAccess, StoreInfo

log = logging.getLogger(__name__)

KEYS_PUBLIC_URL = b"user.apify.keys_public_url"
NAME, TITLE, GENERAL_ACCESS = b"user.apify.name", b"user.apify.title", b"user.apify.general_access"

LEVELS: tuple[GeneralAccess, ...] = get_args(GeneralAccess)


class StoreXattrs:
    """Those of one store. Every method asks the store, and raises StoreError, or FileError with xattr(7)'s errno."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, name: bytes) -> str | None:
        """Give a value; None where there is none."""
        if name == KEYS_PUBLIC_URL:
            return await self._store.keys_public_url()
        reader = _READERS.get(name)
        if reader is None:
            return None
        info = await self._store.get()
        if info is None:
            raise StoreNotFound("the store does not exist any more")
        return reader(info)

    async def set(self, name: bytes, value: bytes) -> StoreInfo:
        """Change a value; the store as it is then. EPERM for what cannot be changed, EINVAL for what is refused.

        EEXIST for a name that another store has. The log says why.
        """
        text = value.decode(errors="replace").strip("\0")
        if name == GENERAL_ACCESS:
            return await self._store.update(general_access=_level(text))
        if name == TITLE:
            return await self._store.update(title=text)
        if name == NAME:
            return await rename(self._store, text)
        raise FileError(errno.EPERM)


async def rename(store: Store, name: str) -> StoreInfo:
    """Give a store another name; the store as it is then. EINVAL for what is none, EEXIST for one that is taken."""
    check_name(name)
    try:
        return await store.update(name=name)
    except RequestRefused as error:
        # The specification names no error type for this; the name itself was right.
        log.warning("a store cannot be called %s: %s", name, error)
        raise FileError(errno.EEXIST) from error


def check_name(name: str) -> None:
    """Raise FileError(EINVAL) for what the API would not take as a store's name, and say so in the log."""
    if not is_store_name(name):
        log.warning(
            "%r is no store's name: 1 to 63 letters, digits and dashes, and no dash at its ends", name
        )
        raise FileError(errno.EINVAL)


def _level(text: str) -> GeneralAccess:
    for level in LEVELS:
        if level == text:
            return level
    log.warning("%r is no general access of a store: it is one of %s", text, ", ".join(LEVELS))
    raise FileError(errno.EINVAL)


_READERS: dict[bytes, Callable[[StoreInfo], str | None]] = {
    b"user.apify.id": lambda info: info.id,
    NAME: lambda info: info.name,
    TITLE: lambda info: info.title,
    GENERAL_ACCESS: lambda info: info.general_access,
    b"user.apify.created_at": lambda info: info.created_at.isoformat(),
    b"user.apify.modified_at": lambda info: info.modified_at.isoformat(),
    b"user.apify.accessed_at": lambda info: info.accessed_at.isoformat(),
    b"user.apify.stats": lambda info: json.dumps(asdict(info.stats)),
}
