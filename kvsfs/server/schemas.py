"""What a store's schema says of its records: collections of keys, their content types, their JSON.

    {"collections": {ID: {"key": KEY | "keyPrefix": PREFIX, "contentTypes": [...], "jsonSchema": {...}}}}

Nothing here does I/O: a JSON schema that refers to another document is refused when the store is made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

JSON_TYPE = "application/json"


class SchemaRefused(Exception):
    """A store's schema makes no sense. `str()` tells why."""


class RecordRefused(Exception):
    """A record is not what its collection asks for. `str()` tells why."""


@dataclass(frozen=True, slots=True)
class Collection:
    """A group of keys: one key, or those with a prefix."""

    name: str
    key: str | None
    key_prefix: str
    content_types: frozenset[str]
    """Without parameters, lower case; empty: any."""
    json_schema: Mapping[str, Any] | None

    def holds(self, key: str) -> bool:
        """Whether a key belongs to it."""
        return key == self.key if self.key is not None else key.startswith(self.key_prefix)

    def check_type(self, content_type: str) -> None:
        """Raise RecordRefused for a record of a type that the collection does not take."""
        essence = content_type.partition(";")[0].strip().lower()
        if self.content_types and essence not in self.content_types:
            taken = ", ".join(sorted(self.content_types))
            raise RecordRefused(f"Collection {self.name} takes {taken}, not {essence}.")
        if self.json_schema is not None and essence != JSON_TYPE:
            raise RecordRefused(f"Collection {self.name} takes {JSON_TYPE}, not {essence}.")

    def check_json(self, content: bytes) -> None:
        """Raise RecordRefused for a value that breaks the collection's JSON schema."""
        if self.json_schema is None:
            return
        try:
            value = json.loads(content, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise RecordRefused(f"Collection {self.name} takes JSON, and this is none.") from None
        problem = _first_problem(self.json_schema, value)
        if problem is not None:
            raise RecordRefused(f"The value breaks the schema of collection {self.name}: {problem}")


def collections_of(schema: Mapping[str, Any] | None) -> dict[str, Collection]:
    """Give the collections of a schema that was checked, by their IDs."""
    described = (schema or {}).get("collections") or {}
    return {name: _collection(name, fields) for name, fields in described.items()}


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raise SchemaRefused for a schema whose collections make no sense."""
    described = schema.get("collections", {})
    if not isinstance(described, dict):
        raise SchemaRefused("collections must be an object.")
    for name, fields in described.items():
        problem = _problem_of(fields)
        if problem is not None:
            raise SchemaRefused(f"Collection {name}: {problem}")


def _collection(name: str, fields: Mapping[str, Any]) -> Collection:
    types = frozenset(given.strip().lower() for given in fields.get("contentTypes") or ())
    return Collection(name, fields.get("key"), fields.get("keyPrefix") or "", types, fields.get("jsonSchema"))


def _problem_of(fields: object) -> str | None:
    if not isinstance(fields, dict):
        return "it must be an object."
    places = [fields[name] for name in ("key", "keyPrefix") if fields.get(name) is not None]
    if len(places) != 1 or not isinstance(places[0], str):
        return "it needs either key or keyPrefix, a text."
    types = fields.get("contentTypes")
    if types is not None and not (isinstance(types, list) and all(isinstance(given, str) for given in types)):
        return "contentTypes must be a list of media types."
    if fields.get("jsonSchema") is not None:
        return _problem_of_json_schema(fields["jsonSchema"])
    return None


def _problem_of_json_schema(schema: object) -> str | None:
    # Here, not above: it takes 0.1 s to import, and most stores have no schema.
    import jsonschema  # noqa: PLC0415

    if not isinstance(schema, dict):
        return "jsonSchema must be an object."
    draft = jsonschema.Draft7Validator
    try:
        draft.check_schema(schema, format_checker=draft.FORMAT_CHECKER)  # of patterns, above all
        outside = next((ref for ref in _references(schema) if not ref.startswith("#")), None)
    except (jsonschema.SchemaError, RecursionError) as error:
        return f"jsonSchema is no JSON schema (draft 07): {getattr(error, 'message', 'too deep')}"
    return None if outside is None else f"jsonSchema refers to another document: {outside}"


def _references(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for below in schema.values():
            yield from _references(below)
    elif isinstance(schema, list):
        for below in schema:
            yield from _references(below)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _first_problem(schema: Mapping[str, Any], value: object) -> str | None:
    import jsonschema  # noqa: PLC0415 - as above
    from referencing import Registry  # noqa: PLC0415
    from referencing.exceptions import Unresolvable  # noqa: PLC0415

    # The default registry would fetch what a schema refers to over the network.
    validator = jsonschema.Draft7Validator(schema, registry=Registry())
    try:
        problem = jsonschema.exceptions.best_match(validator.iter_errors(value))
    except Unresolvable as error:
        return f"it refers to {error.ref}, which is not there."
    except (RecursionError, OverflowError):
        return "it is nested too deeply, or a number is too large."
    if problem is None:
        return None
    return f"{problem.json_path}: {problem.message[:MAX_MESSAGE_LENGTH]}"


MAX_MESSAGE_LENGTH = 200
"""Characters: jsonschema quotes the value, which may be long."""
