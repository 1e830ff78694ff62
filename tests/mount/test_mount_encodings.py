"""Records that other clients stored compressed: the listing tells fewer bytes than a reader gets."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable
from pathlib import Path

import brotli  # type: ignore[import-untyped]
import pytest

from tests.mount.conftest import Mount
from tests.support.mounting import Mounted, wait_until
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

CONTENT = b"".join(b'{"number": %d, "text": "the same again"}\n' % number for number in range(20_000))

ENCODE: dict[str, Callable[[bytes], bytes]] = {"br": brotli.compress, "gzip": gzip.compress}

Reader = Callable[[Mounted, Path], bytes]


def cat(mounted: Mounted, out: Path) -> bytes:
    mounted.sh(f"cat cat > '{out}'")
    return out.read_bytes()


def cp(mounted: Mounted, out: Path) -> bytes:
    mounted.run("cp", "cp", out)
    return out.read_bytes()


def rsync(mounted: Mounted, out: Path) -> bytes:
    mounted.run("rsync", "-a", "rsync", out)
    return out.read_bytes()


def tar(mounted: Mounted, out: Path) -> bytes:
    mounted.run("tar", "-cf", out, "tar")
    with tarfile.open(out) as archive:
        member = archive.extractfile("tar")
        assert member is not None
        return member.read()


def mapped(mounted: Mounted, out: Path) -> bytes:
    code = (
        "import mmap, sys; f = open('mmap', 'rb');"
        "open(sys.argv[1], 'wb').write(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))"
    )
    mounted.run("python3", "-c", code, out)
    return out.read_bytes()


READERS: dict[str, Reader] = {"cat": cat, "cp": cp, "rsync": rsync, "tar": tar, "mmap": mapped}


@pytest.fixture(params=["br", "gzip"])
def encoded(request: pytest.FixtureRequest, store: StoreApi) -> int:
    """A compressed record `f`; its stored size."""
    content = ENCODE[request.param](CONTENT)
    store.put("f", content, "application/json", encoding=request.param)
    assert store.sizes() == {"f": len(content)}
    assert len(content) < len(CONTENT) / 5
    return len(content)


@pytest.mark.parametrize("listed", ["not listed", "listed", "listed, and its attributes cached"])
@pytest.mark.parametrize("encoding", ENCODE)
def test_every_byte_is_read(
    mount: Mount, store: StoreApi, tmp_path: Path, encoding: str, listed: str
) -> None:
    """Each reader has a record of its own, that nothing was learned of before."""
    content = ENCODE[encoding](CONTENT)
    for name in READERS:
        store.put(name, content, "application/json", encoding=encoding)
    assert set(store.sizes().values()) == {len(content)}
    # Without trust in what was checked a moment ago nothing is fetched ahead: its length would be known by then.
    options = ("--revalidate", "0s") if listed == "listed, and its attributes cached" else ()
    with mount(*options) as mounted:
        if listed != "not listed":
            assert sizes_listed(mounted) == dict.fromkeys(READERS, len(content))
        for name, reader in READERS.items():
            if listed == "listed, and its attributes cached":
                assert mounted.run("stat", "-c", "%s", name) == f"{len(content)}\n"
            assert reader(mounted, tmp_path / name) == CONTENT
            assert mounted.run("stat", "-c", "%s", name) == f"{len(CONTENT)}\n"
        assert sizes_listed(mounted) == dict.fromkeys(READERS, len(CONTENT))


def sizes_listed(mounted: Mounted) -> dict[str, int]:
    lines = [line.split() for line in mounted.run("ls", "-l").splitlines()[1:]]
    return {line[-1]: int(line[4]) for line in lines}


@pytest.mark.usefixtures("encoded")
def test_it_is_read_in_full_while_another_holds_it_open(mount: Mount) -> None:
    with mount() as mounted, (mounted.path / "f").open("rb") as file:
        assert file.read(10) == CONTENT[:10]
        assert (mounted.path / "f").read_bytes() == CONTENT
        assert file.read() == CONTENT[10:]


@pytest.mark.usefixtures("encoded")
@pytest.mark.parametrize("seen", [True, False], ids=["seen", "unseen"])
def test_appending_keeps_every_byte(mount: Mount, store: StoreApi, seen: bool) -> None:
    with mount() as mounted:
        if seen:
            mounted.run("ls", "-l")
        mounted.sh("echo more >> f")
        assert (mounted.path / "f").read_bytes() == CONTENT + b"more\n"
    assert store.content("f") == CONTENT + b"more\n"
    assert store.sizes() == {"f": len(CONTENT) + 5}
    assert store.content_type("f") == "application/json"


@pytest.mark.usefixtures("encoded")
def test_writing_in_its_middle_behind_the_stored_size(mount: Mount, store: StoreApi) -> None:
    with mount() as mounted:
        mounted.run("ls", "-l")
        mounted.sh(f"printf XYZ | dd of=f bs=1 seek={len(CONTENT) - 10} conv=notrunc status=none")
    assert store.content("f") == CONTENT[:-10] + b"XYZ" + CONTENT[-7:]


@pytest.mark.usefixtures("encoded")
def test_renaming_keeps_every_byte(mount: Mount, store: StoreApi) -> None:
    with mount() as mounted:
        mounted.run("mv", "f", "g")
    assert store.keys() == ["g"]
    assert store.content("g") == CONTENT
    assert store.content_type("g") == "application/json"


@pytest.mark.usefixtures("encoded")
def test_the_encoding_is_told(mount: Mount, store: StoreApi) -> None:
    store.put("plain", b"plain")
    with mount() as mounted:
        mounted.run("cat", "f", "plain")
        name = "user.apify.content_encoding"
        assert mounted.run("getfattr", "-n", name, "--only-values", "f") in ("br", "gzip")
        assert "No such attribute" in mounted.attempt("getfattr", "-n", name, "plain").stderr


def test_a_longer_version_by_another_client_is_read_in_full(mount: Mount, store: StoreApi) -> None:
    store.put("f", gzip.compress(CONTENT[:1000]), encoding="gzip")
    with mount() as mounted:
        assert (mounted.path / "f").read_bytes() == CONTENT[:1000]
        store.put("f", gzip.compress(CONTENT), encoding="gzip")
        wait_until(lambda: (mounted.path / "f").read_bytes() != CONTENT[:1000])
        assert (mounted.path / "f").read_bytes() == CONTENT
