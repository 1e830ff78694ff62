"""What the daemon is doing, for its log: trio's tree of tasks, each with where it waits. Lines of code, no values."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from types import CodeType

import trio

import kvsfs

MOST_TASKS = 500
"""Told at most: a busy mount has one for each request, and the log's reader wants the first."""

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(kvsfs.__file__)))


def tree() -> str:
    """Give the tasks of this event loop, those below others indented. No checkpoint."""
    root = trio.lowlevel.current_root_task()
    return "" if root is None else "\n".join(islice(_below(root, 0), MOST_TASKS))


def _below(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    yield f"{'  ' * depth}{task.name}{_where(task)}"
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _below(child, depth + 1)


def _where(task: trio.lowlevel.Task) -> str:
    """Give the innermost lines of a task that are ours, and the one in which it waits."""
    frames = [(frame.f_code, line) for frame, line in task.iter_await_frames()]
    places = [_place(code, line) for code, line in frames if _is_ours(code.co_filename)]
    return f": {' > '.join(places)}" if places else ""


def _place(code: CodeType, line: int) -> str:
    return f"{os.path.relpath(code.co_filename, _ROOT)}:{line} {code.co_qualname}"


def _is_ours(path: str) -> bool:
    return path.startswith(os.path.join(_ROOT, "kvsfs") + os.sep)
