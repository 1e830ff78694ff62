"""What goes over a control socket: a line of JSON as the request, lines of progress, a line as the answer.

    > {"command": "flush", "arguments": {"path": "a"}}
    < {"progress": {"files": 3, "bytes": 1024}}
    < {"result": {}}                                    or {"error": "…", "exit_code": 24}

One request a connection. An answer may carry one descriptor.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from kvsfs.fuse.presence import name_for

Arguments = Mapping[str, Any]

LONGEST_REQUEST = 64 * 1024
"""Bytes: a command and a path of 4,096, each byte an escape of six."""

LONGEST_ANSWER = 64 * 1024 * 1024
"""Bytes: a status with the most that is told of each kind, 6 MB, and room."""

_SOCKET_NAME = re.compile(r"mount-[0-9a-f]{32}\.sock")


def encode(message: Mapping[str, Any]) -> bytes:
    """Write a line. File names of any bytes are told as surrogates, which JSON escapes."""
    return json.dumps(message).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """Read a line. Raises ValueError for what is no JSON object."""
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004
    return message


def socket_name(mount_point: str) -> str:
    """Give the name of a mount's socket, which lies beside its daemon's other files."""
    return f"{name_for(mount_point)}.sock"


def socket_names(folder: str) -> list[str]:
    """Give the names of all sockets in a folder."""
    with contextlib.suppress(OSError):
        return sorted(name for name in os.listdir(folder) if _SOCKET_NAME.fullmatch(name))
    return []


@contextlib.contextmanager
def address(folder: str, name: str) -> Iterator[str]:
    """Give an address for bind(2) and connect(2), however long the folder's path is: unix(7) allows 107 bytes.

    Raises OSError.
    """
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)
