"""The token of the Apify API: where it is found, and how it is changed under a running mount."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from kvsfs.errors import CommandError, ExitCode

log = logging.getLogger(__name__)

VARIABLE = "APIFY_TOKEN"

SYSTEMD_NAME = "apify-token"
"""The credential that a unit hands over: `LoadCredential=apify-token:FILE` (systemd.exec(5), CREDENTIALS)."""

KEYRING_SERVICE, KEYRING_ACCOUNT = "com.apify.cli", "token"
"""Where `apify login` puts the token, unless it goes into `CLI_FILE`."""

CLI_FILE = "~/.apify/auth.json"

KEYRING_SECONDS = 5.0
"""For the desktop's keyring to answer. A locked one asks a person, who may have gone home: a mount must not hang."""

REREAD_SECONDS = 5.0
"""Between two readings because of answers 401: a revoked token gets one for each upload that is tried again."""


@dataclass(frozen=True, slots=True)
class Found:
    """A token, and the place where a person finds it."""

    token: str = field(repr=False)
    place: str


async def find(token_file: str | None) -> Found | None:
    """Look in all places, the most deliberate one first: the named file, the environment, the unit, the Apify CLI's.

    Raises CommandError for a file that was named and cannot be used. Checkpoints where it asks the keyring.
    """
    if token_file is not None:
        return Found(read_token_file(token_file), token_file)
    if token := os.environ.get(VARIABLE):
        return Found(token, VARIABLE)
    return _of_systemd() or _of_cli_file() or await _of_keyring()


class Credential:
    """The token that requests carry. It may change between two of them. Belongs to one event loop."""

    def __init__(
        self, found: Found | None, read: Callable[[], Awaitable[Found | None]] | None = None
    ) -> None:
        """`read` finds it anew; None for a token that has nowhere to come from."""
        self._found = found
        self._read = read
        self._read_at = -math.inf
        self._used: set[str] = set()
        self._reading = (
            trio.Lock()
        )  # of many that are refused at once one reads, and the others have its token

    @property
    def token(self) -> str | None:
        """The token of the next request."""
        return None if self._found is None else self._found.token

    def struck_out(self, text: str) -> str:
        """Give a text without this token, and without those that it had before: an answer may be to an old one."""
        for token in filter(None, (*self._used, self.token)):
            text = text.replace(token, "***")
        return text

    async def read(self) -> Found | None:
        """Look for the token anew; what is in use stays. Raises CommandError."""
        return self._found if self._read is None else await self._read()

    def replace(self, found: Found) -> None:
        """Use another token from here on."""
        if self._found is not None:
            self._used.add(self._found.token)
        self._found = found

    async def is_renewed(self, refused: str | None) -> bool:
        """Whether there is another token than the one that was refused: looks for it, but not all the time."""
        async with self._reading:
            if self.token == refused and trio.current_time() - self._read_at >= REREAD_SECONDS:
                await self._renew(refused)
                self._read_at = trio.current_time()
        return self.token != refused

    async def _renew(self, refused: str | None) -> None:
        try:
            found = await self.read()
        except CommandError as error:
            log.warning("the API refuses the token, and there is no other: %s", error)
            return
        if found is not None and found.token != refused:
            log.info("the API refused the token; %s has another, which is used from here on", found.place)
            self.replace(found)


def read_token_file(path: str) -> str:
    """Give the token that a file holds. Raises CommandError; also where others than its owner may read it."""
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            token = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise CommandError(ExitCode.NO_TOKEN, f"cannot read the token file {path}: {reason}") from None
    if mode & 0o077:
        message = f"the token file {path} can be read by others: chmod 600 {path}"
        raise CommandError(ExitCode.NO_TOKEN, message)
    if not token:
        raise CommandError(ExitCode.NO_TOKEN, f"the token file {path} is empty")
    return token


def _of_systemd() -> Found | None:
    """Read what systemd has put aside for this unit alone: its own permissions hold, 0400 in a folder 0500."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None
    try:
        with open(os.path.join(folder, SYSTEMD_NAME), encoding="utf-8") as file:
            token = file.read().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return Found(token, f"systemd's credential {SYSTEMD_NAME}") if token else None


def _of_cli_file() -> Found | None:
    try:
        with open(os.path.expanduser(CLI_FILE), encoding="utf-8") as file:
            token = json.load(file)["token"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Found(token, CLI_FILE) if token and isinstance(token, str) else None


async def _of_keyring() -> Found | None:
    with trio.move_on_after(KEYRING_SECONDS) as scope:
        token = await trio.to_thread.run_sync(_ask_keyring, abandon_on_cancel=True)
        return Found(token, "the keyring entry of the Apify CLI") if token else None
    if scope.cancelled_caught:
        log.warning("the desktop's keyring has not answered for %g s: is it locked?", KEYRING_SECONDS)
    return None


def _ask_keyring() -> str | None:
    """Ask the desktop's keyring, where the package `keyring` is installed. It takes 0.1 s to load: here, and last."""
    try:
        import keyring  # noqa: PLC0415
    except ImportError:
        return None
    try:
        return keyring.get_password(KEYRING_SERVICE, KEYRING_ACCOUNT)
    except Exception as error:  # noqa: BLE001 - whatever the desktop's D-Bus raises
        log.debug("the desktop's keyring cannot be asked: %s", type(error).__name__)
        return None
