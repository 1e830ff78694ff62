"""docs/API.md: each method of Apify's clients is in its table, and each row does what it says."""

from __future__ import annotations

import inspect
import json
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from apify_client import ApifyClient

from kvsfs.errors import ExitCode
from tests.mount.conftest import Mount
from tests.support.mounting import Mounted, Sandbox, mounted_store
from tests.support.serving import RunningServer
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

DOCUMENT = Path(__file__).parents[2] / "docs" / "API.md"


@dataclass
class Both:
    """A store, its mount, and the commands of somebody who has its token."""

    store: StoreApi
    mounted: Mounted
    account: Mounted
    """All stores of the token's owner."""
    sandbox: Sandbox
    token: str
    url: str

    def command(self, *arguments: str, code: ExitCode = ExitCode.OK) -> str:
        ended = self.sandbox.kvsfs(*arguments, token=self.token, APIFY_API_BASE_URL=self.url)
        assert ended.returncode == code, ended.stderr
        return ended.stdout if code == ExitCode.OK else ended.stderr

    def info(self) -> dict[str, object]:
        answer = self.store.client.get(f"/v2/key-value-stores/{self.store.id}").raise_for_status()
        found: dict[str, object] = answer.json()["data"]
        return found

    def attribute(self, name: str, path: str = ".") -> str:
        return os.getxattr(self.mounted.path / path, name).decode()


def get(both: Both) -> None:
    assert both.attribute("user.apify.id") == both.store.id
    told = json.loads(both.command("stores", "info", both.store.id, "--json"))
    assert (told["id"], told["username"]) == (both.store.id, "joe")
    assert re.search(rf"^id +{both.store.id}$", both.command("stores", "info", both.store.id), re.MULTILINE)


def update(both: Both) -> None:
    os.setxattr(both.mounted.path, "user.apify.title", b"by the folder")
    assert both.info()["title"] == "by the folder"
    name = f"renamed-{secrets.token_hex(4)}"
    both.command("stores", "rename", both.store.id, name, "--title", "by command")
    assert (both.info()["name"], both.info()["title"]) == (name, "by command")
    told = both.command("stores", "access", f"~{name}", "anyone_with_id_can_read")
    assert told == "ANYONE_WITH_ID_CAN_READ\n"
    assert both.info()["generalAccess"] == "ANYONE_WITH_ID_CAN_READ"
    assert both.attribute("user.apify.general_access") == "ANYONE_WITH_ID_CAN_READ"


def delete(both: Both) -> None:
    doomed = StoreApi.create(both.store.client, f"doomed-{secrets.token_hex(4)}")
    doomed.put("f", b"x" * 2048)
    asked = both.command("stores", "rm", doomed.id, code=ExitCode.NOT_CONFIRMED)
    assert "with all its records (2.0 KiB)? Nobody is here to be asked: give --yes" in asked
    assert doomed.keys() == ["f"]
    assert both.command("stores", "rm", doomed.id, "--yes").endswith(" is deleted\n")
    assert both.store.client.get(f"/v2/key-value-stores/{doomed.id}").status_code == 404
    assert "there is no store" in both.command("stores", "rm", doomed.id, code=ExitCode.NO_SUCH_STORE)
    empty = f"empty-{secrets.token_hex(4)}"
    made = StoreApi.create(both.store.client, empty)
    both.account.run("rmdir", empty)
    assert both.store.client.get(f"/v2/key-value-stores/{made.id}").status_code == 404


def list_keys(both: Both) -> None:
    assert both.mounted.run("ls").split() == ["INPUT", "img"]
    assert sorted(os.listdir(both.mounted.path / "img")) == ["a.png", "b.png"]


def iterate_keys(both: Both) -> None:
    assert both.mounted.sh("find . -type f | sort").split() == ["./INPUT", "./img/a.png", "./img/b.png"]


def record_exists(both: Both) -> None:
    both.mounted.sh("test -e img/a.png; ! test -e img/c.png")


def get_record(both: Both) -> None:
    assert both.mounted.run("cat", "INPUT") == '{"a": 1}'
    assert both.attribute("user.mime_type", "INPUT") == "application/json"


def get_record_as_bytes(both: Both) -> None:
    both.mounted.sh("cp img/a.png ../copied")
    assert (both.sandbox.folder / "copied").read_bytes() == b"\x89PNG a"


def stream_record(both: Both) -> None:
    assert both.mounted.run("head", "-c", "3", "INPUT") == '{"a'


def set_record(both: Both) -> None:
    both.mounted.sh("echo '<p>' > new; setfattr -n user.mime_type -v text/x-mine new")
    assert (both.store.content("new"), both.store.content_type("new")) == (b"<p>\n", "text/x-mine")


def delete_record(both: Both) -> None:
    both.mounted.sh("rm new")
    assert both.store.keys() == ["INPUT", "img!2Fa.png", "img!2Fb.png"]


def get_record_public_url(both: Both) -> None:
    url = both.command("url", str(both.mounted.path / "img/a.png")).strip()
    assert url == both.attribute("user.apify.public_url", "img/a.png")
    assert httpx.get(url).content == b"\x89PNG a"


def create_keys_public_url(both: Both) -> None:
    folder = str(both.mounted.path / "img")
    for url in (both.command("url", folder).strip(), both.attribute("user.apify.public_url", "img")):
        assert [item["key"] for item in httpx.get(url).json()["data"]["items"]] == [
            "img!2Fa.png",
            "img!2Fb.png",
        ]
    url = both.command("url", folder, "--expires", "1h", "--limit", "1").strip()
    assert [item["key"] for item in httpx.get(url).json()["data"]["items"]] == ["img!2Fa.png"]
    assert url != both.command("url", folder, "--limit", "1").strip()
    whole = both.command("url", str(both.mounted.path)).strip()
    assert len(httpx.get(whole).json()["data"]["items"]) == 3


