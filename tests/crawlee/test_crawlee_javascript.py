"""Folders of Crawlee for JavaScript 3, with and without its notes beside the files; and by version 4."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kvsfs.errors import ExitCode
from tests.crawlee.conftest import Command
from tests.support.store_api import StoreApi

FOLDER = Path(__file__).parents[1] / "clients" / "javascript"

SCRIPT_SECONDS = 60
"""It takes one."""

JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"

WRITTEN = {
    "..": (b"dots", TEXT),
    "INPUT": ('{\n  "startUrls": [\n    "https://example.com/ä"\n  ]\n}'.encode(), JSON),
    "bytes": (b"\0\xff\1", "application/octet-stream"),
    "doc.json": (b"a text", TEXT),
    "page": ("<p>ü</p>".encode(), "text/html; charset=utf-8"),
    "photo": (b"\xff\xd8", "image/jpeg"),
    "shot": (b"\x89P", "image/png"),
    "text": ("héllo\n".encode(), TEXT),
    "unknown": (b"x", "application/x-nobody-knows"),
    "v1.2": (b'{\n  "version": 2\n}', JSON),
    "what's(this)!-_": (b"odd", TEXT),
}
"""The RECORDS of storage.mjs, as they are on disk."""


def crawlee(*arguments: str | Path) -> Any:
    """Run Crawlee; what it printed. A machine without node is a failure, not a skip."""
    node = shutil.which("node")
    if node is None or not (FOLDER / "node_modules" / "@crawlee" / "memory-storage").is_dir():
        pytest.fail("node or Crawlee for JavaScript is missing: run ./dev setup")
    command = [node, str(FOLDER / "storage.mjs"), *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=SCRIPT_SECONDS, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout or "null")


def records(store: StoreApi) -> dict[str, tuple[bytes, str]]:
    return {key: (store.content(key), store.content_type(key)) for key in store.sizes()}


@pytest.mark.parametrize("notes", [[], ["with-metadata"]], ids=["files only", "with metadata"])
def test_a_folder_in_a_store(notes: list[str], store: StoreApi, command: Command, tmp_path: Path) -> None:
    crawlee("write", tmp_path, *notes)
    command("import", tmp_path, store.id)
    expected = dict(WRITTEN)
    if not notes:  # the file has an extension and nothing else
        expected["unknown"] = (b"x", "application/octet-stream")
    assert records(store) == expected


def test_an_export_is_what_crawlee_reads(store: StoreApi, command: Command, tmp_path: Path) -> None:
    for key, (content, content_type) in WRITTEN.items():
        store.put(key, content, content_type)
    command("export", "--for", "javascript", store.id, tmp_path, "--store", "mine")
    assert sorted(path.name for path in (tmp_path / "key_value_stores" / "mine").iterdir()) == [
        *("...txt", "INPUT.json", "bytes.bin", "doc.json.txt", "page.html", "photo.jpeg", "shot.png"),
        *("text.txt", "unknown.__metadata__.json", "unknown.bin", "v1.2.json", "what's(this)!-_.txt"),
    ]
    assert crawlee("read", tmp_path, "mine") == {
        key: {"bytes": base64.b64encode(content).decode(), "type": content_type}
        for key, (content, content_type) in WRITTEN.items()
    }


def test_a_record_of_another_type_has_no_two_files(store: StoreApi, command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "key_value_stores" / "default"
    store.put("page", b"<p>", "text/html; charset=utf-8")
    store.put("page.html", b"text", TEXT)
    command("export", "--for", "javascript", store.id, tmp_path)
    store.put("page", b"{}", JSON)
    command("export", "--for", "javascript", store.id, tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "page.json": b"{}",
        "page.html.txt": b"text",
    }
    command("export", store.id, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [
        *("page", "page.__metadata__.json", "page.html", "page.html.__metadata__.json"),
    ]
    command("export", "--for", "javascript", store.id, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["page.html.txt", "page.json"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store's folder."""
    made = tmp_path / "some-store"
    made.mkdir()
    return made


def test_the_notes_of_version_4(store: StoreApi, command: Command, folder: Path) -> None:
    """Its source: a file of another name is named in the notes, and more is percent-encoded."""
    (folder / "a%2Epng").write_bytes(b"png")
    (folder / "a%2Epng.__metadata__.json").write_text(
        '{"key": "a.png", "contentType": "image/png", "size": 3}'
    )
    (folder / "input.json").write_bytes(b"{}")
    (folder / "INPUT.__metadata__.json").write_text(
        '{"key": "INPUT", "contentType": "application/json", "filename": "input.json"}'
    )
    command("import", folder, store.id)
    assert records(store) == {"INPUT": (b"{}", "application/json"), "a.png": (b"png", "image/png")}


def test_files_that_somebody_put_there(store: StoreApi, command: Command, folder: Path) -> None:
    (folder / "INPUT.json").write_bytes(b'{"a": 1}')
    (folder / "notes.v2").write_bytes(b"a text")
    (folder / "csv").write_bytes(b"a,b\n")
    (folder / "__metadata__.json").write_text('{"id": "x", "name": "n"}')
    (folder / "b.html").write_bytes(b"<b>")
    (folder / "b.txt").write_bytes(b"b")
    told = command("import", folder, store.id, code=ExitCode.NOT_ALL_FITS)
    assert told == (
        "4 records stored (21 B), 1 that cannot be copied\n",
        "b.txt: its key would be b, and that is the one of b.html\n",
    )
    assert records(store) == {
        "INPUT": (b'{"a": 1}', JSON),
        "b": (b"<b>", "text/html; charset=utf-8"),
        "csv": (b"a,b\n", "text/csv; charset=utf-8"),
        "notes.v2": (b"a text", TEXT),
    }
