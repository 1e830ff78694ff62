"""Fetching what is about to be read: the next files of a folder that somebody reads in its order.

A program that copies a folder opens one file after the other, and each open would wait for a round trip. Once it
has opened a few in listing order, the next ones are asked for side by side, before it comes to them: fetched, or
validated where they are cached. Nothing of it shows but its speed: what fails is asked for again by the open.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter

import trio

from kvsfs.core.background import Background
from kvsfs.core.bulk import Bulk
from kvsfs.core.inodes import File, Folder
from kvsfs.core.tuning import Tuning
from kvsfs.core.versions import Versions
from kvsfs.errors import KvsfsError, RecordNotFound, RecordTooLarge

log = logging.getLogger(__name__)

OPENS_BEFORE = 3
"""Files opened in order before anything is fetched ahead: `diff a b` and `vim a b` cost two requests."""

FIRST_WINDOW = 2
"""Files ahead at first. Each one that is read adds another: the window doubles with each round trip."""

LARGEST_WINDOW = 64
"""Files ahead at most: what the requests side by side bring in two round trips."""

AT_A_TIME = 40
"""Requests side by side: of the connections for bodies (48) some stay for what is not guessed. At 50 ms a request
they are 800 a second; where the platform's 200 hold, ten would do."""

AHEAD_BYTES = 64 * 1024 * 1024
"""Bytes ahead at most, of all readers together: half a second of a fast line."""

LARGEST_RECORD = 8 * 1024 * 1024
"""A larger record is not fetched ahead: its bytes take longer than the round trip that would be saved."""

WHOLE_OPENS = OPENS_BEFORE + 1
"""Files opened in order, from the folder's first on, that show that it is read as a whole; from another one on it is
the window that shows it."""

WHOLE_WINDOW = 16
"""Files ahead, all of them right so far, that show it as well."""

NEAR = 4
"""Files that a reader may leave out, or that several readers in one folder may be out of step, at first."""

LATE = 32
"""So far behind the newest open, what was fetched ahead counts as not wanted."""

MOST_RUNS = 32
"""Readers that are told apart: `xargs -P16` with two folders each."""

PATIENCE = 5.0
"""Seconds for the headers of what is fetched ahead. Who opens the file meanwhile waits for them, and then asks anew."""

PAUSE = 5.0
"""Seconds without guesses after a request failed: the store is busy or out of reach."""


class _Order:
    """The files of a folder in the order in which its listing showed them, as far as it was listed at one moment.

    That is by inode number: `ls -U`, `cp -r` and `tar` go by it, and `rsync` by names, which is nearly the same.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._listed = _progress(folder)
        self._files = sorted(folder.files.values(), key=_NUMBER)

    @property
    def outdated(self) -> bool:
        """Whether a page came since. Sorting anew costs a tenth of what reading the files of a page does."""
        return self._listed != _progress(self._folder)

    @property
    def first(self) -> int:
        """The number of its first file."""
        return self._files[0].number if self._files else 0

    def after(self, number: int) -> Iterator[File]:
        """Give the files behind a number."""
        return islice(self._files, bisect_left(self._files, number + 1, key=_NUMBER), None)


@dataclass(slots=True, eq=False)
class _Run:
    """One reader's way through a folder, by inode numbers."""

    folder: Folder
    number: int
    """The furthest one opened."""
    seen_at: float
    began: int
    """The first one opened."""
    opens: int = 0
    window: int = 0
    reached: int = 0
    """What is up to it was fetched ahead, or needs not to be."""
    ahead: dict[int, File] = field(default_factory=dict)
    """Fetched ahead, or about to be, and not opened yet."""
    judged_at: int = 0
    """Opens when an archive was thought of last: it is thought of again at twice as many."""
    order: _Order | None = None
    """None until it is needed: sorting a million files takes 0.1 s."""

    def comes_to(self, file: File) -> bool:
        """Tell whether a file is on this reader's way."""
        furthest = max(self.number, self.reached)
        return file.parent is self.folder and self.number - LATE <= file.number <= furthest + NEAR

    def opened(self, number: int, now: float) -> None:
        """Go on to a file."""
        self.opens += number > self.number
        self.number = max(self.number, number)
        self.reached = max(self.reached, self.number)
        self.seen_at = now
        if self.opens >= OPENS_BEFORE:
            self.window = max(self.window, FIRST_WINDOW)

    def was_right(self) -> None:
        """Look further ahead."""
        self.window = min(LARGEST_WINDOW, self.window + 1)

    def was_wrong(self) -> None:
        """Look less far ahead; in the end not at all, until some files were opened in order again."""
        self.window //= 2
        if self.window < FIRST_WINDOW:
            self.window = self.opens = 0


