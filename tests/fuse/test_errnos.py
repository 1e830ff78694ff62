"""The boundary is total: whatever core raises, the kernel gets an errno and the mount lives. No mount here."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Iterator
from typing import Any

import pyfuse3
import pytest
import trio

from kvsfs import errors
from kvsfs.fuse.errnos import errno_of
from kvsfs.fuse.operations import Operations, _total


def subclasses(kind: type[errors.KvsfsError]) -> Iterator[type[errors.KvsfsError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from subclasses(child)


OURS = sorted(set(subclasses(errors.KvsfsError)), key=lambda kind: kind.__name__)


def made(kind: type[errors.KvsfsError]) -> Exception:
    if issubclass(kind, errors.FileError):
        return kind(errno.ENOTEMPTY)
    if issubclass(kind, errors.CommandError):
        return kind(errors.ExitCode.BUSY, "message")
    return kind("message")


@pytest.mark.parametrize("kind", OURS)
def test_every_error_of_ours_has_an_errno(kind: type[errors.KvsfsError]) -> None:
    number, _ = errno_of(made(kind))
    assert number in errno.errorcode


@pytest.mark.parametrize("kind", [kind for kind in OURS if issubclass(kind, errors.StoreError)])
def test_every_error_of_the_store_was_foreseen(kind: type[errors.StoreError]) -> None:
    _, level = errno_of(kind("message"))
    assert level is not None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.StoreTimeout("x"), errno.ETIMEDOUT),
        (errors.StoreUnreachable("x"), errno.EIO),
        (errors.QuotaExceeded("x"), errno.EDQUOT),
        (errors.NotAuthorized("x"), errno.EACCES),
        (errors.PermissionDenied("x"), errno.EACCES),
        (errors.RecordNotFound("x"), errno.ENOENT),
        (errors.StoreNotFound("x"), errno.ESTALE),
        (errors.RecordTooLarge("x"), errno.EFBIG),
        (errors.RequestRefused("x"), errno.EINVAL),
        (errors.RecordChanged("x"), errno.ESTALE),
        (errors.ProtocolViolation("x"), errno.EIO),
        (errors.FileError(errno.EXDEV), errno.EXDEV),
        (OSError(errno.ENOSPC, "x"), errno.ENOSPC),
        (OSError(errno.ENOENT, "x"), errno.EIO),
        (OSError("without a number"), errno.EIO),
        (trio.TooSlowError(), errno.ETIMEDOUT),
        (ValueError("x"), errno.EIO),
        (AssertionError(), errno.EIO),
        (RecursionError(), errno.EIO),
        (ExceptionGroup("x", [ValueError()]), errno.EIO),
        (StopAsyncIteration(), errno.EIO),
    ],
)
def test_the_table_says(error: Exception, expected: int) -> None:
    assert errno_of(error)[0] == expected


@pytest.mark.parametrize("number", [0, -1, 4096, None])
def test_a_nonsensical_number_of_an_oserror_is_not_handed_to_the_kernel(number: int | None) -> None:
    """A resolver's errors are OSErrors with numbers below zero: the kernel takes 1 to 511 in a reply."""
    assert errno_of(OSError(number, "x"))[0] == errno.EIO


def raised_by_wrapper(error: BaseException) -> BaseException:
    @_total
    async def handler() -> None:
        raise error

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - any
        trio.run(handler)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        *(made(kind) for kind in OURS),
        OSError(errno.ENOSPC, "x"),
        ValueError("x"),
        KeyError(),
        ExceptionGroup("x", [ValueError()]),
        asyncio.InvalidStateError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_wrapper_lets_nothing_out_but_fuse_errors(error: Exception) -> None:
    caught = raised_by_wrapper(error)
    assert isinstance(caught, pyfuse3.FUSEError)
    assert caught.errno == errno_of(error)[0]


def test_the_wrapper_passes_fuse_errors_as_they_are() -> None:
    error = pyfuse3.FUSEError(errno.EPERM)
    assert raised_by_wrapper(error) is error


def test_the_wrapper_lets_cancellation_pass() -> None:
    @_total
    async def handler() -> None:
        await trio.sleep_forever()

    async def main() -> bool:
        with trio.CancelScope() as scope:
            scope.cancel()
            await handler()
        return scope.cancelled_caught

    assert trio.run(main)


def test_the_wrapper_gives_results_and_keeps_names() -> None:
    @_total
    async def handler(number: int) -> int:
        return number + 1

    async def main() -> None:
        assert await handler(1) == 2

    trio.run(main)
    assert handler.__name__ == "handler"


def test_an_unforeseen_error_is_logged_with_its_traceback_and_a_usual_one_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    raised_by_wrapper(ZeroDivisionError("a bug"))
    raised_by_wrapper(errors.FileError(errno.ENOENT))
    told = [r for r in caplog.records if r.name.startswith("kvsfs") and r.getMessage() != "handler"]
    found = [(r.levelno, bool(r.exc_info)) for r in told]
    assert found == [(logging.ERROR, True), (logging.DEBUG, False)]


def test_every_handler_of_the_mount_is_wrapped_but_forget() -> None:
    """`forget` has no reply: it must not raise at all."""
    handlers: dict[str, Any] = {
        name: value
        for name, value in vars(Operations).items()
        if callable(value) and not name.startswith("_") and hasattr(pyfuse3.Operations, name)
    }
    assert {"lookup", "read", "write", "flush", "release", "unlink", "readdir"} <= set(handlers)
    unwrapped = {name for name, value in handlers.items() if not hasattr(value, "__wrapped__")}
    assert unwrapped <= {"forget"}


def test_strerror_knows_each_errno_of_the_table() -> None:
    for kind in OURS:
        number, _ = errno_of(made(kind))
        assert "Unknown" not in os.strerror(number)
