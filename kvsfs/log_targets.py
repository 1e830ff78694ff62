"""Where log lines go besides stderr: a file that does not grow for ever, and systemd's journal."""

from __future__ import annotations

import logging
import os
import socket
import sys
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from typing import Any

FILE_BYTES = 8 * 1024 * 1024
"""Of a log file before the next one is begun: a day of a busy mount at INFO is far less, an hour at DEBUG more."""

FILES_KEPT = 3
"""Older files beside it, `LOG.1` the youngest: with it 32 MiB at the most."""

JOURNAL = "/run/systemd/journal/socket"
"""Takes datagrams (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""

LONGEST_MESSAGE = 64 * 1024
"""Bytes of a line in the journal, which has 48 KiB of its own for one; a datagram takes 200 KiB and more."""

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""syslog(3)'s, from a level on; 7 is DEBUG."""


class LogFile(RotatingFileHandler):
    """A file of its owner alone, begun anew at `FILE_BYTES`."""

    def __init__(self, path: str, size: int = FILE_BYTES) -> None:
        """Raise OSError where it cannot be written."""
        self._followers: tuple[int, ...] = ()
        super().__init__(
            path, "a", size, FILES_KEPT, encoding="utf-8", errors="backslashreplace"
        )  # names of files may be no text

    def take_over(self, *descriptors: int) -> None:
        """Have descriptors lead to the file, too, whichever it is by then: for libfuse's words, and a crash's."""
        self._followers = descriptors
        if self.stream is not None:
            self._lead(self.stream.fileno())

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self.baseFilename, flags, 0o600)
        stream = open(descriptor, "a", encoding=self.encoding, errors=self.errors)  # noqa: SIM115 - the base class closes it
        self._lead(stream.fileno())
        return stream

    def _lead(self, file: int) -> None:
        for descriptor in self._followers:
            os.dup2(file, descriptor)


class Journal(logging.Handler):
    """systemd's journal, with the level and the logger as fields of their own."""

    def __init__(self, address: str = JOURNAL) -> None:
        """Raise OSError where no journal listens."""
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.connect(address)
        except OSError:
            self._socket.close()
            raise
        self._socket.settimeout(0)  # rather a line lost than a mount that waits for its log

    def emit(self, record: logging.LogRecord) -> None:
        """Send a line; one that the journal does not take is lost."""
        try:
            self._socket.send(_datagram(record, self.format(record)))
        except OSError:
            return
        except Exception:  # noqa: BLE001 - the contract of logging.Handler
            self.handleError(record)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()


def stderr_is_the_journal() -> bool:
    """Whether systemd has connected stderr to its journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _datagram(record: logging.LogRecord, message: str) -> bytes:
    fields: dict[str, Any] = {
        "MESSAGE": message,
        "PRIORITY": next((number for level, number in _PRIORITIES if record.levelno >= level), 7),
        "SYSLOG_IDENTIFIER": "kvsfs",
        "KVSFS_LOGGER": record.name,
    }
    return b"".join(_field(name, str(value)) for name, value in fields.items())


def _field(name: str, value: str) -> bytes:
    """Spell a field so that it may hold newlines: they must not begin a field of somebody else's choice."""
    content = value.encode(errors="backslashreplace")[:LONGEST_MESSAGE]
    return name.encode() + b"\n" + len(content).to_bytes(8, "little") + content + b"\n"
