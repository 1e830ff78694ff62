"""What programs ask of the store, recorded in docs/REQUESTS.md; what they print and leave is as in a plain folder."""

from __future__ import annotations

import fnmatch
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.support.mounting import Mounted, Sandbox
from tests.support.plain import Plain
from tests.support.programs import PROGRAMS, Program
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

DOCUMENT = Path(__file__).parents[2] / "docs" / "REQUESTS.md"
KINDS = ("PUT", "GET", "HEAD", "DELETE", "LIST")

RECORD = "KVSFS_RECORD"
"""Set, the tests write what they counted into the document instead of holding it against it."""


def recorded() -> dict[str, list[int]]:
    """Read the document's table."""
    rows = re.findall(r"^\| (.+?) \|((?: +\d+ \|){5})$", DOCUMENT.read_text(), re.MULTILINE)
    return {name: [int(count) for count in re.findall(r"\d+", counts)] for name, counts in rows}


def record(counted: dict[str, list[int]]) -> None:
    """Write counts into the document's table, in the order of the programs."""
    counts = recorded() | counted
    names = [step for program in PROGRAMS.values() for step in program.steps if step in counts]
    rows = "".join(f"| {name} | {' | '.join(map(str, counts[name]))} |\n" for name in names)
    head = f"| program | {' | '.join(KINDS)} |\n|---|{'--:|' * len(KINDS)}\n"
    text = DOCUMENT.read_text()
    DOCUMENT.write_text(text[: text.index("| program |")] + head + rows)


def without(records: dict[str, bytes], patterns: tuple[str, ...]) -> dict[str, bytes]:
    """Keep of what differs each time only the names."""
    differ = [key for key in records if any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)]
    return records | dict.fromkeys(differ, b"differs each time")


def compare(mounted: Mounted, plain: Plain, script: str) -> list[str]:
    """Run a script in both places and unmount; what it asked of the store. Fails unless it prints the same."""
    mounted.run("ls")
    already = len(mounted.named_requests())
    assert mounted.sh(script) == plain.sh(script)
    mounted.umount()
    return mounted.named_requests()[already:]


def count(mount: Mount, store: StoreApi, program: Program, plain: Plain) -> dict[str, list[int]]:
    """Run each step in a mount and in a plain folder, and give the requests of each."""
    counted = {}
    plain.sh(program.before)
    with mount() as mounted:
        mounted.sh(program.before)
    for name, script in program.steps.items():
        with mount() as mounted:
            asked = compare(mounted, plain, script)
        kinds = Counter(request.split()[0] for request in asked)
        assert kinds.keys() <= set(KINDS), asked
        counted[name] = [kinds[kind] for kind in KINDS]
        held = {key: store.content(key) for key in store.sizes()}
        assert without(held, program.varies) == without(plain.records(), program.varies), name
        print(name, *asked, sep="\n    ")  # noqa: T201 - pytest shows it with a failure
    return counted


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_programs_requests(
    mount: Mount, store: StoreApi, sandbox: Sandbox, tmp_path: Path, name: str
) -> None:
    counted = count(mount, store, PROGRAMS[name], Plain(tmp_path, sandbox))
    if os.environ.get(RECORD):
        record(counted)
    known = recorded()
    assert counted == {step: known.get(step) for step in counted}


def test_the_document_names_no_program_that_is_not_counted() -> None:
    assert list(recorded()) == [step for program in PROGRAMS.values() for step in program.steps]
