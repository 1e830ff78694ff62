"""Every way to name a store, on real mounts: runs, last runs, shared URLs, public stores; two users."""

from __future__ import annotations

import errno
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from kvsfs.errors import ExitCode
from kvsfs.signatures import sign_storage
from tests.mount.test_mount_secrets import arguments_of, everything_written
from tests.support.mounting import Mounted, Sandbox, failing, mount_table_line, mounted_store, wait_until
from tests.support.serving import RunningServer, running_server
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

JOE, ANN = "joes-token-0123456789", "anns-token-0123456789"
FROM_THE_STORE = "user.apify.id"

MountAs = Callable[..., AbstractContextManager[Mounted]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("two-users")
    tokens = [f"{JOE}=joe", f"{ANN}=ann"]
    with running_server(folder / "data", tokens=tokens, request_log=folder / "log") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {JOE}"}) as made:
        yield made


@pytest.fixture
def mount_as(sandbox: Sandbox, server: RunningServer) -> MountAs:
    """Mount a source with a token, or without one."""

    def mount(
        source: str, token: str | None = JOE, *options: str, **more: Any
    ) -> AbstractContextManager[Mounted]:
        return mounted_store(sandbox, source, *options, token=token, server=server, **more)

    return mount


@pytest.fixture
def refused(sandbox: Sandbox, server: RunningServer) -> Callable[..., str]:
    """Mount in vain; the line that was told."""

    def mount(code: ExitCode, source: str, token: str | None = JOE, *options: str) -> str:
        path = sandbox.mount_point()
        ended = sandbox.kvsfs("mount", "--api-url", server.url, *options, source, str(path), token=token)
        assert ended.returncode == code, ended.stderr
        (line,) = ended.stderr.splitlines()
        return line

    return mount


@pytest.fixture
def actor() -> str:
    return f"actor-{secrets.token_hex(4)}"


def new_run(client: httpx.Client, path: str, output: bytes, **params: str) -> StoreApi:
    run = client.post(f"/v2/{path}/runs", params=params).raise_for_status().json()["data"]
    store = StoreApi(client, run["defaultKeyValueStoreId"])
    store.put("OUTPUT", output)
    return store


def run_of(store: StoreApi) -> str:
    return str(store.client.get(f"/v2/key-value-stores/{store.id}").json()["data"]["actRunId"])


def keys_url(store: StoreApi, expires_at_ms: int | None = None) -> str:
    info = store.client.get(f"/v2/key-value-stores/{store.id}").json()["data"]
    signature = sign_storage(info["urlSigningSecretKey"], store.id, expires_at_ms)
    return (
        f"{str(store.client.base_url).rstrip('/')}/v2/key-value-stores/{store.id}/keys?signature={signature}"
    )


def give_access(store: StoreApi, level: str) -> None:
    path = f"/v2/key-value-stores/{store.id}"
    store.client.put(path, json={"generalAccess": level}).raise_for_status()


# --- names ------------------------------------------------------------------------------------------


def test_a_name_means_the_store_of_who_says_it(
    mount_as: MountAs, refused: Callable[..., str], client: httpx.Client, server: RunningServer
) -> None:
    """Two users with a store of the same name each; what one shares, the other reads by its owner's name."""
    name = f"same-{secrets.token_hex(4)}"
    mine = StoreApi.create(client, name)
    mine.put("whose", b"joe's")
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {ANN}"}) as hers:
        other = StoreApi.create(hers, name)
        other.put("whose", b"ann's")
        for source, token, expected in (
            (name, JOE, mine),
            (f"~{name}", ANN, other),
            (f"joe/{name}", JOE, mine),
            (mine.id, JOE, mine),
        ):
            with mount_as(source, token) as mounted:
                assert (mounted.path / "whose").read_bytes() == expected.content("whose")
                assert os.getxattr(mounted.path, FROM_THE_STORE).decode() == expected.id
                (mounted.path / "new").write_bytes(token.encode())
            assert expected.content("new") == token.encode()
    assert "may not read this store" in refused(ExitCode.NO_PERMISSION, f"joe/{name}", ANN)
    give_access(mine, "ANYONE_WITH_NAME_CAN_READ")
    with mount_as(f"joe/{name}", ANN) as mounted:
        mounted.expect_log("may not do this")
        assert (mounted.path / "whose").read_bytes() == b"joe's"
        with failing(errno.EACCES):
            (mounted.path / "whose").unlink()
    assert mine.content("whose") == b"joe's"


def test_names_that_are_none_are_told_all_forms(refused: Callable[..., str]) -> None:
    assert "user/name, run:RUN_ID, actor:user/actor" in refused(ExitCode.INVALID_SOURCE, "x" * 64)
    told = refused(ExitCode.NO_SUCH_STORE, "A" * 17)
    assert "a store of yours with this name is ~AAAAAAAAAAAAAAAAA" in told
    assert "--create needs a name" in refused(ExitCode.NO_SUCH_STORE, "A" * 17, JOE, "--create")
    told = refused(ExitCode.NO_PERMISSION, "joe/not-there", ANN, "--create")
    assert "as ann you cannot make one for joe" in told
    assert "--create makes a store by its name" in refused(ExitCode.USAGE, "actor:joe/x", JOE, "--create")


# --- runs -------------------------------------------------------------------------------------------


def test_the_store_of_a_run(mount_as: MountAs, client: httpx.Client, actor: str) -> None:
    store = new_run(client, f"actors/joe~{actor}", b"1")
    with mount_as(f"run:{run_of(store)}") as mounted:
        assert (mounted.path / "OUTPUT").read_bytes() == b"1"
        assert os.getxattr(mounted.path, FROM_THE_STORE).decode() == store.id
        mounted.sh("echo new > INPUT")
    assert store.content("INPUT") == b"new\n"


@pytest.mark.parametrize("kind", ["actor", "task"])
def test_the_store_of_the_last_run(mount_as: MountAs, client: httpx.Client, actor: str, kind: str) -> None:
    path = f"{'actors' if kind == 'actor' else 'actor-tasks'}/joe~{actor}"
    scheduled = new_run(client, path, b"good", status="SUCCEEDED", origin="SCHEDULER")
    last = new_run(client, path, b"bad", status="FAILED", origin="WEB")
    for source, expected in (
        (f"{kind}:joe/{actor}", last),
        (f"{kind}:{actor}", last),
        (f"{kind}:joe/{actor}?status=SUCCEEDED", scheduled),
        (f"{kind}:joe/{actor}?origin=WEB&status=failed", last),
    ):
        with mount_as(source) as mounted:
            assert os.getxattr(mounted.path, FROM_THE_STORE).decode() == expected.id
            assert (mounted.path / "OUTPUT").read_bytes() == expected.content("OUTPUT")


@pytest.mark.parametrize("source", ["actor:joe/NAME?status=SUCCEEDED", "task:joe/NAME"])
def test_a_newer_last_run_is_followed(
    mount_as: MountAs, client: httpx.Client, actor: str, source: str, sandbox: Sandbox
) -> None:
    path = f"{'actors' if source.startswith('actor') else 'actor-tasks'}/joe~{actor}"
    first = new_run(client, path, b"first")
    first.put("only!2Fin!2Ffirst", b"x")
    first.put("same", b"1234", "text/x-first")
    with mount_as(source.replace("NAME", actor), JOE, "--revalidate", "0") as mounted:
        output = mounted.path / "OUTPUT"
        assert mounted.sh("ls; cat OUTPUT only/in/first; stat -c %s same").split() == [
            *("OUTPUT", "only", "same", "firstx4")
        ]
        assert os.getxattr(mounted.path / "same", "user.mime_type") == b"text/x-first"
        with output.open("rb") as held:
            second = new_run(client, path, b"the second")
            second.put("same", b"5678", "text/x-second")
            assert output.read_bytes() == b"the second"
            assert held.read() == b"first"
        assert mounted.run("ls").split() == ["OUTPUT", "same"]
        assert not (mounted.path / "only" / "in" / "first").exists()
        assert (mounted.path / "same").read_bytes() == b"5678"
        assert os.getxattr(mounted.path / "same", "user.mime_type") == b"text/x-second"
        assert os.getxattr(mounted.path, FROM_THE_STORE).decode() == second.id
        third = new_run(client, path, b"3")
        assert mounted.run("ls").split() == ["OUTPUT"]
        assert (mounted.run("stat", "-c", "%s", "OUTPUT"), output.read_bytes()) == ("1\n", b"3")
        for store in (second, third):
            assert f"a newer one: from here on its store is shown, {store.id}" in mounted.log_text()
        with failing(errno.EROFS):
            (mounted.path / "new").touch()
        told = json.loads(sandbox.kvsfs("status", "--json", str(mounted.path)).stdout)
        assert third.id in json.dumps(told)


def test_an_older_last_run_is_shown_while_a_newer_one_has_no_store(
    mount_as: MountAs, client: httpx.Client, actor: str
) -> None:
    first = new_run(client, f"actors/joe~{actor}", b"first")
    with mount_as(f"actor:{actor}", JOE, "--revalidate", "0") as mounted:
        assert mounted.run("cat", "OUTPUT") == "first"
        new_run(client, f"actors/joe~{actor}", b"second").delete()
        assert mounted.run("cat", "OUTPUT") == "first"
        assert os.getxattr(mounted.path, FROM_THE_STORE).decode() == first.id


def test_following_costs_one_request_in_the_time_of_a_revalidation(
    mount_as: MountAs, client: httpx.Client, actor: str, server: RunningServer
) -> None:
    new_run(client, f"actors/joe~{actor}", b"first")
    path = f"/v2/actors/~{actor}/runs/last/key-value-store"

    def asked() -> int:
        return len([request for request in server.requests() if request.path == path])

    with mount_as(f"actor:{actor}", JOE, "--revalidate", "1h") as mounted:
        mounted.sh("ls; cat OUTPUT; ls; cat OUTPUT; stat OUTPUT")
        assert asked() == 2  # the mount's own, and that of the first listing


def test_runs_that_are_not_there(refused: Callable[..., str], client: httpx.Client, actor: str) -> None:
    store = new_run(client, f"actors/joe~{actor}", b"1")
    run_id = run_of(store)
    assert "no run AAAAAAAAAAAAAAAAA" in refused(ExitCode.NO_SUCH_RUN, "run:AAAAAAAAAAAAAAAAA")
    for source, told in (
        ("actor:joe/never-run", "the Actor joe/never-run has no run, or"),
        ("task:joe/never-run", "the task joe/never-run has no run, or"),
        (f"actor:joe/{actor}?status=ABORTED", f"the Actor joe/{actor} has no run with status ABORTED"),
    ):
        assert told in refused(ExitCode.NO_SUCH_RUN, source)
    assert "has no run" in refused(ExitCode.NO_SUCH_RUN, f"actor:joe/{actor}", ANN)
    store.delete()
    for source in (f"run:{run_id}", f"actor:joe/{actor}"):
        told = refused(ExitCode.NO_SUCH_STORE, source)
        assert f"the store of the run {run_id} is gone: stores without a name expire" in told


# --- what others share ------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [True, False], ids=["background", "foreground"])
def test_a_signed_url_is_read_without_a_token_and_seen_by_nobody(
    mount_as: MountAs, client: httpx.Client, sandbox: Sandbox, background: bool
) -> None:
    store = StoreApi.create(client)
    store.put("page.html", b"<p>", "text/html")
    store.put("img!2Fa.png", b"\x89PNG")
    url = keys_url(store)
    signature = url.partition("signature=")[2].encode()
    with mount_as(url, ANN, "--log-level", "DEBUG", background=background) as mounted:
        assert mounted.sh("ls -R").split() == [".:", "img", "page.html", "./img:", "a.png"]
        assert mounted.run("cat", "page.html") == "<p>"
        assert (mounted.path / "img" / "a.png").read_bytes() == b"\x89PNG"
        assert os.getxattr(mounted.path / "page.html", "user.mime_type") == b"text/html"
        assert os.getxattr(mounted.path, FROM_THE_STORE).decode() == store.id
        with failing(errno.EROFS):
            (mounted.path / "new").touch()
        with failing(errno.EROFS):
            (mounted.path / "page.html").unlink()
        line = mount_table_line(mounted.path)
        assert line is not None
        assert "signature" not in line
        assert line.startswith(f"{url.partition('?')[0]} ")
        assert signature not in arguments_of(mounted.pid)
        assert signature not in Path(f"/proc/{mounted.pid}/environ").read_bytes()
        public = os.getxattr(mounted.path / "page.html", "user.apify.public_url").decode()
        assert httpx.get(public).content == b"<p>"
        mounted.umount()
    assert signature not in everything_written(sandbox)
    assert b"signature=" not in everything_written(sandbox).replace(b"signature=***", b"")


def test_a_signed_url_of_a_part(mount_as: MountAs, client: httpx.Client) -> None:
    store = StoreApi.create(client)
    for key in ("img!2Fa.png", "img!2Fsub!2Fb.png", "other"):
        store.put(key, key.encode())
    with mount_as(f"{keys_url(store)}&prefix=img%212F&limit=1", None) as mounted:
        assert mounted.sh("find . -type f | sort").split() == ["./a.png", "./sub/b.png"]
        assert mounted.run("cat", "sub/b.png") == "img!2Fsub!2Fb.png"
        ended = mounted.attempt("getfattr", "-n", "user.apify.public_url?expires=60", ".")
        mounted.expect_log("can be made by those only who may write to the store")
        assert "Permission denied" in ended.stderr


def test_a_signed_url_in_a_configuration_file(
    client: httpx.Client, sandbox: Sandbox, server: RunningServer
) -> None:
    """It is never typed, and shown by no command."""
    store = StoreApi.create(client)
    store.put("f", b"x")
    url = keys_url(store)
    file = sandbox.folder / "config_home" / "kvsfs" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(f"[mounts.shared]\nsource = '{url}'\n")
    shown = sandbox.kvsfs("config", "show", "shared").stdout
    assert url.partition("?")[0] in shown
    assert "signature" not in shown
    with mounted_store(sandbox, "shared", token=None, server=server, background=True) as mounted:
        assert mounted.run("cat", "f") == "x"
        assert b"signature" not in arguments_of(mounted.pid)
        told = sandbox.kvsfs("status", "--json", str(mounted.path)).stdout
        assert url.partition("?")[0] in told
        assert "signature" not in told


def test_signatures_that_open_nothing(refused: Callable[..., str], client: httpx.Client) -> None:
    store, other = StoreApi.create(client), StoreApi.create(client)
    url = keys_url(store, 1_700_000_000_000)
    told = refused(ExitCode.SIGNATURE_REFUSED, url)
    assert "the signature of the URL expired at 2023-11-14 22:13:20 UTC: ask for a new one" in told
    forged = keys_url(other).replace(other.id, store.id)
    for wrong in (forged, f"{url.partition('=')[0]}=x"):
        told = refused(ExitCode.SIGNATURE_REFUSED, wrong)
        assert "does not accept the signature" in told
        assert wrong.partition("signature=")[2] not in told or wrong.endswith("=x")
    assert "not public" in refused(ExitCode.SIGNATURE_REFUSED, url.partition("?")[0])


def test_a_signature_that_expires_under_a_mount(mount_as: MountAs, client: httpx.Client) -> None:
    """The records' own signatures never expire: what is known is still read."""
    store = StoreApi.create(client)
    store.put("f", b"x")
    expires = int((time.time() + 4) * 1000)
    with mount_as(keys_url(store, expires), None, "--listing-ttl", "0", "--revalidate", "0") as mounted:
        mounted.expect_log("the signature of the URL expired at")
        assert mounted.run("ls") == "f\n"

        def refused() -> bool:
            try:
                os.listdir(mounted.path)
            except PermissionError:
                return True
            return False

        wait_until(refused)
        assert (mounted.path / "f").read_bytes() == b"x"


def test_a_public_store_needs_no_token_and_takes_no_writes(
    mount_as: MountAs, refused: Callable[..., str], client: httpx.Client
) -> None:
    store = StoreApi.create(client, f"public-{secrets.token_hex(4)}")
    store.put("f", b"x")
    assert "token" in refused(ExitCode.NO_TOKEN, store.id, None)
    give_access(store, "ANYONE_WITH_ID_CAN_READ")
    for source, token in ((store.id, None), (keys_url(store).partition("?")[0], None)):
        with mount_as(source, token) as mounted:
            assert mounted.run("cat", "f") == "x"
            with failing(errno.EROFS):
                (mounted.path / "f").write_bytes(b"y")
    with mount_as(store.id, ANN) as mounted:
        mounted.expect_log("may not do this")
        assert mounted.run("cat", "f") == "x"
        with failing(errno.EACCES):
            (mounted.path / "f").unlink()
    assert store.content("f") == b"x"


def test_only_the_owner_changes_a_store(
    client: httpx.Client, sandbox: Sandbox, server: RunningServer
) -> None:
    store = StoreApi.create(client, f"hers-{secrets.token_hex(4)}")
    give_access(store, "ANYONE_WITH_ID_CAN_READ")
    for words in (
        ["rename", store.id, "mine"],
        ["access", store.id, "RESTRICTED"],
        ["rm", store.id, "--yes"],
    ):
        ended = sandbox.kvsfs("stores", *words, "--api-url", server.url, token=ANN)
        assert ended.returncode == ExitCode.NO_PERMISSION
        assert ended.stderr.startswith("kvsfs: only who owns the store may do this (")
    info = client.get(f"/v2/key-value-stores/{store.id}").json()["data"]
    assert (info["generalAccess"], info["name"][:5]) == ("ANYONE_WITH_ID_CAN_READ", "hers-")
