"""Makes anew what documents take from the code; with --check it only tells what that changes.

The table of options in docs/OPTIONS.md, that of the exit codes in README.md, who imports whom in docs/DESIGN.md, the
man pages in man/, and what shells load to complete words, in completions/.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import architecture
import manual
from typer.completion import get_completion_script

from kvsfs.errors import ExitCode
from kvsfs.options import FLAG, OPTIONS, Option

ROOT = Path(__file__).parents[1]


def generated() -> Iterator[tuple[Path, str]]:
    """Give each file with its text as it should be."""
    path = ROOT / "docs/OPTIONS.md"
    yield path, with_table(path.read_text(), "| option |", options())
    path = ROOT / "README.md"
    yield path, with_table(path.read_text(), "| code | meaning |", exit_codes())

    path = ROOT / "docs/DESIGN.md"
    yield path, with_table(with_picture(path.read_text()), "| room |", architecture.layers())

    for page, text in (("kvsfs.1", manual.kvsfs()), ("mount.kvsfs.8", manual.mount_kvsfs())):
        yield ROOT / "man" / page, text
    for shell, name in (("bash", "kvsfs"), ("zsh", "_kvsfs"), ("fish", "kvsfs.fish")):
        yield ROOT / "completions" / name, completion(shell)


def completion(shell: str) -> str:
    """Give what a shell loads. zsh takes the file for the function itself when it is asked for the first time."""
    script = get_completion_script(prog_name="kvsfs", complete_var="_KVSFS_COMPLETE", shell=shell)
    if shell == "zsh":
        script += '\n\n[ "$funcstack[1]" = _kvsfs ] && _kvsfs_completion "$@"'
    return script.strip() + "\n"


def with_table(text: str, head: str, table: str) -> str:
    """Replace the one table whose head begins so."""
    after, tables = re.subn(
        rf"^{re.escape(head)}.*?\n(?!\|)", lambda _: table, text, flags=re.MULTILINE | re.DOTALL
    )
    if tables != 1:
        raise SystemExit(f"{tables} tables begin with {head}")
    return after


def with_picture(text: str) -> str:
    """Replace what stands between the two comments."""
    before, begin, rest = text.partition("<!-- from the code: picture -->\n")
    _, end, after = rest.partition("<!-- to here -->\n")
    if not (begin and end):
        raise SystemExit("docs/DESIGN.md has no place for the picture")
    return before + begin + architecture.picture() + end + after


def options() -> str:
    """Give the table of options."""
    return "| option | default | meaning |\n|---|---|---|\n" + "".join(map(option_row, OPTIONS.values()))


def option_row(option: Option) -> str:
    """Give an option's line."""
    metavar = "" if option.kind is FLAG else f" {option.kind.metavar}"
    cells = [f"`--{option.name}{metavar}`", option.shown_default, option.about]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def exit_codes() -> str:
    """Give the table of exit codes, in two columns."""
    codes = list(ExitCode)
    half = (len(codes) + 1) // 2
    rows = (
        f"| {exit_code_cells(left)} | {exit_code_cells(right)} |\n"
        for left, right in zip_longest(codes[:half], codes[half:])
    )
    return "| code | meaning | code | meaning |\n|---|---|---|---|\n" + "".join(rows)


def exit_code_cells(code: ExitCode | None) -> str:
    """Give a code and its meaning; nothing where the second column is shorter."""
    return " | " if code is None else f"{int(code)} | {code.meaning}"


def main() -> int:
    """Rewrite or check the files; the exit code."""
    stale = [(path, text) for path, text in generated() if not path.exists() or path.read_text() != text]
    for path, text in stale:
        if "--check" in sys.argv:
            print(f"{path} is not what the code says: ./dev docs")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    return int("--check" in sys.argv and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
