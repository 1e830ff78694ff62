"""Logging: to stderr, with everything that could be a secret struck out."""

from __future__ import annotations

import logging
import re
import sys

_SECRET = re.compile(
    r"(?i)((?:signature|token|x-amz-[a-z-]+|apikey)=|authorization:\s*|bearer\s+)[^\s&\"'<>,;)]+"
)


class Redactor(logging.Formatter):
    """Formats a record, tracebacks included, and strikes out signatures, tokens and pre-signed parameters."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the finished line."""
        return redact(super().format(record))


def redact(text: str) -> str:
    """Strike out what follows `signature=`, `token=`, `Bearer ` and their like."""
    return _SECRET.sub(r"\1***", text)


def set_up(level: str) -> None:
    """Send the logs of this process to stderr, from `level` (a name of the logging module) on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Redactor("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("pyfuse3").addFilter(_is_news)
    for chatty in ("httpx", "httpcore", "pyfuse3"):  # a line for every request, with its URL
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out one line of pyfuse3: an unmount right behind a last close leaves nobody to take RELEASE's answer."""
    return "fuse_release(): fuse_reply_* failed with No such file" not in record.getMessage()
