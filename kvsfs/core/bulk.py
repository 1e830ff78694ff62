"""Reading a folder as a whole by one request: the ZIP call.

An entry of an archive has no headers. Which version its bytes are, no validator tells; whether they are a record or
what a Content-Encoding has made of it, no type does. Therefore:

- the bytes count as validated when the archive was asked for, as every answer is newer than its question. Opened
  within `revalidate` seconds of that, a file costs no request; later a whole GET, unless a HEAD has proven meanwhile
  that they are the version which it names (`Versions.learn_head`);
- what could be, as a whole, the output of a Content-Encoding is left to a GET, whose headers tell. All that a server
  could have stored compressed is among that, so what remains are the bytes that a reader sees. Their length says
  nothing: a listing tells stored bytes, and most JSON is stored compressed. Only shorter than listed they cannot be,
  or the record was changed since: a GET, then;
- bytes that are here already are compared: the same ones are validated by it, as by so many conditional requests;
- the content type stays unknown until a HEAD tells it.

A reader of the folder waits for what the archive is about to bring, and the archive for its reader: it is never
further ahead than what has been read is long, or `FIRST_AHEAD`. So 30 files of a large store cost no more than that.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import trio

from kvsfs.core.background import Background
from kvsfs.core.inodes import File, Folder
from kvsfs.core.tuning import Tuning
from kvsfs.core.versions import Versions
from kvsfs.errors import KvsfsError, RequestRefused
from kvsfs.store.archive import Entry, Wanted
from kvsfs.store.decoding import may_be_encoded
from kvsfs.store.protocol import Store
from kvsfs.types import RecordKey

log = logging.getLogger(__name__)

LARGEST_ENTRY = 1024 * 1024
"""Bytes of an entry that are held in memory. A larger record is worth a request of its own."""

SMALL = 128 * 1024
"""Bytes of a record on average, up to which an archive is worth while: larger ones fill the line side by side."""

SMALL_CACHED = 16 * 1024
"""The same of records that are here, and only to be validated: a request for one, and its answer, are 1 KiB."""

FEWEST = 100
"""Files for which an archive is asked: fewer come as soon by requests side by side."""

MOST_BYTES = 256 * 1024 * 1024
"""Of a folder that is read: more would not come while it is trusted. Listed bytes; a warmed folder has no bound."""

UNPACKED = 20
"""So many times its listed bytes an archive may unpack to, and `FIRST_AHEAD`: JSON compresses to a tenth."""

FIRST_AHEAD = 1024 * 1024
"""Bytes that come before their reader has read as many: what a wrong guess costs."""

PATIENCE = 1.0
"""Seconds that a reader waits for an archive that brings nothing; then it asks by itself, and the archive ends. How
soon the platform's archives come is not documented."""

FAR = 1024
"""Files behind the last one that came: who opens one further on does not wait for it."""

IDLE = 2.0
"""Seconds without an open of a file that came, until the rest is given up."""

STALL = 5.0
"""Seconds that an archive which nobody waits for may bring nothing, or little."""

SLOWEST, SLOWEST_BYTES = 100, 5_000_000
"""Files a second, and bytes, below which an archive brings less than requests side by side under the rate limit."""

PAUSE = 60.0
"""Seconds without an archive after one that was of no use: of any folder, or of that one where the store refuses it."""

AT_ONCE = 8
"""Entries between two checkpoints: 1 ms."""


