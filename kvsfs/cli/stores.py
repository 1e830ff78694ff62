"""`kvsfs stores`: the stores of an account, without mounting them."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer

from kvsfs.cli.printing import say
from kvsfs.cli.running import ApiUrl, TokenFile, run, source_settings
from kvsfs.cli.stores_shown import described, print_store, print_stores, size_of
from kvsfs.errors import CommandError, ExitCode, PermissionDenied, RequestRefused
from kvsfs.options import MountConfig
from kvsfs.settings import usage
from kvsfs.store.sources import LOCAL, is_store_name
from kvsfs.types import GeneralAccess, StoreInfo

if TYPE_CHECKING:  # it brings along what speaks HTTP: 160 ms for each command
    from kvsfs.store.apify import ApifyStoreCollection

app = typer.Typer(help="List, make, change and delete stores.", no_args_is_help=True, rich_markup_mode=None)

T = TypeVar("T")

PAGE = 1000
"""Stores of one list: the API's maximum."""

LEVELS: tuple[GeneralAccess, ...] = get_args(GeneralAccess)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Store = Annotated[str, typer.Argument(metavar="STORE", help="A source, as `kvsfs mount` takes it.")]


@app.command("ls")
def ls(
    where: Annotated[
        str, typer.Argument(metavar="[local:]", help="Those of this machine. [default: of the token's owner]")
    ] = "",
    unnamed: Annotated[bool, typer.Option("--unnamed", help="Those without a name, too.")] = False,
    newest: Annotated[bool, typer.Option("--newest-first", help="Latest created first.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="No more than so many.")] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    token_file: TokenFile = None,
) -> None:
    """List the stores of the token's owner, or of this machine."""
    if where not in ("", LOCAL):
        raise usage(
            f"{where} is one store, or none: `kvsfs stores info` describes it; {LOCAL} lists this machine's"
        )

    async def listed(stores: ApifyStoreCollection) -> list[StoreInfo]:
        found: list[StoreInfo] = []
        while limit is None or len(found) < limit:
            count = PAGE if limit is None else min(PAGE, limit - len(found))
            page = await stores.list_stores(offset=len(found), limit=count, unnamed=unnamed, desc=newest)
            found += page.items
            if not page.items or len(found) >= page.total:
                break
        return found

    found = _with_account(source_settings(where, api_url, token_file), listed)
    if as_json:
        say(json.dumps([described(info) for info in found], indent=2))
    else:
        print_stores(found)


@app.command("create")
def create(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="local:NAME: on this machine. Without a name the store expires some day."
        ),
    ] = None,
    schema: Annotated[
        str | None, typer.Option(metavar="FILE", help="JSON schema of its collections.")
    ] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Make a store, or find the one that has the name."""
    where = LOCAL if name is not None and name.startswith(LOCAL) else ""
    named = name.removeprefix(LOCAL) or None if name is not None else None
    if named is not None:
        _check_name(named)
    collections = None if schema is None else _read_schema(schema)

    async def made(stores: ApifyStoreCollection) -> StoreInfo:
        return await stores.get_or_create(named, schema=collections)

    _print(_with_account(source_settings(where, api_url, token_file), made), as_json=as_json)


@app.command("info")
def info(store: Store, as_json: AsJson = False, api_url: ApiUrl = None, token_file: TokenFile = None) -> None:
    """Show what is known of a store."""
    _print(_change(source_settings(store, api_url, token_file)), as_json=as_json)


@app.command("rename")
def rename(
    store: Store,
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 63 letters, digits and dashes.")],
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="A title for people, too.")] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Give a store another name."""
    _check_name(name)
    _print(_change(source_settings(store, api_url, token_file), name=name, title=title), as_json=as_json)


@app.command("access")
def access(
    store: Store,
    level: Annotated[
        str | None, typer.Argument(metavar="[LEVEL]", help=f"{', '.join(LEVELS)}. [default: tell it]")
    ] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Tell or change who can read a store without being asked."""
    chosen = None if level is None else next((known for known in LEVELS if known == level.upper()), None)
    if level is not None and chosen is None:
        raise usage(f"{level} is none of {', '.join(LEVELS)}")
    found = _change(source_settings(store, api_url, token_file), general_access=chosen)
    if as_json:
        _print(found, as_json=True)
    else:
        say(found.general_access or "not told")


@app.command("rm")
def remove(
    store: Store,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    api_url: ApiUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Delete a store with all its records."""
    configured = source_settings(store, api_url, token_file)
    confirmed = None if yes else _confirmed(_change(configured))
    found = _change(configured, delete=True, only_id=confirmed)
    say(f"{_called(found)} is deleted")


def _confirmed(found: StoreInfo) -> str:
    """Ask; the ID of the store that was agreed on. Raises CommandError."""
    question = f"Delete {_called(found)} with all its records ({size_of(found)})?"
    if not sys.stdin.isatty():
        raise CommandError(ExitCode.NOT_CONFIRMED, f"{question} Nobody is here to be asked: give --yes")
    try:
        agreed = typer.confirm(question)
    except typer.Abort:  # Ctrl-C, or the end of stdin
        agreed = False
    if not agreed:
        raise CommandError(ExitCode.NOT_CONFIRMED, "nothing is deleted")
    return found.id


def _change(
    configured: MountConfig,
    *,
    name: str | None = None,
    title: str | None = None,
    general_access: GeneralAccess | None = None,
    delete: bool = False,
    only_id: str | None = None,
) -> StoreInfo:
    """Open a store, change what is given, and tell how it is then (a deleted one: how it was).

    `only_id`: no other store, though by now the source means another (a newer run's).
    """
    from kvsfs.opening import explained, opened

    async def changed() -> StoreInfo:
        async with opened(configured, make_local=False) as found:
            with explained(configured.api_url), _of_owner():
                if only_id not in (None, found.info.id):
                    message = f"it is another store by now, {found.info.id}: nothing is done"
                    raise CommandError(ExitCode.NOT_CONFIRMED, message)
                if delete:
                    await found.client.delete()
                elif name or title or general_access:
                    return await found.client.update(name=name, title=title, general_access=general_access)
            return found.info

    return run(changed)


def _with_account(configured: MountConfig, ask: Callable[[ApifyStoreCollection], Awaitable[T]]) -> T:
    from kvsfs.opening import account, explained

    async def asked() -> T:
        async with account(configured) as stores:
            with explained(configured.api_url), _of_owner():
                return await ask(stores)

    return run(asked)


@contextmanager
def _of_owner() -> Iterator[None]:
    """Tell in one line that the owner's right, or another name, would be needed."""
    try:
        yield
    except PermissionDenied as error:
        message = f"only who owns the store may do this ({error})"
        raise CommandError(ExitCode.NO_PERMISSION, message) from error
    except RequestRefused as error:
        raise CommandError(ExitCode.INVALID_NAME, f"the API refuses: {error}") from error


def _check_name(name: str) -> None:
    if not is_store_name(name):
        message = f"{name!r} is no store's name: 1 to 63 letters, digits and dashes, and no dash at its ends"
        raise CommandError(ExitCode.INVALID_NAME, message)


def _read_schema(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            schema = json.load(file)
    except OSError as error:
        raise usage(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise usage(f"{path} is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise usage(f"{path} holds no JSON object")
    return schema


def _called(found: StoreInfo) -> str:
    return f"{found.username or ''}/{found.name}".removeprefix("/") if found.name else found.id


def _print(found: StoreInfo, *, as_json: bool) -> None:
    if as_json:
        say(json.dumps(described(found), indent=2))
    else:
        print_store(found)
