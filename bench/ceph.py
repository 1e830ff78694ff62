"""A real object store on this machine: Debian's Ceph (mon, mgr, osd, radosgw) on loopback, for one command.

    python bench/ceph.py [COMMAND …]

The packages are downloaded and unpacked into a scratch folder, not installed; all of it goes when the command ends.
In COMMAND `{url}` is the endpoint. Without one: `bench/bucket.py`, then the API tests against `--s3 {url}`.
It takes 400 MiB on disk, 0.8 GiB of memory and half a minute to start. For Debian and its relatives, as root or not.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("ceph-mon", "ceph-mgr", "ceph-osd", "radosgw", "ceph-common")
BUCKET = "kvsfs-tests"
KEYS = {"access_key_id": "test", "secret_access_key": "hush-secret-key", "region": "us-east-1"}
START_SECONDS = 120

CONFIGURATION = """
[global]
fsid = {fsid}
mon host = 127.0.0.1:{mon_port}
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
run dir = {data}
log file = {data}/$name.log
admin socket = {data}/$name.asok
plugin dir = {libraries}/ceph
erasure code dir = {libraries}/ceph/erasure-code
osd class dir = {libraries}/rados-classes
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
mon allow pool size one = true
osd crush chooseleaf type = 0
ms bind ipv6 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
[mon.a]
mon data = {data}/mon
[mgr.x]
mgr data = {data}/mgr
mgr module path = {root}/usr/share/ceph/mgr
[osd.0]
osd data = {data}/osd
osd objectstore = bluestore
bluestore block size = 4294967296
bluestore block create = true
osd memory target = 939524096
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
"""


class Cluster:
    """One of each daemon, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.data = folder / "data"
        self.fsid = str(uuid.uuid4())
        self.mon_port, self.port = free_port(), free_port()
        libraries = self.root / "usr/lib" / f"{os.uname().machine}-linux-gnu"
        self.environment = {
            **os.environ,
            "PATH": f"{self.root}/usr/bin:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": f"{libraries}:{libraries}/ceph",
            "PYTHONPATH": f"{self.root}/usr/lib/python3/dist-packages",
        }
        for name in ("mon", "mgr", "osd"):
            (self.data / name).mkdir(parents=True)
        self.configuration = self.data / "ceph.conf"
        self.configuration.write_text(
            CONFIGURATION.format(
                fsid=self.fsid, mon_port=self.mon_port, port=self.port, data=self.data, root=self.root,
                libraries=libraries,
            )
        )  # fmt: skip

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, *command: str) -> None:
        subprocess.run(
            [*command, "-c", str(self.configuration)],
            env=self.environment, check=True, timeout=START_SECONDS, capture_output=True,
        )  # fmt: skip

    def ceph(self, *arguments: str) -> None:
        """Ceph's own command, on Debian's Python: the binding to its library is for that one."""
        self.run("/usr/bin/python3", f"{self.root}/usr/bin/ceph", *arguments)

    @contextlib.contextmanager
    def daemon(self, *command: str) -> Iterator[None]:
        with (
            (self.data / f"{command[0]}.out").open("wb") as out,
            subprocess.Popen(
                [*command, "-f", "-c", str(self.configuration)], env=self.environment, stdout=out, stderr=out
            ) as process,
        ):
            try:
                yield
            finally:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run all four, with a bucket."""
        monitors = f"{self.data}/monmap"
        self.run(
            "monmaptool",
            "--create",
            "--fsid",
            self.fsid,
            "--addv",
            "a",
            f"[v1:127.0.0.1:{self.mon_port}]",
            monitors,
        )
        self.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors)
        with self.daemon("ceph-mon", "-i", "a"):
            osd = str(uuid.uuid4())
            self.ceph("osd", "new", osd, "0")
            self.run("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", osd, "--no-mon-config")
            with (
                self.daemon("ceph-osd", "-i", "0"),
                self.daemon("ceph-mgr", "-i", "x"),
                self.daemon("radosgw", "-n", "client.rgw"),
            ):
                wait_until_it_answers(self.url)
                self.run(
                    "radosgw-admin", "user", "create", "--uid=kvsfs", "--display-name=kvsfs",
                    f"--access-key={KEYS['access_key_id']}", f"--secret-key={KEYS['secret_access_key']}",
                )  # fmt: skip
                make_bucket(self.url)
                yield


def unpacked(folder: Path) -> None:
    """Download Debian's packages, with what they need and this machine lacks, and unpack them."""
    (folder / "archives" / "partial").mkdir(parents=True)
    command = [
        "apt-get",
        "install",
        "-y",
        "--no-install-recommends",
        "--download-only",
        "-o",
        "Debug::NoLocking=1",
    ]
    where = ["-o", f"Dir::Cache::archives={folder}/archives"]
    subprocess.run([*command, *where, *PACKAGES], check=True, stdout=subprocess.DEVNULL)
    for package in (folder / "archives").glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder / "root"], check=True)


def make_bucket(url: str) -> None:
    from botocore.auth import S3SigV4Auth  # noqa: PLC0415 - the tests' own: moto brings it along
    from botocore.awsrequest import AWSRequest  # noqa: PLC0415
    from botocore.credentials import Credentials  # noqa: PLC0415

    request = AWSRequest("PUT", f"{url}/{BUCKET}")
    credentials = Credentials(KEYS["access_key_id"], KEYS["secret_access_key"])
    S3SigV4Auth(credentials, "s3", KEYS["region"]).add_auth(request)
    httpx.put(f"{url}/{BUCKET}", headers=dict(request.headers)).raise_for_status()


def wait_until_it_answers(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(url, timeout=5)
            return
        time.sleep(0.5)
    sys.exit(f"radosgw did not answer within {START_SECONDS} s")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def usual_commands(url: str) -> list[list[str]]:
    options = [f"--option={key}={value}" for key, value in {"endpoint": url, **KEYS}.items()]
    here = Path(__file__).parent
    tests = ["-m", "pytest", "-q", "tests/server", "-k", "not folder", "--s3", url]
    return [
        [sys.executable, str(here / "bucket.py"), f"s3://{BUCKET}/bench", *options],
        [sys.executable, *tests],
    ]


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="ceph-") as folder:
        unpacked(Path(folder))
        cluster = Cluster(Path(folder))
        with cluster.running():
            given = [part.replace("{url}", cluster.url) for part in sys.argv[1:]]
            commands = [given] if given else usual_commands(cluster.url)
            return max(subprocess.run(command, check=False).returncode for command in commands)


if __name__ == "__main__":
    sys.exit(main())
