"""Files in a mount under the programs that people change them with."""

from __future__ import annotations

import os

import pytest

from tests.mount.conftest import Mount
from tests.support.mounting import Mounted
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

LINES = b"".join(b"line %d\n" % number for number in range(1, 21))

EDITS = {
    "vim": ("vim -es -u NONE -i NONE -c '%s/line/LINE/' -c wq f", LINES.replace(b"line", b"LINE")),
    "vim in place": (
        "vim -es -u NONE -i NONE -c 'set nobackup nowritebackup backupcopy=yes' -c '1d' -c wq f",
        LINES.partition(b"\n")[2],
    ),
    "sed -i": ("sed -i 's/line/LINE/' f", LINES.replace(b"line", b"LINE")),
    "perl -pi": ("perl -pi -e 's/line/LINE/' f", LINES.replace(b"line", b"LINE")),
    "tee -a": ("echo more | tee -a f >/dev/null", LINES + b"more\n"),
    ">>": ("echo more >> f; echo again >> f", LINES + b"more\nagain\n"),
    "truncate": ("truncate -s 9 f", LINES[:9]),
    "truncate to nothing": ("truncate -s 0 f", b""),
    "truncate to more": ("truncate -s 1000 f", LINES.ljust(1000, b"\0")),
    "dd conv=notrunc": (
        "printf XYZ | dd of=f bs=1 seek=10 conv=notrunc status=none",
        LINES[:10] + b"XYZ" + LINES[13:],
    ),
    "dd oflag=append": ("printf XYZ | dd of=f oflag=append conv=notrunc status=none", LINES + b"XYZ"),
    "dd behind the end": (
        "printf XYZ | dd of=f bs=1 seek=300 conv=notrunc status=none",
        LINES.ljust(300, b"\0") + b"XYZ",
    ),
    "cp over it": ("printf new > g; cp g f; rm g", b"new"),
    "mv over it": ("printf new > g; mv g f", b"new"),
    "install": ("printf new > g; install -m 644 g f; rm g", b"new"),
    "sort -o": ("sort -r -o f f", b"".join(sorted(LINES.splitlines(keepends=True), reverse=True))),
    "sponge by hand": ("tac f > g && cat g > f && rm g", b"".join(LINES.splitlines(keepends=True)[::-1])),
    "rsync --inplace": ("printf new > $TMPDIR/g; rsync --inplace $TMPDIR/g f", b"new"),
    "read and write": ("exec 3<>f; printf XY >&3; read -r line <&3; exec 3>&-", b"XY" + LINES[2:]),
}


@pytest.mark.parametrize("edit", EDITS)
def test_edits(mount: Mount, store: StoreApi, edit: str) -> None:
    """An edit gives the same bytes here and in the store, whether this mount has read the file before or not."""
    script, expected = EDITS[edit]
    for folder in ("seen", "unseen"):
        store.put(f"{folder}!2Ff", LINES, "text/x-special")
    with mount() as mounted:
        assert (mounted.path / "seen" / "f").read_bytes() == LINES
        for folder in ("seen", "unseen"):
            mounted.sh(f"cd {folder}; {script}")
            path = mounted.path / folder / "f"
            assert path.read_bytes() == expected
            assert path.stat().st_size == len(expected)
            assert store.content(f"{folder}!2Ff") == expected
            assert mounted.run("ls", "-A", folder) == "f\n"
    assert store.keys() == ["seen!2Ff", "unseen!2Ff"]
    assert store.content("seen!2Ff") == store.content("unseen!2Ff") == expected


def test_truncate_by_path_and_by_handle(mount: Mount, store: StoreApi) -> None:
    store.put("path", LINES)
    store.put("handle", LINES)
    with mount() as mounted:
        mounted.run("python3", "-c", "import os; os.truncate('path', 5)")
        assert store.content("path") == LINES[:5]
        code = "f = open('handle', 'r+b'); f.seek(3); f.truncate(); f.write(b'XYZ'); f.truncate(5)"
        mounted.run("python3", "-c", code)
        assert store.content("handle") == LINES[:3] + b"XY"
        assert (mounted.path / "path").read_bytes() == LINES[:5]


def test_mv_within_and_across_folders_and_over_a_target(mount: Mount, store: StoreApi) -> None:
    store.put("a", b"a", "text/x-a")
    store.put("b", b"b", "text/x-b")
    store.put("sub!2Fc", b"c", "text/x-c")
    with mount() as mounted:
        mounted.sh("mv a renamed; test ! -e a; mv renamed sub/; test ! -e renamed")
        assert store.keys() == ["b", "sub!2Fc", "sub!2Frenamed"]
        assert store.content_type("sub!2Frenamed") == "text/x-a"
        mounted.sh("mv b sub/c; test ! -e b")
        assert (mounted.path / "sub" / "c").read_bytes() == b"b"
        assert mounted.run("ls", "-A", "sub") == "c\nrenamed\n"
        assert mounted.run("ls", "-A") == "sub\n"
    assert store.keys() == ["sub!2Fc", "sub!2Frenamed"]
    assert store.content("sub!2Fc") == b"b"
    assert store.content("sub!2Frenamed") == b"a"


