"""Throughput of 1, 2 and 4 server processes over one bucket: records of 4 KiB, 16 connections to each process.

    python bench/bucket.py s3://BUCKET/PREFIX --option endpoint=http://127.0.0.1:9000 --option …

The CPU time of the servers for each request says what one process carries where the bucket and this client are not
what is waited for; requests a second say what this machine does with all of them on it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from _servers import Running, kvsfs_serve, rate

if TYPE_CHECKING:
    from _servers import Request

KIB4 = bytes(4096)
IN_FLIGHT = 16
PROCESSES = (1, 2, 4)


def request(method: str, store: str, server: int, connection: int, turn: int) -> Request:
    path = f"/v2/key-value-stores/{store}/records/s{server}-c{connection}-{turn % 20}"
    return method, path, KIB4 if method == "PUT" else b""


def cpu_seconds(server: Running) -> float:
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(method: str, store: str, seconds: float, numbered: tuple[int, Running]) -> float:
    number, server = numbered
    return rate(server.port, partial(request, method, store, number), in_flight=IN_FLIGHT, seconds=seconds)


def measured(servers: list[Running], method: str, store: str, seconds: float) -> tuple[float, float]:
    """Give requests a second of all servers, and their CPU milliseconds for each request."""
    before = sum(map(cpu_seconds, servers))
    with ProcessPoolExecutor(len(servers)) as clients:
        total = sum(clients.map(partial(load, method, store, seconds), enumerate(servers)))
    return total, 1000 * (sum(map(cpu_seconds, servers)) - before) / (total * seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("records")
    parser.add_argument("--option", action="append", default=[])
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    options = ["--records", given.records, *(f"--records-option={option}" for option in given.option)]
    print("| processes | PUT/s | CPU of a PUT | GET/s | CPU of a GET |\n|--:|--:|--:|--:|--:|")
    for count in PROCESSES:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            servers = [stack.enter_context(kvsfs_serve(folder, *options)) for _ in range(count)]
            url = f"http://127.0.0.1:{servers[0].port}/v2/key-value-stores"
            store = httpx.post(url).raise_for_status().json()["data"]["id"]
            puts, put_ms = measured(servers, "PUT", store, given.seconds)
            gets, get_ms = measured(servers, "GET", store, given.seconds)
        print(f"| {count} | {puts:.0f} | {put_ms:.1f} ms | {gets:.0f} | {get_ms:.1f} ms |", flush=True)


if __name__ == "__main__":
    main()
