"""The bijection between record keys and file names, by property, exhaustively and by example."""

from __future__ import annotations

import errno
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvsfs.core import names
from kvsfs.errors import FileError, ProtocolViolation
from kvsfs.types import RecordKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LEGAL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!-_.'()"
PIECES = [
    "!",
    "21",
    "2F",
    "2E",
    "!2F",
    "!2E",
    "!212F",
    "!212E",
    "!20",
    "!21",
    "!00",
    "!FF",
    "!2f",
    ".",
    "..",
    "a",
    "é",
    "~",
]

# Plain characters seldom make a sequence: half of the text is built of the pieces that the rule is about.
KEY_PIECE = st.one_of(
    st.sampled_from([piece for piece in PIECES if set(piece) <= set(LEGAL)]), st.sampled_from(LEGAL)
)
keys = (
    st.lists(KEY_PIECE, min_size=1, max_size=256)
    .map(lambda pieces: RecordKey("".join(pieces)[: names.MAX_KEY_LENGTH]))
    .filter(names.is_key)
)
NAME_PIECE = st.one_of(
    st.sampled_from([piece.encode() for piece in PIECES]),
    st.integers(1, 255).map(lambda code: bytes([code])),
)
paths = st.lists(st.one_of(NAME_PIECE, st.just(b"/")), min_size=1, max_size=40).map(b"".join)
components = st.lists(NAME_PIECE, max_size=40).map(lambda pieces: b"".join(pieces).replace(b"/", b""))
file_names = components.filter(lambda name: name not in {b"", b".", b".."})


def errno_of(raised: pytest.ExceptionInfo[FileError]) -> int:
    return raised.value.errno


def encode_or_none(path: bytes) -> RecordKey | None:
    try:
        return names.encode(path)
    except FileError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return None


@given(keys)
@settings(max_examples=1000)
@example(RecordKey("!2F"))
@example(RecordKey("!2F!2F"))
@example(RecordKey("!212F" * 51))
@example(RecordKey("!" * 256))
@example(RecordKey("z" * 256))
def test_every_key_comes_back_from_its_path(key: RecordKey) -> None:
    assert names.encode(names.decode(key)) == key


@given(paths)
@settings(max_examples=1000)
def test_every_path_comes_back_from_its_key(path: bytes) -> None:
    key = encode_or_none(path)
    if key is not None:
        assert names.is_key(key)
        assert names.decode(key) == path


@given(components)
@settings(max_examples=1000)
def test_every_component_has_a_file_name_and_comes_back_from_it(component: bytes) -> None:
    name = names.display(component)
    assert name not in {b"", b".", b".."}
    assert b"/" not in name
    assert names.record_beside_folder(name) is None
    assert names.component(name) == component


@given(file_names)
@settings(max_examples=1000)
def test_every_file_name_stands_for_one_component_or_is_kept_for_records_beside_folders(name: bytes) -> None:
    if name.endswith(b"!2F") and name != b"!2F":
        with pytest.raises(FileError) as raised:
            names.component(name)
        assert errno_of(raised) == errno.EINVAL
    else:
        assert names.display(names.component(name)) == name


@given(keys)
def test_no_file_name_is_longer_than_the_longest_key(key: RecordKey) -> None:
    *folders, last = names.decode(key).split(b"/")
    shown = [names.display(part) for part in [*folders, last]]
    assert all(len(name) <= names.MAX_KEY_LENGTH for name in shown)


def texts(alphabet: Iterable[str], longest: int) -> Iterator[str]:
    letters = tuple(alphabet)
    for length in range(1, longest + 1):
        for characters in itertools.product(letters, repeat=length):
            yield "".join(characters)


def test_all_small_keys_have_paths_of_their_own() -> None:
    # Every order of what the rule is about, up to two sequences that touch.
    small = [RecordKey(text) for text in texts("!21FE0.a", 6)]
    decoded = {names.decode(key) for key in small}
    assert len(decoded) == len(small) == 299_592
    assert all(names.encode(names.decode(key)) == key for key in small)


def test_all_long_sequences_have_paths_of_their_own() -> None:
    # Whole pairs as letters reach deeper: `!212121 2F`, `!2F!212E` and their neighbours.
    long = {RecordKey(text) for text in texts(["!", "21", "2F", "2E", "."], 7)}
    assert len({names.decode(key) for key in long}) == len(long)
    assert all(names.encode(names.decode(key)) == key for key in long)


