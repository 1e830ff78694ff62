"""Logging: lines for people or for programs, with everything that could be a secret struck out.

A line that belongs to a request of the kernel ends with its number, `[op 17]`: so do those of the HTTP calls that it
leads to, also in the background, for the number travels in a context variable. It is not sent along: the API has
no header for it.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

from kvsfs.errors import CommandError, ExitCode
from kvsfs.log_targets import Journal, LogFile, stderr_is_the_journal

STDERR, JOURNAL = "stderr", "journal"

CHATTY = ("httpx", "httpcore", "pyfuse3")
"""They write a line for every request, with its URL."""

operation: ContextVar[int] = ContextVar("kvsfs_operation", default=0)
"""The kernel's request that a task is at work for; 0 for none."""

_numbers = itertools.count(1)

_SECRET = re.compile(
    r"(?i)((?:signature|token|x-amz-[a-z-]+|apikey)=|authorization:\s*|bearer\s+)[^\s&\"'<>,;)]+"
)


def begin_operation() -> None:
    """Give this task, and those that it starts from here on, the number of a new operation. 0.1 µs."""
    operation.set(next(_numbers))


class Redactor(logging.Formatter):
    """Formats a record, tracebacks included, and strikes out signatures, tokens and pre-signed parameters."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the finished line."""
        return redact(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Give the line without its traceback."""
        number = operation.get()
        line = super().formatMessage(record)
        return f"{line} [op {number}]" if number else line


class JsonLines(Redactor):
    """A JSON object a line: time, level, logger, message, and operation and exception where there are any."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the finished line."""
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        if number := operation.get():
            told["operation"] = number
        if record.exc_info:
            told["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(told)


def redact(text: str) -> str:
    """Strike out what follows `signature=`, `token=`, `Bearer ` and their like."""
    return _SECRET.sub(r"\1***", text)


def set_up(level: str, target: str | None = None, form: str = "text") -> None:
    """Send the logs of this process, from `level` (a name of the logging module) on, to stderr, the journal or a file.

    `form` is text or json. None: the journal where stderr is connected to it, else stderr. Raises CommandError.
    """
    root = logging.getLogger()
    root.handlers[:] = [_handler(target, form)]
    root.setLevel(level)
    logging.getLogger("pyfuse3").addFilter(_is_news)
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)


def toggle_debug(usual: str) -> str:
    """Have everything logged, or again as `usual` says (INFO, where that is everything); the level from here on."""
    root = logging.getLogger()
    level = (usual if usual != "DEBUG" else "INFO") if root.level == logging.DEBUG else "DEBUG"
    root.setLevel(level)
    return level


def file_handler(path: str, form: str) -> LogFile:
    """Open a log file. Raises CommandError."""
    try:
        handler = LogFile(path)
    except OSError as error:
        message = f"cannot write the log {path}: {error.strerror}; name another file with --log"
        raise CommandError(ExitCode.MOUNT_FAILED, message) from None
    handler.setFormatter(_formatter(form))
    return handler


def _handler(target: str | None, form: str) -> logging.Handler:
    if target == JOURNAL:
        return _journal()
    if target is None and stderr_is_the_journal():
        try:
            return _journal()
        except CommandError:
            target = STDERR
    if target is None or target == STDERR:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_formatter(form))
        return handler
    return file_handler(target, form)


def _journal() -> logging.Handler:
    try:
        handler = Journal()
    except OSError as error:
        message = f"there is no journal to log to ({error.strerror}): leave --log out, or name a file"
        raise CommandError(ExitCode.MOUNT_FAILED, message) from None
    handler.setFormatter(Redactor("%(message)s"))
    return handler


def _formatter(form: str) -> logging.Formatter:
    return JsonLines() if form == "json" else Redactor("%(asctime)s %(levelname)s %(name)s: %(message)s")


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out one line of pyfuse3: an unmount right behind a last close leaves nobody to take RELEASE's answer."""
    return "fuse_release(): fuse_reply_* failed with No such file" not in record.getMessage()
