"""`--extensions` on a real mount: what programs see, and what it costs."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from tests.mount.conftest import Mount
from tests.support.mounting import failing, wait_until
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

JSON = "application/json; charset=utf-8"


def test_records_have_the_extensions_of_their_types(mount: Mount, store: StoreApi) -> None:
    store.put("INPUT", b'{"a": 1}', JSON)
    store.put("page", b"<p>", "text/html")
    store.put("pic", b"\x89PNG", "image/png")
    store.put("both", b"short", "text/plain")
    store.put("both.txt", b"long", "text/plain")
    store.put("dir!2FOUTPUT", b"[]", JSON)
    with mount("--extensions") as mounted:
        requests = mounted.named_requests
        assert mounted.sh("ls").split() == ["INPUT.json", "both", "both.txt", "dir", "page.html", "pic.png"]
        asked = sorted(requests())
        assert asked == ["GET", "HEAD INPUT", "HEAD both", "HEAD page", "HEAD pic", "LIST"]
        assert mounted.sh("ls; stat INPUT.json INPUT > /dev/null").count("\n") == 6
        assert sorted(requests()) == asked
        assert mounted.run("cat", "INPUT.json") == mounted.run("cat", "INPUT") == '{"a": 1}'
        assert mounted.run("cat", "both") == "short"
        assert mounted.run("cat", "dir/OUTPUT.json") == "[]"
        assert os.getxattr(mounted.path / "INPUT.json", "user.apify.key") == b"INPUT"
        assert os.stat(mounted.path / "INPUT.json").st_ino == os.stat(mounted.path / "INPUT").st_ino
        with failing(errno.ENOENT):
            os.stat(mounted.path / "INPUT.txt")
        mounted.sh(
            "echo '{}' > INPUT.json; rm page; mv pic.png shot.png; setfattr -n user.mime_type -v text/csv both.txt"
        )
        assert mounted.sh("ls").split() == ["INPUT.json", "both", "both.txt", "dir", "shot.png"]
        os.setxattr(mounted.path / "shot", "user.mime_type", b"image/webp")
        wait_until(lambda: not (mounted.path / "shot.png").exists())  # the kernel is told a moment later
        assert (mounted.path / "shot.webp").read_bytes() == b"\x89PNG"
    assert store.keys() == ["INPUT", "both", "both.txt", "dir!2FOUTPUT", "shot"]


def test_programs_that_save_keep_the_key(mount: Mount, store: StoreApi) -> None:
    store.put("INPUT", b'{"a": 1}\n', JSON)
    with mount("--extensions") as mounted:
        mounted.sh("sed -i s/1/2/ INPUT.json")
        assert store.content("INPUT") == b'{"a": 2}\n'
        if shutil.which("vim"):
            mounted.run(
                "vim",
                "-u",
                "NONE",
                "-es",
                "-c",
                "set nocp nobackup writebackup backupcopy=no",
                "-c",
                "%s/2/3/",
                "-c",
                "wq",
                "INPUT.json",
            )
            assert store.content("INPUT") == b'{"a": 3}\n'
        (mounted.path / ".." / "INPUT.json").resolve().write_bytes(b"[]")
        mounted.sh("rsync ../INPUT.json .; rm INPUT.json; cp ../INPUT.json .")
        mounted.sh("printf '{}' > new; printf '{}' > own.json")
        assert mounted.sh("ls").split() == [
            "INPUT.json",
            "new.json",
            "own.json",
        ]
    assert store.keys() == ["INPUT", "new", "own.json"]
    assert store.record("INPUT").headers["Content-Type"] == JSON
    assert store.content("INPUT") == b"[]"


def test_without_the_option_names_are_the_keys(mount: Mount, store: StoreApi) -> None:
    store.put("INPUT", b"{}", JSON)
    with mount() as mounted:
        assert mounted.sh("ls").split() == ["INPUT"]
        with failing(errno.ENOENT):
            os.stat(mounted.path / "INPUT.json")
        assert "HEAD INPUT" not in mounted.named_requests()
