"""File-system steps that a power cut cannot undo once they are done."""

from __future__ import annotations

import os


def make_folder(path: str) -> None:
    """Make a folder, and those above it, for its owner only. No error when it is there."""
    made = []
    folder = os.path.abspath(path)
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        made.append(folder)
        folder = os.path.dirname(folder)
    os.makedirs(path, mode=0o700, exist_ok=True)
    for folder in made:
        fsync_folder(os.path.dirname(folder))


def fsync_folder(path: str) -> None:
    """Make durable which names a folder holds."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