def test_all_small_file_names_stand_for_components_of_their_own() -> None:
    small = [text.encode() for text in texts(["!", "21", "2F", "2E", ".", "\n"], 6)]
    named = sorted({name for name in small if names.record_beside_folder(name) is None} - {b".", b".."})
    named = [name for name in named if not name.endswith(b"!2F") or name == b"!2F"]
    parts = [names.component(name) for name in named]
    assert len(set(parts)) == len(named)
    assert [names.display(part) for part in parts] == named


EXAMPLES: list[tuple[bytes, str]] = [
    (b"my file~.txt", "my!20file!7E.txt"),
    (b"a!b", "a!b"),
    (b"img/a.png", "img!2Fa.png"),
    (b"/", "!2F"),
    (b"a//b", "a!2F!2Fb"),
    (b"/a", "!2Fa"),
    (b"a/", "a!2F"),
    (b".", "."),
    (b"a/..", "a!2F.."),
    (b"!2F", "!212F"),
    (b"!212F", "!21212F"),
    (b"a!2Fb", "a!212Fb"),
    (b"!", "!"),
    (b"!21", "!21"),
    (b"!21x", "!21x"),
    (b"!2E", "!2E"),  # `.` is legal in a key: 2E stands for no byte
    (b"!2f", "!2f"),
    (b"!00", "!00"),
    (b"!7F", "!217F"),
    (b"!/", "!!2F"),
    (b"!2/F", "!2!2FF"),
    (b"!!20", "!!2120"),
    ("Größe".encode(), "Gr!C3!B6!C3!9Fe"),
    (b"\xff\xfe", "!FF!FE"),
    (b"\x01\n", "!01!0A"),
]


@pytest.mark.parametrize(("path", "key"), EXAMPLES)
def test_paths_and_their_keys(path: bytes, key: str) -> None:
    assert names.encode(path) == key
    assert names.decode(RecordKey(key)) == path


SHOWN: list[tuple[bytes, bytes]] = [
    (b"", b"!2F"),
    (b".", b"!2E"),
    (b"..", b".!2E"),
    (b"!2F", b"!212F"),
    (b"!212F", b"!21212F"),
    (b"a!2F", b"a!212F"),
    (b"!2Fa", b"!2Fa"),
    (b"!2F!2F", b"!2F!212F"),
    (b"!2E", b"!212E"),
    (b".!2E", b".!212E"),
    (b".!2121212E", b".!212121212E"),
    (b"..!2E", b"..!2E"),
    (b"a!2E", b"a!2E"),
    (b"!2E\n", b"!2E\n"),
    (b"\n!2F", b"\n!212F"),
    (b"!2F\n", b"!2F\n"),
    (b"...", b"..."),
    (b"!21", b"!21"),
]


@pytest.mark.parametrize(("component", "name"), SHOWN)
def test_components_and_what_they_are_shown_as(component: bytes, name: bytes) -> None:
    assert names.display(component) == name
    assert names.component(name) == component


@pytest.mark.parametrize(
    "name", [b"", b".", b"..", b"a/b", b"/", b"a\0b", b"a!2F", b"!2F!2F", b".!2F", b"..!2F"]
)
def test_names_that_stand_for_nothing(name: bytes) -> None:
    with pytest.raises(FileError) as raised:
        names.component(name)
    assert errno_of(raised) == errno.EINVAL


@pytest.mark.parametrize(
    ("name", "record"),
    [
        (b"a!2F", b"a"),
        (b"!2F!2F", b"!2F"),
        (b"!2E!2F", b"!2E"),
        (b"a!212F!2F", b"a!212F"),
        (b"!2F", None),
        (b"a!212F", None),
        (b"a!2F!2F", None),
        (b".!2F", None),
        (b"..!2F", None),
        (b"a", None),
        (b"", None),
    ],
)
def test_record_beside_a_folder_of_the_same_name(name: bytes, record: bytes | None) -> None:
    assert names.record_beside_folder(name) == record
    if record is not None:
        assert names.beside_folder(record) == name


@given(components)
def test_a_record_beside_its_folder_is_recognised(component: bytes) -> None:
    name = names.display(component)
    assert names.record_beside_folder(names.beside_folder(name)) == name


