"""Users and their tokens."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import string
from collections.abc import Iterable, Mapping

from kvsfs.errors import CommandError, ExitCode

ALPHANUMERIC = string.ascii_letters + string.digits

ID_LENGTH = 17
"""Letters and digits of an ID, of users and of stores, as Apify's have: 101 bits."""

DEFAULT_USERNAME = "local"
"""The user of a token without a name, and of everyone when there is no token: so that a folder filled before
the first token was given keeps its owner."""

USERNAME = re.compile(r"[A-Za-z0-9._-]{1,63}")


def user_id(username: str) -> str:
    """Give the ID of a user."""
    return derived_id("user", username)


@functools.lru_cache(maxsize=1024)  # every description of a store asks for its owner's
def derived_id(kind: str, name: str) -> str:
    """Give the ID of what has a name: the same on every server for the same name, so it needs no table."""
    digest = int.from_bytes(hashlib.sha256(f"{kind}:{name}".encode()).digest())
    return "".join(ALPHANUMERIC[digest // 62**place % 62] for place in range(ID_LENGTH))


class Tokens:
    """Which token belongs to which user. Holds hashes only, and compares those: no timing tells a token."""

    def __init__(self, usernames: Mapping[str, str]) -> None:
        self._users = {_digest(token): username for token, username in usernames.items()}
        self._names = {user_id(name): name for name in usernames.values() or (DEFAULT_USERNAME,)}

    @classmethod
    def parse(cls, specifications: Iterable[str]) -> Tokens:
        """Read `TOKEN` or `TOKEN=USERNAME`. Raises CommandError, without the token."""
        usernames: dict[str, str] = {}
        for specification in specifications:
            token, separator, username = specification.partition("=")
            username = username if separator else DEFAULT_USERNAME
            if not token or not token.isascii() or not token.isprintable() or " " in token:
                raise CommandError(
                    ExitCode.USAGE, "a token is empty or holds a space or an unprintable character"
                )
            if not USERNAME.fullmatch(username):
                raise CommandError(
                    ExitCode.USAGE, "a user name after TOKEN= may hold letters, digits, . _ and - only"
                )
            if usernames.setdefault(token, username) != username:
                raise CommandError(ExitCode.USAGE, "the same token is given to two users")
        return cls(usernames)

    def known(self, reference: str) -> str | None:
        """Give the name of a user who is meant by a name or an ID."""
        return reference if reference in self._names.values() else self._names.get(reference)

    def __bool__(self) -> bool:
        return bool(self._users)

    def username(self, token: str) -> str | None:
        """Give the owner of a token."""
        return self._users.get(_digest(token))


def read_users(path: str) -> list[str]:
    """Read a file of users: `TOKEN` or `TOKEN=USERNAME` in each line, `#` before a comment.

    Raises CommandError, also for a file that others than its owner can read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise CommandError(ExitCode.USAGE, f"cannot read the users file {path}: {reason}") from None
    if mode & 0o077:
        raise CommandError(ExitCode.USAGE, f"the users file {path} can be read by others: chmod 600 {path}")
    users = [line for line in lines if line and not line.startswith("#")]
    if not users:  # not the same as no --users: that would let everyone in
        raise CommandError(ExitCode.USAGE, f"the users file {path} names nobody")
    return users


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
