"""S3 on this machine (moto), for servers that keep their records there."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import httpx
import obstore
from botocore.auth import S3SigV4Auth  # type: ignore[import-untyped] # ships no types; moto brings it along
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]
from obstore.store import S3Store

from tests.support.serving import STOP_SECONDS

BUCKET = "kvsfs-tests"

OPTIONS = {"access_key_id": "test", "secret_access_key": "hush-secret-key", "region": "us-east-1"}

MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""
"""Its own command takes no port of 0."""


@dataclass
class S3:
    """A server that speaks S3, with one bucket."""

    url: str

    @property
    def options(self) -> dict[str, str]:
        return {"endpoint": self.url, **OPTIONS}

    def place(self) -> str:
        """A URL below which nothing is yet."""
        return f"s3://{BUCKET}/tests/{secrets.token_hex(4)}"

    def arguments(self, place: str) -> Sequence[str]:
        """What tells `kvsfs serve` to keep its records at a place."""
        options = [f"--records-option={key}={value}" for key, value in self.options.items()]
        return ["--records", place, *options]

    def opened(self, place: str) -> S3Store:
        """What lies there, as obstore sees it."""
        return self._opened(BUCKET, place.removeprefix(f"s3://{BUCKET}/"))

    def _opened(self, bucket: str, prefix: str) -> S3Store:
        return S3Store(
            bucket,
            prefix=prefix,
            endpoint=self.url,
            client_options={"allow_http": True},
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
            access_key_id=OPTIONS["access_key_id"],
            secret_access_key=OPTIONS["secret_access_key"],
            region=OPTIONS["region"],
        )

    def make_bucket(self, name: str) -> None:
        self._of_bucket("PUT", name)

    def remove_bucket(self, name: str) -> None:
        """Remove a bucket with all that is in it."""
        store = self._opened(name, "")
        for page in obstore.list(store):
            obstore.delete(store, [meta["path"] for meta in page])
        self._of_bucket("DELETE", name)

    def _of_bucket(self, method: str, name: str) -> None:
        """What obstore cannot do."""
        url = f"{self.url}/{name}"
        request = AWSRequest(method, url)
        S3SigV4Auth(
            Credentials(OPTIONS["access_key_id"], OPTIONS["secret_access_key"]), "s3", OPTIONS["region"]
        ).add_auth(request)
        httpx.request(method, url, headers=dict(request.headers)).raise_for_status()

    def paths(self, place: str, below: str) -> list[str]:
        """The names of all objects below a prefix of a place."""
        return [meta["path"] for meta in obstore.list(self.opened(place), prefix=below).collect()]


@contextlib.contextmanager
def running_s3() -> Iterator[S3]:
    """Start moto, make the bucket, and end it whatever happens."""
    with subprocess.Popen(
        [sys.executable, "-c", MOTO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a line for each request
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            found = S3(f"http://127.0.0.1:{int(process.stdout.readline())}")
            found.make_bucket(BUCKET)
            yield found
        finally:
            process.stdin.close()
            process.wait(STOP_SECONDS)
