"""Every option of `kvsfs mount`, in every place where it can be written: the command line, the environment, files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

from kvsfs import cli, config, logs
from kvsfs.cli import mount as mount_command
from kvsfs.errors import CommandError, ExitCode
from kvsfs.options import (
    DURATION,
    FILE,
    FLAG,
    FOLDER,
    INTEGER,
    MODE,
    OPTIONS,
    PATTERNS,
    POSITIVE_DURATION,
    SIZE,
    URL,
    Kind,
    MountConfig,
    Option,
    arguments,
)

KINDS: list[tuple[Kind[Any], list[str]]] = [
    (URL, ["http://127.0.0.1:1", "http://127.0.0.1:2/x", "http://[::1]:3", "https://four.example"]),
    (FOLDER, ["/one", "/two dirs", "/three", "/four"]),
    (FILE, ["/one", "/two files", "/three", "/four"]),
    (DURATION, ["20ms", "1.5s", "7m", "48h"]),
    (POSITIVE_DURATION, ["20ms", "1.5s", "7m", "48h"]),
    (SIZE, ["1", "64KiB", "3MiB", "5GiB"]),
    (INTEGER, ["0", "1000", "4294967294", "7"]),
    (MODE, ["0000", "0640", "0777", "0111"]),
    (PATTERNS, ["*.one", "two ?", "[three]", "four*"]),
]


def samples(option: Option) -> list[str]:
    """Give four values of an option, as they are written; neighbours differ."""
    if option.kind is FLAG:
        return ["false", "true"] * 2 if option.default else ["true", "false"] * 2
    if option.kind.choices:
        others = [choice for choice in option.kind.choices if choice != option.default]
        return [others[0], option.default, others[-1], option.default]
    (texts,) = [texts for kind, texts in KINDS if kind is option.kind]
    return texts


@dataclass
class Command:
    """`kvsfs mount` up to the moment when it would start the daemon."""

    folder: Path
    patch: pytest.MonkeyPatch
    started: list[MountConfig]

    def mount(self, *arguments: str) -> MountConfig:
        self.started.clear()
        cli.app(["mount", *arguments], standalone_mode=False)
        (configured,) = self.started
        return configured

    def value(self, option: Option, *words: str) -> object:
        return getattr(self.mount(*words, "joe/store", str(self.folder)), option.field)

    def refusal(self, *arguments: str) -> str:
        with pytest.raises(CommandError) as caught:
            self.mount(*arguments, "joe/store", str(self.folder))
        assert caught.value.exit_code == ExitCode.USAGE
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    @property
    def user_file(self) -> Path:
        return self.folder / "config.toml"

    @property
    def system_file(self) -> Path:
        return self.folder / "kvsfs.toml"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    started: list[MountConfig] = []
    for name in [*os.environ]:
        if name.startswith(("KVSFS_", "APIFY_")):
            monkeypatch.delenv(name)
    command = Command(tmp_path, monkeypatch, started)
    paths = (str(command.user_file), str(command.system_file))
    monkeypatch.setattr(config, "config_files", lambda: paths)
    monkeypatch.setattr(mount_command, "_mount_in_background", started.append)
    return command


def flag(option: Option, text: str) -> list[str]:
    if option.kind is FLAG:
        return [f"--{option.name}" if text == "true" else f"--no-{option.name}"]
    return [f"--{option.name}", text]


def word(option: Option, text: str) -> list[str]:
    name = option.field
    if option.kind is FLAG:
        return ["-o", name if text == "true" else f"no_{name}"]
    return ["-o", f"nofail,{name}={text},noatime"]


def entry(option: Option, text: str) -> str:
    """Write an option as a configuration file has it."""
    if option.kind is FLAG:
        return f"{option.name} = {text}\n"
    return f"{option.name} = ['{text}']\n" if option.kind.repeated else f"{option.name} = '{text}'\n"


EVERY_OPTION = pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)


@EVERY_OPTION
def test_flag_before_environment_before_file_before_default(command: Command, option: Option) -> None:
    system, user, environment, flagged = samples(option)
    assert command.value(option) == option.default
    command.system_file.write_text("[mount]\n" + entry(option, system))
    assert command.value(option) == option.parse((system,))
    command.user_file.write_text("[mount]\n" + entry(option, user))
    assert command.value(option) == option.parse((user,))
    command.patch.setenv(option.variable, environment)
    assert command.value(option) == option.parse((environment,))
    assert command.value(option, *word(option, flagged)) == option.parse((flagged,))
    assert command.value(option, *flag(option, flagged)) == option.parse((flagged,))
    assert command.value(option, *flag(option, flagged), *word(option, system)) == option.parse((flagged,))


@EVERY_OPTION
def test_a_named_mount_before_the_defaults_of_the_files(command: Command, option: Option) -> None:
    system, user, _, environment = samples(option)
    command.system_file.write_text(
        f"[mounts.work]\nsource = 'joe/work'\nmount-point = '{command.folder}'\n{entry(option, system)}"
    )
    command.user_file.write_text("[mount]\n" + entry(option, user))

    def value() -> object:
        return getattr(command.mount("work"), option.field)

    assert value() == option.parse((system,))
    command.patch.setenv(option.variable, environment)
    assert value() == option.parse((environment,))


@EVERY_OPTION
def test_the_daemon_in_the_background_is_told(command: Command, option: Option) -> None:
    """Whatever the environment and the files say by then: they have been asked."""
    for text in samples(option):
        configured = command.mount(*flag(option, text), "joe/store", str(command.folder))
        written = arguments(configured)
        command.user_file.write_text("[mount]\n" + entry(option, samples(option)[0]))
        command.patch.setenv(option.variable, samples(option)[1])
        assert as_the_daemon(command, written) == configured
        command.user_file.unlink()
        command.patch.delenv(option.variable)


def as_the_daemon(command: Command, written: list[str]) -> MountConfig:
    """Read arguments as the process in the background does, up to the moment when it would mount."""
    run = create_autospec(mount_command._run, return_value=ExitCode.OK)
    with command.patch.context() as patch:
        patch.setattr(mount_command, "_run", run)
        patch.setattr(mount_command, "_ready_teller", create_autospec(mount_command._ready_teller))
        patch.setattr(logs, "set_up", create_autospec(logs.set_up))
        cli.app(["mount", "--ready-fd", "9", *written], standalone_mode=False)
    configured = run.call_args.args[0]
    assert isinstance(configured, MountConfig)
    return configured
