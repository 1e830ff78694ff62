"""`--compress`: how records are stored, and that nobody who reads or writes files notices."""

from __future__ import annotations

import pytest

from tests.mount.conftest import Mount
from tests.support.mounting import Mounted
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

CONTENT = b"".join(b'{"number": %d, "text": "the same again"}\n' % number for number in range(50_000))
ENCODING = ("getfattr", "-n", "user.apify.content_encoding", "--only-values")


def cost(mounted: Mounted, script: str) -> list[str]:
    """What a script asks of the store until it is through."""
    with mounted.counting() as asked:
        mounted.sh(script)
    return asked


@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_text_is_stored_compressed_by_one_request_and_read_as_it_was(
    mount: Mount, store: StoreApi, encoding: str
) -> None:
    with mount("--compress", encoding) as mounted:
        mounted.run("ls")
        source = mounted.sandbox.folder / "f.json"
        source.write_bytes(CONTENT)
        assert cost(mounted, f"cp '{source}' f.json") == ["PUT f.json"]
        assert mounted.run(*ENCODING, "f.json") == encoding
        mounted.sh("echo '<p>' > page.html; yes '<p>' | head -c 5000 >> page.html; echo small > small.txt")
        assert mounted.run("stat", "-c", "%s", "f.json") == f"{len(CONTENT)}\n"
    sizes = store.sizes()
    assert sizes["f.json"] < len(CONTENT) / 5
    assert (sizes["page.html"], sizes["small.txt"]) == (5004, 6)
    assert store.content("f.json") == CONTENT
    with mount() as mounted:
        assert (mounted.path / "f.json").read_bytes() == CONTENT
        mounted.sh("tail -c 20 f.json | head -c 5 > part; echo more >> f.json")
    assert store.sizes()["f.json"] == len(CONTENT) + 5  # without the option it is stored as it is
    assert store.content("f.json") == CONTENT + b"more\n"
    assert store.content("part") == CONTENT[-20:-15]


def test_changing_a_compressed_record_and_copying_it_with_rsync(mount: Mount, store: StoreApi) -> None:
    with mount("-o", "compress=br") as mounted:
        source = mounted.sandbox.folder / "f.csv"
        source.write_bytes(CONTENT)
        mounted.run("rsync", "-a", source, "f.csv")
        mounted.sh("sed -i 's/again/AGAIN/' f.csv; mv f.csv g.csv")
        assert (mounted.path / "g.csv").read_bytes() == CONTENT.replace(b"again", b"AGAIN")
        assert mounted.run("stat", "-c", "%s", "g.csv") == f"{len(CONTENT)}\n"
    assert store.keys() == ["g.csv"]
    assert store.sizes()["g.csv"] < len(CONTENT) / 5
    assert store.content("g.csv") == CONTENT.replace(b"again", b"AGAIN")
