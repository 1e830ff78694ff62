"""Log lines: their forms, their operations, their secrets, and the files and sockets that they go to."""

from __future__ import annotations

import contextvars
import json
import logging
import os
import re
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvsfs import log_targets, logs
from kvsfs.errors import CommandError, ExitCode
from kvsfs.log_targets import FILES_KEPT, Journal, LogFile

log = logging.getLogger("kvsfs.of.a.test")


@pytest.fixture(autouse=True)
def own_root() -> Iterator[None]:
    """Give the root logger back as it was."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in before:
            handler.close()
    root.handlers[:] = before
    root.setLevel(level)


def in_operation() -> int:
    """Log as a request of the kernel does; its number."""

    def request() -> int:
        logs.begin_operation()
        log.info("get_record of record %s: 200", "a")
        return logs.operation.get()

    return contextvars.copy_context().run(request)


def crash() -> None:
    try:
        int("of https://x.example/?signature=s3cret&a=b")
    except ValueError:
        log.exception("a task with token=s3cret failed")


def test_lines_of_an_operation_end_with_its_number(tmp_path: Path) -> None:
    logs.set_up("INFO", str(tmp_path / "log"))
    numbers = [in_operation(), in_operation()]
    log.info("of none")
    first, second, third = (tmp_path / "log").read_text().splitlines()
    assert numbers[0] != numbers[1]
    assert first.endswith(f" INFO kvsfs.of.a.test: get_record of record a: 200 [op {numbers[0]}]")
    assert second.endswith(f"[op {numbers[1]}]")
    assert third.endswith("of none")


def test_json_lines(tmp_path: Path) -> None:
    logs.set_up("INFO", str(tmp_path / "log"), "json")
    number = in_operation()
    crash()
    log.info("two\nlines and \udcff")
    of_operation, of_crash, of_lines = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", of_operation.pop("time"))
    assert of_operation == {
        "level": "INFO",
        "logger": "kvsfs.of.a.test",
        "message": "get_record of record a: 200",
        "operation": number,
    }
    assert of_crash["message"] == "a task with token=*** failed"
    assert "of https://x.example/?signature=***&a=b" in of_crash["exception"]
    assert "operation" not in of_crash
    assert of_lines["message"] == "two\nlines and \udcff"


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_secret_in_any_form(tmp_path: Path, form: str) -> None:
    logs.set_up("DEBUG", str(tmp_path / "log"), form)
    crash()
    log.debug("%s", {"Authorization": "Bearer s3cret"})
    log.debug("Authorization: s3cret, X-Amz-Signature=s3cret; %s", "apikey=s3cret")
    text = (tmp_path / "log").read_text()
    assert "s3cret" not in text
    assert text.count("***") >= 5


def test_a_file_is_begun_anew_and_is_its_owners_alone(tmp_path: Path) -> None:
    handler = LogFile(str(tmp_path / "log"), size=1000)
    own = os.open(os.devnull, os.O_WRONLY)
    handler.take_over(own)
    for number in range(100):
        handler.emit(logging.makeLogRecord({"msg": f"{number:3} {'x' * 90}"}))
    os.write(own, b"by somebody else\n")
    assert os.stat(own).st_ino == (tmp_path / "log").stat().st_ino
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["log", *(f"log.{number}" for number in range(1, FILES_KEPT + 1))]
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert all(path.stat().st_size <= 1100 for path in tmp_path.iterdir())
    assert (tmp_path / "log").read_text().endswith("by somebody else\n")
    assert " 99 x" in (tmp_path / "log").read_text() + (tmp_path / "log.1").read_text()
    handler.close()
    os.close(own)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(
        CommandError, match=r"cannot write the log .*: No such file or directory; name"
    ) as caught:
        logs.set_up("INFO", str(tmp_path / "missing" / "log"))
    assert caught.value.exit_code == ExitCode.MOUNT_FAILED


class Journald:
    """Hears what the journal would."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(5)

    def hear(self) -> dict[str, str]:
        """Read an entry, as its protocol spells fields of any bytes."""
        rest, fields = self._socket.recv(1 << 20), {}
        while rest:
            name, _, rest = rest.partition(b"\n")
            length = int.from_bytes(rest[:8], "little")
            fields[name.decode()] = rest[8 : 8 + length].decode()
            assert rest[8 + length : 9 + length] == b"\n"
            rest = rest[9 + length :]
        return fields

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def journald(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journald]:
    found = Journald(tmp_path / "journal")
    monkeypatch.setattr(log_targets.Journal.__init__, "__defaults__", (found.path,))
    yield found
    found.close()


def test_the_journal(journald: Journald) -> None:
    logs.set_up("DEBUG", logs.JOURNAL)
    number = in_operation()
    assert journald.hear() == {
        "MESSAGE": f"get_record of record a: 200 [op {number}]",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "kvsfs",
        "KVSFS_LOGGER": "kvsfs.of.a.test",
    }
    log.warning("a name\nPRIORITY=0\nof an attacker")
    assert journald.hear()["MESSAGE"] == "a name\nPRIORITY=0\nof an attacker"
    for level, priority in ((logging.DEBUG, "7"), (logging.WARNING, "4"), (logging.ERROR, "3")):
        log.log(level, "x" * 100_000)
        heard = journald.hear()
        assert heard["PRIORITY"] == priority
        assert len(heard["MESSAGE"]) == log_targets.LONGEST_MESSAGE
    crash()
    assert "signature=***" in journald.hear()["MESSAGE"]


def test_a_journal_that_is_gone_holds_nobody_up(journald: Journald) -> None:
    handler = Journal(journald.path)
    journald.close()
    handler.emit(logging.makeLogRecord({"msg": "lost"}))
    handler.close()


def test_no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_targets.Journal.__init__, "__defaults__", (str(tmp_path / "none"),))
    with pytest.raises(CommandError, match="there is no journal to log to"):
        logs.set_up("INFO", logs.JOURNAL)


def test_a_units_stderr_is_the_journal(
    journald: Journald, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As systemd says it; JOURNAL_STREAM is inherited by those whose stderr is something else, too."""
    with (tmp_path / "stderr").open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        logs.set_up("INFO")
        log.info("in the journal")
        assert journald.hear()["MESSAGE"] == "in the journal"
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
        logging.getLogger().handlers[0].close()
        logs.set_up("INFO")
        log.info("on stderr")
    assert (tmp_path / "stderr").read_text().endswith("INFO kvsfs.of.a.test: on stderr\n")


@pytest.mark.parametrize(
    ("usual", "levels"), [("WARNING", ["DEBUG", "WARNING", "DEBUG"]), ("DEBUG", ["INFO", "DEBUG", "INFO"])]
)
def test_debug_is_toggled(tmp_path: Path, usual: str, levels: list[str]) -> None:
    logs.set_up(usual, str(tmp_path / "log"))
    assert [logs.toggle_debug(usual) for _ in levels] == levels
    assert logging.getLogger("httpcore").getEffectiveLevel() == logging.WARNING  # it would show URLs
