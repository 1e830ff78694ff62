"""The folders of `--layout collections`, from a store's schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from kvsfs.core import names
from kvsfs.errors import CommandError, ExitCode, FileError, ProtocolViolation
from kvsfs.store.layout import Layout, Shelf
from kvsfs.store.view import KeyGroup, key_groups
from kvsfs.types import RecordKey

OTHER = ".other"
"""The folder of what is in no collection. Its dot keeps it out of `*`, and out of the way of most IDs."""


def collections_layout(schema: Mapping[str, Any] | None) -> Layout:
    """Make a folder of each collection, by its ID, and `.other` of the rest.

    Raises CommandError for a store without collections, and for a schema that does not tell what is in which.
    """
    if schema is None:
        _refuse("the store has no schema, or tells it only to those who may write")
    collections = schema.get("collections")
    if not isinstance(collections, dict):
        _refuse(
            "the store's schema has no collections" if collections is None else "the store's schema is broken"
        )
    groups = key_groups(schema)
    for name, described in collections.items():
        problem = _problem(name, described) if name in groups else "needs a key or a keyPrefix"
        if problem is not None:
            _refuse(f"the store's schema is broken: collection {name!r} {problem}")
    return Layout(map(_shelf, groups.values()), Shelf(OTHER, names.encode_prefix(OTHER.encode() + b"/")))


def _problem(name: str, described: Mapping[str, Any]) -> str | None:
    """Tell what is wrong with a collection, beside having no keys at all."""
    if described.get("key") is not None and described.get("keyPrefix") is not None:
        return "has both a key and a keyPrefix"
    raw = name.encode(errors="replace")
    if b"/" in raw or name == OTHER:
        return "has an ID that cannot be a folder's name"
    try:
        names.component(names.display(raw))
        names.encode_prefix(raw + b"/")
    except FileError as error:
        return f"has an ID that cannot be a folder's name: {error}"
    return None


def _shelf(group: KeyGroup) -> Shelf:
    prefix = names.encode_prefix(group.id.encode() + b"/")
    return Shelf(group.id, prefix, group, tuple(prefix + below for below in _folders_in(group)))


def _folders_in(group: KeyGroup) -> Iterator[str]:
    """Give the prefixes of the folders that all keys of a group are in."""
    try:
        raw = names.decode(RecordKey(group.key or group.key_prefix))
    except ProtocolViolation:  # an empty prefix; or one that no key can have, so that nothing is in the group
        return
    *above, _ = raw.split(b"/")
    for depth in range(1, len(above) + 1):
        yield names.encode_prefix(b"/".join(above[:depth]) + b"/")


def _refuse(what: str) -> NoReturn:
    raise CommandError(ExitCode.SCHEMA_UNUSABLE, f"{what}: --layout collections cannot make folders of it")
