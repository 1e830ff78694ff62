"""fio(1) writes blocks with checksums at random places, and finds them again: at once, and in a mount that has none."""

from __future__ import annotations

import pytest

from tests.mount.conftest import Mount
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

SIZE = 4 * 1024 * 1024

COMMON = [
    "fio",
    "--name=job",
    "--filename=f",
    f"--size={SIZE}",
    "--bsrange=4k-64k",
    "--rw=randrw",
    "--rwmixread=30",
    "--verify=crc32c",
    "--verify_fatal=1",
    "--verify_state_save=0",
    "--randseed=7",
    "--minimal",
]


ENGINES = {"write": ["--ioengine=psync", "--fsync=64"], "mmap": ["--ioengine=mmap"]}


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_blocks_at_random_places(mount: Mount, store: StoreApi, engine: list[str]) -> None:
    with mount() as mounted:
        mounted.run(*COMMON, *engine, "--do_verify=1")
    assert store.sizes() == {"f": SIZE}
    with mount() as mounted:
        mounted.run(*COMMON, *engine, "--verify_only")
        mounted.sh(f"printf X | dd of=f bs=1 seek={SIZE // 2} conv=notrunc status=none")
        assert mounted.attempt(*COMMON, *engine, "--verify_only").returncode != 0
