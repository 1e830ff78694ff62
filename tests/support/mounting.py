"""Mounts stores as users do: `kvsfs mount` in a process of its own, in a home of its own, for so long and no longer."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kvsfs.errors import ExitCode
from tests.support.serving import LoggedRequest, RunningServer

READY_SECONDS = 20.0
"""It takes half a second; on a machine that is busy with everything else, much longer."""

COMMAND_SECONDS = 45.0
"""For one command on a mount: above the store client's own total deadline of 30 s."""

LEAVING_SECONDS = 20.0
"""From the end of the mount to the end of the daemon, with small files only."""

TEST_SECONDS = 120.0
"""For all that a test does on a mount. Then the mount is aborted, so that nothing hangs in it any longer."""

KVSFS = [sys.executable, "-m", "kvsfs"]

LOUD = re.compile(r" (?:WARNING|ERROR|CRITICAL) |^Traceback |Error: |^\S*kvsfs: ")
"""Log lines that a test must have announced."""


class Sandbox:
    """A home below a test's own folder: nothing of the machine's settings, tokens and caches leaks in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        xdg = {
            f"XDG_{kind}": str(folder / kind.lower())
            for kind in ("CACHE_HOME", "CONFIG_HOME", "DATA_HOME", "STATE_HOME", "RUNTIME_DIR")
        }
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "TMPDIR": str(folder),
            **xdg,
        }

    def kvsfs(
        self, *arguments: str, token: str | None = None, within: float = COMMAND_SECONDS, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of kvsfs to its end."""
        return subprocess.run(
            [*KVSFS, *arguments],
            env=self.environment_with(token, **environment),
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )

    def environment_with(self, token: str | None, **more: str) -> dict[str, str]:
        return self.environment | ({"APIFY_TOKEN": token} if token else {}) | more

    def mount_point(self, name: str = "mnt") -> Path:
        """Make an empty folder to mount on."""
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return path

    def background_log(self, mount_point: Path) -> Path:
        """Where a mount in the background logs to."""
        name = str(mount_point).strip("/").replace("/", "-")
        return self.folder / "state_home" / "kvsfs" / f"{name[:200]}.log"


