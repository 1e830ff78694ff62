"""A folder that Crawlee for Python wrote, into a store and out again: record by record."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from kvsfs.errors import ExitCode
from tests.crawlee.conftest import Command
from tests.support import crawlee_python
from tests.support.store_api import StoreApi

ROOT = Path(__file__).parents[2]

CRAWLEE_SECONDS = 60
"""It takes one."""


def crawlee(*arguments: str | Path) -> Any:
    """Run Crawlee; what it printed."""
    ended = subprocess.run(
        [sys.executable, "-m", crawlee_python.__name__, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=CRAWLEE_SECONDS,
        check=True,
    )
    return json.loads(ended.stdout or "null")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `storage` as a crawler leaves it."""
    folder = tmp_path_factory.mktemp("crawlee") / "storage"
    crawlee("write", folder)
    return folder


def records(store: StoreApi) -> dict[str, tuple[bytes, str]]:
    return {key: (store.content(key), store.content_type(key)) for key in store.sizes()}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "__metadata__.json"}


def test_a_folder_of_crawlee_in_a_store(written: Path, store: StoreApi, command: Command) -> None:
    told = command("import", written, store.id, "--store", crawlee_python.NAMED)
    known = crawlee("read", written, crawlee_python.NAMED)
    folder = written / "key_value_stores" / crawlee_python.NAMED
    expected = {
        key: ((folder / quote(key, safe="")).read_bytes(), known[key]["type"])
        for key in crawlee_python.RECORDS
        if key != "k.__metadata__.json"  # compared below
    }
    found = records(store)
    assert found.pop("k.__metadata__.json")[0] == b"not of k"
    assert found == expected
    assert told[0] == f"{len(crawlee_python.RECORDS)} records stored (2.9 MiB)\n"
    assert found["nothing"] == (b"", "application/x-none")


@pytest.mark.parametrize("place", [".", "key_value_stores", f"key_value_stores/{crawlee_python.DEFAULT}"])
def test_every_way_to_name_the_folder(written: Path, store: StoreApi, command: Command, place: str) -> None:
    choice = [] if place.endswith(crawlee_python.DEFAULT) else ["--store", crawlee_python.DEFAULT]
    command("import", written / place, store.id, *choice)
    assert store.keys() == sorted(crawlee_python.RECORDS)


def test_there_and_back(written: Path, store: StoreApi, command: Command, tmp_path: Path) -> None:
    """What Crawlee reads of the export is what it reads of what it wrote, and the files are the same byte for byte."""
    command("import", written, store.id, "--store", crawlee_python.DEFAULT)
    store.delete_record("k.__metadata__.json")
    told = command("export", store.id, tmp_path / "storage")
    assert told[0] == f"{len(crawlee_python.RECORDS) - 1} records written (2.9 MiB)\n"
    folder, original = (base / "key_value_stores" / "default" for base in (tmp_path / "storage", written))
    exported, expected = files_of(folder), files_of(original)
    for name in ("k.__metadata__.json", "k.__metadata__.json.__metadata__.json"):
        del expected[name]
    assert exported == expected
    expected = crawlee("read", written, crawlee_python.DEFAULT)
    del expected["k.__metadata__.json"]
    assert crawlee("read", tmp_path / "storage", crawlee_python.DEFAULT) == expected
    assert len(expected) == len(crawlee_python.RECORDS) - 1


def test_out_and_back(
    written: Path, store: StoreApi, command: Command, tmp_path: Path, requests_of: Callable[[], list[str]]
) -> None:
    """For either Crawlee: a new store made of the export has the same records; nothing is copied twice."""
    command("import", written, store.id, "--store", crawlee_python.DEFAULT)
    store.delete_record("k.__metadata__.json")
    before = records(store)
    for layout in ("python", "javascript"):
        folder = tmp_path / layout
        command("export", "--for", layout, store.id, folder)
        requests_of()
        told = command("export", "--for", layout, store.id, folder)
        assert told[0] == f"0 records written (0 B), {len(before)} there already\n"
        assert requests_of() == ["HEAD"] * len(before) + ["LIST"]
        told = command("import", folder, store.id)
        assert told[0] == f"0 records stored (0 B), {len(before)} there already\n"
        assert requests_of() == ["HEAD"] * len(before)
        other = StoreApi.create(store.client)
        command("import", folder, other.id)
        assert records(other) == before


def test_only_what_changed_is_copied_again(
    written: Path, store: StoreApi, command: Command, tmp_path: Path, requests_of: Callable[[], list[str]]
) -> None:
    command("import", written, store.id, "--store", crawlee_python.DEFAULT)
    store.delete_record("k.__metadata__.json")
    count = len(crawlee_python.RECORDS) - 1
    command("export", store.id, tmp_path)
    folder = tmp_path / "key_value_stores" / "default"
    (folder / "text").write_bytes(b"7 bytes")
    requests_of()
    assert f"1 record stored (7 B), {count - 1} there already" in command("import", folder, store.id)[0]
    assert requests_of().count("PUT") == 1
    store.put("text", b"another", "text/plain; charset=utf-8")
    store.put("OUTPUT", (folder / "OUTPUT").read_bytes(), "application/x-other")
    store.put("new", b"new")
    requests_of()
    assert f"3 records written (27 B), {count - 2} there" in command("export", store.id, tmp_path)[0]
    assert requests_of().count("GET") == 3
    assert (folder / "text").read_bytes() == b"another"
    assert (
        json.loads((folder / "OUTPUT.__metadata__.json").read_bytes())["content_type"]
        == "application/x-other"
    )


def test_a_dry_run_copies_nothing(
    written: Path, store: StoreApi, command: Command, tmp_path: Path, requests_of: Callable[[], list[str]]
) -> None:
    told, _ = command("import", "--dry-run", written, store.id, "--store", crawlee_python.DEFAULT)
    *keys, summary = told.splitlines()
    assert sorted(keys) == sorted(crawlee_python.RECORDS)
    assert summary == f"{len(keys)} records would be stored (2.9 MiB)"
    assert requests_of() == []
    store.put("INPUT", b"{}", "application/json")
    told, _ = command("export", "--dry-run", store.id, tmp_path / "new")
    assert told == "INPUT\n1 record would be written (2 B)\n"
    assert not (tmp_path / "new").exists()
    told, _ = command("import", "--dry-run", written, "local:none", "--store", crawlee_python.DEFAULT)
    assert told.endswith("would be stored (2.9 MiB)\n")
    assert "no store none" in command("stores", "info", "local:none", code=ExitCode.NO_SUCH_STORE)[1]
