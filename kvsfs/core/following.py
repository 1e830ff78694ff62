"""A mount whose store may be another one tomorrow: nothing that is known of the one holds for the other.

Such a mount is read-only: what was written for one run would else be uploaded to the next one.
"""

from __future__ import annotations

import logging

import trio

from kvsfs.core.attributes import KeptAttributes
from kvsfs.core.inodes import File, Folder, InodeTable
from kvsfs.core.versions import Versions
from kvsfs.store.following import FollowingStore

log = logging.getLogger(__name__)


class Follower:
    """Looks where the store is, before a file is opened or a folder read, and changes over.

    While an answer of the old store is on its way, the old one is shown on: the next open or listing looks again.
    """

    def __init__(
        self,
        store: FollowingStore,
        inodes: InodeTable,
        versions: Versions,
        attributes: KeptAttributes,
        interval: float,
    ) -> None:
        """`interval`: seconds for which the last answer is good."""
        self._store = store
        self._inodes = inodes
        self._versions = versions
        self._attributes = attributes
        self._interval = interval
        attributes.forget_all()  # of an earlier mount, and so of another run, who knows

    async def follow(self) -> None:
        """Change over if the path leads to another store. Checkpoints only when it asks; raises nothing."""
        newer = await self._store.newer(self._interval)
        if newer is None or self._store.busy:
            return
        log.info("the last run is a newer one: from here on its store is shown, %s", newer.id)
        self._store.switch(newer)
        self._attributes.forget_all()
        self._inodes.default_time_ns = int(newer.created_at.timestamp() * 1_000_000_000)
        self._empty(self._inodes.root)

    async def run(self, interval: float) -> None:
        """Look every `interval` seconds, until cancelled."""
        while True:
            await trio.sleep(interval)
            if await self._store.newer(self._interval) is not None:
                await self._store.idle()  # others look at this moment, too: the poller
                await self.follow()

    def _empty(self, folder: Folder) -> None:
        for child in list(folder.children()):
            if isinstance(child, Folder):
                self._empty(child)
                self._versions.detach(child)
            else:
                self._take_out(child)
        folder.listing, folder.listed_once, folder.marker = None, False, False
        folder.removals.clear()

    def _take_out(self, file: File) -> None:
        """Take a file's name away, and its bytes; whoever has it open reads on what is here."""
        file.stored, file.superseded = False, True
        self._versions.detach(file)
        self._versions.drop(file)
