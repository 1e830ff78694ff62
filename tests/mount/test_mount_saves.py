"""What editors and other programs that write by way of a temporary file cost: one PUT of the final name, no more."""

from __future__ import annotations

import os
import pty
import select
import time

import pytest

from kvsfs.core.tuning import GRACE
from tests.mount.conftest import Mount
from tests.support.mounting import COMMAND_SECONDS, Mounted
from tests.support.programs import EMACS, LIBREOFFICE, run_by_python
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

OLD = b"one line\nanother line\n"
NEW = b"one LINE\nanother LINE\n"
VIM = "vim -es -u NONE -i NONE -N"
WRITE = "-c '%s/line/LINE/' -c wq f"

SAVES = {
    "sed -i": "sed -i s/line/LINE/ f",
    "perl -pi": "perl -pi -e s/line/LINE/ f",
    "vim": f"{VIM} {WRITE}",
    "vim, copy as backup": f"{VIM} --cmd 'set backupcopy=yes' {WRITE}",
    "vim, rename as backup": f"{VIM} --cmd 'set backupcopy=no writebackup' {WRITE}",
    "vim, no backup": f"{VIM} --cmd 'set nowritebackup' {WRITE}",
    "rsync": "sed s/line/LINE/ f > ../outside; rsync -aI ../outside f",
    "mktemp and mv": "t=$(mktemp -p .); sed s/line/LINE/ f > $t; mv $t f",
    "python's tempfile": 'python3 -c "'
    "import os, tempfile; t = tempfile.NamedTemporaryFile(dir='.', delete=False); "
    "t.write(open('f', 'rb').read().replace(b'line', b'LINE')); t.close(); os.replace(t.name, 'f')\"",
    "emacs": run_by_python(EMACS.replace("os.rename('f', 'f~')", "")),
    "LibreOffice": run_by_python(LIBREOFFICE),
    "gedit": "sed s/line/LINE/ f > ../outside; gio save f < ../outside",
    "by way of f.tmp": "sed s/line/LINE/ f > f.tmp; mv f.tmp f",
}


@pytest.mark.parametrize("case", SAVES)
def test_a_save_costs_one_put(mounted: Mounted, store: StoreApi, case: str) -> None:
    (mounted.path / "f").write_bytes(OLD)
    assert mounted.cost(SAVES[case]) == ["PUT f"]
    assert store.content("f") == NEW
    assert store.keys() == ["f"]


def test_a_save_by_nano_costs_one_put(mounted: Mounted, store: StoreApi) -> None:
    """With a terminal: it has no other mode. Alt-R is nano's replace, here of all; Ctrl-X leaves."""
    (mounted.path / "f").write_bytes(OLD)
    mounted.run("ls")
    before = len(mounted.named_requests())
    on_terminal(mounted, ["nano", "-I", "f"], b"\x1brline\rLINE\ra\x18y\r")
    mounted.umount()
    assert mounted.named_requests()[before:] == ["PUT f"]
    assert store.content("f") == NEW


def test_a_backup_by_renaming_is_stored_after_the_file(mounted: Mounted, store: StoreApi) -> None:
    """As emacs makes it: at no moment does the store hold neither version."""
    (mounted.path / "f").write_bytes(OLD)
    assert mounted.cost(run_by_python(EMACS)) == ["PUT f", "PUT f!7E"]
    assert (store.content("f"), store.content("f!7E")) == (NEW, OLD)


def test_vims_swap_file_of_a_long_session_stays_here(mounted: Mounted, store: StoreApi) -> None:
    (mounted.path / "f").write_bytes(OLD)
    longer = f"{GRACE + 1:g}"
    assert mounted.cost(f"{VIM} -c 1d -c preserve -c 'sleep {longer}' -c q! f || true") == []
    assert store.keys() == ["f"]


def test_a_swap_file_is_there_after_a_remount(mount: Mount, store: StoreApi) -> None:
    with mount() as mounted:
        (mounted.path / ".f.swp").write_bytes(b"what vim knows")
        (mounted.path / "d").mkdir()
        (mounted.path / "d" / "g").write_bytes(b"g")
        (mounted.path / "d" / ".g.swp").write_bytes(b"more of it")
    with mount() as mounted:
        assert (mounted.path / ".f.swp").read_bytes() == b"what vim knows"
        assert sorted(os.listdir(mounted.path / "d")) == [".g.swp", "g"]
        assert (mounted.path / "d" / ".g.swp").read_bytes() == b"more of it"
    assert store.keys() == ["d!2Fg"]


def test_a_commit_by_git_leaves_no_temporary_record(mounted: Mounted, store: StoreApi) -> None:
    mounted.sh(
        "git init -q . && git config user.email a@example.com && git config user.name a "
        "&& echo hi > a && git add a && git commit -q -m first && git fsck --strict"
    )
    mounted.umount()
    asked = [request for request in mounted.named_requests() if "tmp_obj" in request or ".lock" in request]
    assert asked == []
    keys = store.keys()
    assert not [key for key in keys if "tmp_obj" in key or ".lock" in key]
    assert store.content(".git!2FHEAD").startswith(b"ref: ")


def test_a_temporary_file_that_stays_is_uploaded_after_the_grace(mounted: Mounted, store: StoreApi) -> None:
    with mounted.counting() as requests:
        mounted.sh("ls; mktemp -p . kept.XXXXXX > /dev/null")
    assert requests == ["LIST"]
    (name,) = os.listdir(mounted.path)
    until(lambda: store.keys() == [name])


def test_a_temporary_file_amid_a_power_cut_is_kept(mount: Mount, store: StoreApi) -> None:
    """Its close said that the bytes are on disk, so they are: the next mount goes on."""
    with mount() as mounted:
        (mounted.path / "x.part").write_bytes(b"precious")
        mounted.kill()
        mounted.detach_dead()
    with mount() as again:
        again.expect_log("1 files of an earlier mount were not uploaded yet")
        assert (again.path / "x.part").read_bytes() == b"precious"
    assert store.content("x.part") == b"precious"


def until(condition: object) -> None:
    """Wait for something that the grace brings about."""
    assert callable(condition)
    end = time.monotonic() + GRACE + COMMAND_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def on_terminal(mounted: Mounted, command: list[str], keys: bytes) -> None:
    """Run a program on a terminal of its own, type once it has drawn its screen, and wait for its end."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(mounted.path)
        os.execvpe(command[0], command, {**mounted.sandbox.environment, "TERM": "xterm"})
    try:
        end = time.monotonic() + COMMAND_SECONDS
        for key in [keys[i : i + 1] for i in range(len(keys))]:
            _draw(terminal, end)
            os.write(terminal, key)
        while _draw(terminal, end):
            pass
    finally:
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
    assert status == 0


def _draw(terminal: int, end: float) -> bool:
    """Read what the program draws until it pauses; False at its end."""
    drawn = False
    while select.select([terminal], [], [], 0.3)[0]:
        assert time.monotonic() < end
        try:
            if not os.read(terminal, 65536):
                return False
        except OSError:  # EIO: the program closed its side
            return False
        drawn = True
    return drawn or time.monotonic() < end
