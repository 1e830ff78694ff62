"""Which tests run: mount tests where the machine can mount, long ones where they were asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.support.buckets import S3, running_s3

REQUIRE_FUSE = "KVSFS_REQUIRE_FUSE"
_left_out = pytest.StashKey[int]()
_missing = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked long too")

    parser.addoption("--bucket", action="store_true", help="the server of the mounts keeps its records in S3")
    parser.addoption(
        "--s3",
        metavar="URL",
        help="an S3 server with an empty bucket, as bench/ceph.py starts one, instead of moto",
    )


@pytest.fixture(scope="session")
def s3(request: pytest.FixtureRequest) -> Iterator[S3]:
    url = request.config.getoption("--s3")
    if url is not None:
        yield S3(url)
        return
    with running_s3() as running:
        yield running


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_left_out] = 0
    config.stash[_missing] = what_mounting_lacks()


def what_mounting_lacks() -> str:
    """What is missing for a mount, as people look for it; empty where nothing is."""
    lacks = []
    try:  # access(2) says yes to root where a container's device rules say no
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        lacks.append("/dev/fuse")
    except OSError:
        lacks.append("the right to open /dev/fuse")
    if shutil.which("fusermount3") is None:
        lacks.append("fusermount3")
    return " and ".join(lacks)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        long = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if not item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    lacks = item.config.stash[_missing]
    if lacks and item.get_closest_marker("fuse"):
        item.config.stash[_left_out] += 1
        pytest.skip(f"no mount here: {lacks} missing")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.stash[_left_out] and fuse_is_required() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    count = config.stash[_left_out]
    if not count:
        return
    terminalreporter.section("MOUNT TESTS LEFT OUT", sep="!", red=True, bold=True)
    verdict = f": a failure, since {REQUIRE_FUSE} is set" if fuse_is_required() else ""
    terminalreporter.line(
        f"{count} mount tests left out: {config.stash[_missing]} missing{verdict}", red=True, bold=True
    )


def fuse_is_required() -> bool:
    return os.environ.get(REQUIRE_FUSE, "") not in {"", "0"}
