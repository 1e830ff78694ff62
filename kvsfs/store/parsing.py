"""The API's JSON and headers in the nouns of `types.py`.

Tolerant of what is unknown and of optional fields that are missing or null; whatever the specification
requires and the answer lacks is a ProtocolViolation. Nothing here does I/O.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast, get_args

import msgspec

from kvsfs.errors import ProtocolViolation
from kvsfs.types import (
    LARGEST_SIZE,
    ContentEncoding,
    GeneralAccess,
    KeyEntry,
    KeyPage,
    RecordHead,
    RecordKey,
    StoreInfo,
    StoreList,
    StoreStats,
)

DEFAULT_CONTENT_TYPE = "application/octet-stream"


_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")


def parse_json(body: bytes) -> object:
    """Read an answer's body. Raises ProtocolViolation: an HTML page of some proxy, as a rule."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolViolation(
            "the answer is not JSON: is the API's URL right, or is a proxy in between?"
        ) from error


def parse_error(body: bytes) -> tuple[str | None, str | None]:
    """Type and message of an error's answer; None for what is not there. Never raises."""
    try:
        error = _mapping(_mapping(parse_json(body), "answer").get("error"), "error")
    except ProtocolViolation:
        return None, None
    return _optional_text(error, "type"), _optional_text(error, "message")


def parse_store(answer: object) -> StoreInfo:
    """Read `{"data": KeyValueStore}`."""
    return _store(_envelope(answer))


def parse_store_list(answer: object) -> StoreList:
    """Read `{"data": ListOfKeyValueStores}`."""
    page = _envelope(answer)
    return StoreList(
        items=tuple(_store(_mapping(item, "store")) for item in _items(page)),
        total=_natural(page, "total"),
        offset=_natural(page, "offset"),
        limit=_natural(page, "limit"),
    )


def parse_run_id(answer: object) -> str:
    """Read the ID out of `{"data": Run}`."""
    return _text(_envelope(answer), "id")


def parse_username(answer: object) -> str:
    """Read the name out of `{"data": User}`."""
    return _text(_envelope(answer), "username")


class _KeyList(msgspec.Struct, gc=False):
    items: tuple[KeyEntry, ...]
    isTruncated: bool  # noqa: N815 - the API's name
    nextExclusiveStartKey: str | None = None  # noqa: N815


class _KeyListAnswer(msgspec.Struct, gc=False):
    data: _KeyList


_KEY_LIST = msgspec.json.Decoder(_KeyListAnswer)


def read_key_page(body: bytes) -> KeyPage:
    """Read `{"data": ListOfKeys}` straight from its bytes: a fifth of the time that `parse_key_page` takes.

    Whatever is not exactly as specified is for that one to accept or to refuse.
    """
    try:
        page = _KEY_LIST.decode(body).data
    except (msgspec.MsgspecError, RecursionError):
        return parse_key_page(parse_json(body))
    return KeyPage(page.items, page.isTruncated, page.nextExclusiveStartKey or None)


def parse_key_page(answer: object) -> KeyPage:
    """Read `{"data": ListOfKeys}`."""
    page = _envelope(answer)
    is_truncated = page.get("isTruncated")
    if not isinstance(is_truncated, bool):
        raise ProtocolViolation("the list of keys does not say whether it is truncated")
    return KeyPage(
        items=tuple(_key_entry(_mapping(item, "key")) for item in _items(page)),
        is_truncated=is_truncated,
        next_exclusive_start_key=_optional_text(page, "nextExclusiveStartKey"),
    )


def parse_head(headers: Mapping[str, str]) -> RecordHead:
    """Read the headers of a whole record; `headers` finds a name in any case."""
    encoding = parse_encoding(headers)
    return RecordHead(
        # One that could not be sent back would make the record impossible to overwrite.
        content_type=parse_validator(headers.get("content-type")) or DEFAULT_CONTENT_TYPE,
        content_encoding=encoding,
        length=_content_length(headers) if encoding is None else None,
        etag=parse_validator(headers.get("etag")),
        last_modified=parse_validator(headers.get("last-modified")),
        accepts_ranges=headers.get("accept-ranges", "").strip().lower() == "bytes",
    )


def parse_encoding(headers: Mapping[str, str]) -> ContentEncoding | None:
    """How the body is encoded. Raises ProtocolViolation for an encoding that was not asked for."""
    value = headers.get("content-encoding", "").strip().lower()
    if value in ("", "identity"):
        return None
    value = "gzip" if value == "x-gzip" else value
    if value not in get_args(ContentEncoding):
        raise ProtocolViolation("the answer has a Content-Encoding that was not asked for")
    return cast("ContentEncoding", value)


