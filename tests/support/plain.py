"""A folder of this machine, where scripts run that run in a mount, too: what they show and leave there is right."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.mounting import COMMAND_SECONDS, Sandbox
from tests.support.store_api import expected_key


class Plain:
    """An empty folder with another around it, as a mount has."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.files = folder / "plain" / "files"
        self.files.mkdir(parents=True)
        self._environment = sandbox.environment

    def sh(self, script: str) -> str:
        return subprocess.run(
            ["sh", "-ec", script],
            cwd=self.files,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=True,
        ).stdout

    def records(self) -> dict[str, bytes]:
        """Give what a store should hold; empty folders by their markers."""
        found = {}
        for folder, folders, files in os.walk(self.files):
            inside = os.path.relpath(folder, self.files)
            for name in files:
                path = os.path.normpath(os.path.join(inside, name))
                found[expected_key(path)] = (self.files / path).read_bytes()
            if not folders and not files and inside != ".":
                found[expected_key(inside + "/")] = b""
        return found
