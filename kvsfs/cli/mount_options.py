"""The options of `mount` on its command line: long ones as typer takes them, and `-o` as mount(8) writes it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import typer

from kvsfs.cli import completing
from kvsfs.options import FLAG, OPTIONS, Option
from kvsfs.settings import Layer, setting, suggestion, usage

F = TypeVar("F", bound=Callable[..., None])

_FOR_OTHERS = {
    "-netdev", "nofail", "noauto", "auto", "user", "nouser", "users", "nousers", "owner", "noowner", "group", "nogroup",
    "defaults", "dev", "nodev", "suid", "nosuid", "atime", "noatime", "relatime", "norelatime", "strictatime",
    "nostrictatime", "lazytime", "nolazytime", "diratime", "nodiratime", "async", "silent", "loud", "iversion",
    "noiversion", "nomand", "default-permissions",
}  # fmt: skip
"""Words for mount(8), systemd and the kernel, with `-` for `_`, that say nothing to kvsfs, or what it does anyway:
it keeps no access times, and neither devices nor set-user-ID count on it, whatever is said."""


def with_options(command: F) -> F:
    """Have typer see a parameter for each option where `command` takes `**flags`."""
    signature = inspect.signature(command, eval_str=True)
    fixed = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    parameters = [*fixed, *map(_parameter, OPTIONS.values())]
    setattr(command, "__signature__", signature.replace(parameters=parameters))  # noqa: B010  # mypy knows no such attribute
    return command


def _parameter(option: Option) -> inspect.Parameter:
    name = f"--{option.name}/--no-{option.name}" if option.kind is FLAG else f"--{option.name}"
    about = option.about if option.kind is FLAG else f"{option.about} [default: {option.shown_default}]"
    written: Any = bool if option.kind is FLAG else list[str] if option.kind.repeated else str
    offer = completing.choices(*option.kind.choices) if option.kind.choices else None
    annotation = Annotated[
        written | None,
        typer.Option(name, metavar=option.kind.metavar or None, help=about, autocompletion=offer),
    ]
    return inspect.Parameter(
        option.field, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def of_flags(flags: Mapping[str, Any]) -> Layer:
    """Read what typer found for the long options. Raises CommandError."""
    layer = {}
    for option in OPTIONS.values():
        value = flags[option.field]
        if value is not None:
            texts = tuple(value) if option.kind.repeated else (str(value),)
            layer[option.name] = setting(option, texts, f"--{option.name}")
    return layer


def of_words(arguments: Sequence[str], *, sloppy: bool = False) -> Layer:
    """Read the values of all `-o`. `_` and `-` are the same.

    Raises CommandError for a word that nobody knows, but with `sloppy` (mount(8), -s), which leaves it out.
    """
    found: dict[str, tuple[str, ...]] = {}
    for word in (word for argument in arguments for word in argument.split(",") if word):
        if sloppy and not _is_known(word):
            continue
        read = _word(word)
        if read is not None:
            option, text = read
            before = found.get(option.name, ()) if option.kind.repeated else ()
            found[option.name] = (*before, text)
    return {name: setting(OPTIONS[name], texts, f"-o {name}") for name, texts in found.items()}


def _word(word: str) -> tuple[Option, str] | None:
    """Tell which option a word sets, and to what; None where it is for others. It never repeats a value."""
    name, has_value, text = word.partition("=")
    name = name.replace("_", "-")
    if _is_for_others(name):
        return None
    if name == "remount":
        raise usage("-o remount: a mount cannot be changed; unmount it, and mount it anew")
    if name not in _WORDS:
        raise usage(f"-o {name}: not an option of kvsfs{suggestion(name, _WORDS)}")
    option, implied = _WORDS[name]
    if implied is not None:
        if has_value:
            raise usage(f"-o {name}: it takes no value")
        return option, implied
    if not text:
        raise usage(f"-o {name}: it needs a value, as in {name}={option.kind.metavar}")
    return option, text


def words_to_offer() -> list[str]:
    """Give the words of `-o` as fstab has them; those that take a value end in `=`."""
    return [
        name.replace("-", "_") + ("=" if implied is None else "") for name, (_, implied) in _WORDS.items()
    ]


def words_for_others() -> list[str]:
    """Give the words that say nothing to kvsfs, as fstab has them."""
    return [*sorted(word.replace("-", "_") for word in _FOR_OTHERS), "x-...", "comment=..."]


def _is_known(word: str) -> bool:
    name = word.partition("=")[0].replace("_", "-")
    return name in _WORDS or _is_for_others(name)


def _is_for_others(name: str) -> bool:
    return name in _FOR_OTHERS or name.startswith(("x-", "X-", "comment"))


def _words() -> dict[str, tuple[Option, str | None]]:
    words: dict[str, tuple[Option, str | None]] = {}
    for option in OPTIONS.values():
        flag = option.kind is FLAG
        words[option.name] = (option, "true" if flag else None)
        if flag:
            words[f"no-{option.name}"] = (option, "false")
        words |= {word: (option, value) for word, value in option.words.items()}
    return words


_WORDS = _words()
"""What each word of `-o` sets, and to what where it takes no value."""
