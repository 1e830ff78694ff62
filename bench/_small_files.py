"""Many small files: the commands that read them, the store that holds them, the client that moves them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from _rows import Figures
from _scene import Watch, seconds

if TYPE_CHECKING:
    from _scene import Scene
    from _stores import Kind, Store

CPU = "CPU per file"
DELAY = 0.02
"""Seconds for each request, in all rows that do not say otherwise: a region away."""


def cp(source: Path, target: Path) -> float:
    return seconds("cp", "-r", f"{source}/.", target)


def grep(source: Path, _target: Path) -> float:
    return seconds("grep", "-rc", "0", source)


def tar(source: Path, target: Path) -> float:
    return seconds("tar", "-cf", target / "all.tar", "-C", source, ".")


def rsync(source: Path, target: Path) -> float:
    return seconds("rsync", "-a", f"{source}/", f"{target}/")


def filled(scene: Scene, kind: Kind, latency: float) -> Store:
    """Give the store that holds the small files."""
    return scene.servers.filled_store(kind, latency, "small", lambda store: store.fill(scene.source()))


def client(scene: Scene, *, latency: float, what: str) -> Figures:
    """Run the official client in a process of its own; its seconds are those without Python's start."""
    into = what == "put"
    store = scene.servers.new_store("apify", latency) if into else filled(scene, "apify", latency)
    watch = Watch(store.server)
    folder = scene.source() if into else scene.path("out")
    return watch.figures(run_client(what, store, folder))


def run_client(what: str, store: Store, folder: Path) -> float:
    script = str(Path(__file__).with_name("_official_client.py"))
    command = [sys.executable, script, what, store.url, store.name, str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise RuntimeError(f"the client ended with {ended.returncode}: {ended.stderr[-500:]}")
    return float(ended.stdout)
