"""Every exception as an errno: one total table.

The boundary must be total: any exception but FUSEError that leaves a pyfuse3 handler ends the whole mount.
"""

from __future__ import annotations

import errno
import logging

import trio

from kvsfs import errors

_ERRNO_OF: tuple[tuple[type[Exception], int, int], ...] = (
    # type, errno, level of the log line; the first type that fits counts
    (errors.StoreTimeout, errno.ETIMEDOUT, logging.WARNING),
    (errors.StoreUnreachable, errno.EIO, logging.WARNING),
    # EAGAIN would say "try again" more precisely, but cp and cat take it for a non-blocking read and spin.
    (errors.RateLimited, errno.EBUSY, logging.WARNING),
    (errors.QuotaExceeded, errno.EDQUOT, logging.ERROR),
    (errors.NotAuthorized, errno.EACCES, logging.ERROR),
    (errors.PermissionDenied, errno.EACCES, logging.ERROR),
    # The mounted thing itself is gone: ENOENT would look like a single missing file.
    (errors.StoreNotFound, errno.ESTALE, logging.ERROR),
    (errors.RecordNotFound, errno.ENOENT, logging.INFO),
    (errors.RecordTooLarge, errno.EFBIG, logging.ERROR),
    (errors.RequestRefused, errno.EINVAL, logging.ERROR),
    (errors.RecordChanged, errno.ESTALE, logging.WARNING),
    (errors.ProtocolViolation, errno.EIO, logging.ERROR),
    (errors.StoreError, errno.EIO, logging.ERROR),
    (trio.TooSlowError, errno.ETIMEDOUT, logging.ERROR),
)

# The cache folder was removed under the mount: ENOENT would say so of the file, and a backup would take it for deleted.
_ERRNO_OF_CACHE = {errno.ENOENT: errno.EIO, errno.ENOTDIR: errno.EIO}


def errno_of(error: Exception) -> tuple[int, int | None]:
    """Give an exception's errno, and the level to log it at; None for one that nobody foresaw: with traceback.

    Never raises.
    """
    if isinstance(error, errors.FileError):
        return error.errno, logging.DEBUG
    for kind, number, level in _ERRNO_OF:
        if isinstance(error, kind):
            return number, level
    # The cache file's: ENOSPC, EDQUOT, EIO. A resolver's number is negative: the kernel would refuse the reply.
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return _ERRNO_OF_CACHE.get(error.errno, error.errno), logging.ERROR
    return errno.EIO, None
