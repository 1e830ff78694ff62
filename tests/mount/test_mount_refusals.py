"""A mount that cannot be had: one line that says what is wrong and what to do, its exit code, nothing left."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvsfs.errors import ExitCode
from tests.mount.conftest import Mount
from tests.support.mounting import COMMAND_SECONDS, KVSFS, Sandbox, detach, is_mounted, processes_naming
from tests.support.serving import RunningServer
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

Ended = subprocess.CompletedProcess[str]


def check_refusal(ended: Ended, path: Path, code: ExitCode, *words: str) -> None:
    """Hold a command's end against what every refusal promises."""
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("kvsfs: ")
    for word in words:
        assert word in line, line
    assert ended.returncode == code, line
    assert not is_mounted(path)
    assert processes_naming(str(path)) == []


@pytest.fixture(params=["background", "foreground"])
def refused(
    request: pytest.FixtureRequest, sandbox: Sandbox, server: RunningServer, token: str
) -> Callable[..., None]:
    """Try to mount, and check how it is refused."""

    def attempt(
        code: ExitCode,
        *words: str,
        source: str,
        path: Path | None = None,
        options: tuple[str, ...] = (),
        api_url: str = server.url,
        token: str | None = token,
        programs: str = os.environ["PATH"],
    ) -> None:
        path = path or sandbox.mount_point()
        flags = ["-f"] if request.param == "foreground" else []
        command = ["mount", *flags, "--api-url", api_url, *options, "--", source, str(path)]
        ended = sandbox.kvsfs(*command, token=token, PATH=programs)
        try:
            check_refusal(ended, path, code, *words)
        finally:
            detach(path)
        assert (token or "no token") not in ended.stderr

    return attempt


Refused = Callable[..., None]


def test_no_token(refused: Refused, store: StoreApi) -> None:
    for source in (store.id, "~name", "name"):
        refused(ExitCode.NO_TOKEN, "token", "APIFY_TOKEN", "--token-file", source=source, token=None)


def test_a_wrong_token(refused: Refused, store: StoreApi) -> None:
    refused(ExitCode.TOKEN_REFUSED, "token", "Console", source=store.id, token="apify_api_wrong")


def test_a_token_that_cannot_be_one(refused: Refused, store: StoreApi) -> None:
    refused(ExitCode.TOKEN_REFUSED, "token", source=store.id, token="apify\napi")


def test_no_such_store(refused: Refused) -> None:
    refused(ExitCode.NO_SUCH_STORE, "joe/none", source="joe/none")
    refused(ExitCode.NO_SUCH_STORE, "none", source="~none")
    refused(ExitCode.NO_SUCH_STORE, "abcdefghijklmnopq", source="abcdefghijklmnopq")


def test_an_unreachable_server(refused: Refused, store: StoreApi) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    refused(ExitCode.UNREACHABLE, url, "--api-url", source=store.id, api_url=url, options=("--timeout", "1s"))


def test_a_server_that_never_answers(refused: Refused, store: StoreApi) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        refused(ExitCode.UNREACHABLE, url, source=store.id, api_url=url, options=("--timeout", "500ms"))


PASSWORD = "s3cret"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", f"https://me:{PASSWORD}@127.0.0.1:1"])
def test_an_api_url_that_is_none(refused: Refused, store: StoreApi, url: str) -> None:
    refused(ExitCode.USAGE, "https://HOST", "--api-url", source=store.id, api_url=url)


@pytest.mark.parametrize("place", ["--api-url", "-o", "APIFY_API_BASE_URL", "APIFY_CLIENT_BASE_URL"])
@pytest.mark.parametrize("flags", [(), ("-f",)], ids=["background", "foreground"])
def test_a_password_in_the_api_url_is_not_repeated(
    sandbox: Sandbox, store: StoreApi, token: str, place: str, flags: tuple[str, ...]
) -> None:
    path, url = sandbox.mount_point(), f"http://me:{PASSWORD}@127.0.0.1:1"
    options = {"--api-url": ("--api-url", url), "-o": ("-o", f"ro,api-url={url}")}.get(place, ())
    environment = {} if options else {place: url}
    ended = sandbox.kvsfs(
        "mount", *flags, *options, store.id, str(path), token=token, within=COMMAND_SECONDS, **environment
    )
    check_refusal(ended, path, ExitCode.USAGE, "--api-url")
    assert PASSWORD not in ended.stderr
    assert not any(PASSWORD in file.read_text() for file in sandbox.folder.rglob("*.log"))


