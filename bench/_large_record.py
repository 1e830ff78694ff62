"""Rows about one large record: throughput, which no delay hides, so the server of these has none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import _mounts
from _rows import CURL, EXT4, KVSFS, PASSTHROUGH, RCLONE, SECONDS, Contestant, Figures, Row, Target
from _scene import MIB, Watch, seconds
from _stores import TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _scene import Scene
    from _stores import Store

WARM = "page cache warm"
WRITTEN = "written, not closed"
KEY = "large"
BLOCK = f"bs={MIB}"
CURL_COMMAND = [
    "curl",
    "-sf",
    "-H",
    f"Authorization: Bearer {TOKEN}",
    "-H",
    "Content-Type: application/octet-stream",
]

WRITER = """
import os, sys, time
with open(sys.argv[1], "rb", buffering=0) as source:
    started = time.perf_counter()
    target = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    while piece := source.read(1 << 20):
        os.write(target, piece)
    written = time.perf_counter() - started
    os.close(target)
    print(written, time.perf_counter() - started)
"""
"""dd does not tell how long close(2) took."""


def _filled(scene: Scene) -> Store:
    def put(store: Store) -> None:
        seconds(*CURL_COMMAND, "-T", scene.large(), store.record_url(KEY))

    return scene.servers.filled_store("apify", 0.0, KEY, put)


def _dd(file: Path) -> float:
    return seconds("dd", f"if={file}", "of=/dev/null", BLOCK)


def _cold_and_warm(scene: Scene, file: Path) -> Figures:
    scene.drop_caches()
    return {SECONDS: _dd(file), WARM: min(_dd(file) for _ in range(2))}


def cached_by_kvsfs(scene: Scene) -> Figures:
    store = _filled(scene)
    with _mounts.kvsfs(store, scene.path("home")) as mount:
        _dd(mount.path / KEY)
        return _cold_and_warm(scene, mount.path / KEY)


def cached_by_passthrough(scene: Scene) -> Figures:
    with _mounts.passthrough(scene.large(), scene.path("home")) as mount:
        _dd(mount.path / KEY)
        return _cold_and_warm(scene, mount.path / KEY)


def read_on_disk(scene: Scene) -> Figures:
    return _cold_and_warm(scene, scene.large())


def fetched_by_kvsfs(scene: Scene) -> Figures:
    store = _filled(scene)
    with _mounts.kvsfs(store, scene.path("home")) as mount:
        watch = Watch(store.server)
        return watch.figures(_dd(mount.path / KEY))


def fetched_by_curl(scene: Scene) -> Figures:
    store = _filled(scene)
    watch = Watch(store.server)
    return watch.figures(seconds(*CURL_COMMAND, "-o", scene.folder / KEY, store.record_url(KEY)))


def sent_by_kvsfs(scene: Scene) -> Figures:
    store = scene.servers.new_store("apify", 0.0)
    with _mounts.kvsfs(store, scene.path("home")) as mount:
        watch = Watch(store.server)
        return _write(scene, mount, watch)


def sent_by_curl(scene: Scene) -> Figures:
    store = scene.servers.new_store("apify", 0.0)
    scene.large()
    watch = Watch(store.server)
    return watch.figures(seconds(*CURL_COMMAND, "-T", scene.large(), store.record_url(KEY)))


def written_by_rclone(scene: Scene) -> Figures:
    """Its close returns once the bytes are in its cache; the upload that follows is not waited for."""
    store = scene.servers.new_store("s3", 0.0)
    with _mounts.rclone(store, scene.path("home"), "--vfs-write-back=1h") as mount:
        watch = Watch(store.server)
        return _write(scene, mount, watch)


def _write(scene: Scene, mount: _mounts.Mount, watch: Watch) -> Figures:
    source = scene.large()
    seconds("cat", source)  # its pages are in memory, for all alike
    command = [sys.executable, "-c", WRITER, str(source), str(mount.path / KEY)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    written, closed = map(float, ended.stdout.split())
    return {**watch.figures(closed), WRITTEN: written}


def rows(size: int) -> Iterator[Row]:
    told = f"{size // MIB:,} MiB"
    yield Row(
        "read-cached",
        f"read a cached record of {told}, page cache cold, then warm",
        {
            KVSFS: Contestant(cached_by_kvsfs),
            PASSTHROUGH: Contestant(cached_by_passthrough),
            EXT4: Contestant(read_on_disk),
        },
        [
            Target(SECONDS, 0.8, (PASSTHROUGH, SECONDS), speed=True, told="pyfuse3, the same file"),
            Target(WARM, 0.8, (EXT4, WARM), speed=True),
        ],
    )
    yield Row(
        "read-uncached",
        f"read a record of {told}, nothing cached",
        {KVSFS: Contestant(fetched_by_kvsfs), CURL: Contestant(fetched_by_curl)},
        [Target(SECONDS, 0.6, (CURL, SECONDS), speed=True, told="`curl -o`")],
    )
    yield Row(
        "write",
        f"write a file of {told}, 1 MiB at a time, until close returns",
        {
            KVSFS: Contestant(sent_by_kvsfs),
            CURL: Contestant(sent_by_curl),
            RCLONE: Contestant(written_by_rclone),
        },
        [
            Target(SECONDS, 0.6, (CURL, SECONDS), speed=True, told="`curl -T`"),
            Target(WRITTEN, 1, (RCLONE, WRITTEN)),
        ],
    )
