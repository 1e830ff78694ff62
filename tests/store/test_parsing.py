"""JSON and headers: tolerant where the specification leaves open, strict where it promises."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsfs.errors import ProtocolViolation, StoreNotFound
from kvsfs.store import faults, parsing
from kvsfs.types import LARGEST_SIZE, KeyEntry, RecordHead, RecordKey, StoreStats

STORE = {
    "id": "WkzbQMuFYuamGv3YF",
    "createdAt": "2019-12-12T07:34:14.202Z",
    "modifiedAt": "2019-12-13T08:36:13.202Z",
    "accessedAt": "2019-12-14T08:36:13.202Z",
}
REQUIRED = sorted(STORE)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**62, 2**65)
    | st.floats()
    | st.text(st.characters(categories=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def test_a_bare_store_is_enough() -> None:
    store = parsing.parse_store({"data": STORE})
    assert store.id == "WkzbQMuFYuamGv3YF"
    assert store.created_at.isoformat() == "2019-12-12T07:34:14.202000+00:00"
    assert (store.name, store.stats, store.general_access) == (None, StoreStats(), None)


@given(
    st.dictionaries(
        st.sampled_from(["name", "title", "stats", "schema", "generalAccess", "new"]), json_values
    )
)
def test_optional_fields_may_be_anything(extra: dict[str, Any]) -> None:
    assert parsing.parse_store({"data": {**STORE, **extra}}).id == STORE["id"]


@pytest.mark.parametrize("missing", REQUIRED)
@pytest.mark.parametrize("value", [None, 7, "", [], "yesterday-ish"])
def test_required_fields_are_required(missing: str, value: object) -> None:
    if missing == "id" and value == "yesterday-ish":
        return
    with pytest.raises(ProtocolViolation, match=missing):
        parsing.parse_store({"data": {**STORE, missing: value}})
    with pytest.raises(ProtocolViolation, match=missing):
        parsing.parse_store({"data": {name: text for name, text in STORE.items() if name != missing}})


@given(json_values)
def test_any_json_is_parsed_or_a_protocol_violation(value: object) -> None:
    for parse in (parsing.parse_store, parsing.parse_store_list, parsing.parse_key_page):
        for answer in (value, {"data": value}, {"data": {"items": value, "isTruncated": False}}):
            try:
                parse(answer)
            except ProtocolViolation:
                continue


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_a_protocol_violation(body: bytes) -> None:
    assert parsing.parse_error(body) is not None
    try:
        parsed = parsing.parse_json(body)
    except ProtocolViolation:
        return
    assert json.loads(body) == parsed or parsed != parsed  # noqa: PLR0124 - NaN is legal to Python


def test_deeply_nested_json_is_a_protocol_violation() -> None:
    with pytest.raises(ProtocolViolation):
        parsing.parse_json(b"[" * 100_000)


def test_a_page_of_keys() -> None:
    page = parsing.parse_key_page(
        {
            "data": {
                "items": [{"key": "a", "size": 3, "new": 1}],
                "isTruncated": True,
                "nextExclusiveStartKey": "a",
            }
        }
    )
    assert page.items == (KeyEntry("a", 3),)  # type: ignore[arg-type]  # a literal stands for its key
    assert (page.is_truncated, page.next_exclusive_start_key) == (True, "a")


@pytest.mark.parametrize("size", [None, -1, "3", 1.5, True])
def test_a_key_without_a_size_is_a_protocol_violation(size: object) -> None:
    with pytest.raises(ProtocolViolation, match="size"):
        parsing.parse_key_page({"data": {"items": [{"key": "a", "size": size}], "isTruncated": False}})


@pytest.mark.parametrize(
    ("headers", "head"),
    [
        ({}, RecordHead("application/octet-stream")),
        ({"content-type": "text/plain", "content-length": "7"}, RecordHead("text/plain", length=7)),
        (
            {"content-encoding": "identity", "content-length": "7"},
            RecordHead("application/octet-stream", length=7),
        ),
        (
            {"content-encoding": "GZIP", "content-length": "7", "etag": '"x"', "accept-ranges": "bytes"},
            RecordHead("application/octet-stream", "gzip", etag='"x"', accepts_ranges=True),
        ),
        ({"content-length": "seven"}, RecordHead("application/octet-stream")),
        ({"accept-ranges": "none"}, RecordHead("application/octet-stream")),
    ],
)
def test_heads(headers: dict[str, str], head: RecordHead) -> None:
    assert parsing.parse_head(headers) == head


@pytest.mark.parametrize("encoding", ["zstd", "gzip, br", "compress"])
def test_an_encoding_nobody_asked_for(encoding: str) -> None:
    with pytest.raises(ProtocolViolation, match="Content-Encoding"):
        parsing.parse_head({"content-encoding": encoding})


@pytest.mark.parametrize(
    ("value", "part"),
    [("bytes 0-0/1", (0, 1, 1)), ("bytes 5-9/*", (5, 10, None)), ("bytes 2-3/10", (2, 4, 10))],
)
def test_content_ranges(value: str, part: tuple[int, int, int | None]) -> None:
    assert parsing.parse_content_range({"content-range": value}) == part


@pytest.mark.parametrize(
    "value", ["", "bytes */10", "bytes 5-4/10", "bytes 0-10/10", "lines 0-1/2", "bytes 0-1"]
)
def test_content_ranges_that_cannot_be(value: str) -> None:
    with pytest.raises(ProtocolViolation):
        parsing.parse_content_range({"content-range": value})


# Anything: what may come from a network

NUMBERS = st.integers(-(2**65), 2**65).map(str) | st.text(max_size=25)
HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "content-length", "content-encoding", "etag", "last-modified"])
    | st.sampled_from(["accept-ranges", "content-range"]),
    NUMBERS | st.sampled_from(["gzip", "bytes", "identity"]),
)
ITEMS = st.lists(st.fixed_dictionaries({"key": json_values, "size": json_values}), max_size=3)


@given(HEADERS)
def test_any_headers_are_a_head_that_a_file_can_have(headers: dict[str, str]) -> None:
    try:
        head = parsing.parse_head(headers)
    except ProtocolViolation:
        return
    assert head.length is None or 0 <= head.length <= LARGEST_SIZE
    for sent_back in (head.content_type, head.etag or "", head.last_modified or ""):
        assert sent_back.isascii()
        assert sent_back.isprintable()


@given(st.builds("bytes {}-{}/{}".format, NUMBERS, NUMBERS, NUMBERS | st.just("*")) | st.text(max_size=30))
def test_any_content_range_is_a_part_that_can_be(value: str) -> None:
    try:
        start, stop, whole = parsing.parse_content_range({"content-range": value})
    except ProtocolViolation:
        return
    assert 0 <= start < stop <= (stop if whole is None else whole) <= LARGEST_SIZE


@given(ITEMS, json_values, json_values)
def test_any_page_has_keys_and_sizes_that_can_be_used(items: object, cursor: object, last: object) -> None:
    answer = {"data": {"items": items, "nextExclusiveStartKey": cursor, "isTruncated": last}}
    try:
        page = parsing.parse_key_page(answer)
    except ProtocolViolation:
        return
    for entry in page.items:
        assert entry.key.encode()
        assert 0 <= entry.size <= LARGEST_SIZE
    assert page.next_exclusive_start_key is None or page.next_exclusive_start_key.encode()


@given(json_values)
def test_any_error_is_told_in_one_line_that_a_log_can_hold(value: object) -> None:
    body = json.dumps({"error": {"type": value, "message": value}}).encode()
    error_type, message = parsing.parse_error(body)
    error = faults.from_status(
        400, subject="it", error_type=error_type, message=message, missing=StoreNotFound
    )
    assert str(error).encode()
    assert "\n" not in str(error)
    assert error.error_type is None or error.error_type.encode()


@pytest.mark.parametrize("half", ['"\\ud800"', '"a\\udfff"'])
def test_half_a_character_is_no_key_and_no_cursor(half: str) -> None:
    items = f'{{"data": {{"items": [{{"key": {half}, "size": 1}}], "isTruncated": false}}}}'
    with pytest.raises(ProtocolViolation, match="key"):
        parsing.parse_key_page(parsing.parse_json(items.encode()))
    page = f'{{"data": {{"items": [], "isTruncated": true, "nextExclusiveStartKey": {half}}}}}'
    assert parsing.parse_key_page(parsing.parse_json(page.encode())).next_exclusive_start_key is None


@given(ITEMS, json_values, json_values)
def test_a_page_read_from_its_bytes_is_the_page_or_the_refusal_that_its_json_gives(
    items: object, cursor: object, last: object
) -> None:
    answer = {"data": {"items": items, "nextExclusiveStartKey": cursor, "isTruncated": last}}
    try:
        expected = parsing.parse_key_page(answer)
    except ProtocolViolation:
        with pytest.raises(ProtocolViolation):
            parsing.read_key_page(json.dumps(answer).encode())
        return
    assert parsing.read_key_page(json.dumps(answer).encode()) == expected


def test_a_page_read_from_its_bytes_has_all_that_it_tells_and_shows_no_signature() -> None:
    url = "https://api/records/a?signature=s3cr3t"
    item = {"key": "a", "size": 3, "recordPublicUrl": url, "new": [1]}
    data = {"items": [item], "count": 1, "limit": 1000, "isTruncated": True, "nextExclusiveStartKey": "a"}
    page = parsing.read_key_page(json.dumps({"data": data}).encode())
    assert page.items == (KeyEntry(RecordKey("a"), 3, url),)
    assert (page.is_truncated, page.next_exclusive_start_key) == (True, "a")
    assert "s3cr3t" not in repr(page)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"data": {"items": [{"key": "a", "size": 1}]', b"[" * 100_000]
)
def test_what_is_no_page_is_a_protocol_violation(body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        parsing.read_key_page(body)
