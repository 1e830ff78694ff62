"""Rows about reading many small files out of a mount."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import _mounts
from _rows import CLIENT, EXT4, KVSFS, RCLONE, S3FS, SECONDS, Contestant, Figures, Row, Target
from _scene import Watch
from _small_files import CPU, DELAY, client, cp, filled, grep, rsync, tar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from _scene import Scene
    from _stores import Store

    Reading = Callable[[Path, Path], float]
    """Seconds of a command that reads all of the first folder, maybe into the second."""

LONG_DELAY = 0.05
LATER = "6 s later"
"""When each file is checked against the store before it is opened; rclone trusts what it knows for minutes."""


def read_by_kvsfs(scene: Scene, *, latency: float, command: Reading) -> Figures:
    store = filled(scene, "apify", latency)
    with _mounts.kvsfs(store, scene.path("home")) as mount:
        return _read(scene, store, mount, command)


def read_by_rclone(scene: Scene, *, latency: float, command: Reading) -> Figures:
    store = filled(scene, "s3", latency)
    # times of the listing are enough to read: those in metadata would be a HEAD for each file
    with _mounts.rclone(store, scene.path("home"), "--use-server-modtime") as mount:
        return _read(scene, store, mount, command)


def read_by_s3fs(scene: Scene, *, latency: float, command: Reading) -> Figures:
    store = filled(scene, "s3", latency)
    with _mounts.s3fs(store, scene.path("home")) as mount:
        return _read(scene, store, mount, command)


def _read(scene: Scene, store: Store, mount: _mounts.Mount, command: Reading) -> Figures:
    watch, used = Watch(store.server), mount.cpu_seconds()
    elapsed = command(mount.path, scene.path("out"))
    cpu = (mount.cpu_seconds() - used) / scene.sizes.files * 1000
    return {**watch.figures(elapsed), CPU: cpu}


def copied_on_disk(scene: Scene) -> Figures:
    scene.source()
    return {SECONDS: cp(scene.source(), scene.path("out"))}


def cached_by_kvsfs(scene: Scene) -> Figures:
    store = filled(scene, "apify", DELAY)
    with _mounts.kvsfs(store, scene.path("home")) as mount:
        cp(mount.path, scene.path("out"))
        watch = Watch(store.server)
        found = watch.figures(cp(mount.path, scene.path("again")))
        time.sleep(scene.sizes.stale_after)
        return {**found, LATER: cp(mount.path, scene.path("later"))}


def cached_by_rclone(scene: Scene) -> Figures:
    store = filled(scene, "s3", DELAY)
    with _mounts.rclone(store, scene.path("home"), "--use-server-modtime") as mount:
        cp(mount.path, scene.path("out"))
        watch = Watch(store.server)
        return watch.figures(cp(mount.path, scene.path("again")))


def rows() -> Iterator[Row]:
    """Rows of what reads everything once, nothing cached."""
    for name, what, command, bound, latency in (
        ("cp-out", "`cp -r` out, cold", cp, 2, DELAY),
        ("cp-out-50ms", "`cp -r` out, cold, 50 ms a request", cp, 2, LONG_DELAY),
        ("grep", "`grep -r`, cold", grep, 2.5, DELAY),
        ("tar", "`tar c`, cold", tar, 2.5, DELAY),
        ("rsync-out", "`rsync -a` out, cold", rsync, 2.5, DELAY),
    ):
        ours = partial(read_by_kvsfs, latency=latency, command=command)
        contestants = {
            KVSFS: Contestant(ours),
            CLIENT: Contestant(partial(client, latency=latency, what="get")),
        }
        targets = [Target(SECONDS, bound, (CLIENT, SECONDS))]
        if command is cp:
            theirs = partial(read_by_rclone, latency=latency, command=command)
            contestants[RCLONE] = Contestant(theirs, every_round=False)
            targets += [
                Target(SECONDS, 20, (RCLONE, SECONDS), speed=True),
                Target(CPU, 2, (RCLONE, CPU), binding=False),
            ]
        if command is cp and latency == DELAY:
            slowly = partial(read_by_s3fs, latency=latency, command=command)
            contestants[S3FS] = Contestant(slowly, every_round=False)
        yield Row(name, what, contestants, targets, slow=name in ("cp-out-50ms", "tar"))
    yield Row(
        "cp-out-cached",
        "`cp -r` out again, cached",
        {
            KVSFS: Contestant(cached_by_kvsfs),
            EXT4: Contestant(copied_on_disk),
            RCLONE: Contestant(cached_by_rclone, every_round=False),
        },
        [Target(SECONDS, 10, (EXT4, SECONDS)), Target(LATER, 10, (EXT4, SECONDS), binding=False)],
    )
