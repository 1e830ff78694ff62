"""`--metrics` of real mounts: what a Prometheus server and the dashboard in docs/ get to see."""

from __future__ import annotations

import errno
import json
import re
import socket
from collections.abc import Iterable
from pathlib import Path

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from kvsfs.control.metrics_server import MOST_CONNECTIONS
from kvsfs.errors import ExitCode
from tests.mount.conftest import Mount
from tests.support.mounting import Mounted, Sandbox, failing, mounted_store, wait_until
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

DASHBOARD = Path(__file__).parents[2] / "docs/grafana/kvsfs.json"
CLASSIC = "text/plain"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def url_of(mounted: Mounted) -> str:
    told = r"metrics are at (http://\S+)"
    wait_until(lambda: re.search(told, mounted.log_text()))
    return str(re.findall(told, mounted.log_text())[-1])


def samples(families: Iterable[Metric]) -> Samples:
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def scrape(mounted: Mounted) -> Samples:
    answer = httpx.get(url_of(mounted), headers={"Accept": CLASSIC}, trust_env=False)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return samples(parse_text(answer.text))


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_what_a_mount_tells(mount: Mount, store: StoreApi) -> None:
    store.put("there", b"x" * 1000)
    with mount("--metrics", "0") as mounted:
        assert url_of(mounted).startswith("http://127.0.0.1:")
        mounted.sh("cat there there >/dev/null; printf 12345 > new; echo x > .a.swp")
        found = scrape(mounted)
        assert value(found, "kvsfs_mounted") == value(found, "kvsfs_store_up") == 1
        requests = {
            dict(labels)["operation"]: v
            for (name, labels), v in found.items()
            if name == "kvsfs_store_requests_total"
        }
        assert requests == {"get": 1, "list_keys": 1, "get_record": 1, "set_record": 1}
        assert value(found, "kvsfs_store_sent_bytes_total") == 5
        assert value(found, "kvsfs_store_received_bytes_total") >= 1000
        assert value(found, "kvsfs_opened_files_total", bytes="cached") == 1
        assert value(found, "kvsfs_opened_files_total", bytes="fetched") == 1
        assert value(found, "kvsfs_cache_clean_bytes") == 1005
        assert value(found, "kvsfs_local_only_files") == 1
        assert value(found, "kvsfs_pending_files") == value(found, "kvsfs_failed_files") == 0
        assert value(found, "kvsfs_kernel_requests_total", request="open") >= 2
        assert value(found, "kvsfs_kernel_errors_total", errno="ENOENT") >= 1
        count = "kvsfs_store_request_duration_seconds"
        assert value(found, f"{count}_bucket", operation="get_record", le="+Inf") == 1
        assert value(found, f"{count}_count", operation="get_record") == 1
        assert 0 < value(found, f"{count}_sum", operation="get_record") < 30
        assert value(found, "process_resident_memory_bytes") > 1e7
        (about,) = [dict(labels) for name, labels in found if name == "kvsfs_mount_info"]
        assert about["source"] == about["store"] == store.id
        assert (about["mount_point"], about["mode"]) == (str(mounted.path), "read-write")


def test_what_waits(mount: Mount) -> None:
    with mount("--metrics", "[::1]:0", "--write-back", "1h", "--timeout", "2s") as mounted:
        mounted.sh("printf 12345 > waits")
        found = scrape(mounted)
        assert (value(found, "kvsfs_pending_files"), value(found, "kvsfs_pending_bytes")) == (1, 5)
        wait_until(lambda: value(scrape(mounted), "kvsfs_pending_oldest_seconds") > 0.1)
        mounted.sandbox.kvsfs("flush", str(mounted.path))
        assert value(scrape(mounted), "kvsfs_pending_files") == 0


