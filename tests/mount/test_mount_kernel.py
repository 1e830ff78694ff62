"""What programs cost in requests of the kernel, as docs/PERFORMANCE.md tells; and how much it reads at a time."""

from __future__ import annotations

import ast
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from kvsfs.fuse.read_ahead import READ_AHEAD_KIB, SETTING, set_read_ahead
from tests.mount.conftest import Mount
from tests.support.mounting import Mounted
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

DOCUMENT = Path(__file__).parents[2] / "docs" / "PERFORMANCE.md"
ASKED = re.compile(r"the kernel asked: (\{.*\})")
ACTIONS = {
    "`cat f`": "cat f",
    "`cp f ../out`": "cp f ../out",
    "`echo > f`": "echo hi > f",
    "`echo > new`": "echo hi > new",
    "`rm f`": "rm f",
    "`ls -l`, 100 files": "ls -l",
}
COUNTED = ("open", "create", "read", "write", "flush", "release", "unlink", "opendir", "releasedir")
"""Requests whose number is a matter of the program. Lookups and attributes depend on what the kernel has by heart."""


def asked(mounted: Mounted) -> Counter[str]:
    """Give the requests of a mount that has ended."""
    mounted.umount()
    found = ASKED.findall(mounted.log_text())
    return Counter(ast.literal_eval(found[-1]))


def recorded() -> dict[str, list[int]]:
    rows = re.findall(r"^\| (`.+?) \|((?: +\d+ \|)+)$", DOCUMENT.read_text(), re.MULTILINE)
    return {name: [int(count) for count in re.findall(r"\d+", counts)] for name, counts in rows}


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_costs_as_many_requests_of_the_kernel_as_the_document_says(
    mount: Mount, store: StoreApi, action: str
) -> None:
    store.put("f", b"content\n")
    for number in range(99):
        store.put(f"g{number}", b"x")
    with mount() as mounted:
        mounted.sh(ACTIONS[action])
        counts = asked(mounted)
    assert [counts[name] for name in COUNTED] == recorded()[action]


def test_a_listing_with_attributes_asks_for_no_entrys_attributes_a_second_time(
    mount: Mount, store: StoreApi
) -> None:
    for number in range(100):
        store.put(f"g{number}", b"x")
    with mount() as mounted:
        mounted.sh("ls -Ul; ls -Ul")
        counts = asked(mounted)
    assert counts["lookup"] == 0
    assert counts["getattr"] <= 4  # the folder's own: a listed size is kept for a second like any other
    assert counts["readdir"] <= 2 * (1 + 100 // 10)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may set it")
def test_the_kernel_reads_ahead_as_far_as_it_can(mounted: Mounted) -> None:
    device = mounted.path.stat().st_dev
    setting = Path(SETTING.format(os.major(device), os.minor(device)))
    assert int(setting.read_text()) == READ_AHEAD_KIB


def test_where_it_may_not_be_set_it_stays_as_it_is() -> None:
    assert not set_read_ahead(os.makedev(4095, 4095))
