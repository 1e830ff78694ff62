"""Where a listing of a bucket begins: for any string as a start key and any prefix, what the API says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsfs.server.bucket import places
from kvsfs.server.storage import KeySelection

KEYS = st.text(alphabet=places.ORDER, min_size=1, max_size=4)
NEAR = st.text(alphabet=places.ORDER + " ~/\0{é\N{GRINNING FACE}", max_size=4)
"""What a client may ask for: among the keys' own characters some below, between and above them."""


def listed(keys: set[str], selection: KeySelection, after: str | None) -> list[str]:
    """What an object store gives for these keys from where we begin, cut where the prefix ends."""
    start = places.start("ID", selection, after)
    paths = sorted((places.record("ID", key) for key in keys), key=str.encode)
    found = [places.key_of(path) for path in paths if start is None or path.encode() > start.encode()]
    cut = next((at for at, key in enumerate(found) if not key.startswith(selection.prefix)), len(found))
    return found[:cut]


@given(st.sets(KEYS | st.sampled_from([".", "..", "...", ".!", "..!"])), NEAR, NEAR)
def test_a_listing_gives_what_the_api_says(keys: set[str], after: str, prefix: str) -> None:
    wanted = sorted(key for key in keys if key > after and key.startswith(prefix))
    if places.is_possible(prefix):
        assert listed(keys, KeySelection(prefix), after or None) == wanted
    else:
        assert wanted == []


@given(KEYS)
def test_a_name_is_its_keys_own(key: str) -> None:
    path = places.record("ID", key)
    assert places.key_of(path) == key
    assert not {".", ".."} & set(path.split("/"))  # which no object store takes


def test_the_longest_keys_are_in_order() -> None:
    last = "a" + "z" * 255
    assert listed({"a", last, "b"}, KeySelection("b"), None) == ["b"]
    assert listed({"a", last, "b"}, KeySelection(), "a" + "z" * 254 + "~") == ["b"]
    assert listed({"a", last, "b"}, KeySelection(), "a" * 10_000) == [last, "b"]


@pytest.mark.parametrize("after", ["z" * 300, "~"])
def test_nothing_is_after_the_last(after: str) -> None:
    assert listed({"a", "z" * 256}, KeySelection(), after) == []
