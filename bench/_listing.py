"""Rows about a store of many keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import _mounts
from _rows import CLIENT, EXT4, KVSFS, SECONDS, Contestant, Figures, Row, Target
from _scene import Watch, seconds
from _small_files import DELAY, run_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from _scene import Scene
    from _stores import Store

WARM = "warm"


def _names(scene: Scene) -> list[str]:
    return [f"page-{number:09}.html" for number in range(scene.sizes.keys)]


def _many(scene: Scene) -> Store:
    return scene.servers.filled_store("apify", DELAY, "many", lambda store: store.index(_names(scene)))


def _ls(folder: Path) -> float:
    return seconds("ls", "-l", folder)


def listed_by_kvsfs(scene: Scene) -> Figures:
    store = _many(scene)
    with _mounts.kvsfs(store, scene.path("home")) as mount:
        watch = Watch(store.server)
        cold = _ls(mount.path)
        return {**watch.figures(cold), WARM: _ls(mount.path)}


def listed_by_client(scene: Scene) -> Figures:
    store = _many(scene)
    watch = Watch(store.server)
    return watch.figures(run_client("list", store, scene.folder))


def listed_on_disk(scene: Scene) -> Figures:
    folder = scene.path("many")
    for name in _names(scene):
        (folder / name).touch()
    cold = _ls(folder)
    return {SECONDS: cold, WARM: _ls(folder)}


def rows(keys: int) -> Iterator[Row]:
    yield Row(
        "ls",
        f"`ls -l` of {keys:,} keys, cold, then warm",
        {
            KVSFS: Contestant(listed_by_kvsfs),
            CLIENT: Contestant(listed_by_client),
            EXT4: Contestant(listed_on_disk),
        },
        [Target(SECONDS, 0.4, (CLIENT, SECONDS)), Target(WARM, 4, (EXT4, WARM))],
    )
