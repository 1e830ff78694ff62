"""Whether somebody waits for a call: a process in a system call, or nobody.

It travels in a context variable: trio hands it to every task that a task starts, so it is said once, where
work in the background begins, and holds for all that this work asks of the store. A parameter would have to
pass through every signature between there and the request; a second view of the store, through every object
that holds one, and an object that serves both (a cache file being filled) would not know which to take.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_background: ContextVar[bool] = ContextVar("kvsfs_background", default=False)


@contextmanager
def in_background() -> Iterator[None]:
    """Say that nobody waits for what the block, and the tasks started in it, ask of the store."""
    with _said(background=True):
        yield


@contextmanager
def in_foreground() -> Iterator[None]:
    """Say that somebody waits after all, for a task in the background."""
    with _said(background=False):
        yield


@contextmanager
def _said(*, background: bool) -> Iterator[None]:
    token = _background.set(background)
    try:
        yield
    finally:
        _background.reset(token)


def is_background() -> bool:
    """Whether this task's calls give way to those that somebody waits for."""
    return _background.get()
