"""Whole trees in and out, with the programs that people copy them with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.support.mounting import Mounted
from tests.support.store_api import StoreApi, expected_key
from tests.support.trees import AWKWARD_NAMES, make_tree, snapshot

pytestmark = pytest.mark.fuse


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    make_tree(root)
    return root


def test_cp_in_and_after_a_remount_out_again(mount: Mount, tree: Path, tmp_path: Path) -> None:
    original = snapshot(tree)
    with mount("--cache-dir", str(tmp_path / "cache1")) as mounted:
        mounted.run("cp", "-r", f"{tree}/.", ".")
        assert snapshot(mounted.path) == original
    out = tmp_path / "out"
    out.mkdir()
    with mount("--cache-dir", str(tmp_path / "cache2")) as mounted:
        mounted.run("cp", "-r", ".", out)
        assert snapshot(mounted.path) == original
        mounted.run("diff", "-r", ".", tree)
    assert snapshot(out) == original


def test_the_stores_keys_are_the_trees_names(mounted: Mounted, store: StoreApi, tree: Path) -> None:
    mounted.run("cp", "-r", f"{tree}/.", ".")
    mounted.umount()
    sizes = store.sizes()
    assert list(sizes) == sorted(sizes)
    tricky = {f"awkward/{name}" for name in AWKWARD_NAMES if "!2" in name}
    files = {
        path.decode("utf-8", "surrogateescape"): c for path, c in snapshot(tree).items() if c is not None
    }
    for path, content in files.items():
        if path not in tricky:
            assert sizes.pop(expected_key(path)) == len(content), path
    # Only `!20` reads like an encoded byte and gets a `21`; as a file name `!2E` stands for `.`, a legal key.
    assert sizes.pop("awkward!2F!21!2120!2E!20literal") == len("!21!20!2E literal")
    assert sizes.pop("awkward!2F.") == len("!2E")
    # What is left are the folders that have nothing in them.
    folders = {path for path, c in snapshot(tree).items() if c is None}
    empty = {f.decode() for f in folders if not any(p.startswith(f + b"/") for p in snapshot(tree))}
    assert sizes == {expected_key(f"{folder}/"): 0 for folder in empty}
    assert {store.content_type(key) for key in sizes} == {"application/x-directory"}


def test_content_types_of_a_tree(mounted: Mounted, store: StoreApi, tree: Path) -> None:
    mounted.run("cp", "-r", f"{tree}/.", ".")
    expected = {
        ".json": "application/json",
        ".html": "text/html",
        ".png": "image/png",
        ".gz": "application/gzip",
        ".txt": "text/plain",
        ".bin": "application/octet-stream",
    }
    for suffix, content_type in expected.items():
        path = min(tree.rglob(f"[0-9]*{suffix}"))
        key = expected_key(str(path.relative_to(tree)))
        assert store.content_type(key).partition(";")[0] == content_type
        assert store.content(key) == path.read_bytes()


def test_rsync_in_twice_and_out(mounted: Mounted, tree: Path, tmp_path: Path) -> None:
    original = snapshot(tree)
    mounted.run("rsync", "-a", f"{tree}/", "./")
    assert snapshot(mounted.path) == original
    with mounted.counting() as requests:
        mounted.run("rsync", "-a", f"{tree}/", "./")
    # The markers of empty folders come 2 s after the first run, so perhaps only now.
    assert [r for r in requests if not r.startswith("LIST") and not r.endswith("!2F")] == []
    out = tmp_path / "out"
    mounted.run("rsync", "-a", "./", f"{out}/")
    assert snapshot(out) == original
    assert mounted.run("rsync", "-ai", "--checksum", "./", f"{out}/") == ""


def test_tar_in_and_out(mount: Mount, tree: Path, tmp_path: Path) -> None:
    original = snapshot(tree)
    archive = tmp_path / "tree.tar"
    with mount() as mounted:
        mounted.run("tar", "-cf", archive, "-C", tree, ".")
        mounted.run("tar", "-xf", archive)
        assert snapshot(mounted.path) == original
    with mount() as mounted:
        mounted.run("tar", "-cf", tmp_path / "again.tar", ".")
    out = tmp_path / "out"
    out.mkdir()
    with mount() as mounted:
        mounted.run("tar", "-xf", tmp_path / "again.tar", "-C", out)
    assert snapshot(out) == original


def test_grep_and_find_over_a_tree(mounted: Mounted, tree: Path) -> None:
    mounted.run("cp", "-r", f"{tree}/.", ".")
    for command in ("grep -rl ďábelské .", "find .", "find . -type d -empty", "find . -size +100k"):
        found = mounted.sh(f"{command} | LC_ALL=C sort")
        assert found == mounted.sh(f"cd '{tree}'; {command} | LC_ALL=C sort")
        assert found.count("\n") > 1


def test_rm_of_a_tree_leaves_no_record(mounted: Mounted, store: StoreApi, tree: Path) -> None:
    mounted.run("cp", "-r", f"{tree}/.", ".")
    assert len(store.keys()) > 200
    mounted.sh("rm -r -- * .[!.]* || true; ls -A")
    assert mounted.run("ls", "-A") == ""
    mounted.umount()
    assert store.keys() == []


def test_mv_of_a_folder(mounted: Mounted, store: StoreApi, tree: Path) -> None:
    mounted.run("cp", "-r", f"{tree}/awkward", "before")
    mounted.run("mv", "before", "after")
    assert snapshot(mounted.path / "after") == snapshot(tree / "awkward")
    assert mounted.run("ls") == "after\n"
    mounted.umount()
    keys = store.keys()
    assert len(keys) == len(AWKWARD_NAMES) + 1
    assert all(key.startswith("after!2F") for key in keys)


def test_a_key_of_256_characters_is_a_file(mount: Mount, store: StoreApi) -> None:
    ours, theirs = "m" * 256, "t" * 256
    store.put(theirs, b"by another client")
    with mount() as mounted:
        (mounted.path / ours).write_bytes(b"by the mount")
        assert mounted.run("ls").split() == [ours, theirs]
        assert (mounted.path / theirs).read_bytes() == b"by another client"
        mounted.run("mv", theirs, "short")
    assert store.content(ours) == b"by the mount"
    assert store.keys() == [ours, "short"]


@pytest.mark.parametrize("name", ["x" * 257, "ж" * 43, "日" * 29])
def test_names_whose_key_would_be_too_long(mounted: Mounted, name: str) -> None:
    ended = mounted.attempt("touch", name)
    assert ended.returncode == 1
    assert "File name too long" in ended.stderr
    assert mounted.run("ls", "-A") == ""


@pytest.mark.parametrize("name", ["ж" * 42, "日" * 28])
def test_the_longest_names_in_other_scripts(mounted: Mounted, store: StoreApi, name: str) -> None:
    mounted.run("touch", name)
    assert mounted.run("ls", "-A") == f"{name}\n"
    assert store.keys() == [expected_key(name)]


def test_an_empty_folder_survives_a_remount(mount: Mount, store: StoreApi) -> None:
    with mount() as mounted:
        mounted.run("mkdir", "-p", "a/b/c", "d e")
    assert store.keys() == ["a!2Fb!2Fc!2F", "d!20e!2F"]
    with mount() as mounted:
        assert snapshot(mounted.path) == {b"a": None, b"a/b": None, b"a/b/c": None, b"d e": None}
        mounted.run("rmdir", "-p", "a/b/c")
        mounted.run("rmdir", "d e")
        assert mounted.run("ls", "-A") == ""
    assert store.keys() == []


def test_a_folder_that_was_emptied_stays(mount: Mount, store: StoreApi) -> None:
    store.put("folder!2Ffile", b"only child")
    with mount() as mounted:
        mounted.run("rm", "folder/file")
        assert mounted.run("ls", "-A") == "folder\n"
    assert store.keys() == ["folder!2F"]
    with mount() as mounted:
        assert snapshot(mounted.path) == {b"folder": None}


def test_rmdir_refuses_what_is_not_empty_or_no_folder(mounted: Mounted, store: StoreApi) -> None:
    mounted.sh("mkdir full; echo x > full/x; echo y > y")
    assert "Directory not empty" in mounted.attempt("rmdir", "full").stderr
    assert "Not a directory" in mounted.attempt("rmdir", "y").stderr
    assert "Is a directory" in mounted.attempt("unlink", "full").stderr
    assert "File exists" in mounted.attempt("mkdir", "full").stderr
    assert store.keys() == ["full!2Fx", "y"]


def test_a_record_beside_a_folder_of_its_name(mount: Mount, store: StoreApi) -> None:
    store.put("img", b"the record")
    store.put("img!2Fa", b"in the folder")
    with mount() as mounted:
        assert snapshot(mounted.path) == {b"img": None, b"img!2F": b"the record", b"img/a": b"in the folder"}
        assert "Invalid argument" in mounted.attempt("touch", "other!2F").stderr
        mounted.run("rm", "img!2F")
        assert mounted.run("ls", "-A") == "img\n"
    assert store.keys() == ["img!2Fa"]


def test_dots_and_other_keys_of_other_clients_are_shown(mount: Mount, store: StoreApi) -> None:
    keys = ["!2E", "!2F", "!41", "!G", "...", "a!2Fb", "a!2Fc!2F", "a!2e", "plain"]
    for number, key in enumerate(keys):
        store.put(key, str(number).encode())
    with mount() as mounted:
        found = [c for c in snapshot(mounted.path).values() if c is not None]
    assert sorted(found) == [str(number).encode() for number in range(len(keys))]
