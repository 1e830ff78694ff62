"""Record keys and file names: a bijection between the two, so that no record is hidden and none shown twice.

Two steps, each a bijection by itself:

1. **Key <-> raw path** (`encode`, `decode`). Let S be the upper-case hex pairs of the bytes 01 to FF that a
   key cannot hold. Encoding writes such a byte as `!HH`, and inserts `21` after a literal `!` that is
   followed by `(21)*HH` with HH in S. Decoding reads `!(21)^n HH`: n = 0 is the byte, n >= 1 drops one `21`.

   Why this loses nothing: 21 is not in S (`!` is legal in a key), so n and HH are unique wherever such a
   sequence stands. Behind its `!` a sequence holds only hex digits, which are written as themselves, and
   what a byte is written as begins with `!`. So what follows one `!` is the same before and after encoding,
   and no `!` changes how another one reads. Bytes map onto n = 0, literal sequences with n onto those with
   n + 1, everything else onto itself: one to one, and nothing is left over on either side.

2. **Component of the raw path <-> file name** (`display`, `component`). The raw path is split at `/`, one of
   the bytes that a key cannot hold. The components that cannot be file names, the empty one, `.` and `..`,
   are shown as `!2F`, `!2E` and `.!2E`. What would be taken for one of these or for a `NAME!2F`, with any
   number of `21`, gets one more after its last `!`. So the names that read `!(21)^n 2F` (after anything) or
   `!(21)^n 2E` (alone or after one `.`) with n >= 1 stand for the component with n - 1; with n = 0 they stand
   for the empty component, `.` and `..`; and a `NAME!2F` with a NAME stands for no component.

These last ones are left for `beside_folder`: the record `NAME` where a folder `NAME` exists too.

Both steps work on bytes without any character set: a file name need not be UTF-8.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from typing import NoReturn

from kvsfs.errors import FileError, ProtocolViolation
from kvsfs.types import RecordKey

MAX_KEY_LENGTH = 256
"""Characters of a key, which are bytes (the API's limit)."""

MAX_SHOWN_LENGTH = 2 * MAX_KEY_LENGTH
"""Of a key as it is shown: in a layout it has its folder in front, whose name could be a key."""

_KEY = re.compile(r"[a-zA-Z0-9!\-_.'()]+")
_PLAIN = re.compile(r"(?:\n[a-zA-Z0-9\-_.'()]+)+")
_FOREIGN = re.compile(rb"[^a-zA-Z0-9!\-_.'()]")
_HEX_PAIRS = {b"%02X" % code: code for code in range(1, 256) if _FOREIGN.fullmatch(bytes([code]))}
"""S: the pairs that stand for a byte. NUL is in no file name, so `!00` stays three literal characters."""

# A pair outside S is matched too and left as it is: it holds no `!`, so no other sequence begins inside it.
_SEQUENCE = re.compile(rb"!((?:21)*)([0-9A-F]{2})")

_NO_FILE_NAME = {b"": b"!2F", b".": b"!2E", b"..": b".!2E"}
_SHOWN_FOR = {name: raw for raw, name in _NO_FILE_NAME.items()}
_BESIDE_FOLDER = b"!2F"
_TAKEN_FOR_ANOTHER = re.compile(rb"\A\.?!(?=(?:21)*2E\Z)|!(?=(?:21)*2F\Z)")
_ONE_MORE_21 = re.compile(rb"(\A\.?!)21(?=(?:21)*2E\Z)|(!)21(?=(?:21)*2F\Z)")


def is_key(text: str, longest: int = MAX_KEY_LENGTH) -> bool:
    """Whether the API takes this text as a record's key."""
    return len(text) <= longest and _KEY.fullmatch(text) is not None


def encode(path: bytes, longest: int | None = MAX_KEY_LENGTH) -> RecordKey:
    """Return the key of the record at this raw path, of any length where `longest` is None.

    Raises FileError: ENAMETOOLONG where the key is longer than the API allows, EINVAL for the empty path
    and for NUL.
    """
    if not path:
        _refuse("an empty path names no record")
    return RecordKey(_encoded(path, longest))


def encode_local(path: bytes) -> RecordKey:
    """Return what `encode` does for a path that no store is to have, of any length: the API never sees it."""
    return RecordKey(_encoded(path, None))


def encode_prefix(path: bytes, longest: int = MAX_KEY_LENGTH) -> str:
    """Return what the key of every record below this folder begins with.

    `path` ends in `/`, or is empty for the whole store. `encode(folder + rest)` is `encode_prefix(folder) +
    encode(rest)`: no sequence reaches across a `/`, since what that is written as begins with `!`. Raises
    FileError as `encode` does.
    """
    if path and not path.endswith(b"/"):
        raise ValueError(f"a folder's path ends in '/': {path!r}")
    return _encoded(path, longest)


def decode(key: RecordKey) -> bytes:
    """Return the raw path of a record.

    Raises ProtocolViolation where `key` is none that the API would take, with a layout's folder in front or not.
    It must not get a name: `~` would be shown as `~`, and come back as the key `!7E`.
    """
    if not is_key(key, MAX_SHOWN_LENGTH):
        raise ProtocolViolation(f"the store lists a key that is not one: {key!r}")
    raw = key.encode("ascii")
    return _SEQUENCE.sub(_decode_sequence, raw) if b"!" in raw else raw


def plain_components(keys: Sequence[str], prefix: str, longest: int = MAX_KEY_LENGTH) -> list[bytes] | None:
    """Return the components of keys that stand as they are for names in the folder with a prefix.

    None when one of them does not: then each is for `decode`. All at once this takes a tenth of the time.
    """
    text = "\n" + "\n".join(keys)
    if prefix:
        if text.count("\n" + prefix) != len(keys):
            return None
        text = text.replace("\n" + prefix, "\n")
    if not _PLAIN.fullmatch(text) or max(map(len, keys)) > longest:
        return None
    components = text.encode("ascii").split(b"\n")[1:]
    return components if len(components) == len(keys) else None


def display(component: bytes) -> bytes:
    """Return the file name for a component of a raw path. Each has one, no two have the same."""
    if component in _NO_FILE_NAME:
        return _NO_FILE_NAME[component]
    return _TAKEN_FOR_ANOTHER.sub(rb"\g<0>21", component) if b"!" in component else component


def component(name: bytes) -> bytes:
    """Return the component of a raw path that a file name stands for: the inverse of `display`.

    Raises FileError EINVAL for what is no file name and for `NAME!2F`, which stands for no component.
    """
    if name in _SHOWN_FOR:
        return _SHOWN_FOR[name]
    if name in _NO_FILE_NAME or b"/" in name or b"\0" in name:
        _refuse(f"not a file name: {name!r}")
    if name.endswith(_BESIDE_FOLDER):
        _refuse(f"{_readable(name)}: the ending '!2F' is kept for a record beside a folder of the same name")
    return _ONE_MORE_21.sub(rb"\1\2", name)


def beside_folder(name: bytes) -> bytes:
    """Return what the record `name` is shown as where a folder of that name exists too."""
    return name + _BESIDE_FOLDER


def record_beside_folder(name: bytes) -> bytes | None:
    """Return NAME where `name` reads `NAME!2F` and NAME can show a component; None for every other name.

    Such a name stands for something only where both the record and the folder exist: the caller finds out.
    """
    if not name.endswith(_BESIDE_FOLDER):
        return None
    shown = name.removesuffix(_BESIDE_FOLDER)
    try:
        component(shown)
    except FileError:
        return None
    return shown


def past_folder(prefix: str) -> str:
    """Return an `exclusiveStartKey` behind all keys with this prefix and before all greater ones without it.

    `~` (7E) sorts behind `z` (7A), the last character of a key, and is in no key itself, so that none is
    equal and skipped. The API takes any string as a starting point.
    """
    return prefix + "~"


def strict_component(name: bytes) -> bytes:
    """Do what `component` does, but only for names that stand in a key as they are (`--names strict`).

    Raises FileError EINVAL that names the first character that would have to be encoded.
    """
    raw = component(name)
    foreign = _FOREIGN.search(name)
    if foreign is not None:
        _refuse(
            f"{_readable(name)}: a key cannot hold {_character_at(name, foreign.start())} (--names strict)"
        )
    if raw != name or _encoded(raw, None).encode("ascii") != name:
        _refuse(f"{_readable(name)}: this '!' would have to be encoded (--names strict)")
    return raw


def _encoded(path: bytes, longest: int | None) -> str:
    if b"\0" in path:
        _refuse("a name cannot hold the byte 00")
    escaped = _SEQUENCE.sub(_mark_literal, path) if b"!" in path else path
    text = _FOREIGN.sub(_encode_byte, escaped).decode("ascii")
    if longest is not None and len(text) > longest:
        raise FileError(
            errno.ENAMETOOLONG,
            f"the key would be {len(text)} characters long, the API allows {longest}",
        )
    return text


def _encode_byte(match: re.Match[bytes]) -> bytes:
    return b"!%02X" % match[0][0]


def _mark_literal(match: re.Match[bytes]) -> bytes:
    return b"!21" + match[0][1:] if match[2] in _HEX_PAIRS else match[0]


def _decode_sequence(match: re.Match[bytes]) -> bytes:
    code = _HEX_PAIRS.get(match[2])
    if code is None:
        return match[0]
    return b"!" + match[0][3:] if match[1] else bytes([code])


def _refuse(message: str) -> NoReturn:
    raise FileError(errno.EINVAL, message)


def _readable(name: bytes) -> str:
    return repr(name.decode("utf-8", "backslashreplace"))


def _character_at(name: bytes, start: int) -> str:
    """Name the character whose first byte is at `start` so that a person finds it."""
    for stop in range(start + 1, start + 5):  # UTF-8 has at most 4 bytes a character
        try:
            character = name[start:stop].decode("utf-8")
        except UnicodeDecodeError:
            continue
        return f"{character!r} (U+{ord(character):04X})"
    return f"the byte {name[start]:02X}"
