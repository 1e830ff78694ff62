"""`kvsfs serve`: run the embedded store."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from kvsfs.cli.printing import Line
from kvsfs.config import local_data_folder, parse_duration, parse_size
from kvsfs.errors import CommandError, ExitCode

if TYPE_CHECKING:
    from kvsfs.server.storages import Place

T = TypeVar("T")

TOKENS_VARIABLE = "KVSFS_SERVE_TOKENS"
"""Tokens for those who do not want to show them in `ps`: as --token, with commas between."""

DEFAULT_PORT = 8765


def serve(
    data: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Where records are kept.", show_default="~/.local/share/kvsfs"),
    ] = None,
    records: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Keep everything in an object store instead: s3://BUCKET/PREFIX, gs://, az://; file:///DIR is --data.",
        ),
    ] = None,
    records_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="An option of the object store, as in region=eu-west-1. Repeatable."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")
    ] = DEFAULT_PORT,
    token: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOKEN[=USERNAME]",
            help=f"Let in who has this token. Repeatable. {TOKENS_VARIABLE} (with commas) hides it from ps.",
        ),
    ] = None,
    users: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Let in the tokens of a file, TOKEN=USERNAME in each line: hidden from ps."
        ),
    ] = None,
    max_record_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Refuse larger records, as in 64MiB.")
    ] = "5GiB",
    check: Annotated[
        bool, typer.Option("--check", help="Do not serve: verify that every record is there and whole.")
    ] = False,
    copy_to: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Do not serve: copy everything to s3://BUCKET/PREFIX or file:///DIR; begun again, it goes on.",
        ),
    ] = None,
    latency: Annotated[str, typer.Option(metavar="TIME", help="Delay every answer, as in 20ms.")] = "0",
    request_log: Annotated[
        str | None, typer.Option(metavar="FILE", help="Append a JSON line for each request.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Write each request to stderr.")] = False,
    exit_with_parent: Annotated[
        bool, typer.Option("--exit-with-parent", help="Stop when stdin ends.", hidden=True)
    ] = False,
    testing: Annotated[
        bool,
        typer.Option("--testing", help="Allow the options below, and the control endpoint /testing."),
    ] = False,
    rate_limit: Annotated[
        str | None,
        typer.Option(
            metavar="N[,M]",
            help="Testing: requests a second for each store, and M for its records. Apify's: 60,200.",
        ),
    ] = None,
    page_limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Testing: no more than N keys in a page.")
    ] = None,
    no_validators: Annotated[
        bool, typer.Option("--no-validators", help="Testing: no ETag and no Last-Modified.")
    ] = False,
    redirect_above: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Testing: redirect larger records to a signed URL on another port."
        ),
    ] = None,
) -> None:
    """Run an Apify-compatible key-value store on this machine."""
    # Here, not above: the other commands shall not wait for a server's imports.
    from kvsfs.server.storages import Place

    options = dict(_option(text) for text in records_option or ())
    place = Place.at(data or local_data_folder(), records, options)
    if check:
        _check(place)
        return
    if copy_to is not None:
        _copy(place, Place.at("", copy_to, options))
        return
    from kvsfs.server.run import Options, run
    from kvsfs.server.testing.layers import Switches
    from kvsfs.server.testing.rates import Rates

    switches = Switches(
        rates=None if rate_limit is None else _parsed("--rate-limit", Rates.parse, rate_limit),
        page_limit=page_limit,
        validators=not no_validators,
        redirect_above=None
        if redirect_above is None
        else _parsed("--redirect-above", parse_size, redirect_above),
    )
    if switches != Switches() and not testing:
        raise CommandError(
            ExitCode.USAGE,
            "--rate-limit, --page-limit, --no-validators and --redirect-above are for tests: add --testing",
        )
    served = Options(
        place=place,
        host=host,
        port=port,
        tokens=[*(token or []), *_tokens_from_environment()],
        users=users,
        max_record_bytes=_parsed("--max-record-size", parse_size, max_record_size),
        latency=_parsed("--latency", parse_duration, latency),
        request_log=request_log,
        verbose=verbose,
        exit_with_parent=exit_with_parent,
        testing=switches if testing else None,
    )
    run(served, lambda url: print(f"kvsfs serve: listening on {url}", flush=True))


def _check(place: Place) -> None:
    from kvsfs.server.storages import check

    with Line() as line:

        def tell(fault: str) -> None:
            line.show("")
            print(
                fault, flush=True
            )  # flushed: in a pipe it shall stand before the error, which goes to stderr

        checked = check(place, tell, lambda records: line.show(f"{records} records looked at"))
    print(
        f"{checked.records} records, {checked.damaged} faults, {checked.orphans} orphans removed", flush=True
    )
    if checked.damaged:
        raise CommandError(
            ExitCode.DATA_DAMAGED, f"{place} is damaged: write the records named above again, or restore it"
        )


def _copy(source: Place, target: Place) -> None:
    from kvsfs.control.text import size
    from kvsfs.server.storages import copy

    with Line() as line:
        moved = copy(
            source, target, lambda done: line.show(f"{done.records} records copied, {size(done.bytes)}")
        )
    print(
        f"{moved.stores} stores, {moved.records} records copied and read back ({size(moved.bytes)}),"
        f" {moved.kept} there already"
    )


def _option(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        raise CommandError(ExitCode.USAGE, f"--records-option {key}: say KEY=VALUE")
    return key, value


def _tokens_from_environment() -> list[str]:
    """Take the tokens out of the environment, so that no child of ours inherits them."""
    return [token for token in os.environ.pop(TOKENS_VARIABLE, "").split(",") if token]


def _parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, f"{option}: {error}") from error
