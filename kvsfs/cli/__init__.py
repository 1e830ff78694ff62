"""The commands: each parses, prints and exits; none holds logic."""

from __future__ import annotations

import sys

import typer

from kvsfs.cli import mount, serve, umount
from kvsfs.errors import CommandError

app = typer.Typer(
    name="kvsfs",
    help="Mount an Apify key-value store as a folder.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # "[name]" and "[default: …]" would be taken for markup and vanish
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("mount")(mount.mount)
app.command("umount")(umount.umount)
app.command("serve")(serve.serve)


def main() -> int:
    """Run the command of sys.argv; the exit code."""
    try:
        app()
    except CommandError as error:
        print(f"kvsfs: {error}", file=sys.stderr)
        return error.exit_code
    return 0