class Prefetch:
    """Guesses which files are opened next, and has their current versions here by then.

    A guess counts as validated when its answer comes, as an open does: it holds for `revalidate` seconds. What
    was not opened by then was a wrong guess.
    """

    def __init__(self, versions: Versions, bulk: Bulk, background: Background, tuning: Tuning) -> None:
        self._versions = versions
        self._bulk = bulk
        self._background = background
        self._revalidate = tuning.revalidate
        self._most_bytes = min(AHEAD_BYTES, tuning.cache_bytes // 2)
        self._runs: list[_Run] = []
        """The latest last."""
        self._queue: deque[File] = deque()
        self._running: dict[File, trio.CancelScope] = {}
        self._workers = 0
        self._quiet_until = -math.inf

    def opened(self, file: File) -> None:
        """Note that somebody opens a file to read it, and guess. No checkpoint."""
        if file.parent is None or not file.in_store:
            return
        now = trio.current_time()
        self._runs = [run for run in self._runs if now - run.seen_at < self._revalidate]
        run = self._run(file.parent, file, now)
        self._judge(run, file)
        run.opened(file.number, now)
        self._bulk.opened(file)
        if run.window and now >= self._quiet_until and not self._is_brought(run):
            self._extend(run)

    async def wait_for(self, file: File) -> None:
        """Wait for a file that an archive is about to bring, if that is soon. Checkpoints only then."""
        await self._bulk.wait_for(file)

    def forget(self, file: File) -> None:
        """Give up what is being fetched of a file: it is written, moved or removed. No checkpoint."""
        self._bulk.forget(file)
        if file in self._running:
            self._running.pop(file).cancel()

    def stop(self) -> None:
        """Give up all that is being fetched. No checkpoint."""
        self._bulk.stop()
        self._queue.clear()
        for file in list(self._running):
            self.forget(file)

    def _run(self, folder: Folder, file: File, now: float) -> _Run:
        """Find the reader who comes to a file; the latest, where there are several."""
        for run in reversed(self._runs):
            if run.comes_to(file):
                return run
        run = _Run(folder, file.number - 1, now, file.number)
        self._runs = [*self._runs[1 - MOST_RUNS :], run]
        return run

    def _judge(self, run: _Run, file: File) -> None:
        """Learn from an open how good the guesses are."""
        if run.ahead.pop(file.number, None) is not None:
            if file in self._queue:  # the open asks for it now
                self._queue.remove(file)
                run.was_right()
            elif file in self._running or self._versions.is_current(file):
                run.was_right()
            else:  # fetched too early, or evicted since
                run.was_wrong()
        for late in [number for number in run.ahead if number < file.number - LATE]:
            del run.ahead[late]
            run.was_wrong()

    def _is_brought(self, run: _Run) -> bool:
        """Tell whether an archive brings what comes next; ask for one where the folder is read as a whole."""
        if self._bulk.is_reading(run.folder):
            return True
        if run.opens < max(WHOLE_OPENS, 2 * run.judged_at):
            return False
        order = self._order(run)
        if run.window < WHOLE_WINDOW and run.began != order.first:
            return False
        run.judged_at = run.opens
        return self._bulk.begin(run.folder, list(order.after(run.reached)))

    def _extend(self, run: _Run) -> None:
        """Ask for what has come into the window."""
        # What is read now must find room: on a small disk the files ahead took it, and the reader got ENOSPC.
        room = min(self._most_bytes, self._versions.free_bytes() // 2)
        left = room - sum(file.size for other in self._runs for file in other.ahead.values())
        for file in islice(self._order(run).after(run.number), run.window):
            if file.number <= run.reached:
                continue
            if self._is_wanted(file, run.folder):
                left -= file.size
                if left < 0:
                    break
                run.ahead[file.number] = file
                self._queue.append(file)
            run.reached = file.number
        while self._workers < min(AT_A_TIME, len(self._queue) + len(self._running)):
            self._workers += 1
            self._background.start(self._work)

    def _order(self, run: _Run) -> _Order:
        """Give the order of a reader's folder; all who read there share it."""
        if run.order is None or run.order.outdated:
            known = (other.order for other in self._runs if other.folder is run.folder)
            run.order = next((o for o in known if o and not o.outdated), None) or _Order(run.folder)
        return run.order

    def _is_wanted(self, file: File, folder: Folder) -> bool:
        if file.parent is not folder or not file.in_store or file.handles or file in self._running:
            return False
        if self._bulk.brings(file):
            return False
        return file.size <= LARGEST_RECORD and not self._versions.is_current(file)

    async def _work(self) -> None:
        """Fetch until nothing is left to do: many files by one task."""
        try:
            while self._queue:
                await self._fetch(self._queue.popleft())
        finally:
            self._workers -= 1

    async def _fetch(self, file: File) -> None:
        if file in self._running or file.removed or not file.in_store:
            return
        with trio.CancelScope() as scope:
            self._running[file] = scope
            try:
                await self._versions.fetch_whole(file, patience=PATIENCE, at_most=LARGEST_RECORD)
            except (RecordNotFound, RecordTooLarge):
                pass  # its name is gone, or its bytes: stored compressed, they are not
            except (KvsfsError, OSError) as error:
                log.info("%s was not fetched ahead: %s", file.key, error)
                self._queue.clear()
                self._quiet_until = trio.current_time() + PAUSE
            finally:
                if self._running.get(file) is scope:
                    del self._running[file]


_NUMBER = attrgetter("number")


def _progress(folder: Folder) -> tuple[int, int]:
    listing = folder.listing
    return (0, 0) if listing is None else (listing.number, listing.pages)
