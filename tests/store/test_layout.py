"""Collections as folders: each record in one of them, each listed once, whatever the schema says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsfs.core.layouts import OTHER, collections_layout
from kvsfs.errors import CommandError, ExitCode, RequestRefused
from kvsfs.store.archive import Entry, Wanted
from kvsfs.store.bodies import BytesBody
from kvsfs.store.layout_view import LayoutStore
from kvsfs.store.memory import MemoryStoreCollection
from kvsfs.store.protocol import Store
from kvsfs.types import RecordKey
from tests.support.running import run_async

IDS = st.text("ab/.!é ", max_size=4).filter(lambda name: "/" not in name and name != OTHER)
KEYS = st.text("ab!2F-z", min_size=1, max_size=6)
COLLECTIONS = st.dictionaries(
    IDS,
    st.one_of(
        st.builds(lambda key: {"key": key}, KEYS),
        st.builds(lambda prefix: {"keyPrefix": prefix}, st.text("ab!2F-z", max_size=4)),
    ),
    max_size=5,
)


def folders(store: LayoutStore) -> list[str]:
    layout = store._layout
    return [*(shelf.prefix for shelf in layout.shelves), layout.other.prefix]


async def stored(store: Store, keys: set[str]) -> None:
    for key in keys:
        await store.set_record(RecordKey(key), BytesBody(b"x"), content_type="text/plain")


@given(COLLECTIONS, KEYS)
def test_each_key_is_shown_under_one_name_that_leads_back(
    collections: dict[str, dict[str, str]], key: str
) -> None:
    layout = collections_layout({"collections": collections})
    shown = layout.shown(key)
    assert (layout.stored(shown), layout.bare(shown)) == (key, key)
    for shelf in [*layout.shelves, layout.other]:
        if shelf.prefix + key != shown:
            with pytest.raises(RequestRefused, match="belongs into"):
                layout.stored(shelf.prefix + key)
    if layout.shelf_of(key) is None:  # a key may read like one that is shown
        with pytest.raises(RequestRefused, match="in the folders of their collections"):
            layout.stored(key)


@settings(max_examples=60)
@given(
    collections=COLLECTIONS,
    keys=st.sets(KEYS, max_size=12),
    page_size=st.integers(1, 3),
    changed=st.booleans(),
)
def test_the_folders_together_list_every_record_once(
    collections: dict[str, dict[str, str]],
    keys: set[str],
    page_size: int,
    changed: bool,
) -> None:
    """Also after the schema has changed in the store: the server then knows none of the collections."""
    schema = {"collections": collections}

    async def main() -> None:
        stores = MemoryStoreCollection(page_size=page_size)
        whole = stores.store((await stores.get_or_create(schema={} if changed else schema)).id)
        await stored(whole, keys)
        view = LayoutStore(whole, collections_layout(schema), schema)
        listed = [entry.key async for entry in view.iter_keys()]
        assert listed == sorted(folders(view))
        for folder in folders(view):
            found = [e async for e in view.iter_keys(prefix=folder)]
            assert [e.key for e in found] == sorted({e.key for e in found})
            listed += [e.key for e in found if e.size]
            assert all(view._layout.is_fixed(e.key) for e in found if not e.size)
        assert sorted(listed) == sorted([*folders(view), *map(view._layout.shown, keys)])

    run_async(main)


@pytest.mark.parametrize(
    ("folder", "lists"),
    [("", 0), ("images!2F", 3), ("output!2F", 1), (".other!2F", 2), (".other!2Fimg-", 0), ("images!2Fimg-1", 1)],
)  # fmt: skip
def test_what_a_listing_costs(folder: str, lists: int) -> None:
    """Of the folder's own records, and one more to get past a collection that is among them."""
    schema = {"collections": {"images": {"keyPrefix": "img-"}, "output": {"key": "OUTPUT"}}}

    async def main() -> None:
        stores = MemoryStoreCollection(page_size=10)
        whole = stores.store((await stores.get_or_create(schema=schema)).id)
        await stored(whole, {f"img-{number:02}" for number in range(25)} | {"OUTPUT", "z1", "a1"})
        await stored(whole, {f"b{number}" for number in range(7)})
        view = LayoutStore(whole, collections_layout(schema), schema)
        before = stores.calls["list_keys"]
        _ = [key async for key in view.iter_keys(prefix=folder)]
        assert stores.calls["list_keys"] - before == lists

    run_async(main)


