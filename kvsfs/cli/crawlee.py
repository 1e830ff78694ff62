"""`kvsfs import` and `kvsfs export`: Crawlee's folders of local data into stores, and stores into them."""

from __future__ import annotations

import json
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kvsfs.cli.mount import restart_without, taken
from kvsfs.cli.printing import say
from kvsfs.cli.running import ApiUrl, TokenFile, run, source_settings
from kvsfs.errors import CommandError, ExitCode, PermissionDenied, QuotaExceeded
from kvsfs.options import MountConfig
from kvsfs.store.sources import is_secret, shown

if TYPE_CHECKING:
    from kvsfs.crawlee.transfers import Tally
    from kvsfs.opening import Opened

Source = Annotated[str, typer.Argument(metavar="SOURCE", help="A store, as `kvsfs mount` takes it.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would be copied.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]


def import_(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="STORAGE_DIR", help="Crawlee's storage folder, or the folder of one store in it."
        ),
    ],
    source: Source,
    store: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which of the folder's stores. [default: the only one]")
    ] = None,
    create: Annotated[bool, typer.Option("--create", help="Make the store when it is missing.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Copy a store of Crawlee's local data into a store."""
    from kvsfs.crawlee.folder import to_read
    from kvsfs.crawlee.importing import import_folder

    configured = source_settings(source, api_url, token_file, create=create and not dry_run)
    with to_read(folder, store) as records:

        async def copy(found: Opened | None, tally: Tally) -> None:
            if found is None:
                await import_folder(records, None, "", tally, dry_run=True)
            elif found.read_only:
                raise CommandError(ExitCode.NO_PERMISSION, f"{shown(source)} can only be read in this way")
            else:
                await import_folder(records, found.store, found.info.id, tally, dry_run=dry_run)

        may_be_missing = dry_run and (create or source.startswith("local:"))
        copied = _copied(
            configured,
            copy,
            make=not dry_run,
            may_be_missing=may_be_missing,
            listed=dry_run and not as_json,
        )
    _tell(copied, "would be stored" if dry_run else "stored", as_json=as_json)


def export(
    source: Source,
    folder: Annotated[
        str, typer.Argument(metavar="STORAGE_DIR", help="Crawlee's storage folder, made when it is missing.")
    ],
    store: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Folder of the store in it. [default: its name, or default]"),
    ] = None,
    layout: Annotated[
        str, typer.Option("--for", metavar="python|javascript", help="Whose Crawlee is to read it.")
    ] = "python",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    token_file: TokenFile = None,
    source_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Copy a store into a folder of local data, as Crawlee has it."""
    from kvsfs.crawlee.exporting import export_store
    from kvsfs.crawlee.folder import DEFAULT_STORE, to_write
    from kvsfs.crawlee.layout import Layout

    if layout not in [known.value for known in Layout]:
        raise CommandError(ExitCode.USAGE, f"--for {layout}: use python or javascript")
    if source_fd is not None:
        source = taken(source_fd)
    elif is_secret(source):
        restart_without(source, "kvsfs")
    configured = source_settings(source, api_url, token_file)

    async def copy(found: Opened | None, tally: Tally) -> None:
        assert found is not None
        name = store or found.info.name or DEFAULT_STORE
        with ExitStack() as held:
            opened = to_write(folder, name, make=not dry_run)
            records = held.enter_context(opened) if opened is not None else None
            await export_store(found.store, found.info.id, records, Layout(layout), tally, dry_run=dry_run)

    copied = _copied(configured, copy, listed=dry_run and not as_json)
    _tell(copied, "would be written" if dry_run else "written", as_json=as_json)


def _copied(
    configured: MountConfig,
    copy: Callable[[Opened | None, Tally], Awaitable[None]],
    *,
    make: bool = False,
    may_be_missing: bool = False,
    listed: bool,
) -> tuple[Tally, CommandError | None]:
    """Open the store and copy, with progress; what ended it early is told beside how far it came."""
    from kvsfs.cli.progress import Progress
    from kvsfs.crawlee.transfers import Tally
    from kvsfs.opening import explained, opened

    async def open_and_copy() -> None:
        async with opened(configured, make_local=make) as found:
            with explained(configured.api_url), _ended():
                await copy(found, tally)

    with Progress() as progress:
        tally = Tally(progress.show, say if listed else None)
        try:
            run(partial(_until_signal, open_and_copy))
        except CommandError as error:
            if not (may_be_missing and error.exit_code == ExitCode.NO_SUCH_STORE):
                return tally, error
            run(partial(copy, None, tally))
    return tally, None


@contextmanager
def _ended() -> Iterator[None]:
    """Tell in one line what ended all of it, beside what `explained` knows."""
    try:
        yield
    except PermissionDenied as error:
        raise CommandError(ExitCode.NO_PERMISSION, f"the token may not do this: {error}") from error
    except QuotaExceeded as error:
        raise CommandError(ExitCode.NOT_ALL_UPLOADED, f"the plan allows no more: {error}") from error
    except OSError as error:
        message = f"the folder cannot be used: {error.strerror or error}"
        raise CommandError(ExitCode.NOT_ALL_UPLOADED, message) from error


async def _until_signal(main: Callable[[], Awaitable[None]]) -> None:
    """Run to the end, or until SIGINT or SIGTERM: then in order, so that no half file is left. Raises CommandError."""
    import trio

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(stop)
            await main()
            nursery.cancel_scope.cancel()
            return
    raise CommandError(ExitCode.INTERRUPTED, "stopped; what is copied stays, and the same command goes on")


def _tell(copied: tuple[Tally, CommandError | None], done: str, *, as_json: bool) -> None:
    """Print what has become of it, and end with the code for it."""
    tally, ended = copied
    if as_json:
        say(json.dumps(_described(tally), indent=2))
    else:
        for misfit in (*tally.failed, *tally.misfits):
            say(f"{misfit.name}: {misfit.why}", error=True)
        if ended is None or tally.copied:
            say(_summary(tally, done))
    if ended is not None:
        raise ended
    if tally.failed:
        raise typer.Exit(ExitCode.NOT_ALL_UPLOADED)
    if tally.misfits:
        raise typer.Exit(ExitCode.NOT_ALL_FITS)


def _summary(tally: Tally, done: str) -> str:
    from kvsfs.control.text import many, size

    parts = [f"{many(tally.copied, 'record')} {done} ({size(tally.copied_bytes)})"]
    if tally.same:
        parts.append(f"{tally.same} there already")
    if tally.failed:
        parts.append(f"{len(tally.failed)} failed")
    if tally.misfits:
        parts.append(f"{len(tally.misfits)} that cannot be copied")
    return ", ".join(parts)


def _described(tally: Tally) -> dict[str, Any]:
    return {
        "copied": tally.copied,
        "same": tally.same,
        "bytes": tally.copied_bytes,
        "failed": [asdict(misfit) for misfit in tally.failed],
        "misfits": [asdict(misfit) for misfit in tally.misfits],
    }