def test_a_mount_point_that_cannot_be_one(refused: Refused, store: StoreApi, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "entry").write_bytes(b"")
    for name, code, word in (
        ("missing", ExitCode.MOUNT_POINT_MISSING, "mkdir"),
        ("file/below", ExitCode.MOUNT_POINT_NOT_A_FOLDER, "not a folder"),
        ("file", ExitCode.MOUNT_POINT_NOT_A_FOLDER, "not a folder"),
        ("full", ExitCode.MOUNT_POINT_NOT_EMPTY, "not empty"),
    ):
        refused(code, str(tmp_path / name), word, source=store.id, path=tmp_path / name)
    assert os.listdir(tmp_path / "full") == ["entry"]


def test_a_mount_point_that_is_one_already(
    mount: Mount, store: StoreApi, sandbox: Sandbox, server: RunningServer, token: str
) -> None:
    with mount() as mounted:
        for flags in ([], ["-f"]):
            command = ["mount", *flags, "--api-url", server.url, store.id, str(mounted.path)]
            ended = sandbox.kvsfs(*command, token=token)
            assert ended.returncode == ExitCode.ALREADY_MOUNTED
            (line,) = ended.stderr.splitlines()
            assert f"kvsfs umount {mounted.path}" in line
        (mounted.path / "f").write_bytes(b"the first mount goes on")
    assert store.content("f") == b"the first mount goes on"


@pytest.mark.parametrize(
    "source", ["", "a b", "local:a/b", "a/b/c", "https://example.com/x", "~", "-name", "../x"]
)
def test_an_invalid_source(refused: Refused, source: str) -> None:
    refused(ExitCode.INVALID_SOURCE, repr(source), "user/name", source=source)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("-o", "nosuchoption"), "nosuchoption"),
        (("-o", "ro,uid=joe"), "'joe'"),
        (("-o", "file_mode=9"), "'9'"),
        (("--timeout", "soon"), "soon"),
        (("-o", "timeout=0"), "timeout"),
        (("--log-level", "LOUD"), "LOUD"),
    ],
)
def test_bad_options(refused: Refused, store: StoreApi, options: tuple[str, str], word: str) -> None:
    refused(ExitCode.USAGE, word, source=store.id, options=options)


def test_token_files_that_cannot_be_used(
    refused: Refused, store: StoreApi, tmp_path: Path, token: str
) -> None:
    path = tmp_path / "token"

    def attempt(*words: str) -> None:
        refused(ExitCode.NO_TOKEN, str(path), *words, source=store.id, options=("--token-file", str(path)))

    attempt("No such file")
    path.write_text(token)
    path.chmod(0o644)
    attempt("chmod 600")
    path.write_text("\n")
    path.chmod(0o600)
    attempt("empty")
    path.write_bytes(b"\xff\xfe")
    attempt("not a text file")
    path.unlink()
    path.mkdir(mode=0o700)
    attempt("directory")


def test_a_token_file_is_used(mount: Mount, store: StoreApi, tmp_path: Path, token: str) -> None:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(f"{token}\n")
    with mount("--token-file", str(path), token="of the environment: wrong") as mounted:
        (mounted.path / "f").write_bytes(b"x")
    assert store.content("f") == b"x"


def test_the_apify_clis_token_is_used(mount: Mount, store: StoreApi, sandbox: Sandbox, token: str) -> None:
    (sandbox.home / ".apify").mkdir()
    (sandbox.home / ".apify" / "auth.json").write_text(f'{{"token": "{token}"}}')
    with mount(token=None) as mounted:
        (mounted.path / "f").write_bytes(b"x")
    assert store.content("f") == b"x"


