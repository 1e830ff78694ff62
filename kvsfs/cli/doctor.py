"""`kvsfs doctor [SOURCE]`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from typing import Annotated

import typer

from kvsfs import config, settings
from kvsfs.errors import CommandError, ExitCode
from kvsfs.options import OPTIONS, MountConfig


def doctor(
    source: Annotated[
        str | None,
        typer.Argument(metavar="SOURCE", help="What you would mount; or a name from a configuration file."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array, for programs.")] = False,
    api_url: Annotated[str | None, typer.Option(metavar="URL", help="Another API.")] = None,
    token_file: Annotated[str | None, typer.Option(metavar="FILE", help="File that holds the token.")] = None,
) -> None:
    """Look at all that a mount needs, and say what to do where something is missing. Changes nothing."""
    from kvsfs.cli.printing import say
    from kvsfs.doctor import api, machine
    from kvsfs.doctor.findings import Findings, Verdict

    found = Findings()
    here = machine.Machine()
    configured = None
    with found.looking_at("options"):
        configured = _configured(source or "", api_url, token_file)
        here = replace(here, cache_folder=configured.cache_dir or here.cache_folder)
    machine.look_at(here, found)
    if configured is not None:
        import trio

        trio.run(api.look_at, configured, found)
    if as_json:
        say(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        for finding in found:
            say(f"{finding.verdict:8} {finding.name:14} {finding.text}")
    if any(finding.verdict is Verdict.PROBLEM for finding in found):
        raise typer.Exit(ExitCode.PROBLEM_FOUND)


def _configured(source: str, api_url: str | None, token_file: str | None) -> MountConfig:
    """Read the settings as `mount` does; where files or environment are wrong, only what is said here holds."""
    said = {
        name: settings.setting(OPTIONS[name], (value,), f"--{name}")
        for name, value in (("api-url", api_url), ("token-file", token_file))
        if value is not None
    }
    try:
        files = settings.of_files(config.config_files())
        named = files.mounts.get(source)
        layers = [said, *files.layers(os.environ, named)]
    except CommandError:  # a finding of its own
        return settings.config(source, "", [said])
    return settings.config(source if named is None else named.source, "", layers)