def test_mv_n_and_rename_onto_itself(mount: Mount, store: StoreApi) -> None:
    store.put("a", b"a")
    store.put("b", b"b")
    with mount() as mounted:
        mounted.sh("mv -n a b || true")
        mounted.run("python3", "-c", "import os; os.rename('a', 'a')")
        ended = mounted.attempt("mv", "missing", "c")
        assert "No such file" in ended.stderr
    assert (store.content("a"), store.content("b")) == (b"a", b"b")
    assert list(store.sizes()) == ["a", "b"]


def test_names_on_a_folder_and_a_file(mounted: Mounted, store: StoreApi) -> None:
    mounted.sh("mkdir folder; echo x > folder/x; echo y > file")
    for source, target, words in (
        ("file", "folder", "Is a directory"),
        ("folder", "file", "Not a directory"),
        ("folder", "folder/below", "Invalid argument"),
    ):
        code = f"import os; os.rename({source!r}, {target!r})"
        assert words in mounted.attempt("python3", "-c", code).stderr, (source, target)
    assert store.keys() == ["file", "folder!2Fx"]


def test_links_and_special_files_are_refused(mounted: Mounted, store: StoreApi) -> None:
    mounted.sh("echo x > file")
    for command in (["ln", "file", "hard"], ["ln", "-s", "file", "soft"], ["mkfifo", "fifo"]):
        assert "Operation not permitted" in mounted.attempt(*command).stderr
    assert mounted.run("ls", "-A") == "file\n"
    assert store.keys() == ["file"]


def test_modes_and_times_are_kept_while_mounted(mounted: Mounted) -> None:
    with mounted.counting() as requests:
        mounted.sh("echo x > f")
    assert requests == ["LIST", "PUT f"]
    with mounted.counting() as requests:
        mounted.sh("chmod 700 f; touch -d 2001-02-03T04:05:06Z f")
    assert requests == []
    assert mounted.run("stat", "-c", "%a %Y %s %F", "f") == "700 981173106 2 regular file\n"


def test_a_missing_file(mounted: Mounted) -> None:
    for command in (["cat", "missing"], ["rm", "missing"], ["truncate", "-c", "-s", "1", "no/such"]):
        assert "No such file or directory" in mounted.attempt(*command).stderr + (
            "No such file or directory" if command[0] == "truncate" else ""
        )
    assert "Not a directory" in mounted.attempt("sh", "-c", "echo x > f; cat f/x").stderr


def test_git_status_of_a_copied_work_tree(mounted: Mounted) -> None:
    """A program with lock files, renames and exclusive creation, and its own check of what it stored."""
    mounted.sh(
        "git init -q . && git config user.email a@b.c && git config user.name n && git config commit.gpgsign false;"
        "echo one > file; mkdir d; echo two > d/two; git add . && git commit -qm first; git fsck --strict 2>&1;"
        'test -z "$(git status --porcelain)"'
    )


def test_sqlite_keeps_its_rows(mount: Mount, store: StoreApi) -> None:
    code = (
        "import sqlite3; c = sqlite3.connect('d.sqlite'); c.execute('create table t (n)');"
        "c.executemany('insert into t values (?)', [(n,) for n in range(500)]); c.commit(); c.close()"
    )
    with mount() as mounted:
        mounted.run("python3", "-c", code)
    assert store.keys() == ["d.sqlite"]
    with mount() as mounted:
        code = "import sqlite3; print(*sqlite3.connect('d.sqlite').execute('select count(*), sum(n) from t'))"
        assert mounted.run("python3", "-c", code) == "(500, 124750)\n"


def test_tar_and_rsync_with_attributes_carry_bytes_and_types(mounted: Mounted, store: StoreApi) -> None:
    """GNU tar makes such files by mknod, and rsync removes attributes that the source has not."""
    plain = mounted.sandbox.folder / "plain"
    plain.mkdir()
    (plain / "typed").write_bytes(b"typed")
    (plain / "untyped").write_bytes(b"untyped")
    os.setxattr(plain / "typed", "user.mime_type", b"text/x-mine")
    with_types = "--xattrs --xattrs-include=user.*"
    mounted.sh(f"tar -C .. {with_types} -cf ../a.tar plain; tar {with_types} -xf ../a.tar")
    mounted.sh("rsync -aX ../plain/ synced && rsync -aX --inplace ../plain/untyped inplace")
    mounted.umount()
    assert store.content("plain!2Ftyped") == store.content("synced!2Ftyped") == b"typed"
    assert store.content("plain!2Funtyped") == store.content("inplace") == b"untyped"
    assert store.content_type("plain!2Ftyped") == store.content_type("synced!2Ftyped") == "text/x-mine"
