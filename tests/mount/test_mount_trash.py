"""A desktop's trash, and names that an option keeps on this machine."""

from __future__ import annotations

import pytest

from kvsfs.core.tuning import GRACE
from tests.mount.conftest import Mount
from tests.support.mounting import Mounted, wait_until
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse


def cost(mounted: Mounted, script: str) -> list[str]:
    """What a script asks of the store until it is through."""
    with mounted.counting() as asked:
        mounted.sh(script)
    return asked


TRASH = """
mkdir -m 700 .Trash-0 .Trash-0/files .Trash-0/info
set -C; printf '[Trash Info]\\nPath=f\\n' > .Trash-0/info/f.trashinfo; set +C
"""
"""What glib and KDE do before they rename the file: the .trashinfo is made with O_EXCL."""


def trashed(mounted: Mounted) -> None:
    mounted.run("cat", "f")
    assert cost(mounted, TRASH) == []
    assert cost(mounted, "mv f .Trash-0/files/f") == []


def test_trashing_is_one_delete_and_restoring_one_put(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"text", "text/csv")
    store.put("g", b"text")
    with mount() as mounted:
        mounted.run("ls")
        trashed(mounted)
        wait_until(lambda: store.keys() == ["g"], within=GRACE + 10)
        assert mounted.run("ls", ".Trash-0/files", ".Trash-0/info").split() == [
            ".Trash-0/files:",
            "f",
            ".Trash-0/info:",
            "f.trashinfo",
        ]
    with mount() as mounted:
        mounted.run("ls")
        assert cost(mounted, "cat .Trash-0/info/f.trashinfo .Trash-0/files/f; ls -la .Trash-0/*") == []
        assert cost(mounted, "mv .Trash-0/files/f f.csv; rm .Trash-0/info/f.trashinfo") == ["PUT f.csv"]
        assert cost(mounted, "rm -r .Trash-0") == []
        assert mounted.run("ls", "-A").split() == ["f.csv", "g"]
    assert store.content("f.csv") == b"text"
    assert store.keys() == ["f.csv", "g"]


def test_names_of_ones_own_stay_here(mount: Mount, store: StoreApi) -> None:
    options = ("-o", "local_only=node_modules,local_only=*.lock", "--deferred", "*.new")
    with mount(*options) as mounted:
        mounted.run("ls")
        assert cost(mounted, "mkdir -p node_modules/a/b; echo x > node_modules/a/b/c; echo 1 > f.lock") == []
        assert cost(mounted, "echo text > f.new; mv f.new f") == ["PUT f"]
    assert store.keys() == ["f"]
    with mount(*options) as mounted:
        assert (mounted.path / "node_modules/a/b/c").read_text() == "x\n"
        assert mounted.run("ls").split() == ["f", "f.lock", "node_modules"]