@dataclass(eq=False)
class _Reading:
    """An archive under way, and who waits for it."""

    files: dict[RecordKey, File]
    """What has not come yet, in listing order."""
    asked_at: float
    folder: Folder | None
    """Which one somebody reads meanwhile; None where nobody does, and nothing is waited for."""
    places: dict[RecordKey, int] = field(init=False)
    arrived: Callable[[File], None] = lambda _file: None
    reached: int = 0
    """The place of the last one that came."""
    ahead: dict[File, int] = field(default_factory=dict)
    """What came and was not opened yet: bytes."""
    ahead_bytes: int = 0
    read_bytes: int = 0
    bytes: int = 0
    """What came in all."""
    changed: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def __post_init__(self) -> None:
        self.places = {key: place for place, key in enumerate(self.files)}

    def brings(self, file: File) -> bool:
        """Tell whether a file is to come."""
        return self.files.get(file.key) is file

    @property
    def too_far_ahead(self) -> bool:
        """Whether the reader has to come first."""
        return self.folder is not None and self.ahead_bytes > max(FIRST_AHEAD, self.read_bytes)

    def came(self, file: File) -> None:
        """Count a file whose bytes are here."""
        self.bytes += file.size
        if self.folder is not None:
            self.ahead[file] = file.size
            self.ahead_bytes += file.size
        self.arrived(file)

    def notify(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


class Bulk:
    """Fills the cache with the records of folders."""

    def __init__(
        self,
        store: Store,
        versions: Versions,
        background: Background,
        arrived: Callable[[File], None],
        tuning: Tuning,
    ) -> None:
        """`arrived` hears of each file whose bytes came so."""
        self._store = store
        self._versions = versions
        self._background = background
        self._revalidate = tuning.revalidate
        self._most_bytes = min(MOST_BYTES, tuning.cache_bytes // 2)
        self._arrived = arrived
        self._readings: list[_Reading] = []
        self._quiet_until = -math.inf
        self._refused: dict[str, float] = {}
        """Prefix of a folder -> until when its archive is not asked for again."""

    def begin(self, folder: Folder, left: Collection[File]) -> bool:
        """Have the rest of a folder that somebody reads brought by an archive, if it is worth it. No checkpoint."""
        if self._is_quiet(folder.prefix) or not _is_known(folder) or folder.folders:
            return False
        files = self._missing(left)
        weight = sum(file.listed_size for file in folder.files.values())
        if weight > self._most_bytes or not _is_worth_it(files, weight):
            return False
        reading = self._make(files, folder)
        self._background.start(self._run, reading, folder.prefix, weight, self._revalidate)
        return True

    async def read(self, prefix: str, all_files: Collection[File], arrived: Callable[[File], None]) -> None:
        """Have files here that are all that there is below a prefix, as far as an archive is worth it. Raises nothing.

        `arrived` hears of each. What fails, or is left out, is for others to ask for. Checkpoints.
        """
        files = self._missing(all_files)
        weight = sum(file.listed_size for file in all_files)
        if not self._is_quiet(prefix) and _is_worth_it(files, weight):
            reading = self._make(files, None)
            reading.arrived = arrived
            await self._run(reading, prefix, weight, STALL)

    def is_reading(self, folder: Folder) -> bool:
        """Tell whether an archive of a folder is under way for who reads it. No checkpoint."""
        return any(reading.folder is folder for reading in self._readings)

    def brings(self, file: File) -> bool:
        """Tell whether a file is about to come. No checkpoint."""
        return any(reading.brings(file) for reading in self._readings)

    def opened(self, file: File) -> None:
        """Note that somebody reads a file: what comes may go on. No checkpoint."""
        for reading in self._readings:
            size = reading.ahead.pop(file, None)
            if size is not None:
                reading.ahead_bytes -= size
                reading.read_bytes += size
                reading.notify()

    async def wait_for(self, file: File) -> None:
        """Wait for a file that is about to come, if that is soon. Checkpoints only then."""
        for reading in self._readings:
            if reading.brings(file) and reading.places[file.key] - reading.reached <= FAR:
                await self._wait(reading, file)
                return

    def forget(self, file: File) -> None:
        """Leave a file out: it is written, moved or removed. No checkpoint."""
        for reading in self._readings:
            if reading.brings(file):
                del reading.files[file.key]
                reading.notify()

    def stop(self) -> None:
        """Give all archives up. No checkpoint."""
        for reading in self._readings:
            reading.scope.cancel()

    def _is_quiet(self, prefix: str) -> bool:
        return trio.current_time() < max(self._quiet_until, self._refused.get(prefix, -math.inf))

    def _missing(self, files: Collection[File]) -> dict[RecordKey, File]:
        return {
            file.key: file
            for file in sorted(files, key=lambda file: file.number)
            if file.stored
            and file.origin is None
            and file.listed_size <= LARGEST_ENTRY
            and not self._versions.is_current(file)
            and not self.brings(file)
        }

    def _make(self, files: dict[RecordKey, File], folder: Folder | None) -> _Reading:
        reading = _Reading(files, trio.current_time(), folder)
        self._readings.append(reading)
        return reading

    async def _run(self, reading: _Reading, prefix: str, weight: int, patience: float) -> None:
        # Only while it is trusted is it of use to a reader; who warms a folder wants all of it, as long as it moves.
        reading.scope.deadline = trio.current_time() + patience

        async def take(entries: Sequence[Entry]) -> None:
            await self._take(reading, entries)

        keys = frozenset(reading.files)
        wanted = Wanted(keys, LARGEST_ENTRY, at_most=UNPACKED * weight + FIRST_AHEAD)
        try:
            with reading.scope:
                await self._store.read_records(take, wanted, prefix=prefix or None)
        except RequestRefused as error:
            log.info("/%s is not fetched as a whole: %s", prefix, error)
            now = trio.current_time()
            self._refused = {folder: until for folder, until in self._refused.items() if now < until}
            self._refused[prefix] = now + PAUSE
        except (KvsfsError, OSError) as error:
            log.info("/%s was not fetched as a whole: %s", prefix, error)
            self._quiet_until = trio.current_time() + PAUSE
        finally:
            self._readings.remove(reading)
            reading.files.clear()
            reading.notify()

    async def _take(self, reading: _Reading, entries: Sequence[Entry]) -> None:
        for number, entry in enumerate(entries, 1):
            file = reading.files.pop(entry.key, None)
            if file is None:  # written, moved or removed meanwhile, or twice in the archive
                continue
            reading.reached = max(reading.reached, reading.places[entry.key])
            if self._adopt(reading, file, entry):
                reading.came(file)
                self._arrived(file)
            if number % AT_ONCE == 0:
                reading.notify()
                await trio.lowlevel.checkpoint()
        reading.notify()
        if reading.folder is None:
            self._expect_progress(reading)
        with trio.move_on_after(IDLE) as scope:
            while reading.too_far_ahead:
                await reading.changed.wait()
        if scope.cancelled_caught:
            reading.scope.cancel()

    def _expect_progress(self, reading: _Reading) -> None:
        now = trio.current_time()
        reading.scope.deadline = now + STALL
        elapsed = now - reading.asked_at
        if (
            elapsed > STALL
            and reading.reached < SLOWEST * elapsed
            and reading.bytes < SLOWEST_BYTES * elapsed
        ):
            self._give_up(reading)

    def _give_up(self, reading: _Reading) -> None:
        log.info("the archive of records is too slow: files are asked for one by one")
        self._quiet_until = trio.current_time() + PAUSE
        reading.scope.cancel()

    def _adopt(self, reading: _Reading, file: File, entry: Entry) -> bool:
        content = entry.content
        if (
            content is None
            or file.key != entry.key
            or len(content) < file.listed_size
            or may_be_encoded(content)
        ):
            return False
        return self._versions.adopt_bytes(file, content, reading.asked_at, entry.date)

    async def _wait(self, reading: _Reading, file: File) -> None:
        while reading.brings(file):
            with trio.move_on_after(PATIENCE) as scope:
                await reading.changed.wait()
            if scope.cancelled_caught:
                if reading.folder is not None and not reading.too_far_ahead:
                    self._give_up(reading)
                return


def _is_known(folder: Folder) -> bool:
    return folder.listing is not None and folder.listing.complete


def _is_worth_it(files: dict[RecordKey, File], weight: int) -> bool:
    """Tell whether an archive of so many bytes brings many small files, and mostly what is wanted."""
    wanted = sum(file.listed_size for file in files.values())
    cached = [file.listed_size for file in files.values() if file.content is not None]
    if sum(cached) > SMALL_CACHED * len(cached):
        return False
    return len(files) >= FEWEST and wanted <= SMALL * len(files) and 2 * wanted >= weight
