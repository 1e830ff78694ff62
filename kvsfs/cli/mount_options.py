"""Options as mount(8) and fstab write them: `ro,allow_other,uid=1000`."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvsfs.config import parse_duration
from kvsfs.errors import CommandError, ExitCode

_FLAGS = {"ro", "allow-other"}
_VALUES = {"api-url", "token-file", "cache-dir", "uid", "gid", "file-mode", "dir-mode", "timeout"}

_FOR_OTHERS = {
    "_netdev", "nofail", "noauto", "auto", "user", "nouser", "users", "owner", "group", "defaults", "rw",
    "dev", "nodev", "suid", "nosuid", "exec", "noexec", "atime", "noatime", "relatime", "norelatime",
    "diratime", "nodiratime", "default-permissions",
}  # fmt: skip
"""Words for mount(8), systemd and the kernel that say nothing to kvsfs, or what it does anyway."""


@dataclass(frozen=True, slots=True)
class Words:
    """What was given, under the long options' names. Methods raise CommandError for values that make no sense."""

    given: tuple[str, ...] = ()
    values: dict[str, str] = field(default_factory=dict)

    def flag(self, name: str) -> bool:
        """Tell whether a word without value was given."""
        return name in self.values

    def text(self, name: str) -> str | None:
        """Give a word's value."""
        return self.values.get(name)

    def number(self, name: str) -> int | None:
        """Give a word's value as a decimal number."""
        return self._integer(name, 10)

    def duration(self, name: str) -> float | None:
        """Give a word's value as seconds."""
        return seconds(f"-o {name}", self.values.get(name))

    def mode(self, name: str, default: int) -> int:
        """Give a word's value as an octal mode."""
        mode = self._integer(name, 8)
        return default if mode is None else mode

    def _integer(self, name: str, base: int) -> int | None:
        value = self.values.get(name)
        try:
            return None if value is None else int(value, base)
        except ValueError:
            raise CommandError(ExitCode.USAGE, f"-o {name}={value}: not a number of base {base}") from None


def seconds(option: str, value: str | None) -> float | None:
    """Read an option's duration, which must not be 0. Raises CommandError."""
    if value is None:
        return None
    try:
        duration = parse_duration(value)
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, f"{option}: {error}") from None
    if not duration:
        raise CommandError(ExitCode.USAGE, f"{option}: no time at all is too short")
    return duration


def parse_words(options: list[str]) -> Words:
    """Read the values of all `-o`. `_` and `-` are the same. Raises CommandError for a word that nobody knows."""
    given = tuple(word for option in options for word in option.split(",") if word)
    values: dict[str, str] = {}
    for word in given:
        name, has_value, value = word.partition("=")
        name = name if name in _FOR_OTHERS else name.replace("_", "-")
        if name in _FLAGS and not has_value:
            values[name] = ""
        elif name in _VALUES and value:
            values[name] = value
        elif name not in _FOR_OTHERS and not name.startswith(("x-", "comment")):
            known = ", ".join(sorted(_FLAGS | {f"{name}=…" for name in _VALUES}))
            raise CommandError(ExitCode.USAGE, f"-o {word}: not an option of kvsfs; there are {known}")
    return Words(given, values)
