"""What a view refuses, and what it makes of schemas that others wrote."""

from __future__ import annotations

from typing import Any

import pytest

from kvsfs.errors import RequestRefused
from kvsfs.store.bodies import BytesBody
from kvsfs.store.memory import MemoryStoreCollection
from kvsfs.store.view import KeyGroup, ViewStore, key_groups
from kvsfs.types import RecordKey
from tests.support.running import run_async


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (None, {}),
        ({}, {}),
        ({"collections": None}, {}),
        ({"collections": ["a"]}, {}),
        ({"collections": {"a": None, "b": {}, "c": {"key": 1}, "d": {"keyPrefix": []}}}, {}),
        (
            {"collections": {"a": {"key": "A"}, "b": {"keyPrefix": "b-"}}},
            {"a": KeyGroup("a", key="A"), "b": KeyGroup("b", key_prefix="b-")},
        ),
    ],
)
def test_the_groups_of_a_schema(schema: dict[str, Any] | None, expected: dict[str, KeyGroup]) -> None:
    assert key_groups(schema) == expected


@pytest.mark.parametrize(
    ("group", "inside", "outside"),
    [
        (KeyGroup("g", key="p-A"), "A", "AB"),
        (KeyGroup("g", key_prefix="p-b"), "bc", "c"),
        (KeyGroup("g"), "anything", None),
    ],
)
def test_nothing_outside_of_a_group_is_changed(group: KeyGroup, inside: str, outside: str | None) -> None:
    async def main() -> None:
        stores = MemoryStoreCollection()
        whole = stores.store((await stores.get_or_create()).id)
        view = ViewStore(whole, "p-", group)
        await view.set_record(RecordKey(inside), BytesBody(b"x"), content_type="text/plain")
        assert [entry.key async for entry in whole.iter_keys()] == [f"p-{inside}"]
        if outside is not None:
            for refused in (
                view.set_record(RecordKey(outside), BytesBody(b"x"), content_type="text/plain"),
                view.delete_record(RecordKey(outside)),
            ):
                with pytest.raises(RequestRefused, match="the collection g is for"):
                    await refused
        with pytest.raises(RequestRefused, match="only the collection g"):
            await view.list_keys(collection="another")
        await view.delete_record(RecordKey(inside))
        assert [entry.key async for entry in whole.iter_keys()] == []

    run_async(main)


def test_the_record_named_as_the_prefix_takes_no_place_of_a_page() -> None:
    async def main() -> None:
        stores = MemoryStoreCollection(page_size=1)
        whole = stores.store((await stores.get_or_create()).id)
        for key in ("p-", "p-a", "p-b", "q"):
            await whole.set_record(RecordKey(key), BytesBody(b"x"), content_type="text/plain")
        view = ViewStore(whole, "p-")
        page = await view.list_keys(limit=1)
        assert ([entry.key for entry in page.items], page.next_exclusive_start_key) == (["a"], "a")
        assert [entry.key async for entry in view.iter_keys()] == ["a", "b"]

    run_async(main)
