"""What is released: built as a registry gets it, checked as it would check it, installed as users do."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BROUGHT_ALONG = {
    "share/man/man1/kvsfs.1": "man/kvsfs.1",
    "share/man/man8/mount.kvsfs.8": "man/mount.kvsfs.8",
    "share/bash-completion/completions/kvsfs": "completions/kvsfs",
    "share/zsh/site-functions/_kvsfs": "completions/_kvsfs",
    "share/fish/vendor_completions.d/kvsfs.fish": "completions/kvsfs.fish",
    "lib/systemd/system/kvsfs@.service": "systemd/system/kvsfs@.service",
    "lib/systemd/system/kvsfs-serve.service": "systemd/system/kvsfs-serve.service",
    "lib/systemd/user/kvsfs@.service": "systemd/user/kvsfs@.service",
    "share/doc/kvsfs/systemd/mnt-store.mount": "systemd/example/mnt-store.mount",
    "share/doc/kvsfs/systemd/mnt-store.automount": "systemd/example/mnt-store.automount",
}
"""Below the prefix, and where it stands in this repository."""

HEAVIEST = 1_000_000
"""Bytes of a wheel or an sdist: twice what they have. More is something that does not belong there."""


def run(*command: str | Path, within: float = 300) -> str:
    ended = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=within, check=False, cwd="/"
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both from what git has, so that nothing of a checkout's leftovers gets in."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    archive = subprocess.run(["git", "stash", "create"], cwd=ROOT, capture_output=True, text=True, check=True)
    tree = archive.stdout.strip() or "HEAD"
    packed = subprocess.run(["git", "archive", tree], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", source], input=packed.stdout, check=True)
    run(sys.executable, "-m", "build", "-o", folder, source)
    return folder


def the(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_a_registry_would_take_them(built: Path) -> None:
    told = run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir())
    assert told.count("PASSED") == 2
    assert all(path.stat().st_size < HEAVIEST for path in built.iterdir())


def test_the_sdist_builds_all_there_is(built: Path) -> None:
    with tarfile.open(the(built, "*.tar.gz")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        *BROUGHT_ALONG.values(),
        "README.md",
        "LICENSE",
        "pyproject.toml",
        "kvsfs/py.typed",
        "kvsfs/cli/mount.py",
    }
    assert wanted <= names


def test_the_wheel_in_a_fresh_environment(built: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "fresh"
    run(sys.executable, "-m", "venv", prefix)
    run(prefix / "bin/python", "-m", "pip", "install", "-q", "--no-deps", the(built, "*.whl"))
    # What it stands on takes a minute to install anew; the test below does.
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (prefix / "lib" / version / "site-packages" / "rest.pth").write_text(sysconfig.get_path("purelib"))
    check_installed(prefix)


@pytest.mark.long
def test_the_wheel_with_all_that_it_stands_on(built: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "fresh"
    run(sys.executable, "-m", "venv", prefix)
    constraints = ROOT / "constraints.txt"
    run(
        prefix / "bin/python",
        "-m",
        "pip",
        "install",
        "-q",
        "-c",
        constraints,
        the(built, "*.whl"),
        within=1200,
    )
    check_installed(prefix)
    assert not list(prefix.glob("lib/python*/site-packages/pytest*"))


@pytest.mark.long
def test_pipx(built: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    run(sys.executable, "-m", "venv", tools)
    run(tools / "bin/python", "-m", "pip", "install", "-q", "pipx", within=1200)
    home = {
        "PIPX_HOME": f"{tmp_path}/pipx",
        "PIPX_BIN_DIR": f"{tmp_path}/bin",
        "PIPX_MAN_DIR": f"{tmp_path}/man",
    }
    words = [f"{name}={value}" for name, value in home.items()]
    run("env", *words, tools / "bin/pipx", "install", the(built, "*.whl"), within=1200)
    assert "Mount an Apify key-value store" in run(tmp_path / "bin/kvsfs", "--help")
    assert "usage: mount.kvsfs SOURCE DIR" in run(tmp_path / "bin/mount.kvsfs", "--help")
    assert (tmp_path / "man/man1/kvsfs.1").exists()


def check_installed(prefix: Path) -> None:
    """Compare what an environment has of kvsfs with this repository, and run its commands."""
    for place, source in BROUGHT_ALONG.items():
        assert (prefix / place).read_bytes() == (ROOT / source).read_bytes(), place
    where = run(prefix / "bin/python", "-c", "import kvsfs; print(kvsfs.__file__)")
    assert where.startswith(str(prefix))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run(prefix / "bin/kvsfs", "--version") == f"kvsfs {version}\n"
    assert "Mount an Apify key-value store" in run(prefix / "bin/kvsfs", "--help")
    assert "usage: mount.kvsfs SOURCE DIR" in run(prefix / "bin/mount.kvsfs", "--help")
    assert "timeout" in run("env", "-i", f"HOME={prefix}", prefix / "bin/kvsfs", "config", "show")
