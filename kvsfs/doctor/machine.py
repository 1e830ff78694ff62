"""What this machine has, and lacks, for a mount."""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from kvsfs import config, settings
from kvsfs.control.text import size
from kvsfs.doctor.findings import Findings
from kvsfs.errors import CommandError, ExitCode
from kvsfs.fuse.read_ahead import READ_AHEAD_KIB
from kvsfs.fuse.session import (
    FUSE_CONFIGURATION,
    FUSE_DEVICE,
    check_allow_other,
    check_device,
    check_fusermount,
)

LITTLE_SPACE = 1024**3
"""Bytes free for the cache. With less a program that writes a large file soon gets ENOSPC."""

LARGE_READS = (4, 20)
"""The kernel that first reads 1 MiB at a time (FUSE_MAX_PAGES, 7.28): older ones read 128 KiB."""

PROGRAM_SECONDS = 5.0
"""For fusermount3 to tell its version."""

_LIBRARIES = ("pyfuse3", "trio", "httpx")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where things are."""

    device: str = FUSE_DEVICE
    fuse_configuration: str = FUSE_CONFIGURATION
    kernel: str = field(default_factory=platform.release)
    user: int = field(default_factory=os.getuid)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    configuration_files: tuple[str, ...] = field(default_factory=config.config_files)
    cache_folder: str = field(default_factory=lambda: config.folder_for("XDG_CACHE_HOME", "~/.cache"))


def look_at(machine: Machine, found: Findings) -> None:
    """Look at all of it; a few milliseconds, but for the start of fusermount3."""
    _versions(machine, found)
    with found.looking_at("fuse device"):
        check_device(machine.device)
        found.ok("fuse device", f"{machine.device} can be opened")
    with found.looking_at("fusermount3"):
        _fusermount(machine, found)
    _others(machine, found)
    _read_ahead(machine, found)
    with found.looking_at("configuration"):
        _configuration(machine, found)
    with found.looking_at("cache"):
        _cache(machine, found)


def _versions(machine: Machine, found: Findings) -> None:
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    python = ".".join(map(str, sys.version_info[:3]))
    text = f"kvsfs {version('kvsfs')}, Python {python}, {libraries}, Linux {machine.kernel}"
    numbers = tuple(map(int, re.findall(r"\d+", machine.kernel)[:2]))
    if numbers < LARGE_READS:
        wanted = ".".join(map(str, LARGE_READS))
        found.note("versions", f"{text}: kernels before {wanted} read 128 KiB at a time, which is slower")
    else:
        found.ok("versions", text)


def _fusermount(machine: Machine, found: Findings) -> None:
    path = machine.environment.get("PATH")
    check_fusermount(path)
    program = shutil.which("fusermount3", path=path)
    assert program is not None
    status = os.stat(program)
    if machine.user != 0 and not (status.st_mode & stat.S_ISUID and status.st_uid == 0):
        message = f"{program} is not set-user-ID root, so only root can mount: reinstall the package fuse3"
        raise CommandError(ExitCode.NO_FUSERMOUNT, message)
    found.ok("fusermount3", f"{program}, {_version_of(program)}")


def _version_of(program: str) -> str:
    try:
        ended = subprocess.run(  # noqa: S603 - no shell
            [program, "--version"], capture_output=True, text=True, timeout=PROGRAM_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "which tells no version"
    return ended.stdout.strip().replace("fusermount3 ", "") or "which tells no version"


def _others(machine: Machine, found: Findings) -> None:
    try:
        check_allow_other(machine.fuse_configuration, machine.user)
    except CommandError as error:
        found.note("allow_other", f"only you see your mounts; {error}")
    else:
        found.ok("allow_other", "mounts may be shown to other users (--allow-other)")


def _read_ahead(machine: Machine, found: Findings) -> None:
    if machine.user == 0:
        found.ok("read-ahead", f"cached files are read {READ_AHEAD_KIB} KiB ahead")
    else:
        text = (
            "cached files are read 128 KiB ahead: root may write 1024 to /sys/class/bdi/DEVICE/read_ahead_kb"
        )
        found.note("read-ahead", text)


def _configuration(machine: Machine, found: Findings) -> None:
    settings.of_environment(machine.environment)
    settings.of_files(machine.configuration_files)
    there = [path for path in machine.configuration_files if os.path.exists(path)]
    found.ok("configuration", ", ".join(there) or "no files: defaults hold")


def _cache(machine: Machine, found: Findings) -> None:
    folder = _existing(machine.cache_folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        message = f"{folder} may not be written by you: name a folder of yours with --cache-dir"
        raise CommandError(ExitCode.CACHE_UNUSABLE, message)
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if free < LITTLE_SPACE:
        text = f"{size(free)} are free for {machine.cache_folder}: make room, or name another disk with --cache-dir"
        found.problem("cache", text)
    else:
        found.ok("cache", f"{size(free)} are free for {machine.cache_folder}")


def _existing(folder: str) -> str:
    """Give the folder, or the nearest above it that is there."""
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return folder
