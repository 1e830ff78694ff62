"""`kvsfs check DIR`: what a store could not hold of a folder."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from kvsfs.errors import CommandError, ExitCode, FileError


def check(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="What is to be copied into a mount.")],
    prefix: Annotated[
        str, typer.Option(metavar="PATH", help="Folder of the mount that its content is to lie in.")
    ] = "",
    names: Annotated[str, typer.Option(metavar="encoded|strict", help="As the mount has it.")] = "encoded",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Tell, before a copy, what a store cannot hold of a folder."""
    from kvsfs.core.fitting import Finding, TreeCheck, raw_folder, readable

    strict = _is_strict(names)
    if not os.path.isdir(folder):
        raise CommandError(ExitCode.USAGE, f"{folder}: there is no such folder")
    try:
        target = raw_folder(os.fsencode(prefix), strict=strict)
    except FileError as error:
        raise CommandError(ExitCode.USAGE, f"--prefix {prefix}: {error}") from None
    root = os.fsencode(folder)
    tree = TreeCheck(root, target=target, strict=strict)

    def in_text(findings: Iterable[Finding]) -> int:
        misfits = notes = 0
        for finding in findings:
            path = readable(os.path.join(root, finding.path).rstrip(b"/") or b"/")
            print(f"{path}: {'note: ' if finding.fits else ''}{finding.why}")
            notes += finding.fits
            misfits += not finding.fits
        held = f"{misfits or 'none'} that a store cannot hold"
        print(f"{tree.entries} files and folders, {held}; notes: {notes}")
        return misfits

    def in_json(findings: Iterable[Finding]) -> int:
        found: dict[bool, list[dict[str, str]]] = {False: [], True: []}
        for finding in findings:
            found[finding.fits].append({"path": os.fsdecode(finding.path), "why": finding.why})
        print(json.dumps({"entries": tree.entries, "misfits": found[False], "notes": found[True]}))
        return len(found[False])

    _never_fail_to_print()
    misfits = (in_json if as_json else in_text)(tree.findings())
    if misfits:
        raise typer.Exit(ExitCode.NOT_ALL_FITS)


def _is_strict(names: str) -> bool:
    if names not in ("encoded", "strict"):
        raise CommandError(ExitCode.USAGE, f"--names {names}: use encoded or strict")
    return names == "strict"


def _never_fail_to_print() -> None:
    """Print names in any locale: what it lacks becomes an escape."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:  # a test's stdout has none
        reconfigure(errors="backslashreplace")
