"""The official JavaScript client against `kvsfs serve`: javascript/exercise.mjs calls, this compares."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import CROWD, TOKENS, CrowdedStore, Habits
from tests.support.serving import RunningServer

FOLDER = Path(__file__).parent / "javascript"

SCRIPT_SECONDS = 120
"""It takes 3 s; on a machine that is busy with everything else, much longer."""

JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
BINARY = "application/octet-stream"

LONG_TEXT = "".join(f"line {number} of a text that compresses\n" for number in range(3000))
NOISE_BYTES = 100_000

FORBIDDEN = {"error": {"status": 403, "type": "insufficient-permissions"}}
FORBIDDEN_HEAD = {"error": {"status": 403}}
NOT_PROVIDED = {"error": {"status": 401, "type": "token-not-provided"}}
NOT_VALID = {"error": {"status": 401, "type": "invalid-token"}}
NOT_FOUND = {"error": {"status": 404, "type": "record-or-token-not-found"}}


def noise() -> bytes:
    """The same bytes as NOISE of exercise.mjs."""
    state, made = 1, bytearray()
    for _ in range(NOISE_BYTES):
        state = (state * 1103515245 + 12345) % 2**32
        made.append(state >> 24)
    return bytes(made)


@pytest.fixture(scope="module")
def results(server: RunningServer, crowded: CrowdedStore) -> dict[str, Any]:
    """What the script printed. A machine without node is a failure, not a skip."""
    node = shutil.which("node")
    if node is None or not (FOLDER / "node_modules" / "apify-client").is_dir():
        pytest.fail("node or the JavaScript client is missing: run ./dev setup")
    script = str(FOLDER / "exercise.mjs")
    arguments = [server.url, TOKENS["joe"], TOKENS["ann"], crowded.store_id]
    ended = subprocess.run(
        [node, script, *arguments], capture_output=True, text=True, timeout=SCRIPT_SECONDS, check=False
    )
    if ended.returncode != 0 or ended.stderr:
        pytest.fail(f"exercise.mjs ended with status {ended.returncode}:\n{ended.stderr}")
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


@pytest.fixture
def store(results: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = results["store"]
    return told


def indented(value: object) -> bytes:
    """Serialize as the client does."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode()


def encoded(content: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(content).decode()}


def test_every_method_was_called(results: dict[str, Any]) -> None:
    assert results["store"]["neverCalled"] == []
    assert results["collection"]["neverCalled"] == []


OBJECT = {"a": {"b": [1, 2.5, True, None]}, "text": "žluť"}


VALUES: dict[str, tuple[object, bytes, str]] = {
    "object": (OBJECT, indented(OBJECT), JSON),
    "array": ([1, "two", None], indented([1, "two", None]), JSON),
    "number": (42, b"42", JSON),
    "boolean": (False, b"false", JSON),
    "null": (None, b"null", JSON),
    "string": ("příliš", "příliš".encode(), TEXT),
    "xml": ("<a/>", b"<a/>", "application/xml"),
    "html": ("<p>small</p>", b"<p>small</p>", "text/html; charset=utf-8"),
    "buffer": (encoded(b"\x00\xff\x80"), b"\x00\xff\x80", BINARY),
    "typed": (encoded(b"\x01\x02\x03"), b"\x01\x02\x03", "image/png"),
    "longObject": ({"long": LONG_TEXT}, indented({"long": LONG_TEXT}), JSON),
    "longString": (LONG_TEXT, LONG_TEXT.encode(), TEXT),
    "longBuffer": (encoded(LONG_TEXT.encode()), LONG_TEXT.encode(), BINARY),
    "noise": (encoded(noise()), noise(), BINARY),
}
"""What exercise.mjs stored, by key: as the client parses it, as bytes, and its type."""


@pytest.mark.parametrize("key", VALUES)
def test_values_come_back(store: dict[str, Any], key: str) -> None:
    value, content, content_type = VALUES[key]
    told = store["values"][key]
    assert told["parsed"] == {"key": key, "contentType": content_type, "value": value}
    assert (told["raw"], told["streamed"]) == (encoded(content), encoded(content))
    assert told["contentType"] == content_type


@pytest.mark.parametrize(("key", "content_type"), [("empty", BINARY), ("emptyString", TEXT)])
def test_empty_values_come_back(store: dict[str, Any], key: str, content_type: str) -> None:
    told = store["values"][key]
    assert told["parsed"] == {"key": key, "contentType": content_type}  # undefined, as the client makes it
    assert (told["raw"], told["streamed"]) == (encoded(b""), encoded(b""))


def test_what_the_client_compresses_is_stored_compressed(store: dict[str, Any]) -> None:
    assert store["stored"]["object"] == len(indented(OBJECT))
    for key in ("longObject", "longString", "longBuffer"):
        assert 0 < store["stored"][key] < len(LONG_TEXT) / 4
    assert store["publicUrls"]["compressedAs"] == "br"


def test_streams(store: dict[str, Any]) -> None:
    assert store["streams"] == {"same": True, "contentType": "video/mp4"}


