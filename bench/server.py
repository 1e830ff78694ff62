"""What `kvsfs serve` does in a second, each figure beside a control of the same run.

Figures of one machine, on one day, tell little: a ratio does. Rounds of a figure and its control alternate,
and the median of the rounds' ratios counts, so that what else the machine does strikes both.

Without arguments reduced sizes, some 90 s; with --full those that the promises are about, some 6 minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sqlite3
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from _servers import Running, control, kvsfs_serve, rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _servers import Request

IN_FLIGHT = 16
KIB4 = bytes(4096)
MIB = 1024 * 1024


@dataclass(frozen=True)
class Sizes:
    rounds: int
    round_seconds: float
    keys: int
    large_mib: int
    zipped: int


QUICK = Sizes(rounds=5, round_seconds=1.5, keys=200_000, large_mib=256, zipped=2_000)
FULL = Sizes(rounds=15, round_seconds=3.0, keys=1_000_000, large_mib=1024, zipped=10_000)


@dataclass(frozen=True)
class Row:
    what: str
    ours: str
    control: str
    ratio: float
    bound: float
    at_most: bool = False
    binding: bool = True

    @property
    def met(self) -> bool:
        return self.ratio <= self.bound if self.at_most else self.ratio >= self.bound

    def __str__(self) -> str:
        bound = f"{'<=' if self.at_most else '>='} {self.bound:g}" if self.binding else "(no bound)"
        verdict = "" if not self.binding else "ok" if self.met else "MISSED"
        return f"{self.what:36} {self.ours:>14} {self.control:>14} {self.ratio:7.2f}  {bound:11} {verdict}"


def new_store(server: Running) -> str:
    answer = httpx.post(f"http://127.0.0.1:{server.port}/v2/key-value-stores")
    return f"/v2/key-value-stores/{answer.json()['data']['id']}"


def small_records(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """GET and PUT of 4 KiB, 16 in flight."""
    with kvsfs_serve(folder / "data") as ours, control(folder / "control") as bare:
        records = f"{new_store(ours)}/records"

        def put(path: str) -> Callable[[int, int], Request]:
            return lambda number, turn: ("PUT", f"{path}/k{number}-{turn % 100}", KIB4)

        def get(path: str) -> Callable[[int, int], Request]:
            return lambda number, _turn: ("GET", f"{path}/k{number}-0", b"")

        def compared(what: str, ours_request: object, bare_request: object, *, binding: bool = True) -> Row:
            assert callable(ours_request)
            assert callable(bare_request)
            rates = [
                (
                    rate(ours.port, ours_request, in_flight=IN_FLIGHT, seconds=sizes.round_seconds),
                    rate(bare.port, bare_request, in_flight=IN_FLIGHT, seconds=sizes.round_seconds),
                )
                for _ in range(sizes.rounds)
            ]
            medians = [statistics.median(column) for column in zip(*rates, strict=True)]
            ratio = statistics.median(one / other for one, other in rates)
            return Row(what, f"{medians[0]:.0f}/s", f"{medians[1]:.0f}/s", ratio, 0.5, binding=binding)

        yield compared("PUT 4 KiB / route that writes a file", put(records), put("/file"))
        yield compared("  / one that keeps it in memory", put(records), put("/memory"), binding=False)
        yield compared("GET 4 KiB / route that returns it", get(records), get("/get"))


def pages(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """A page of 1,000 keys anywhere in a large store, against the same page in a store of 1,000."""
    with kvsfs_serve(folder) as server:
        small, large = new_store(server), new_store(server)
    _fill(folder, small, 1000)
    _fill(folder, large, sizes.keys)
    with kvsfs_serve(folder) as server, connected(server) as client:

        def seconds(store: str, start: int) -> float:
            before = time.perf_counter()
            answer = client.get(f"{store}/keys", params={"exclusiveStartKey": f"key-{start:09}"})
            elapsed = time.perf_counter() - before
            assert answer.json()["data"]["count"] in (999, 1000)
            return elapsed

        for where, start in (("first", 0), ("middle", sizes.keys // 2), ("last", sizes.keys - 1001)):
            times = [(seconds(large, start), seconds(small, 0)) for _ in range(sizes.rounds * 8)]
            ratio = statistics.median(one / other for one, other in times)
            told = [f"{statistics.median(column) * 1000:.2f} ms" for column in zip(*times, strict=True)]
            what = f"{where} page, {sizes.keys:,} / 1,000 keys"
            yield Row(what, told[0], told[1], ratio, 2.0, at_most=True)


def _fill(folder: Path, store: str, count: int) -> None:
    """Write keys into the index, past the server: a million PUTs take a quarter of an hour."""
    store_id = store.rpartition("/")[2]
    with contextlib.closing(sqlite3.connect(folder / "index.sqlite3")) as connection, connection:
        connection.executemany(
            "INSERT INTO records (store_id, key, size, content_type, content_encoding, etag, modified_at, file)"
            " VALUES (?, ?, 4096, 'application/octet-stream', NULL, ?, 0, ?)",
            ((store_id, f"key-{n:09}", f"{n:032x}", f"={store_id}{n:032x}") for n in range(count)),
        )


def large_record(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """PUT and GET of one large record: how much memory the server takes for it."""
    piece = bytes(range(256)) * (MIB // 256)

    def body() -> Iterator[bytes]:
        for _ in range(sizes.large_mib):
            yield piece

    with kvsfs_serve(folder) as server, connected(server) as client:
        path = f"{new_store(server)}/records/large"
        client.put(path, content=piece)
        client.get(path)
        before = server.peak_rss()
        started = time.perf_counter()
        client.put(path, content=body(), headers={"Content-Length": str(sizes.large_mib * MIB)})
        put_rate = sizes.large_mib / (time.perf_counter() - started)
        started = time.perf_counter()
        with client.stream("GET", path) as answer:
            received = sum(map(len, answer.iter_raw()))
        get_rate = sizes.large_mib / (time.perf_counter() - started)
        assert received == sizes.large_mib * MIB
        growth = (server.peak_rss() - before) / MIB
    rates = f"{put_rate:.0f}, {get_rate:.0f} MiB/s"
    yield Row(f"RSS growth in MiB, PUT+GET {sizes.large_mib} MiB", rates, "", growth, 64, at_most=True)


def archive(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """The ZIP of many records, against `zip -0` of the same files."""
    files = folder / "files"
    files.mkdir(parents=True)
    names = [f"record-{number:06}.json" for number in range(sizes.zipped)]
    for name in names:
        (files / name).write_bytes(KIB4)
    with kvsfs_serve(folder / "data") as server, connected(server) as client:
        store = new_store(server)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda name: client.put(f"{store}/records/{name}", content=KIB4), names))
        target = folder / "records.zip"

        def ours() -> float:
            started = time.perf_counter()
            with client.stream("GET", f"{store}/records") as answer, target.open("wb") as file:
                for piece in answer.iter_raw():
                    file.write(piece)
            return time.perf_counter() - started

        def theirs() -> float:
            with_zip = folder / "zip.zip"
            with_zip.unlink(missing_ok=True)
            started = time.perf_counter()
            subprocess.run(["zip", "-0", "-q", "-r", str(with_zip), "."], cwd=files, check=True)
            return time.perf_counter() - started

        times = [(ours(), theirs()) for _ in range(sizes.rounds)]
        assert subprocess.run(["zip", "-T", "-q", str(target)], check=False).returncode == 0
    ratio = statistics.median(other / one for one, other in times)
    told = [f"{statistics.median(column):.2f} s" for column in zip(*times, strict=True)]
    yield Row(f"ZIP of {sizes.zipped:,} records / zip -0", told[0], told[1], ratio, 0.5)


@contextlib.contextmanager
def connected(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=600) as client:
        yield client


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="the sizes that the promises are about")
    sizes = FULL if parser.parse_args().full else QUICK
    if shutil.which("zip") is None:
        print("zip is missing: install it, it is what the archive is compared with")
        return 1
    print(f"{'':36} {'kvsfs serve':>14} {'control':>14} {'ratio':>7}")
    missed = 0
    for measure in (small_records, pages, large_record, archive):
        with tempfile.TemporaryDirectory(prefix="kvsfs-bench-") as folder:
            for row in measure(Path(folder) / measure.__name__, sizes):
                print(row, flush=True)
                missed += row.binding and not row.met
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