def list_stores(both: Both) -> None:
    first, second = both.command("stores", "ls", "--unnamed", "--limit", "1").splitlines()
    assert first.split() == ["ID", "NAME", "SIZE", "MODIFIED", "TITLE"]
    assert len(second) > 17
    assert both.info()["name"] in os.listdir(both.account.path)


def iterate(both: Both) -> None:
    told = json.loads(both.command("stores", "ls", "--unnamed", "--json", "--newest-first"))
    total = both.store.client.get("/v2/key-value-stores", params={"unnamed": "true"}).json()["data"]["total"]
    assert len({info["id"] for info in told}) == total
    assert "urlSigningSecretKey" not in json.dumps(told)
    assert {info["name"] for info in told if info["name"]} <= set(os.listdir(both.account.path))


def get_or_create(both: Both) -> None:
    name = f"made-{secrets.token_hex(4)}"
    made = [json.loads(both.command("stores", "create", name, "--json"))["id"] for _ in range(2)]
    assert made[0] == made[1]
    both.account.run("mkdir", f"{name}-3")
    assert StoreApi.create(both.store.client, f"{name}-3").keys() == []
    both.command("stores", "create")
    schema = both.sandbox.folder / "schema.json"
    schema.write_text(
        '{"actorKeyValueStoreSchemaVersion": 1, "title": "T", "collections": {"c": {"key": "k"}}}'
    )
    told = both.command("stores", "create", f"{name}-2", "--schema", str(schema))
    assert re.search("^collections +c$", told, re.MULTILINE)


DRIVEN: dict[str, Callable[[Both], None]] = {
    **{
        driver.__name__: driver
        for driver in (
            *(get, update, delete, list_keys, iterate_keys, record_exists, get_record, get_record_as_bytes),
            *(stream_record, set_record, delete_record, get_record_public_url, create_keys_public_url),
            *(iterate, get_or_create),
        )
    },
    "list": list_stores,
}


def listed_methods() -> list[str]:
    return re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text(), re.MULTILINE)


def test_the_table_has_every_method_and_no_other() -> None:
    client = ApifyClient("none")
    clients = (client.key_value_store("none"), client.key_value_stores())
    methods = {
        name
        for made in clients
        for name, _ in inspect.getmembers(made, inspect.isroutine)
        if not name.startswith("_")
    }
    assert sorted(listed_methods()) == sorted(methods)


def test_every_row_of_the_table(
    mount: Mount, store: StoreApi, sandbox: Sandbox, server: RunningServer, token: str
) -> None:
    store.put("INPUT", b'{"a": 1}', "application/json")
    store.put("img!2Fa.png", b"\x89PNG a", "image/png")
    store.put("img!2Fb.png", b"\x89PNG b", "image/png")
    everything = mounted_store(sandbox, "account:", token=token, server=server, name="account")
    with mount() as mounted, everything as account:
        both = Both(store, mounted, account, sandbox, token, server.url)
        for method in listed_methods():
            DRIVEN[method](both)


def test_what_is_refused(
    sandbox: Sandbox, server: RunningServer, client: httpx.Client, token: str, tmp_path: Path
) -> None:
    name = f"taken-{secrets.token_hex(4)}"
    mine, taken = StoreApi.create(client), StoreApi.create(client, name)

    def refused(code: ExitCode, *arguments: str | Path, by: str | None = token) -> str:
        ended = sandbox.kvsfs(*map(str, arguments), token=by, APIFY_API_BASE_URL=server.url)
        assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
        (line,) = ended.stderr.splitlines()
        return line

    for wrong in ("a b", "x" * 64, "-a", "a_b"):
        assert "1 to 63 letters" in refused(ExitCode.INVALID_NAME, "stores", "create", "--", wrong)
        assert "1 to 63 letters" in refused(ExitCode.INVALID_NAME, "stores", "rename", "--", mine.id, wrong)
    assert "the API refuses" in refused(ExitCode.INVALID_NAME, "stores", "rename", mine.id, name)
    assert "is none of" in refused(ExitCode.USAGE, "stores", "access", mine.id, "EVERYBODY")
    assert "user/name" in refused(ExitCode.INVALID_SOURCE, "stores", "info", "a b")
    assert "token" in refused(ExitCode.NO_TOKEN, "stores", "ls", by=None)
    refused(ExitCode.TOKEN_REFUSED, "stores", "ls", by="unknown")
    assert "there is no store typo" in refused(ExitCode.NO_SUCH_STORE, "stores", "info", "local:typo")
    (tmp_path / "schema").write_text("{")
    assert "is not JSON" in refused(ExitCode.USAGE, "stores", "create", "--schema", tmp_path / "schema")
    assert "not in a mount of kvsfs" in refused(ExitCode.NOT_MOUNTED, "url", tmp_path)
    assert "No such file" in refused(ExitCode.USAGE, "url", tmp_path / "missing")
    taken.put("f", b"x")
    with mounted_store(sandbox, taken.id, token=token, server=server) as mounted:
        told = refused(ExitCode.USAGE, "url", mounted.path / "f", "--expires", "1h")
        assert "a record's URL works for ever" in told
        for wrong in ("soon", "20ms"):
            refused(ExitCode.USAGE, "url", mounted.path, "--expires", wrong)
    assert taken.keys() == ["f"]
