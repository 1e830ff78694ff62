"""Dockerfile and compose.yaml: the image is built, and its server and its mount run as compose.yaml says."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.containers import ROOT, Images, why_none
from tests.support.mounting import COMMAND_SECONDS, READY_SECONDS, wait_until
from tests.support.namespaces import Namespace, namespace
from tests.support.store_api import StoreApi

TOKEN = "a-token-for-containers"
HEAVIEST_MIB = 330
"""The image with a base of debootstrap, 181 MiB."""

Service = Mapping[str, Any]


def services() -> Mapping[str, Service]:
    text = (ROOT / "compose.yaml").read_text()
    found: Mapping[str, Service] = yaml.safe_load(text)["services"]
    return found


def test_the_build_is_given_all_that_the_package_is_made_of_and_nothing_else() -> None:
    """`.dockerignore` leaves out everything but what it names with `!`."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    let_in = {line[1:] for line in lines if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    files = [path for paths in project["tool"]["setuptools"]["data-files"].values() for path in paths]
    made_of = {path.partition("/")[0] for path in files} | {"kvsfs", "pyproject.toml", "constraints.txt"}
    assert let_in == made_of | {project["project"]["readme"], *project["project"]["license-files"]}


def test_what_compose_mounts_is_seen_by_this_machine_and_outlasts_the_container() -> None:
    mount, server = services()["mount"], services()["server"]
    assert mount["devices"] == ["/dev/fuse"]
    assert mount["cap_add"] == ["SYS_ADMIN"]
    shared, cache = mount["volumes"]
    assert shared["bind"]["propagation"] == "rshared"
    assert mount["command"][-1].startswith(f"{shared['target']}/")
    dockerfile = (ROOT / "Dockerfile").read_text()
    for volume in (cache, *server["volumes"]):
        assert f'"{volume.partition(":")[2]}"' in dockerfile.partition("VOLUME")[2].partition("\n")[0]
    assert f'CMD ["kvsfs", "status", "{mount["command"][-1]}"]' in dockerfile


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    folder = tmp_path_factory.mktemp("images")
    made = Images(folder)
    yield made
    made.remove()


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Namespace]:
    """A namespace whose /dev/fuse is open to all, as it is on most machines."""
    (tmp_path / "mnt" / "store").mkdir(parents=True)
    for path in (tmp_path / "mnt", tmp_path / "mnt" / "store"):
        os.chown(path, 1000, 1000)
    with namespace(tmp_path / "namespace", {"PATH": os.environ["PATH"]}) as made:
        yield made


@contextlib.contextmanager
def running(apart: Namespace, command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run it in the namespace until the context ends; then it is asked to end, and has to."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*apart.entering, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(READY_SECONDS)


def adapted(text: str, port: int) -> str:
    """One network for both, here, and a token."""
    own = text.replace("server:8765", f"127.0.0.1:{port}").replace("8765", str(port))
    return own.replace("${KVSFS_TOKEN:?say which token lets in}", TOKEN)


def words_and_environment(service: Service, port: int) -> tuple[list[str], dict[str, str]]:
    words = [adapted(word, port) for word in service["command"]]
    return ["kvsfs", *words], {k: adapted(v, port) for k, v in service["environment"].items()}


@pytest.mark.fuse
@pytest.mark.long
@pytest.mark.skipif(why_none() is not None, reason=str(why_none()))
def test_the_image_is_built_and_mounts(images: Images, apart: Namespace, tmp_path: Path) -> None:
    image = images.build(images.base())
    assert images.bytes_of(image) < HEAVIEST_MIB << 20
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    served = images.container(image)
    words, environment = words_and_environment(services()["server"], port)
    healthy = [adapted(word, port) for word in services()["server"]["healthcheck"]["test"][1:]]
    server_log = tmp_path / "server.log"
    with running(apart, images.command(served, words, environment), server_log):
        check = images.command(served, healthy, {})
        wait_until(lambda: apart.run(*check).returncode == 0, within=READY_SECONDS)

        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
            store = StoreApi.create(client, "my-store")
            store.put("from-outside", b"outside")

            words, environment = words_and_environment(services()["mount"], port)
            (tmp_path / "work.sh").write_text(WORK.format(mount=shlex.join(words)))
            volumes = (f"{tmp_path}/mnt:/mnt:rshared", f"{tmp_path}/work.sh:/work.sh:ro")
            mounted = images.command(
                images.container(image), ["sh", "-eu", "/work.sh"], environment, *volumes
            )
            log = tmp_path / "mount.log"
            with running(apart, mounted, log) as process:
                code = process.wait(COMMAND_SECONDS)
            assert code == 0, log.read_text()
            assert "read inside: outside" in log.read_text()
            assert store.content("from-inside") == b"1000 wrote this\n"
        assert TOKEN not in log.read_text() + server_log.read_text()


WORK = """
{mount} &
daemon=$!
until kvsfs status /mnt/store > /dev/null 2>&1; do kill -0 $daemon; sleep 0.1; done
echo "read inside: $(cat /mnt/store/from-outside)"
echo "$(id -u) wrote this" > /mnt/store/from-inside
kvsfs umount /mnt/store
wait $daemon
"""
"""In one container with the mount: each run of an engine without a daemon has mounts of its own."""
