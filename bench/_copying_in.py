"""Rows about writing many small files into a mount."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import _mounts
from _rows import CLIENT, CURL, KVSFS, RCLONE, RETURNED, S3FS, SECONDS, Contestant, Figures, Row, Target
from _scene import Watch, seconds
from _small_files import CPU, DELAY, client, cp, filled, rsync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from _scene import Scene
    from _stores import Kind, Store

    Mounting = Callable[..., AbstractContextManager[_mounts.Mount]]

WRITE_BACK = ["--write-back", "10ms"]
RCLONE_WRITE_BACK = "--vfs-write-back=10ms"  # 0 would upload in close


def written_back_by_kvsfs(scene: Scene) -> Figures:
    store = scene.servers.new_store("apify", DELAY)
    with _mounts.kvsfs(store, scene.path("home"), *WRITE_BACK) as mount:
        return _written(scene, store, mount)


def written_back_by_rclone(scene: Scene) -> Figures:
    store = scene.servers.new_store("s3", DELAY)
    with _mounts.rclone(store, scene.path("home"), RCLONE_WRITE_BACK) as mount:
        return _written(scene, store, mount)


def _written(scene: Scene, store: Store, mount: _mounts.Mount) -> Figures:
    """Copy in; until the command returns, and until the store has all."""
    watch, used = Watch(store.server), mount.cpu_seconds()
    returned = cp(scene.source(), mount.path)
    stored = watch.wait_for("PUT", scene.sizes.files)
    cpu = (mount.cpu_seconds() - used) / scene.sizes.files * 1000
    return {**watch.figures(stored), RETURNED: returned, CPU: cpu}


def written_by_s3fs(scene: Scene) -> Figures:
    store = scene.servers.new_store("s3", DELAY)
    with _mounts.s3fs(store, scene.path("home")) as mount:
        watch = Watch(store.server)
        return watch.figures(cp(scene.source(), mount.path))


def written_through(scene: Scene, *, parallel: bool) -> Figures:
    """Copy in, in the default mode: each close waits for the store."""
    store = scene.servers.new_store("apify", DELAY)
    with _mounts.kvsfs(store, scene.path("home")) as mount:
        watch = Watch(store.server)
        return watch.figures((_cp_in_sixteen if parallel else cp)(scene.source(), mount.path))


def _cp_in_sixteen(source: Path, target: Path) -> float:
    """16 a process: starting a thousand of them would be measured otherwise."""
    script = 'find . -type f -print0 | xargs -0 -P16 -n16 cp -t "$1"'
    return seconds("sh", "-ec", script, "sh", target, cwd=source)


def round_trip(scene: Scene) -> Figures:
    """What a request takes: PUT and GET are delayed alike."""
    store = filled(scene, "apify", DELAY)
    return {SECONDS: store.round_trip(next(scene.source().iterdir()).name)}


def synced_by_kvsfs(scene: Scene) -> Figures:
    return _synced(scene, "apify", _mounts.kvsfs, [])


def synced_by_rclone(scene: Scene) -> Figures:
    # with times from metadata: else rsync finds all of them wrong, and sends everything again
    return _synced(scene, "s3", _mounts.rclone, [RCLONE_WRITE_BACK])


def _synced(
    scene: Scene,
    kind: Kind,
    mounted: Mounting,
    options: list[str],
) -> Figures:
    """Sync in, mount anew with the same cache, sync again."""
    store = scene.servers.new_store(kind, DELAY)
    home = scene.path("home")
    with mounted(store, home, *options) as mount:
        watch = Watch(store.server)
        rsync(scene.source(), mount.path)
        watch.wait_for("PUT", scene.sizes.files)
    with mounted(store, home, *options) as mount:
        watch = Watch(store.server)
        return {"PUTs": 0.0, "LISTs": 0.0, **watch.figures(rsync(scene.source(), mount.path))}


def rows(files: int) -> Iterator[Row]:
    yield Row(
        "cp-in-write-back",
        "`cp -r` in with --write-back, until all is in the store",
        {
            KVSFS: Contestant(written_back_by_kvsfs),
            CLIENT: Contestant(partial(client, latency=DELAY, what="put")),
            RCLONE: Contestant(written_back_by_rclone, every_round=False),
            S3FS: Contestant(written_by_s3fs, every_round=False),
        },
        [
            Target(SECONDS, 2, (CLIENT, SECONDS)),
            Target(RETURNED, 1, (RCLONE, RETURNED)),
            Target(CPU, 2, (RCLONE, CPU), binding=False),
        ],
    )
    for name, what, writers, bound in (
        ("cp-in", "`cp -r` in, default mode", 1, 1.25),
        ("cp-in-16", "16 times `cp` in at once, default mode", 16, 1.5),
    ):
        times = files / writers
        yield Row(
            name,
            what,
            {
                KVSFS: Contestant(partial(written_through, parallel=writers > 1)),
                CURL: Contestant(round_trip),
            },
            [Target(SECONDS, bound, (CURL, SECONDS), times=times, told=f"{times:g} round trips")],
        )
    yield Row(
        "rsync-again",
        "`rsync -a` in, nothing changed, in a new mount",
        {
            KVSFS: Contestant(synced_by_kvsfs),
            RCLONE: Contestant(synced_by_rclone, every_round=False),
        },
        [
            Target("PUTs", 0),
            Target("LISTs", -(-files // 1000)),
            Target(SECONDS, 0.5, (RCLONE, SECONDS)),
        ],
    )