@dataclass
class Mounted:
    """A mount that answers."""

    path: Path
    pid: int
    process: subprocess.Popen[str] | None
    """None in the background: then it is no child of ours, and its exit code is not told to us."""
    log_path: Path
    sandbox: Sandbox
    store_path: str
    """What the store's requests begin with."""
    server: RunningServer | None
    requests_before: int = 0
    timed_out: bool = False
    _expected: list[str] = field(default_factory=list)
    _allowed: list[str] = field(default_factory=list)
    _exited: bool = False

    def sh(self, script: str, *, within: float = COMMAND_SECONDS) -> str:
        """Run a shell script inside the mount; its output. Fails with what it wrote to stderr."""
        return self.run("sh", "-ec", script, within=within)

    def run(self, *command: str | Path, within: float = COMMAND_SECONDS) -> str:
        """Run a command inside the mount; its output. Fails with what it wrote to stderr."""
        ended = self.attempt(*command, within=within)
        assert ended.returncode == 0, f"{command} ended with {ended.returncode}: {ended.stderr}"
        return ended.stdout

    def attempt(
        self, *command: str | Path, within: float = COMMAND_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside the mount, however it ends."""
        return subprocess.run(
            command,
            cwd=self.path,
            env=self.sandbox.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",  # file names need not be UTF-8
            timeout=within,
            check=False,
        )

    def requests(self) -> list[LoggedRequest]:
        """Every request for this store since the mount began, other clients' too.

        The server logs a request before its answer is complete.
        """
        assert self.server is not None
        new = self.server.requests()[self.requests_before :]
        return [r for r in new if r.path.startswith(self.store_path)]

    def named_requests(self) -> list[str]:
        """Give the same as `PUT key`, `GET key`, `LIST prefix`."""
        return [self._named(request) for request in self.requests()]

    @contextlib.contextmanager
    def counting(self) -> Iterator[list[str]]:
        """Give what a block asks of the store, as `named_requests` does; filled at its end.

        What it left to the background shows in `named_requests` once the mount is gone.
        """
        before = len(self.requests())
        found: list[str] = []
        yield found
        found += self.named_requests()[before:]

    def cost(self, script: str) -> list[str]:
        """List the folder, run a script in it and unmount; what the script asked of the store, also late."""
        self.run("ls")
        before = len(self.named_requests())
        self.sh(script)
        self.umount()
        return self.named_requests()[before:]

    def _named(self, request: LoggedRequest) -> str:
        rest = request.path.removeprefix(self.store_path)
        if rest == "/keys":
            return f"LIST {request.query.get('prefix', '')}".rstrip()
        return f"{request.method} {rest.removeprefix('/records/')}".rstrip()

    def log_text(self) -> str:
        return self.log_path.read_text()

    def expect_log(self, pattern: str) -> None:
        """Announce a warning or an error. One that does not come fails the test, too."""
        self._expected.append(pattern)

    def allow_log(self, pattern: str) -> None:
        """Allow warnings and errors that need not come: where chance decides."""
        self._allowed.append(pattern)

    def check_log(self) -> None:
        """Fail for each loud line that nobody announced, and for each announced one that did not come."""
        lines = self.log_text().splitlines()
        loud = [line for line in lines if LOUD.search(line)]
        known = [*self._expected, *self._allowed]
        unexpected = [line for line in loud if not any(re.search(p, line) for p in known)]
        assert not unexpected, "\n".join(["the daemon logged:", *unexpected])
        missing = [p for p in self._expected if not any(re.search(p, line) for line in loud)]
        assert not missing, f"the daemon did not log {missing}"

    def peak_rss(self) -> int:
        """The most memory that the daemon ever held, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        assert match is not None
        return int(match[1]) * 1024

    def umount(self, exit_code: int = ExitCode.OK, *, within: float = LEAVING_SECONDS) -> None:
        """Unmount and wait for the daemon's end. Does nothing when it has ended already."""
        if self._exited:
            return
        if is_mounted(self.path):
            command = ["fusermount3", "-u", "--", str(self.path)]
            ended = subprocess.run(
                command, capture_output=True, text=True, timeout=LEAVING_SECONDS, check=False
            )
            assert ended.returncode == 0, ended.stderr
        self.wait_for_exit(exit_code, within=within)

    def wait_for_exit(self, exit_code: int = ExitCode.OK, *, within: float = LEAVING_SECONDS) -> None:
        """Wait for the daemon's end: it must leave no mount behind."""
        assert _ends(self.pid, within), f"the daemon did not end within {within} s\n{self.log_text()}"
        self._exited = True
        if self.process is not None:
            ended = self.process.wait()
            assert ended == exit_code, f"the daemon ended with {ended}\n{self.log_text()}"
        assert not is_mounted(self.path)

    def abort(self) -> None:
        """End whatever still waits in the mount: with the daemon gone, the kernel answers ENOTCONN."""
        self.timed_out = True
        device = _device_minor(self.path)
        self._kill()
        if device is not None:
            with contextlib.suppress(OSError):  # a daemon that hangs in the kernel cannot be killed otherwise
                Path(f"/sys/fs/fuse/connections/{device}/abort").write_text("1")

    def kill(self) -> None:
        """End the daemon as a power cut would; the dead mount stays."""
        self._kill()
        assert _ends(self.pid, LEAVING_SECONDS)
        self._exited = True
        if self.process is not None:
            assert self.process.wait() == -signal.SIGKILL

    def detach_dead(self) -> None:
        """Take away what a killed daemon left in the tree."""
        subprocess.run(["fusermount3", "-u", "-z", "--", str(self.path)], timeout=LEAVING_SECONDS, check=True)
        assert not is_mounted(self.path)

    def clean_up(self) -> None:
        """Leave nothing behind, whatever happened. Never fails."""
        if is_mounted(self.path):
            subprocess.run(
                ["fusermount3", "-u", "-z", "--", str(self.path)],
                capture_output=True,
                timeout=LEAVING_SECONDS,
                check=False,
            )
        if not self._exited and not _ends(self.pid, 2):
            self.abort()
            _ends(self.pid, LEAVING_SECONDS)
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(LEAVING_SECONDS)
            assert self.process.stdout is not None
            self.process.stdout.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


@contextlib.contextmanager
def mounted_store(
    sandbox: Sandbox,
    source: str,
    *arguments: str,
    token: str | None = None,
    server: RunningServer | None = None,
    store_id: str = "",
    name: str = "mnt",
    background: bool = False,
    within: float = TEST_SECONDS,
) -> Iterator[Mounted]:
    """Mount `source` below the sandbox, wait until it answers, and unmount it whatever happens.

    Fails when the daemon logged something loud, did not end with 0 or left its mount. A mount that is not
    through after `within` seconds is aborted.
    """
    options = [*arguments, *(["--api-url", server.url] if server else [])]
    path = sandbox.mount_point(name)
    requests_before = len(server.requests()) if server else 0
    start = _start_in_background if background else _start_in_foreground
    process, pid, log_path = start(sandbox, [*options, "--", source, str(path)], path, token)
    store_path = f"/v2/key-value-stores/{store_id or source}"
    mounted = Mounted(path, pid, process, log_path, sandbox, store_path, server, requests_before)
    try:
        with watched(mounted, within):
            assert is_mounted(path)
            yield mounted
            mounted.umount()
        mounted.check_log()
    finally:
        mounted.clean_up()


@contextlib.contextmanager
def watched(mounted: Mounted, within: float) -> Iterator[None]:
    """Abort the mount when the block takes longer: a hanging mount then fails its test."""
    timer = threading.Timer(within, mounted.abort)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if mounted.timed_out:
            raise AssertionError(f"the mount was aborted after {within} s\n{mounted.log_text()}")


def _start_in_foreground(
    sandbox: Sandbox, arguments: Sequence[str], path: Path, token: str | None
) -> tuple[subprocess.Popen[str], int, Path]:
    log_path = sandbox.folder / f"{path.name}.log"
    with log_path.open("a") as log:
        process = subprocess.Popen(
            [*KVSFS, "mount", "-f", "--log-level", "DEBUG", *arguments],
            env=sandbox.environment_with(token),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], READY_SECONDS)
    line = process.stdout.readline() if ready else ""
    if " is mounted on " not in line:
        process.kill()
        process.wait()
        process.stdout.close()
        detach(path)
        raise RuntimeError(f"kvsfs mount did not start: it printed {line!r}\n{log_path.read_text()}")
    return process, process.pid, log_path