def test_every_metric_of_the_dashboard_is_there(mount: Mount, store: StoreApi) -> None:
    store.put("there", b"x")
    with mount("--metrics", "0") as mounted:
        mounted.sh("cat there")
        with failing(errno.EINVAL):
            (mounted.path / "there!2F").mkdir()
        answer = httpx.get(url_of(mounted), headers={"Accept": CLASSIC}, trust_env=False)
        families = list(parse_text(answer.text))
        known = {sample.name for family in families for sample in family.samples}
        known |= {family.name for family in families}  # gauges by kind have no sample without limits
        limited = {"kvsfs_store_rate_limit", "kvsfs_store_rate_available", "kvsfs_store_rate_pause_seconds"}
        assert limited <= known
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    expressions += [v["query"]["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    named = set(re.findall(r"\b(?:kvsfs|process)_\w+", " ".join(expressions)))
    assert len(named) > 20
    assert named - known == set()
    labels = set(re.findall(r"by \((\w+)\)", " ".join(expressions))) - {"le"}
    told = {label for family in families for sample in family.samples for label in sample.labels} | {"kind"}
    assert labels <= told
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


def test_openmetrics_and_names_by_the_conventions(mount: Mount) -> None:
    with mount("--metrics", "0") as mounted:
        mounted.sh("ls; cat missing 2>/dev/null || true")
        accept = "application/openmetrics-text; version=1.0.0"
        answer = httpx.get(url_of(mounted), headers={"Accept": accept}, trust_env=False)
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        families = list(parse_openmetrics(answer.text))  # type: ignore[no-untyped-call]  # it refuses what breaks the conventions
    own = [family for family in families if family.name.startswith("kvsfs_")]
    assert len(own) > 20
    for family in own:
        assert family.documentation.endswith(".")
        assert not re.search(r"_(ms|kib|minutes)$", family.name)


def test_no_secret_and_no_key_in_any_metric(
    mount: Mount, sandbox: Sandbox, store: StoreApi, token: str
) -> None:
    store.put("a-private-name", b"x")
    with mount("--metrics", "0") as mounted:
        mounted.sh("cat a-private-name")
        url = mounted.run("getfattr", "--only-values", "-n", "user.apify.public_url", ".")
        signature = url.partition("signature=")[2].partition("&")[0]
        assert len(signature) > 20
        text = httpx.get(url_of(mounted), trust_env=False).text
    assert token not in text
    assert "a-private-name" not in text
    with mounted_store(sandbox, url, "--metrics", "0", name="shared") as shared:
        shared.sh("cat a-private-name")
        text = httpx.get(url_of(shared), trust_env=False).text
        assert 'kvsfs_store_requests_total{operation="get_record"} 1.0' in text
        assert signature not in text + shared.log_text()


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 404 "),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 405 "),
        (b"GET /metrics?a=b HTTP/1.0\r\n\r\n", b"HTTP/1.1 200 "),
        (b"nonsense\r\n\r\n", b""),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 200_000, b""),
        (b"", b""),
    ],
    ids=["elsewhere", "post", "http-1.0", "nonsense", "endless", "nothing"],
)
def test_other_requests_do_no_harm(mount: Mount, request_line: bytes, status: bytes) -> None:
    with mount("--metrics", "0") as mounted:
        address = ("127.0.0.1", int(url_of(mounted).rpartition(":")[2].partition("/")[0]))
        with socket.create_connection(address, timeout=20) as connection:
            try:
                connection.sendall(request_line)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.makefile("rb").read()
            except ConnectionError:
                answer = b""
        assert answer.startswith(status)
        assert bool(answer) == bool(status)
        assert value(scrape(mounted), "kvsfs_mounted") == 1


def test_connections_that_say_nothing_hold_nobody_up(mount: Mount) -> None:
    with mount("--metrics", "0") as mounted:
        address = ("127.0.0.1", int(url_of(mounted).rpartition(":")[2].partition("/")[0]))
        idle = [socket.create_connection(address, timeout=20) for _ in range(MOST_CONNECTIONS)]
        wait_until(lambda: _is_closed_at_once(address))
        mounted.sh("echo x > f; cat f")
        for connection in idle:
            assert connection.recv(1) == b""  # REQUEST_SECONDS have passed
            connection.close()
        assert value(scrape(mounted), "kvsfs_mounted") == 1


def _is_closed_at_once(address: tuple[str, int]) -> bool:
    with socket.create_connection(address, timeout=20) as connection:
        return connection.recv(1) == b""


def test_an_address_that_is_taken(sandbox: Sandbox, mount: Mount, store: StoreApi, token: str) -> None:
    with mount("--metrics", "0") as mounted:
        assert mounted.server is not None
        port = url_of(mounted).rpartition(":")[2].partition("/")[0]
        path = sandbox.mount_point("second")
        for background in ([], ["-f"]):
            ended = sandbox.kvsfs(
                "mount", *background, "--metrics", port, "--cache-dir", str(sandbox.folder / "other"),
                "--api-url", mounted.server.url, store.id, str(path), token=token,
            )  # fmt: skip
            assert ended.returncode == ExitCode.ADDRESS_IN_USE, ended.stderr
            place = f"127.0.0.1:{port} (Address already in use)"
            assert ended.stderr == f"kvsfs: cannot serve metrics on {place}: give --metrics another\n"
