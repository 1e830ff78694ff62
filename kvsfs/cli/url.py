"""`kvsfs url PATH`: what others can read a file or a folder of a mount by."""

from __future__ import annotations

import errno
import os
import stat
from typing import Annotated

import typer

from kvsfs.config import parse_duration
from kvsfs.errors import CommandError, ExitCode

ATTRIBUTE = "user.apify.public_url"

_WHY = {
    errno.EACCES: "the mount may not make one: it needs the token of somebody who may write to the store",
    errno.ENODATA: "it is not in a mount of kvsfs, or not uploaded yet",
    errno.EOPNOTSUPP: "it is not in a mount of kvsfs",
    errno.ESTALE: "its store does not exist any more",
}


def url(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file or a folder in a mount.")],
    expires: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long a folder's URL is to work. [default: for ever]"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Records that a folder's URL lists at a time.")
    ] = None,
) -> None:
    """Print the URL by which others read a file or list a folder."""
    parameters = []
    if expires is not None:
        parameters.append(f"expires={_seconds(expires)}")
    if limit is not None:
        parameters.append(f"limit={limit}")
    try:
        if parameters and not stat.S_ISDIR(os.stat(path).st_mode):
            message = f"{path}: a record's URL works for ever and lists nothing; --expires and --limit are for folders"
            raise CommandError(ExitCode.USAGE, message)
        attribute = f"{ATTRIBUTE}?{'&'.join(parameters)}" if parameters else ATTRIBUTE
        print(os.getxattr(path, attribute).decode())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CommandError(ExitCode.USAGE, f"{path}: {error.strerror}") from None
    except OSError as error:
        why = _WHY.get(error.errno or 0, error.strerror)
        code = ExitCode.NO_PERMISSION if error.errno == errno.EACCES else ExitCode.NOT_MOUNTED
        raise CommandError(code, f"there is no URL of {path}: {why}") from None


def _seconds(text: str) -> int:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, f"--expires: {error}") from None
    if seconds < 1:
        raise CommandError(ExitCode.USAGE, "--expires: less than a second is too short")
    return int(seconds)