@pytest.mark.parametrize(
    ("path", "length"),
    [
        (b"a" * 256, 256),
        (b" " * 85 + b"a", 256),
        (("漢" * 28).encode(), 252),
        (("я" * 42).encode(), 252),
        (b"d/" + b"a" * 252, 256),
    ],
)
def test_the_longest_paths(path: bytes, length: int) -> None:
    key = names.encode(path)
    assert len(key) == length
    assert names.decode(key) == path


@pytest.mark.parametrize(
    "path",
    [b"a" * 257, b" " * 86, ("漢" * 29).encode(), ("я" * 43).encode(), b"d/" + b"a" * 253, b"!2F" * 52],
)
def test_paths_past_the_longest_key(path: bytes) -> None:
    with pytest.raises(FileError) as raised:
        names.encode(path)
    assert errno_of(raised) == errno.ENAMETOOLONG
    with pytest.raises(FileError) as raised:
        names.encode_prefix(path + b"/")
    assert errno_of(raised) == errno.ENAMETOOLONG


@pytest.mark.parametrize("path", [b"", b"\0", b"a\0b", b"\0" * 300])
def test_paths_that_no_key_can_hold(path: bytes) -> None:
    with pytest.raises(FileError) as raised:
        names.encode(path)
    assert errno_of(raised) == errno.EINVAL


@pytest.mark.parametrize("text", ["", "a" * 513, "a/b", "a b", "~", "é", "a\n", "\n", "a%20"])
def test_texts_that_are_no_keys_get_no_path(text: str) -> None:
    assert not names.is_key(text)
    with pytest.raises(ProtocolViolation):
        names.decode(RecordKey(text))


def test_a_key_has_256_characters_and_its_layouts_folder_in_front_as_many() -> None:
    key = RecordKey("images".ljust(256, "s") + "a" * 256)
    assert not names.is_key(key[:257])
    assert names.is_key(key[:256])
    assert names.decode(key) == key.encode()
    assert names.plain_components([key[:257]], "") is None


def test_the_whole_alphabet_of_keys_and_nothing_else() -> None:
    assert {chr(code) for code in range(0x3000) if names.is_key(chr(code))} == set(LEGAL)


@given(paths, paths)
@settings(max_examples=500)
def test_a_folders_prefix_is_what_the_keys_below_it_begin_with(folder: bytes, rest: bytes) -> None:
    key = encode_or_none(folder + b"/" + rest)
    if key is not None:
        assert key == names.encode_prefix(folder + b"/") + names.encode(rest)


def test_the_whole_stores_prefix() -> None:
    assert names.encode_prefix(b"") == ""


def test_a_path_without_its_slash_is_no_folder() -> None:
    with pytest.raises(ValueError, match="ends in '/'"):
        names.encode_prefix(b"img")


@given(keys, st.lists(keys, max_size=20))
@settings(max_examples=300)
def test_exactly_the_keys_with_a_prefix_lie_below_its_folder(key: RecordKey, others: list[RecordKey]) -> None:
    path = names.decode(key)
    folders = [path[: at + 1] for at, byte in enumerate(path) if byte == ord("/")]
    for folder, other in itertools.product(folders, [key, *others]):
        prefix = names.encode_prefix(folder)
        assert other.startswith(prefix) == names.decode(other).startswith(folder)


@given(keys, st.lists(keys, max_size=30), st.integers(0, 256))
@settings(max_examples=300)
def test_past_a_folder_come_the_greater_keys_and_none_of_its_own(
    key: RecordKey, others: list[RecordKey], cut: int
) -> None:
    prefix = key[:cut]
    past = names.past_folder(prefix)
    for other in [key, RecordKey(prefix + "z" * (names.MAX_KEY_LENGTH - len(prefix))), *others]:
        if other.startswith(prefix):
            assert other < past
        else:
            assert (other > past) == (other > prefix)


