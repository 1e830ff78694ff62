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
    """Exit codes of the commands. 1 and 2 are the shell's and the option parser's usual ones."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    NO_TOKEN = 10
    TOKEN_REFUSED = 11
    NO_PERMISSION = 12
    NO_SUCH_STORE = 13
    UNREACHABLE = 14
    INVALID_SOURCE = 15
    NO_SUCH_RUN = 16
    SIGNATURE_REFUSED = 17
    INVALID_NAME = 18
    NOT_CONFIRMED = 19
    MOUNT_POINT_MISSING = 20
    MOUNT_POINT_NOT_A_FOLDER = 21
    MOUNT_POINT_NOT_EMPTY = 22
    ALREADY_MOUNTED = 23
    NOT_MOUNTED = 24
    BUSY = 25
    NO_FUSE_DEVICE = 30
    NO_FUSERMOUNT = 31
    MOUNT_FAILED = 32
    CACHE_UNUSABLE = 33
    NOT_ALL_UPLOADED = 40
    NOTHING_PENDING = 41
    NO_ANSWER = 42
    ADDRESS_IN_USE = 50
    DATA_DAMAGED = 51
    NOT_ALL_FITS = 60


class CommandError(KvsfsError):
    """A command that cannot be done. `str()` is the one line that the user reads."""

    def __init__(self, exit_code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code
