"""Where settings come from: flag, then environment, then file, then default."""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kvsfs.errors import CommandError, ExitCode
from kvsfs.options import OPTIONS, PATHS, VARIABLE_PREFIX, MountConfig, Option


@dataclass(frozen=True, slots=True)
class Setting:
    """A value, and the place where it was written, as a person finds it."""

    value: Any
    place: str


Layer = Mapping[str, Setting]
"""What one place says, by the options' names."""


@dataclass(frozen=True, slots=True)
class NamedMount:
    """A table `[mounts.NAME]` of a configuration file."""

    name: str
    place: str
    source: str
    mount_point: str | None
    layer: Layer


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the configuration files say."""

    mounts: Mapping[str, NamedMount] = dataclasses.field(default_factory=dict)
    defaults: tuple[Layer, ...] = ()
    """The tables `[mount]`, those that count more first."""

    def layers(self, environment: Mapping[str, str], named: NamedMount | None) -> list[Layer]:
        """Give what is said beside the command line, what counts more first. Raises CommandError."""
        return [of_environment(environment), *([named.layer] if named else []), *self.defaults]

    def named(self, name: str) -> NamedMount:
        """Give a named mount. Raises CommandError."""
        if name not in self.mounts:
            raise usage(f"no mount is named {name} in the configuration files{suggestion(name, self.mounts)}")
        return self.mounts[name]


def usage(message: str) -> CommandError:
    """Make the error of somebody who wrote something wrong."""
    return CommandError(ExitCode.USAGE, message)


def suggestion(word: str, known: Iterable[str]) -> str:
    """Give the ending of a message about a word that nobody knows: what may have been meant, or what there is."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, 1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are {', '.join(words)}" if words else ""


def setting(option: Option, texts: tuple[str, ...], place: str) -> Setting:
    """Read what was written somewhere. Raises CommandError."""
    try:
        return Setting(option.parse(texts), place)
    except ValueError as error:
        raise usage(f"{place}: {error}") from None


def of_environment(environment: Mapping[str, str]) -> Layer:
    """Read the variables of the environment; empty ones say nothing. Raises CommandError."""
    known = [option.variable for option in OPTIONS.values()]
    for variable in environment:
        if variable.startswith(VARIABLE_PREFIX) and variable not in known:
            raise usage(f"{variable}: there is no such option{suggestion(variable, known)}")
    layer = {}
    for option in OPTIONS.values():
        for variable in (option.variable, *option.variables):
            if text := environment.get(variable):
                texts = tuple(text.split(",")) if option.kind.repeated else (text,)
                layer[option.name] = setting(option, texts, variable)
                break
    return layer


def of_files(paths: Iterable[str]) -> Configuration:
    """Read the configuration files that exist; the first ones count more.

    A named mount of the first file that has it hides others of its name. Raises CommandError.
    """
    mounts: dict[str, NamedMount] = {}
    defaults = []
    for path in paths:
        content = _read(path)
        _check_keys(content, ("mount", "mounts"), path)
        defaults.append(_of_table(_table(content.get("mount", {}), f"{path} [mount]"), f"{path} [mount]"))
        for name, table in _table(content.get("mounts", {}), f"{path} [mounts]").items():
            mounts.setdefault(name, _named_mount(name, table, f"{path} [mounts.{name}]"))
    return Configuration(mounts, tuple(defaults))


def config(source: str, mount_point: str, layers: Iterable[Layer]) -> MountConfig:
    """Put a mount's configuration together; the first layers count more."""
    found = resolve(layers)
    return MountConfig(source, mount_point, **{OPTIONS[name].field: s.value for name, s in found.items()})


def resolve(layers: Iterable[Layer]) -> dict[str, Setting]:
    """Give every option's setting; the first layers count more."""
    found = {option.name: Setting(option.default, "default") for option in OPTIONS.values()}
    for layer in reversed(list(layers)):
        found |= layer
    return found


_FORMS: dict[type, str] = {
    bool: "true or false, without quotes",
    int: "a number, without quotes",
    str: "it in quotes",
    list: 'a list of strings, as in ["one", "two"]',
}
"""How what a configuration file holds is written, by its type there."""


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise usage(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise usage(f"{path} is not a TOML file: {error}") from None


def _named_mount(name: str, content: object, place: str) -> NamedMount:
    table = dict(_table(content, place))
    source, mount_point = table.pop("source", None), table.pop("mount-point", None)
    if not isinstance(source, str):
        raise usage(f'{place}: name what is mounted, as in source = "my-name/my-store"')
    if mount_point is not None:
        mount_point = _path(mount_point, f"{place} mount-point")
    return NamedMount(
        name, place, source, mount_point, _of_table(table, place, also=("source", "mount-point"))
    )


def _of_table(table: Mapping[str, object], place: str, also: tuple[str, ...] = ()) -> Layer:
    table = {key.replace("_", "-"): value for key, value in table.items()}
    _check_keys(table, (*OPTIONS, *also), place)
    return {
        key: setting(OPTIONS[key], _texts(OPTIONS[key], value, f"{place} {key}"), f"{place} {key}")
        for key, value in table.items()
    }


def _texts(option: Option, value: object, place: str) -> tuple[str, ...]:
    """Give what a file holds as it would be written elsewhere."""
    if type(value) is not option.kind.toml:
        raise usage(f"{place}: write {_FORMS[option.kind.toml]}")
    if isinstance(value, list):
        if not all(isinstance(element, str) for element in value):
            raise usage(f"{place}: write {_FORMS[list]}")
        return tuple(value)
    return (_path(value, place) if option.kind in PATHS else str(value),)


def _path(value: object, place: str) -> str:
    """Read a path that means the same wherever the command is typed."""
    if not isinstance(value, str) or not value.startswith(("/", "~")):
        raise usage(
            f'{place}: write a whole path in quotes, as in "/srv/{place.rsplit(maxsplit=1)[-1]}" or "~/…"'
        )
    return os.path.expanduser(value)


def _table(value: object, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise usage(f"{place}: this must be a table, with its settings in the lines below it")
    return value


def _check_keys(table: Mapping[str, object], known: tuple[str, ...], place: str) -> None:
    for key in table:
        if key not in known:
            raise usage(f"{place}: {key} is not known{suggestion(key, known)}")
