"""System calls that Python has no function for."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
AT_FDCWD = -100

KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE = 0x01, 0x02, 0x08, 0x10, 0x20

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)
_libc.getxattr.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
_libc.getxattr.restype = ctypes.c_ssize_t
_libc.listxattr.argtypes = (ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
_libc.listxattr.restype = ctypes.c_ssize_t


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2); os.posix_fallocate writes zeros where the file system refuses."""
    _checked(_libc.fallocate(descriptor, mode, offset, length))


def renameat2(old: Path, new: Path, flags: int) -> None:
    """renameat2(2)."""
    _checked(_libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))


def getxattr(path: Path, name: str, size: int) -> int:
    """getxattr(2) into a buffer of `size` bytes; the value's length."""
    return _checked(_libc.getxattr(os.fsencode(path), name.encode(), ctypes.create_string_buffer(size), size))


def listxattr(path: Path, size: int) -> int:
    """listxattr(2) into a buffer of `size` bytes; the list's length."""
    return _checked(_libc.listxattr(os.fsencode(path), ctypes.create_string_buffer(size), size))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