def test_a_cache_folder_that_cannot_be_used(refused: Refused, store: StoreApi, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        options = ("--cache-dir", str(path))
        refused(ExitCode.CACHE_UNUSABLE, str(path), "--cache-dir", source=store.id, options=options)


def test_somebody_elses_folder_as_cache_folder(refused: Refused, store: StoreApi, tmp_path: Path) -> None:
    path = tmp_path / "photos"
    (path / "clean").mkdir(parents=True)
    (path / "clean" / "photo.jpg").write_bytes(b"mine")
    options = ("--cache-dir", str(path))
    refused(ExitCode.CACHE_UNUSABLE, str(path), "empty", "--cache-dir", source=store.id, options=options)
    assert [p.name for p in path.rglob("*")] == ["clean", "photo.jpg"]


@pytest.mark.parametrize("kind", ["STATE_HOME", "RUNTIME_DIR"])
def test_a_folder_of_its_own_that_cannot_be_used(
    sandbox: Sandbox, store: StoreApi, server: RunningServer, token: str, kind: str
) -> None:
    unusable = sandbox.folder / kind.lower()
    unusable.write_bytes(b"")
    path = sandbox.mount_point()
    try:
        ended = sandbox.kvsfs("mount", "--api-url", server.url, store.id, str(path), token=token)
        check_refusal(ended, path, ExitCode.MOUNT_FAILED, str(unusable), f"XDG_{kind}")
    finally:
        detach(path)


def test_the_cache_folder_of_another_store(
    mount: Mount, refused: Refused, store: StoreApi, tmp_path: Path
) -> None:
    options = ("--cache-dir", str(tmp_path / "cache"))
    with mount(*options) as mounted:
        (mounted.path / "f").write_bytes(b"x")
    other = StoreApi.create(store.client)
    refused(ExitCode.CACHE_UNUSABLE, "another store", "--cache-dir", source=other.id, options=options)
    with mount(*options) as mounted:
        assert (mounted.path / "f").read_bytes() == b"x"


def test_a_cache_folder_in_use(mount: Mount, refused: Refused, store: StoreApi, tmp_path: Path) -> None:
    path = tmp_path / "second"
    path.mkdir()
    with mount():
        refused(ExitCode.CACHE_UNUSABLE, "--cache-dir", "running mount", source=store.id, path=path)


@contextmanager
def without(program: str, folder: Path) -> Iterator[str]:
    """Give a PATH with everything in it but one program."""
    for name in os.environ["PATH"].split(os.pathsep):
        if os.path.isdir(name):
            for entry in os.listdir(name):
                if entry != program and not (folder / entry).is_symlink():
                    (folder / entry).symlink_to(os.path.join(name, entry))
    assert shutil.which(program, path=str(folder)) is None
    yield str(folder)


def test_fusermount3_absent(refused: Refused, store: StoreApi, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    with without("fusermount3", tmp_path / "bin") as path:
        refused(ExitCode.NO_FUSERMOUNT, "fusermount3", "apt install fuse3", source=store.id, programs=path)


def unshared(sandbox: Sandbox, script: str, *arguments: str, token: str) -> Ended:
    """Run a shell script in a mount namespace of its own, where it may hide what it likes."""
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script, "sh", *arguments],
        env=sandbox.environment_with(token),
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )


@pytest.mark.parametrize("flags", [[], ["-f"]], ids=["background", "foreground"])
def test_the_fuse_device_absent(
    sandbox: Sandbox, store: StoreApi, server: RunningServer, token: str, flags: list[str]
) -> None:
    hide = "mount -t tmpfs none /dev"
    if unshared(sandbox, hide, token=token).returncode != 0:
        pytest.skip("no mount namespace can be had here")
    path = sandbox.mount_point()
    command = [*KVSFS, "mount", *flags, "--api-url", server.url, store.id, str(path)]
    ended = unshared(sandbox, f'{hide}; exec "$@"', *command, token=token)
    check_refusal(ended, path, ExitCode.NO_FUSE_DEVICE, "/dev/fuse is missing", "modprobe fuse")


def test_usage_is_told_without_a_traceback(sandbox: Sandbox) -> None:
    for arguments in (
        ["mount"],
        ["mount", "only-one"],
        ["mount", "--no-such", "a", "b"],
        ["no-such-command"],
    ):
        ended = sandbox.kvsfs(*arguments)
        assert ended.returncode == ExitCode.USAGE
        assert "Traceback" not in ended.stderr
        assert ended.stdout == ""
    assert sandbox.kvsfs("mount", "--help").returncode == 0
