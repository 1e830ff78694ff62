"""The options of `kvsfs mount`: the one table from which everything else about them is made.

A field of `MountConfig` is an entry: its name, kind, default and meaning. From it follow the long option
(`--cache-dir`), the word of `-o` (`cache_dir`), the environment variable (`KVSFS_MOUNT_CACHE_DIR`), the key of the
configuration files (`cache-dir`), the arguments of the daemon in the background, and docs/OPTIONS.md (`./dev docs`).
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from kvsfs.config import API_URL, check_api_url, parse_duration, parse_size, show_duration, show_size

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

VARIABLE_PREFIX = "KVSFS_MOUNT_"

CACHE_BYTES = 10 * 1024**3
"""What clean files may take by default, where the disk has twice as much left."""

# --- kinds --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind(Generic[T_co]):
    """How the values of an option are written. `parse` raises ValueError, and reads what `show` writes."""

    metavar: str
    parse: Callable[[str], T_co]
    show: Callable[[Any], str] = str
    toml: type = str
    """What a configuration file holds: bool, int, str, or a list of str."""
    repeated: bool = False
    """Each text is one element of a tuple, and `parse` and `show` are for an element."""
    choices: tuple[str, ...] = ()
    """The only values, if there are few."""


def _parse_flag(text: str) -> bool:
    values = {"true": True, "yes": True, "on": True, "1": True}
    values |= {"false": False, "no": False, "off": False, "0": False}
    if text.lower() not in values:
        raise ValueError(f"{text!r} is neither true nor false")
    return values[text.lower()]


def _show_flag(value: bool) -> str:  # noqa: FBT001
    return "true" if value else "false"


def _parse_text(text: str) -> str:
    if not text:
        raise ValueError("the value is missing")
    return text


def _parse_path(text: str) -> str:
    return os.path.abspath(os.path.expanduser(_parse_text(text)))


def _parse_pattern(text: str) -> str:
    if "/" in text:
        raise ValueError(
            f"{text!r} can match no name: a pattern is for one name, without the folders above it"
        )
    return _parse_text(text)


def _parse_positive_duration(text: str) -> float:
    duration = parse_duration(text)
    if not duration:
        raise ValueError("no time at all is too short")
    return duration


def _parse_integer(text: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", text):
        raise ValueError(f"{text!r} is not a number")
    return int(text)


def _parse_mode(text: str) -> int:
    if not re.fullmatch("0?[0-7]{1,3}", text):
        raise ValueError(f"{text!r} is not an octal mode: write three digits from 0 to 7, as in 640")
    return int(text, 8)


def _parse_api_url(text: str) -> str:
    check_api_url(text)
    return text


def choice(*values: str, metavar: str = "") -> Kind[str]:
    """Make a kind of a few words, in upper or lower case; `metavar` where they are too many to show."""

    def parse(text: str) -> str:
        for value in values:
            if value.lower() == text.lower():
                return value
        raise ValueError(f"{text!r} is none of {', '.join(values)}")

    return Kind(metavar or "|".join(values), parse, choices=values)


def _parse_log(text: str) -> str:
    """Read a word or a whole path: a relative one would be another file in the background."""
    if text in ("stderr", "journal"):
        return text
    if not text.startswith(("/", "~")):
        raise ValueError(f"{text!r} is neither stderr nor journal nor a whole path, as in /var/log/kvsfs.log")
    return _parse_path(text)


def _parse_address(text: str) -> str:
    """Read PORT or HOST:PORT; an IPv6 address stands in brackets, as in URLs."""
    host, _, port = text.rpartition(":")
    if (
        not re.fullmatch("[0-9]{1,5}", port)
        or int(port) > 65535
        or not re.fullmatch(r"[\w.-]*|\[[0-9a-f:.]+\]", host)
    ):
        raise ValueError(f"{text!r} is no address: write PORT or HOST:PORT, as in 9464 or 127.0.0.1:9464")
    return text


FLAG = Kind("", _parse_flag, _show_flag, toml=bool)
URL = Kind("URL", _parse_api_url)
FOLDER = Kind("DIR", _parse_path)
FILE = Kind("FILE", _parse_path)
ADDRESS = Kind("ADDRESS", _parse_address)
LOG = Kind("stderr|journal|FILE", _parse_log)
DURATION = Kind("TIME", parse_duration, show_duration)
POSITIVE_DURATION = Kind("TIME", _parse_positive_duration, show_duration)
SIZE = Kind("SIZE", parse_size, show_size)
INTEGER = Kind("N", _parse_integer, toml=int)
MODE = Kind("MODE", _parse_mode, "{:04o}".format)
TEXT = Kind("TEXT", _parse_text)
PATH_PREFIX = Kind("PATH", _parse_text)
PATTERNS: Kind[Any] = Kind("PATTERN", _parse_pattern, toml=list, repeated=True)

PATHS = (FOLDER, FILE)

# --- the table ----------------------------------------------------------------------------------------


def option(
    kind: Kind[T],
    default: T,
    about: str,
    *,
    shown: str | None = None,
    words: Mapping[str, str] | None = None,
    variables: tuple[str, ...] = (),
) -> T:
    """Make a field of `MountConfig` an option.

    `shown`: the default for people, where the value does not say it. `words`: what else `-o` takes, and the
    value that it stands for. `variables`: what other programs call it in the environment.
    """
    metadata = {"kind": kind, "about": about, "shown": shown, "words": words or {}, "variables": variables}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class MountConfig:
    """Everything that a mount is told. Paths are absolute, times are seconds, sizes are bytes."""

    source: str
    mount_point: str

    prefix: str | None = option(
        PATH_PREFIX, None, "Show only what begins with this, without it: a folder (img/), or part of a name."
    )
    collection: str | None = option(
        TEXT, None, "Show only the records of this collection of the store's schema."
    )
    layout: str = option(
        choice("keys", "collections"),
        "keys",
        "Folders as the keys' slashes make them, or one for each collection of the store's schema.",
    )
    create: bool = option(FLAG, False, "Make the store if there is none of that name.")
    read_only: bool = option(FLAG, False, "Allow no change.", words={"ro": "true", "rw": "false"})
    api_url: str = option(
        URL,
        API_URL,
        "Another API.",
        shown=f"APIFY_API_BASE_URL or {API_URL}",
        # The variables of the Apify SDKs, and of the Apify CLI.
        variables=("APIFY_API_BASE_URL", "APIFY_CLIENT_BASE_URL"),
    )
    token_file: str | None = option(
        FILE, None, "File that holds the token.", shown="APIFY_TOKEN, systemd, the Apify CLI"
    )
    timeout: float = option(
        POSITIVE_DURATION,
        30.0,  # Apify's slowest operations answer within some seconds; a shell shall not seem dead for longer
        "What a request to the store may take, with its retries; large uploads get more.",
    )
    log_level: str = option(
        choice("DEBUG", "INFO", "WARNING", "ERROR", metavar="LEVEL"), "INFO", "DEBUG, INFO, WARNING or ERROR."
    )
    log: str | None = option(
        LOG,
        None,
        "Where the log goes: stderr, journal, or a file, which is begun anew at 8 MiB, with three old ones kept.",
        shown="stderr; in the background a file in ~/.local/state/kvsfs",
    )
    log_format: str = option(choice("text", "json"), "text", "Lines for people, or a JSON object each.")
    metrics: str | None = option(
        ADDRESS, None, "Serve metrics for Prometheus there: PORT (of loopback) or HOST:PORT.", shown="none"
    )

    # What other processes see
    noexec: bool = option(FLAG, False, "Let no program be started from the mount.", words={"exec": "false"})
    allow_other: bool = option(FLAG, False, "Let other users in.")
    uid: int | None = option(INTEGER, None, "Owner of all files.", shown="yours")
    gid: int | None = option(INTEGER, None, "Group of all files.", shown="yours")
    file_mode: int | None = option(MODE, None, "Mode of files.", shown="666 less the umask")
    dir_mode: int | None = option(MODE, None, "Mode of folders.", shown="777 less the umask")
    umask: int = option(MODE, 0o022, "Permissions that no file and no folder has.")
    names: str = option(
        choice("encoded", "strict"), "encoded", "What a key cannot hold is encoded, or refused with EINVAL."
    )

    # How far what is known is trusted, and how long is waited
    listing_ttl: float = option(
        DURATION,
        30.0,  # rclone trusts its folders for 300 s, gcsfuse for 60; a run's OUTPUT should not take a minute to show
        "How long a folder's listing is trusted; one that took long is trusted longer.",
    )
    revalidate: float = option(
        DURATION,
        5.0,  # a scan that opens files twice asks once
        "How long a file that was checked against the store is opened unasked.",
    )
    poll: float | None = option(
        POSITIVE_DURATION,
        None,
        "How often the store is asked whether other clients changed it; what they changed is then shown at once.",
        shown="never",
    )
    extensions: bool = option(
        FLAG,
        False,
        "Show records whose names have no extension with that of their type: INPUT as INPUT.json.",
    )
    exact_sizes: bool = option(
        FLAG, False, "Ask for the true size of each listed file, for git add and Python's tarfile."
    )
    close_timeout: float = option(
        POSITIVE_DURATION,
        # A process in close(2) cannot be killed; an hour carries 4.5 GB over a line of 10 Mbit/s. A dead line is
        # noticed much earlier, by the store's stall time-out.
        3600.0,
        "What the upload of a close may take.",
    )
    write_back: float | None = option(
        DURATION,
        None,
        "Let close return when the bytes are safe on disk, and upload them that much later.",
        shown="close waits for the store",
    )
    uploads: int = option(
        INTEGER,
        # 20 ms a request and 800 µs of CPU for each: more in flight only wait for one another
        24,
        "Uploads in the background at a time.",
    )
    on_conflict: str = option(
        choice("overwrite", "keep-both"),
        "overwrite",  # the last writer wins, as between two programs on one disk, and as the API does by itself
        "What an upload does when somebody else has written the record since it was read here.",
    )
    rename_grace: float = option(
        DURATION,
        # `cp -r`, `rm -r` and programs that save by renaming are through within milliseconds; on a loaded machine a
        # second was seen.
        2.0,
        "How long a temporary file, an empty folder or the removal of an open file waits for what follows it.",
    )
    max_dirty_age: float = option(
        POSITIVE_DURATION,
        300.0,  # a log that is never closed is then at most five minutes behind
        "Upload a file that stays open after it was written that long ago.",
    )
    drain_timeout: float = option(
        DURATION,
        300.0,  # systemd kills a unit 90 s after its stop by default, which is short for a day's changes
        "What uploads may take after the unmount; the next mount goes on with the rest.",
    )

    # What is sent
    compress: str = option(
        choice("off", "gzip", "br"),
        "off",  # a listing then tells the size that a reader sees, and parts of a record can be asked for
        "Send text, JSON and the like of 1 KiB and more compressed; HTML cannot be.",
    )
    deferred: tuple[str, ...] = option(
        PATTERNS, (), "Names that programs rename soon, beside *~, *.part, *.tmp: sent under the final one."
    )
    local_only: tuple[str, ...] = option(
        PATTERNS, (), "Names that stay on this machine, beside those of swap files and the trash."
    )

    # The cache folder
    cache_dir: str | None = option(
        FOLDER, None, "Folder of the cache files, one for each store.", shown="below ~/.cache/kvsfs"
    )
    cache_size: int | None = option(
        SIZE,
        None,
        "What files that the store has may take in the cache folder.",
        shown=f"{show_size(CACHE_BYTES)}, at most half of the free disk",
    )
    cache_min_free: int = option(
        SIZE, 0, "Keep that much of its disk free, as long as files that the store has can go."
    )


@dataclass(frozen=True, slots=True)
class Option:
    """An entry of the table, as `option` describes it. `name` has dashes."""

    field: str
    kind: Kind[Any]
    default: Any
    about: str
    shown: str | None
    words: Mapping[str, str]
    variables: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its long option without the dashes before it, and its key in configuration files."""
        return self.field.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return VARIABLE_PREFIX + self.field.upper()

    @property
    def shown_default(self) -> str:
        """What happens without it, for people."""
        return self.shown or self.show(self.default)

    def parse(self, texts: tuple[str, ...]) -> Any:  # the field's own type
        """Read what was written, the last one where only one counts. Raises ValueError."""
        if self.kind.repeated:
            return tuple(self.kind.parse(text) for text in texts)
        return self.kind.parse(texts[-1])

    def show(self, value: Any) -> str:
        """Write a value for people: `parse` reads it, but for a tuple."""
        if value is None or value == ():
            return self.shown or "none"
        return ", ".join(map(self.kind.show, value)) if self.kind.repeated else self.kind.show(value)


OPTIONS = {
    option.name: option
    for option in (
        Option(field.name, default=field.default, **field.metadata)
        for field in dataclasses.fields(MountConfig)
        if field.metadata
    )
}
"""By name, in the order in which people should read them."""

DEFAULTS = MountConfig(source="", mount_point="")
"""What holds where nobody says anything: the numbers of core and store are taken from here."""


def arguments(config: MountConfig) -> list[str]:
    """Write a configuration as the arguments of `kvsfs mount` that give it, without environment and files."""
    written: list[str] = []
    for entry in OPTIONS.values():
        value = getattr(config, entry.field)
        if value == entry.default:
            continue
        if entry.kind is FLAG:
            written.append(f"--{entry.name}" if value else f"--no-{entry.name}")
        else:
            values = value if entry.kind.repeated else (value,)
            written += [f"--{entry.name}={entry.kind.show(element)}" for element in values]
    return [*written, "--", config.source, config.mount_point]