def test_2500_keys(results: dict[str, Any], habits: Habits) -> None:
    keys = results["keys"]
    assert keys["all"] == CROWD
    assert keys["limited"] == CROWD[:1500]
    assert keys["pastTheMaximum"] == CROWD[:2400]
    assert keys["prefixed"] == CROWD[1200:1300]
    assert keys["startAbsent"] == CROWD[2399:]
    assert keys["noLimit"] == habits.page_limit
    page = keys["page"]
    assert [item["key"] for item in page.pop("items")] == ["key-0100", "key-0101"]
    assert page == {
        "count": 2,
        "limit": 2,
        "exclusiveStartKey": "key-0099",
        "isTruncated": True,
        "nextExclusiveStartKey": "key-0101",
    }


def test_public_urls_need_no_token(store: dict[str, Any]) -> None:
    urls = store["publicUrls"]
    assert urls["record"] == {"status": 200, "body": "příliš"}
    assert urls["unsigned"] == 403
    assert urls["keys"] == ["longBuffer", "longObject"]
    assert urls["listed"] is True
    assert urls["forever"] == 200
    assert urls["recordBySignature"]["value"] == "příliš"
    assert urls["keysBySignature"] == ["number"]
    assert urls["anothersSignature"] == FORBIDDEN


def test_expired_urls_are_refused(store: dict[str, Any]) -> None:
    expired = store["publicUrls"]["expired"]
    assert expired["status"] == 403
    assert json.loads(expired["body"])["error"]["type"] == "insufficient-permissions"


@pytest.mark.parametrize(
    ("who", "reading", "writing"),
    [
        ("nobody", FORBIDDEN, NOT_PROVIDED),
        ("wrong", NOT_VALID, NOT_VALID),
        ("other", FORBIDDEN, FORBIDDEN),
    ],
)
def test_strangers_are_refused(
    store: dict[str, Any], who: str, reading: dict[str, Any], writing: dict[str, Any]
) -> None:
    told = store["refusals"][who]
    # An answer to HEAD has no body that could tell the type.
    assert told.pop("recordExists")["error"]["status"] == reading["error"]["status"]
    assert {name: told.pop(name) for name in ("get", "listKeys", "getRecord")} == dict.fromkeys(
        ("get", "listKeys", "getRecord"), reading
    )
    assert told == dict.fromkeys(("update", "delete", "setRecord", "deleteRecord"), writing)


def test_what_is_not_there_is_undefined(store: dict[str, Any]) -> None:
    assert store["absences"] == {
        "record": True,
        "stream": {"error": {"status": 404}},  # of a stream the client reads no type, and throws
        "exists": False,
        "deleteRecord": {},
        "store": True,
        "storeRecord": True,
        "storeExists": False,
        "deleteStore": {},
        "listKeys": NOT_FOUND,
        "setRecord": NOT_FOUND,
    }


def test_html_is_not_stored_compressed(store: dict[str, Any]) -> None:
    """The client compresses HTML like any text, the specification has an error for that: it wins."""
    assert store["longHtml"] == {"error": {"status": 400, "type": "content-encoding-forbidden-for-html"}}


def test_a_store_from_update_to_delete(store: dict[str, Any]) -> None:
    assert store["badKey"] == {"error": {"status": 400, "type": "invalid-record-key"}}
    assert (store["exists"], store["existsNoMore"]) == (True, False)
    updated = store["updated"]
    assert (updated["name"], updated["title"]) == ("js-renamed", "T")
    assert updated["generalAccess"] == "ANYONE_WITH_ID_CAN_READ"
    assert store["byName"] is True
    assert store["publicly"]["value"] == {"key": "number", "value": 42, "contentType": JSON}
    assert store["gone"] is True


def test_the_collection(results: dict[str, Any], habits: Habits) -> None:
    told = results["collection"]
    named = [f"js-{number}" for number in range(5)]
    assert told["names"] == told["listed"] == told["iterated"] == told["mine"] == named
    pages = {"title": "Pages", "keyPrefix": "page-", "contentTypes": ["text/html"]}
    assert told["schema"] == {
        "actorKeyValueStoreSchemaVersion": 1,
        "title": "pages " * 1000,
        "collections": {"pages": pages},
    }
    assert told["keysOfCollection"] == ["page-1"]
    assert told["wrongType"]["error"]["status"] == 400
    assert (told["again"], told["createdAtIsDate"]) == (True, True)
    assert told["counts"] == [0, 0, 0, habits.page_limit]
    assert told["descending"] == named[:1:-1]
    assert told["lastTwo"] == named[3:]
    assert told["iteratedDescending"] == named[:0:-1]
    assert (told["unnamedIsLast"], told["unnamedIsLeftOut"]) == (True, True)
    assert told["shared"] == []


def test_the_stores_of_runs(results: dict[str, Any]) -> None:
    assert results["runs"] == {
        "sameStore": True,
        "keys": ["INPUT", "OUTPUT"],
        "input": {"first": 1},
        "output": {"long": LONG_TEXT},
        "exists": True,
        "lastIsSecond": True,
        "lastInput": {"second": 2},
        "noneAborted": True,
        "lastOfTask": True,
        "me": "joe",
    }