def parse_content_range(headers: Mapping[str, str]) -> tuple[int, int, int | None]:
    """First byte, end (exclusive) and whole length (None if untold) of a partial answer."""
    match = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if match is None:
        raise ProtocolViolation("a partial answer does not say which part it is")
    first, last, whole = match.groups()
    start, stop, length = int(first), int(last) + 1, None if whole == "*" else int(whole)
    if start >= stop or not stop <= (stop if length is None else length) <= LARGEST_SIZE:
        raise ProtocolViolation("a partial answer names a part that cannot be")
    return start, stop, length


def parse_validator(value: str | None) -> str | None:
    """Give an ETag, a date or a type that can be sent back in a header; None when there is none such."""
    return value if value and value.isascii() and value.isprintable() else None


def _content_length(headers: Mapping[str, str]) -> int | None:
    value = headers.get("content-length", "")
    if not (value.isascii() and value.isdigit() and len(value) < 20):
        return None
    if int(value) > LARGEST_SIZE:
        raise ProtocolViolation("the answer claims to be longer than any file can be")
    return int(value)


def _envelope(answer: object) -> Mapping[str, Any]:
    return _mapping(_mapping(answer, "answer").get("data"), "data")


def _store(raw: Mapping[str, Any]) -> StoreInfo:
    return StoreInfo(
        id=_text(raw, "id"),
        created_at=_moment(raw, "createdAt"),
        modified_at=_moment(raw, "modifiedAt"),
        accessed_at=_moment(raw, "accessedAt"),
        name=_optional_text(raw, "name"),
        title=_optional_text(raw, "title"),
        user_id=_optional_text(raw, "userId"),
        username=_optional_text(raw, "username"),
        general_access=_general_access(raw),
        stats=_stats(raw.get("stats")),
        schema=raw["schema"] if isinstance(raw.get("schema"), dict) else None,
        console_url=_optional_text(raw, "consoleUrl"),
        keys_public_url=_optional_text(raw, "keysPublicUrl"),
        url_signing_secret_key=_optional_text(raw, "urlSigningSecretKey"),
    )


def _stats(raw: object) -> StoreStats:
    counters = raw if isinstance(raw, dict) else {}

    def counter(name: str) -> int:
        value = counters.get(name)
        return value if isinstance(value, int) and 0 <= value <= LARGEST_SIZE else 0

    return StoreStats(
        read_count=counter("readCount"),
        write_count=counter("writeCount"),
        delete_count=counter("deleteCount"),
        list_count=counter("listCount"),
        storage_bytes=counter("storageBytes") or counter("s3StorageBytes"),
    )


def _general_access(raw: Mapping[str, Any]) -> GeneralAccess | None:
    value = raw.get("generalAccess")
    return cast("GeneralAccess", value) if value in get_args(GeneralAccess) else None


def _key_entry(raw: Mapping[str, Any]) -> KeyEntry:
    return KeyEntry(
        key=RecordKey(_text(raw, "key")),
        size=_natural(raw, "size"),
        record_public_url=_optional_text(raw, "recordPublicUrl"),
    )


def _items(page: Mapping[str, Any]) -> list[object]:
    items = page.get("items")
    if not isinstance(items, list):
        raise ProtocolViolation("the answer holds no list of items")
    return items


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolViolation(f"the API's JSON has no object where {what} belongs")
    return value


def _text(raw: Mapping[str, Any], name: str) -> str:
    value = _optional_text(raw, name)
    if value is None:
        raise ProtocolViolation(f"the API's JSON has no text in {name!r}")
    return value


def _optional_text(raw: Mapping[str, Any], name: str) -> str | None:
    value = raw.get(name)
    return value if isinstance(value, str) and value and _is_unicode(value) else None


def _is_unicode(value: str) -> bool:
    # JSON can spell half of a surrogate pair. No URL, file name or log can hold that. Keys are ASCII, and looking
    # at each of their characters was a tenth of what listing 100,000 of them cost.
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _natural(raw: Mapping[str, Any], name: str) -> int:
    value = raw.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_SIZE:
        raise ProtocolViolation(f"the API's JSON has no count in {name!r}")
    return value


def _moment(raw: Mapping[str, Any], name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(_text(raw, name))
    except ValueError as error:
        raise ProtocolViolation(f"the API's JSON has no time in {name!r}") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
