"""What names cost a listing: keys a second to file names, and back.

A page of 1,000 keys is turned into names while the next one is on its way (some 50 ms at best): at 1 us a key
that is 1 ms of the event loop. Best of five rounds, since the machine's noise only ever adds.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from kvsfs.core import names
from kvsfs.types import RecordKey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Given = TypeVar("Given")

COUNT = 100_000
ROUNDS = 5
BUDGET_US = 25  # a page of 1,000 in 25 ms, half of the way to the server and back

KINDS = {
    "plain": [RecordKey(f"record-{number:06}.json") for number in range(COUNT)],
    "folders": [RecordKey(f"crawl!2F2024-05!2Fpage-{number:06}.html") for number in range(COUNT)],
    "encoded": [names.encode(f"Bücher/Größe №{number:06} (neu).txt".encode()) for number in range(COUNT)],
}


def shown(key: RecordKey) -> list[bytes]:
    return [names.display(component) for component in names.decode(key).split(b"/")]


def key_of(shown_path: list[bytes]) -> RecordKey:
    return names.encode(b"/".join(map(names.component, shown_path)))


def microseconds_each(step: Callable[[Given], object], given: Sequence[Given]) -> float:
    def once() -> float:
        start = time.perf_counter()
        for one in given:
            step(one)
        return time.perf_counter() - start

    return min(once() for _ in range(ROUNDS)) / len(given) * 1e6


def main() -> int:
    worst = 0.0
    print(f"{'keys':10} {'to names':>12} {'to keys':>12}   (us each, {COUNT:,} keys)")
    for kind, keys in KINDS.items():
        paths = [shown(key) for key in keys]
        if [key_of(path) for path in paths] != keys:
            print(f"{kind}: the names do not lead back to the keys")
            return 1
        there, back = microseconds_each(shown, keys), microseconds_each(key_of, paths)
        worst = max(worst, there, back)
        print(f"{kind:10} {there:12.2f} {back:12.2f}")
    if worst > BUDGET_US:
        print(f"slower than the budget of {BUDGET_US} us a key")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
