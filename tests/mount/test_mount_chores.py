"""Programs that people run in folders show and leave in a mount what they show and leave in a plain folder."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.support.chores import CHORES
from tests.support.mounting import Sandbox
from tests.support.plain import Plain
from tests.support.programs import LINES
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse


def test_chores(mount: Mount, store: StoreApi, sandbox: Sandbox, tmp_path: Path) -> None:
    plain = Plain(tmp_path, sandbox)
    shown, expected = {}, {}
    with mount() as mounted:
        for name, script in CHORES.items():
            within = f"mkdir {shlex.quote(name)}; cd {shlex.quote(name)}; {LINES}; {script}"
            expected[name] = plain.sh(within)
            shown[name] = mounted.sh(within)
    assert shown == expected
    held = {key: store.content(key) for key in store.sizes()}
    assert held == plain.records()