@pytest.mark.parametrize("name", [b"INPUT", b"a!b", b"a-b_c.d'(e)", b"!21", b"a!2E", b"x!2f", b"..."])
def test_strict_names_stand_in_the_key_as_they_are(name: bytes) -> None:
    assert names.encode(names.strict_component(name)) == name.decode("ascii")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (b"my file", "' ' (U+0020)"),
        (b"a~", "'~' (U+007E)"),
        ("漢字".encode(), "'漢' (U+6F22)"),
        ("a😀".encode(), "'😀' (U+1F600)"),
        (b"a\xff", "the byte FF"),
        (b"a\xe6\xbc", "the byte E6"),
        (b"a\nb", r"'\n' (U+000A)"),
        (b"a!20b", "'!'"),
        (b"!2E", "'!'"),
        (b"!2F", "'!'"),
        (b"a!212F", "'!'"),
    ],
)
def test_strict_names_say_which_character_is_in_the_way(name: bytes, told: str) -> None:
    with pytest.raises(FileError) as raised:
        names.strict_component(name)
    assert errno_of(raised) == errno.EINVAL
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a!2F", b"a/b"])
def test_strict_names_are_file_names(name: bytes) -> None:
    with pytest.raises(FileError) as raised:
        names.strict_component(name)
    assert errno_of(raised) == errno.EINVAL


def tree_of(keys: Iterable[RecordKey]) -> dict[tuple[bytes, ...], RecordKey]:
    """Where each record is shown: its folders' names and its own, as a listing builds them."""
    parts = {key: [names.display(part) for part in names.decode(key).split(b"/")] for key in keys}
    folders = {tuple(shown[:depth]) for shown in parts.values() for depth in range(1, len(shown))}
    tree: dict[tuple[bytes, ...], RecordKey] = {}
    for key, shown in parts.items():
        beside = tuple(shown) in folders
        place = (*shown[:-1], names.beside_folder(shown[-1]) if beside else shown[-1])
        assert place not in folders
        assert place not in tree
        tree[place] = key
    return tree


def key_at(place: tuple[bytes, ...]) -> RecordKey:
    *folders, last = place
    record = names.record_beside_folder(last)
    return names.encode(
        b"/".join(names.component(name) for name in [*folders, last if record is None else record])
    )


TREE_KEY = st.lists(
    st.sampled_from(["!2F", "!2E", "!212F", "!212E", "!", "21", "2F", ".", "..", "a", "b"]),
    min_size=1,
    max_size=8,
).map(lambda pieces: RecordKey("".join(pieces)))


@given(st.sets(st.one_of(TREE_KEY, keys), max_size=60))
@settings(max_examples=500)
def test_a_whole_store_is_shown_without_collision_and_maps_back(store: set[RecordKey]) -> None:
    tree = tree_of(store)
    assert set(tree.values()) == store
    for place, key in tree.items():
        assert key_at(place) == key


def test_the_tree_of_all_small_keys() -> None:
    store = {RecordKey(text) for text in texts(["!2F", "!2E", "!212F", ".", "a", "!"], 5)}
    tree = tree_of(store)
    assert set(tree.values()) == store
    assert all(key_at(place) == key for place, key in tree.items())


def test_a_record_beside_a_folder_is_marked_and_any_other_is_not() -> None:
    store = [RecordKey(key) for key in ["a", "a!2Fb", "b", "a!2F!2Fc", "a!2F", ".!2Fd", "."]]
    assert tree_of(store) == {
        (b"a!2F",): "a",
        (b"a", b"b"): "a!2Fb",
        (b"b",): "b",
        (b"a", b"!2F", b"c"): "a!2F!2Fc",
        (b"a", b"!2F!2F"): "a!2F",
        (b"!2E", b"d"): ".!2Fd",
        (b"!2E!2F",): ".",
    }


@given(st.lists(st.one_of(keys, st.text("ab.-\n!", max_size=300)), min_size=1, max_size=5), paths)
def test_the_components_of_many_keys_are_those_that_each_of_them_decodes_to(
    many: list[str], path: bytes
) -> None:
    folder = path[: path.rfind(b"/") + 1]
    try:
        prefix = names.encode_prefix(folder)
    except FileError:
        return
    listed = [prefix + key for key in many]
    found = names.plain_components(listed, prefix)
    if found is not None:
        assert [folder + component for component in found] == [names.decode(RecordKey(key)) for key in listed]


def test_a_page_of_plain_keys_is_told_as_such() -> None:
    assert names.plain_components(["a", "b.c", "(1)"], "") == [b"a", b"b.c", b"(1)"]
    assert names.plain_components(["d!2Fa", "d!2F.."], "d!2F") == [b"a", b".."]
    for others in (["a", ""], ["a!20"], ["e!2Fa"], ["d!2F"], ["a\nb"], ["d!2F" + 253 * "a"], ["é"]):
        assert names.plain_components(["d!2Fa", *others], "d!2F") is None
