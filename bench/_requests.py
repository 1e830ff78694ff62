"""The row about requests: what each action costs, which no machine makes slower."""

from __future__ import annotations

from typing import TYPE_CHECKING

import _mounts
from _rows import KVSFS, Contestant, Figures, Row, Target
from _scene import Watch, seconds
from _small_files import DELAY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _scene import Scene

ACTIONS = {
    "ls": ("ls -l", {"LIST": 1}),
    "ls again": ("ls -l", {}),
    "stat": ("stat *-00001.json", {}),
    "an absent name": ("! stat absent", {}),
    "create": ("echo x > new", {"PUT": 1}),
    "overwrite": ("echo yy > new", {"PUT": 1}),
    "write in a group": ("{ echo a; echo b; } > new", {"PUT": 1}),
    "sed -i": ("sed -i s/a/c/ new", {"PUT": 1}),
    "read": ("cat *-00002.json", {"GET": 1}),
    "read again": ("cat *-00002.json", {}),
    "rm": ("rm new", {"DELETE": 1}),
}
"""What is typed, and what it may ask of the store (docs/REQUESTS.md)."""


BESIDE = "too many or too few"


def counted(scene: Scene) -> Figures:
    """Give how many requests each action asks too many, or too few."""
    store = scene.servers.new_store("apify", DELAY)
    store.fill(scene.source())
    found: Figures = {}
    with _mounts.kvsfs(store, scene.path("home")) as mount:
        for action, (script, budget) in ACTIONS.items():
            watch = Watch(store.server)
            seconds("sh", "-c", script, cwd=mount.path)
            requests = watch.requests()
            found[action] = sum(abs(requests[name] - budget.get(name, 0)) for name in {*requests, *budget})
    return {BESIDE: sum(found.values()), **found}


def rows() -> Iterator[Row]:
    what = f"requests beside the budget, of {len(ACTIONS)} actions"
    yield Row("requests", what, {KVSFS: Contestant(counted)}, [Target(BESIDE, 0)])