def _start_in_background(
    sandbox: Sandbox, arguments: Sequence[str], path: Path, token: str | None
) -> tuple[None, int, Path]:
    ended = sandbox.kvsfs("mount", *arguments, token=token)
    if ended.returncode != 0:
        detach(path)
        raise RuntimeError(f"kvsfs mount ended with {ended.returncode}: {ended.stderr}")
    (pid,) = processes_naming(str(path))
    return None, pid, sandbox.background_log(path)


def detach(path: Path) -> None:
    """Take away whatever is mounted there. Never fails."""
    command = ["fusermount3", "-u", "-z", "--", str(path)]
    subprocess.run(command, capture_output=True, timeout=LEAVING_SECONDS, check=False)


def processes_naming(argument: str) -> list[int]:
    """Find the processes that have this among their arguments."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                if argument.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


def children_of(pid: int) -> list[int]:
    """Find the processes that a process started, over all its threads."""
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        children += map(int, (task / "children").read_text().split())
    return children


def mount_table_line(path: Path) -> str | None:
    """Give the kernel's line for what is mounted there (proc_pid_mounts(5)); it never asks the mount itself."""
    lines = Path("/proc/mounts").read_text().splitlines()
    found = [line for line in lines if unescaped(line.split()[1]) == str(path)]
    return found[-1] if found else None


def unescaped(field: str) -> str:
    """Undo the kernel's octal escapes of blanks and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def is_mounted(path: Path) -> bool:
    """Tell whether anything is mounted there."""
    return mount_table_line(path) is not None


def wait_until(condition: Callable[[], object], *, within: float = LEAVING_SECONDS) -> None:
    """Ask again and again, until it is so."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s"
        select.select([], [], [], 0.01)


@contextlib.contextmanager
def failing(*numbers: int, within: float = COMMAND_SECONDS) -> Iterator[None]:
    """Expect an OSError with one of these errnos, in time."""
    started = time.monotonic()
    with pytest.raises(OSError, check=lambda error: error.errno in numbers):
        yield
    assert time.monotonic() - started < within


def _device_minor(path: Path) -> int | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if unescaped(fields[4]) == str(path):
            return int(fields[2].partition(":")[2])
    return None


def _ends(pid: int, within: float) -> bool:
    """Wait until a process has ended, a child of ours or not."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], within)[0])
    finally:
        os.close(descriptor)
