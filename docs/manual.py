"""The man pages, made from the commands, the table of options and that of exit codes: roff in the macros of man(7)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

import typer.main

from kvsfs.cli import app
from kvsfs.cli.mount_helper import EXIT_CODES, FAILURE
from kvsfs.cli.mount_options import words_for_others
from kvsfs.errors import ExitCode
from kvsfs.options import FLAG, OPTIONS, Option

DATE = "2026-11-23"
"""Of the pages, as their foot shows it: that of the last release."""

MOUNT8_MEANINGS = {
    0: "done",
    1: "a wrong option or source",
    2: "the system lacks something: /dev/fuse, fusermount3, a cache folder that can be used",
    4: "a fault of kvsfs: please report it",
    8: "interrupted",
    FAILURE: "it cannot be mounted, for any other reason",
}
"""What mount.kvsfs(8) says of its exit codes."""


def kvsfs() -> str:
    """Give the page of section 1."""
    return _page(
        _title("KVSFS", 1, "User Commands"),
        _section("NAME", [r"kvsfs \- mount an Apify key\-value store as a folder"]),
        _section("SYNOPSIS", [".B kvsfs", r"\fICOMMAND\fP [\fIOPTION\fP ...] [\fIARGUMENT\fP ...]"]),
        _section(
            "DESCRIPTION",
            _text(
                "Records are files, listings are directories, content types are extended attributes. Closing a written "
                "file stores the record, unlinking it deletes the record.",
                "What a mount promises, and when bytes are safe, is in docs/SEMANTICS.md and docs/DURABILITY.md of the "
                "distribution.",
            ),
        ),
        _section("COMMANDS", _commands()),
        _section("OPTIONS OF MOUNT", [*_text(
            "Each can be written on the command line, as a word of -o with _ for -, in the environment, and in a "
            "configuration file by its name without the dashes. What is further up in this list counts more."
        ), *_mount_options()]),
        _section("ENVIRONMENT", _environment()),
        _section("FILES", _files()),
        _section("SIGNALS", _signals()),
        _section("EXIT STATUS", _exit_codes((int(code), code.meaning) for code in ExitCode)),
        _section("EXAMPLES", _examples(
            ("kvsfs mount my-name/my-store store", "Mounts a store on the folder store, in the background."),
            ("kvsfs mount --write-back 5s -o ro,uid=1000 run:RUN_ID store", "The store of a run, read-only."),
            ("kvsfs status", "Tells what waits for its upload, and why."),
            ("kvsfs umount store", "Unmounts it, and waits for uploads."),
        )),
        _section("SEE ALSO", [r".BR mount.kvsfs (8), fusermount3 (1), systemd.unit (5)"]),
    )  # fmt: skip


def mount_kvsfs() -> str:
    """Give the page of section 8."""
    return _page(
        _title("MOUNT.KVSFS", 8, "System Administration"),
        _section("NAME", [r"mount.kvsfs \- mount an Apify key\-value store by mount(8) and fstab(5)"]),
        _section("SYNOPSIS", [
            ".B mount \\-t kvsfs", r"\fISOURCE\fP \fIDIR\fP [\fB\-o\fP \fIOPTION\fP[,\fIOPTION\fP ...]]", ".br",
            ".B mount.kvsfs", r"\fISOURCE\fP \fIDIR\fP [\fB\-sfnv\fP] [\fB\-o\fP \fIOPTION\fP[,\fIOPTION\fP ...]]",
        ]),
        _section("DESCRIPTION", _text(
            "mount(8) runs mount.kvsfs for this type. SOURCE is what kvsfs mount takes, or the name of a mount in "
            "/etc/kvsfs.toml. It returns once the mount answers; the daemon goes on in the background. In /proc/mounts "
            "the type is fuse.kvsfs: the word for PRUNEFS in updatedb.conf(5).",
            "umount(8) cannot wait for uploads: the daemon goes on without a mount until all is uploaded. kvsfs umount "
            "waits.",
        )),
        _section("OPTIONS", [
            *_tag(r"\fB\-s\fP", "Leave out words of -o that are not known."),
            *_tag(r"\fB\-f\fP", "Do everything but the mount."),
            *_tag(r"\fB\-v\fP", "Tell what is mounted where."),
            *_tag(r"\fB\-n\fP, \fB\-t\fP, \fB\-N\fP", "Accepted, and without a meaning here."),
        ]),
        _section("WORDS OF -o", [*_text(
            "Dashes and underscores are the same; values cannot hold commas."), *_mount_words()]),
        _section("WORDS FOR OTHERS", _text(
            "Accepted, and left to mount(8), systemd and the desktop: " + ", ".join(words_for_others()) + "."
            " remount is refused.")),
        _section("EXIT STATUS", _exit_codes(
            (code, MOUNT8_MEANINGS[code]) for code in sorted({*EXIT_CODES.values(), FAILURE}))),
        _section("FILES", _files()),
        _section("EXAMPLES", _examples(
            ("my-name/my-store /mnt/store kvsfs _netdev,nofail,allow_other,token_file=/etc/kvsfs.token 0 0",
             "A line of /etc/fstab. The token's file has mode 0600."),
        )),
        _section("SEE ALSO", [r".BR kvsfs (1), mount (8), fstab (5), updatedb.conf (5)"]),
    )  # fmt: skip


_ESCAPES = str.maketrans(
    {"\\": r"\e", "-": r"\-", "…": "...", "~": r"\(ti", "^": r"\(ha", "'": r"\(aq", "`": r"\(ga"}
)


def escaped(text: str) -> str:
    """Write a text so that roff takes nothing in it for a request."""
    written = text.translate(_ESCAPES)
    return rf"\&{written}" if written.startswith(".") else written


def _page(*parts: str) -> str:
    return '.\\" Made by ./dev docs: change the commands and tables it is made from.\n' + "".join(parts)


def _title(name: str, section: int, group: str) -> str:
    return f'.TH {name} {section} "{DATE}" "kvsfs {version("kvsfs")}" "{group}"\n'


def _section(name: str, lines: list[str]) -> str:
    return "\n".join([f".SH {escaped(name)}", *lines, ""])


def _text(*paragraphs: str) -> list[str]:
    return [line for paragraph in paragraphs for line in (".PP", escaped(paragraph))][1:]


def _tag(tag: str, *texts: str) -> list[str]:
    """Give an item: what it is about, and its lines below."""
    first, *more = map(escaped, texts)
    return [".TP", tag, first, *(line for text in more for line in (".br", text))]


def _commands() -> list[str]:
    return [line for name, command in _all_commands() for line in _command(name, command)]


def _all_commands() -> Iterator[tuple[str, typer.main.TyperCommand]]:
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)
        if below is None:
            yield name, command
        else:
            yield from ((f"{name} {word}", found) for word, found in below.items())


def _command(name: str, command: typer.main.TyperCommand) -> list[str]:
    lines = [f'.SS "kvsfs {escaped(name)}"', escaped(str(command.help).partition("\n")[0])]
    for parameter in command.params:
        told = getattr(parameter, "help", None)
        if getattr(parameter, "hidden", False) or parameter.name in _TABLE or not told:
            continue
        if parameter.param_type_name == "argument":
            lines += _tag(rf"\fI{escaped(parameter.metavar or str(parameter.name))}\fP", told)
        else:
            flags = ", ".join(
                rf"\fB{escaped(flag)}\fP" for flag in (*parameter.opts, *parameter.secondary_opts)
            )
            value = "" if getattr(parameter, "is_flag", False) else rf" \fI{escaped(_value_of(parameter))}\fP"
            lines += _tag(flags + value, told)
    return lines


_TABLE = {option.field for option in OPTIONS.values()}
"""Parameters of `mount` that have a section of their own."""


def _value_of(parameter: object) -> str:
    metavar = getattr(parameter, "metavar", None)
    return str(metavar or getattr(parameter, "name", "")).upper()


def _mount_options() -> list[str]:
    lines = []
    for option in OPTIONS.values():
        flag = option.kind is FLAG
        tag = rf"\fB{escaped(f'--{option.name}')}\fP"
        tag += "" if flag else rf" \fI{escaped(option.kind.metavar)}\fP"
        tag += rf", \fB{escaped(f'--no-{option.name}')}\fP" if flag else ""
        lines += _tag(tag, option.about, f"Default: {option.shown_default}. Environment: {option.variable}")
    return lines


def _mount_words() -> list[str]:
    return [line for option in OPTIONS.values() for line in _tag(_word_tag(option), option.about)]


def _word_tag(option: Option) -> str:
    word = option.field if option.kind is FLAG else f"{option.field}="
    metavar = "" if option.kind is FLAG else rf"\fI{escaped(option.kind.metavar)}\fP"
    others = "".join(rf", \fB{escaped(other)}\fP" for other in option.words)
    return rf"\fB{escaped(word)}\fP{metavar}{others}"


_XDG_KINDS = ("CONFIG_HOME", "CACHE_HOME", "STATE_HOME", "DATA_HOME", "RUNTIME_DIR")


def _environment() -> list[str]:
    return [
        *_tag(r"\fBAPIFY_TOKEN\fP", "The token, where no --token-file names one."),
        *_tag(r"\fBAPIFY_API_BASE_URL\fP, \fBAPIFY_CLIENT_BASE_URL\fP", "Another API."),
        *_tag(r"\fBKVSFS_MOUNT_\fP\fIOPTION\fP", "Any option of mount: upper case, _ for -."),
        *_tag(r"\fBKVSFS_SERVE_TOKENS\fP", "The tokens that kvsfs serve lets in, with commas."),
        *_tag(
            ", ".join(rf"\fBXDG_{kind}\fP" for kind in _XDG_KINDS),
            "Where kvsfs has its folders, each of them named kvsfs.",
        ),
    ]


def _files() -> list[str]:
    return [
        *_tag(
            r"\fI\(ti/.config/kvsfs/config.toml\fP, \fI/etc/kvsfs.toml\fP", "Settings, and mounts with names."
        ),
        *_tag(
            r"\fI\(ti/.cache/kvsfs\fP",
            "Cached records, and what is not uploaded yet: a folder for each store.",
        ),
        *_tag(r"\fI\(ti/.local/state/kvsfs\fP", "Logs of mounts in the background."),
    ]


def _signals() -> list[str]:
    return [
        *_tag("TERM, INT", "Leave the tree, serve open files to their end, upload what is left, end."),
        *_tag("HUP", "Take the token anew."),
        *_tag("USR1", "Write what the daemon is doing to its log."),
    ]


def _exit_codes(codes: Iterator[tuple[int, str]]) -> list[str]:
    return [line for code, meaning in codes for line in _tag(rf"\fB{code}\fP", meaning)]


def _examples(*examples: tuple[str, str]) -> list[str]:
    lines = []
    for command, about in examples:
        lines += [".PP", escaped(about), ".PP", ".in +4n", ".nf", rf"\fB{escaped(command)}\fP", ".fi", ".in"]
    return lines[1:]
