"""Every option of `kvsfs mount`, in every place where it can be written: the command line, the environment, files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

from kvsfs import cli, config, logs
from kvsfs.cli import mount as mount_command
from kvsfs.errors import CommandError, ExitCode
from kvsfs.options import (
    ADDRESS,
    DURATION,
    FILE,
    FLAG,
    FOLDER,
    INTEGER,
    LOG,
    MODE,
    OPTIONS,
    PATH_PREFIX,
    PATTERNS,
    POSITIVE_DURATION,
    SIZE,
    TEXT,
    URL,
    Kind,
    MountConfig,
    Option,
    arguments,
)

KINDS: list[tuple[Kind[Any], list[str]]] = [
    (ADDRESS, ["9464", "127.0.0.1:9465", "[::1]:0", "host.example:1"]),
    (LOG, ["/one", "journal", "/two files", "stderr"]),
    (URL, ["http://127.0.0.1:1", "http://127.0.0.1:2/x", "http://[::1]:3", "https://four.example"]),
    (FOLDER, ["/one", "/two dirs", "/three", "/four"]),
    (FILE, ["/one", "/two files", "/three", "/four"]),
    (DURATION, ["20ms", "1.5s", "7m", "48h"]),
    (POSITIVE_DURATION, ["20ms", "1.5s", "7m", "48h"]),
    (SIZE, ["1", "64KiB", "3MiB", "5GiB"]),
    (INTEGER, ["0", "1000", "4294967294", "7"]),
    (MODE, ["0000", "0640", "0777", "0111"]),
    (TEXT, ["one", "two words", "three", "four"]),
    (PATH_PREFIX, ["one/", "two words/", "/three", "four!20"]),
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
    monkeypatch.setattr(mount_command, "mount_in_background", started.append)
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
    if option.kind.toml in (bool, int):
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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("ro", {"read_only": True}),
        ("ro,rw", {"read_only": False}),
        ("rw,ro,uid=1,uid=2", {"read_only": True, "uid": 2}),
        ("allow_other,no_allow_other", {"allow_other": False}),
        ("_netdev,nofail,noauto,user,x-systemd.automount,x-gvfs-name=a=b,default_permissions,,defaults", {}),
    ],
)
def test_words_of_mount_8(command: Command, words: str, expected: dict[str, Any]) -> None:
    assert command.mount("-o", words, "joe/store", "/x") == MountConfig("joe/store", "/x", **expected)


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-o", "red_only"], "-o red-only: not an option of kvsfs; did you mean read-only?"),
        (["-o", "uid"], "-o uid: it needs a value, as in uid=N"),
        (["-o", "uid="], "-o uid: it needs a value, as in uid=N"),
        (["-o", "ro=yes"], "-o ro: it takes no value"),
        (["-o", "uid=-1"], "-o uid: '-1' is not a number"),
        (["--uid", "joe"], "--uid: 'joe' is not a number"),
        (
            ["--file-mode", "888"],
            "--file-mode: '888' is not an octal mode: write three digits from 0 to 7, as in 640",
        ),
        (["--names", "any"], "--names: 'any' is none of encoded, strict"),
        (["--timeout", "0"], "--timeout: no time at all is too short"),
        (["--cache-dir", ""], "--cache-dir: the value is missing"),
        (
            ["--cache-size", "1TB"],
            "--cache-size: '1TB' is not a size: write a number and KiB, MiB or GiB, as in 64KiB",
        ),
    ],
)
def test_the_command_line_is_refused(command: Command, words: list[str], told: str) -> None:
    assert command.refusal(*words) == told


def test_a_misspelt_word_does_not_show_its_value(command: Command) -> None:
    assert "s3cret" not in command.refusal("-o", "api-urll=http://me:s3cret@host")


@pytest.mark.parametrize(
    ("variable", "text", "told"),
    [
        ("KVSFS_MOUNT_TIMOUT", "1s", "there is no such option; did you mean KVSFS_MOUNT_TIMEOUT?"),
        ("KVSFS_MOUNT_READ_ONLY", "maybe", "'maybe' is neither true nor false"),
        ("KVSFS_MOUNT_REVALIDATE", "5", "'5' is not a duration"),
        ("APIFY_API_BASE_URL", "nowhere", "https://HOST"),
    ],
)
def test_the_environment_is_refused(command: Command, variable: str, text: str, told: str) -> None:
    command.patch.setenv(variable, text)
    refusal = command.refusal()
    assert refusal.startswith(f"{variable}: ")
    assert told in refusal


def test_empty_variables_say_nothing(command: Command) -> None:
    command.patch.setenv("KVSFS_MOUNT_TIMEOUT", "")
    assert command.mount("joe/store", str(command.folder)).timeout == OPTIONS["timeout"].default


def test_apifys_own_variables_name_the_api(command: Command) -> None:
    for variable, url in (
        ("APIFY_CLIENT_BASE_URL", "http://client"),
        ("APIFY_API_BASE_URL", "http://sdk"),
        ("KVSFS_MOUNT_API_URL", "http://ours"),
    ):
        command.patch.setenv(variable, url)
        assert command.value(OPTIONS["api-url"]) == url


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[mount]\ntimout = '1s'", " [mount]: timout is not known; did you mean timeout?"),
        ("[mont]", ": mont is not known; did you mean mount?"),
        ("mount = 1", " [mount]: this must be a table"),
        ("[mounts]\nwork = 'x'", " [mounts.work]: this must be a table"),
        ("[mounts.work]\nread-only = true", " [mounts.work]: name what is mounted"),
        (
            "[mounts.work]\nsource = 'x'\nsorce = 'x'",
            " [mounts.work]: sorce is not known; did you mean source?",
        ),
        ("[mounts.work]\nsource = 'x'\nmount-point = 'x'", " [mounts.work] mount-point: write a whole path"),
        ("[mounts.work]\nsource = 'x'\nuid = -1", " [mounts.work] uid: '-1' is not a number"),
        ("[mount]\nsource = 'x'", " [mount]: source is not known"),
        ("[mount]\ntimeout = 30", " [mount] timeout: write it in quotes"),
        ("[mount]\numask = 22", " [mount] umask: write it in quotes"),
        ("[mount]\nuid = true", " [mount] uid: write a number, without quotes"),
        ("[mount]\nread-only = 'true'", " [mount] read-only: write true or false, without quotes"),
        ("[mount]\ncache-dir = 'cache'", " [mount] cache-dir: write a whole path"),
        ("[mount]\ntimeout = soon", " is not a TOML file: "),
    ],
)
def test_a_file_is_refused(command: Command, content: str, told: str) -> None:
    for file in (command.user_file, command.system_file):
        file.write_text(content)
        refusal = command.refusal()
        assert refusal.startswith(f"{file}{told}"), refusal
        file.unlink()


def test_a_file_that_cannot_be_read(command: Command) -> None:
    command.user_file.mkdir()
    assert command.refusal() == f"cannot read {command.user_file}: Is a directory"


# --- named mounts -------------------------------------------------------------------------------------


def test_a_named_mount(command: Command) -> None:
    elsewhere = str(command.folder / "elsewhere")
    command.user_file.write_text(
        "[mounts.work]\nsource = 'joe/work'\nmount-point = '~/work'\n"
        "[mounts.anywhere]\nsource = 'local:x'\nread_only = true\nuid = 7"
    )
    command.patch.setenv("HOME", str(command.folder))
    configured = command.mount("work")
    assert (configured.source, configured.mount_point) == ("joe/work", f"{command.folder}/work")
    assert command.mount("work", elsewhere).mount_point == elsewhere
    configured = command.mount("anywhere", elsewhere)
    assert configured == MountConfig("local:x", elsewhere, read_only=True, uid=7)
    assert command.mount("~work", elsewhere).source == "~work"
    assert command.mount("other", elsewhere) == MountConfig("other", elsewhere)


def test_yours_is_taken_whole(command: Command) -> None:
    command.user_file.write_text("[mounts.work]\nsource = 'joe/mine'")
    command.system_file.write_text("[mounts.work]\nsource = 'joe/theirs'\nread-only = true")
    assert command.mount("work", "/x") == MountConfig("joe/mine", "/x")


def test_no_mount_point(command: Command) -> None:
    command.user_file.write_text("[mounts.work]\nsource = 'joe/work'")
    for name, told in (
        (
            "work",
            f"MOUNTPOINT is missing: name one here, or as mount-point below {command.user_file} [mounts.work]",
        ),
        ("wrok", "no mount is named wrok in the configuration files; did you mean work?"),
    ):
        with pytest.raises(CommandError, match=re.escape(told)) as caught:
            command.mount(name)
        assert caught.value.exit_code == ExitCode.USAGE


# --- config show --------------------------------------------------------------------------------------


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, tuple[str, str]]:
    cli.app(["config", "show", *arguments], standalone_mode=False)
    rows = [re.split("  +", line) for line in capsys.readouterr().out.splitlines()]
    return {name: (value, place) for name, value, place in rows}


@EVERY_OPTION
def test_config_show_tells_each_value_and_its_place(
    command: Command, capsys: pytest.CaptureFixture[str], option: Option
) -> None:
    def told() -> tuple[str, str]:
        rows = shown(capsys)
        assert list(rows) == list(OPTIONS)
        return rows[option.name]

    def value(text: str) -> str:
        return option.show(option.parse((text,)))

    system, user, environment, _ = samples(option)
    assert told() == (option.show(option.default), "default")
    command.system_file.write_text("[mount]\n" + entry(option, system))
    assert told() == (value(system), f"{command.system_file} [mount] {option.name}")
    command.user_file.write_text("[mount]\n" + entry(option, user))
    assert told() == (value(user), f"{command.user_file} [mount] {option.name}")
    command.patch.setenv(option.variable, environment)
    assert told() == (value(environment), option.variable)


def test_config_show_of_a_named_mount(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    command.user_file.write_text("[mounts.work]\nsource = 'joe/work'\nmount-point = '/work'\nuid = 7")
    place = f"{command.user_file} [mounts.work]"
    rows = shown(capsys, "work")
    assert list(rows) == ["source", "mount-point", *OPTIONS]
    assert [rows["source"], rows["mount-point"]] == [("joe/work", place), ("/work", place)]
    assert (rows["uid"], rows["gid"]) == (("7", f"{place} uid"), ("yours", "default"))
    with pytest.raises(
        CommandError, match=r"no mount is named wrok in the configuration files; did you mean work\?"
    ):
        cli.app(["config", "show", "wrok"], standalone_mode=False)


# --- help ---------------------------------------------------------------------------------------------


@EVERY_OPTION
def test_help_says_what_it_is(option: Option, capsys: pytest.CaptureFixture[str]) -> None:
    cli.app(["mount", "--help"], standalone_mode=False)
    help_ = " ".join(capsys.readouterr().out.split())
    assert f" --{option.name} {option.kind.metavar}".rstrip() in help_
    assert option.about in help_


def test_a_pattern_is_for_one_name(command: Command) -> None:
    with pytest.raises(CommandError, match="'build/x' can match no name"):
        command.mount("--local-only", "build/x", "joe/store", str(command.folder))
