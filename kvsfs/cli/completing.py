"""What a shell offers at TAB. Nothing here asks a network, or a mount; what is wrong offers nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kvsfs.errors import KvsfsError

Offer = Callable[[str], list[str]]
"""Gives the words that begin with what was typed. Typer wants the parameter to be called `incomplete`."""

BEGINNINGS = ("run:", "actor:", "task:", "local:")
"""Of sources that are no names (store.sources)."""


def choices(*words: str) -> Offer:
    """Offer some words."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


def sources(incomplete: str) -> list[str]:
    """Offer the mounts that configuration files name, and how sources begin that are no names."""
    return [word for word in (*_named_mounts(), *BEGINNINGS) if word.startswith(incomplete)]


def mounts(incomplete: str) -> list[str]:
    """Offer where stores are mounted."""
    from kvsfs.fuse import mount_table

    return [path for path in sorted(mount_table.ours()) if path.startswith(incomplete)]


def mounts_and_names(incomplete: str) -> list[str]:
    """Offer where stores are mounted, and what configuration files name."""
    return [*mounts(incomplete), *names(incomplete)]


def names(incomplete: str) -> list[str]:
    """Offer what configuration files name."""
    return [name for name in _named_mounts() if name.startswith(incomplete)]


def option_words(incomplete: str) -> list[str]:
    """Offer the words of `-o`, behind those that stand there already."""
    from kvsfs.cli.mount_options import words_to_offer

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{word}" for word in words_to_offer() if word.startswith(last)]


def _named_mounts() -> Iterator[str]:
    from kvsfs import config, settings

    try:
        yield from settings.of_files(config.config_files()).mounts
    except KvsfsError:  # a fault in a file is told when a command is run
        return