def test_a_record_that_fits_several_is_where_most_of_its_key_is_said() -> None:
    layout = collections_layout(
        {
            "collections": {
                "all": {"keyPrefix": ""},
                "same": {"keyPrefix": "page-"},
                "pages": {"keyPrefix": "page-"},
                "first": {"key": "page-1"},
                "long": {"keyPrefix": "page-2"},
            }
        }
    )
    keys = ("page-1", "page-2", "page-22", "page-3", "x")
    assert [layout.home(key).name for key in keys] == ["first", "long", "long", "pages", "all"]


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (None, "no schema"),
        ({}, "no collections"),
        ({"collections": []}, "broken"),
        ({"collections": {"a": 1}}, "collection 'a' needs a key or a keyPrefix"),
        ({"collections": {"a": {"title": "A"}}}, "collection 'a' needs a key or a keyPrefix"),
        ({"collections": {"a": {"key": "A", "keyPrefix": "B"}}}, "collection 'a' has both"),
        ({"collections": {"a/b": {"key": "A"}}}, "cannot be a folder's name"),
        ({"collections": {OTHER: {"key": "A"}}}, "cannot be a folder's name"),
        ({"collections": {"x" * 300: {"key": "A"}}}, "cannot be a folder's name"),
        ({"collections": {"\0": {"key": "A"}}}, "cannot be a folder's name"),
    ],
)
def test_schemas_that_make_no_folders(schema: dict[str, Any] | None, told: str) -> None:
    with pytest.raises(CommandError, match=told) as refused:
        collections_layout(schema)
    assert refused.value.exit_code == ExitCode.SCHEMA_UNUSABLE


def test_a_url_of_a_folder_names_its_collection() -> None:
    schema = {"collections": {"images": {"keyPrefix": "img-"}}}

    async def main() -> None:
        stores = MemoryStoreCollection()
        whole = stores.store((await stores.get_or_create(schema=schema)).id)
        view = LayoutStore(whole, collections_layout(schema), schema)
        assert "collection=images" in await view.keys_public_url(prefix="images!2F")
        assert "prefix=x" in await view.keys_public_url(prefix=".other!2Fx")
        assert "prefix" not in await view.keys_public_url()
        with pytest.raises(RequestRefused, match="no URL lists"):
            await view.keys_public_url(prefix=".other!2F")
        with pytest.raises(RequestRefused, match="is a folder here"):
            await view.list_keys(collection="images")

    run_async(main)


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("images!2F", {"images!2Fimg-1"}),
        (".other!2Fx", {".other!2Fx"}),
        ("", {"images!2Fimg-1", ".other!2Fx"}),
        (".other!2F", None),
        (".other!2Fim", None),
    ],
)
def test_a_folder_in_one_answer(folder: str, expected: set[str] | None) -> None:
    """Not one whose archive would hold all images, too."""
    schema = {"collections": {"images": {"keyPrefix": "img-"}}}

    async def main() -> None:
        stores = MemoryStoreCollection()
        whole = stores.store((await stores.get_or_create(schema=schema)).id)
        await stored(whole, {"img-1", "img-2", "x"})
        view = LayoutStore(whole, collections_layout(schema), schema)
        found: list[Entry] = []

        async def take(entries: Sequence[Entry]) -> None:
            found.extend(entries)

        keys = [RecordKey(key) for key in ("images!2Fimg-1", ".other!2Fx") if key.startswith(folder)]
        if expected is None:
            with pytest.raises(RequestRefused, match="in other folders"):
                await view.read_records(take, Wanted(keys, 10, 1000), prefix=folder)
            assert stores.calls["read_records"] == 0
            return
        await view.read_records(take, Wanted(keys, 10, 1000), prefix=folder or None)
        assert [(entry.key, entry.content) for entry in found] == [
            (RecordKey(key), b"x") for key in sorted(expected, reverse=True)
        ]

    run_async(main)
