"""Every error that kvsfs raises on purpose.

    KvsfsError
    ├── StoreError                  the API or the way to it
    │   ├── StoreUnreachable        no connection, connection lost, 5xx after the last retry
    │   │   └── StoreTimeout        no progress or no end within the deadline
    │   ├── RateLimited             429 after the last retry
    │   ├── QuotaExceeded           402: the plan's limit
    │   ├── NotAuthorized           401: no token, or one that the API does not know
    │   ├── PermissionDenied        403
    │   ├── StoreNotFound           404 of the store itself
    │   ├── RecordNotFound          404 of a record
    │   ├── RecordTooLarge          413
    │   ├── RequestRefused          400, 415 and every other 4xx: key, content type, schema
    │   ├── RecordChanged           the record is no longer the version that was asked for
    │   └── ProtocolViolation       an answer that is not the API's: garbage, wrong length, cyclic pages
    ├── FileError                   a file operation that cannot be done; carries its errno
    └── CommandError                a command that cannot be done; carries its exit code

Messages are one line for people: what is wrong, and where it helps what to do. They never hold a token,
a signature or a signed URL.
"""

from __future__ import annotations

import enum
import os
from typing import Self


class KvsfsError(Exception):
    """Base of all errors of kvsfs."""


class StoreError(KvsfsError):
    """The API said no, or could not be asked.

    `error_type` is the API's own word (`record-not-found`), None when the error is not the API's.
    """

    def __init__(self, message: str, *, status: int | None = None, error_type: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type


class StoreUnreachable(StoreError):
    """No connection, a connection lost, or 5xx after the last retry."""


class StoreTimeout(StoreUnreachable):
    """No progress, or no end, within the deadline."""


class RateLimited(StoreError):
    """429 after the last retry."""


class QuotaExceeded(StoreError):
    """402: the account's plan allows no more."""


class NotAuthorized(StoreError):
    """401: no token, or one the API does not know."""


class PermissionDenied(StoreError):
    """403: the token may not do this."""


class StoreNotFound(StoreError):
    """404 of the store itself."""


class RecordNotFound(StoreError):
    """404 of a record."""


class RecordTooLarge(StoreError):
    """413."""


class RequestRefused(StoreError):
    """400, 415 and any other 4xx: a key, a content type, a collection's schema."""


class RecordChanged(StoreError):
    """The record is no longer the version that was asked for."""


class ProtocolViolation(StoreError):
    """An answer that is not the API's."""


class FileError(KvsfsError):
    """A file operation that cannot be done, with the errno that POSIX or Linux names for it."""

    def __init__(self, errno: int, message: str | None = None) -> None:
        super().__init__(message or os.strerror(errno))
        self.errno = errno


class ExitCode(enum.IntEnum):
    """Exit codes of the commands: the table from which `--help`, README and the man pages have them.

    1 and 2 are the shell's and the option parser's usual ones; 130 is what shells show after SIGINT.
    """

    meaning: str

    def __new__(cls, code: int, meaning: str = "") -> Self:
        """Make a member of the table: its code, and what it says to people."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    OK = 0, "done"
    UNEXPECTED = 1, "unexpected: please report it"
    USAGE = 2, "a wrong option or argument"
    NO_TOKEN = 10, "no token"
    TOKEN_REFUSED = 11, "the token is not known"
    NO_PERMISSION = 12, "no permission"
    NO_SUCH_STORE = 13, "no such store"
    UNREACHABLE = 14, "the API cannot be reached"
    INVALID_SOURCE = 15, "not a source"
    NO_SUCH_RUN = 16, "no such run"
    SIGNATURE_REFUSED = 17, "the signature of a URL is refused"
    INVALID_NAME = 18, "a name that no store can have, or that is taken"
    NOT_CONFIRMED = 19, "nobody has confirmed it"
    MOUNT_POINT_MISSING = 20, "the mount point is missing"
    MOUNT_POINT_NOT_A_FOLDER = 21, "the mount point is not a folder"
    MOUNT_POINT_NOT_EMPTY = 22, "the mount point is not empty"
    ALREADY_MOUNTED = 23, "something is mounted there already"
    NOT_MOUNTED = 24, "nothing of kvsfs is mounted there"
    BUSY = 25, "the mount is in use"
    SCHEMA_UNUSABLE = 26, "the store's schema makes no folders"
    NO_FUSE_DEVICE = 30, "/dev/fuse is missing"
    NO_FUSERMOUNT = 31, "fusermount3 is missing"
    MOUNT_FAILED = 32, "mounting failed"
    CACHE_UNUSABLE = 33, "the cache or data folder cannot be used"
    NOT_ALL_UPLOADED = 40, "not all was uploaded, or exported"
    NOTHING_PENDING = 41, "nothing is pending there"
    NO_ANSWER = 42, "the mount's daemon does not answer"
    ADDRESS_IN_USE = 50, "the address is in use"
    DATA_DAMAGED = 51, "a data folder is damaged"
    NOT_ALL_FITS = 60, "not all fits the store, or the folder"
    PROBLEM_FOUND = 61, "kvsfs doctor found a problem"
    INTERRUPTED = 130, "interrupted (Ctrl-C)"


class CommandError(KvsfsError):
    """A command that cannot be done. `str()` is the one line that the user reads."""

    def __init__(self, exit_code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code
