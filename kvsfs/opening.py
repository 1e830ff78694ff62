"""From a source, as the user wrote it, to a store that answers: or to one line that says why there is none."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from kvsfs import config, credentials
from kvsfs.core import names
from kvsfs.core.fitting import raw_folder
from kvsfs.core.layouts import collections_layout
from kvsfs.credentials import Credential, Found
from kvsfs.errors import (
    CommandError,
    ExitCode,
    FileError,
    NotAuthorized,
    PermissionDenied,
    StoreError,
    StoreUnreachable,
)
from kvsfs.metrics import StoreMeter
from kvsfs.options import MountConfig
from kvsfs.server.spawn import local_server
from kvsfs.store.apify import ApifyStore, ApifyStoreCollection
from kvsfs.store.following import FollowingStore
from kvsfs.store.layout import Layout
from kvsfs.store.layout_view import LayoutStore
from kvsfs.store.protocol import Store
from kvsfs.store.retry import Deadlines
from kvsfs.store.shared import SharedStore
from kvsfs.store.sources import (
    LOCAL,
    AccountSource,
    LocalSource,
    RemoteSource,
    RunSource,
    SharedSource,
    StoreSource,
    parse_source,
)
from kvsfs.store.view import KeyGroup, ViewStore, key_groups
from kvsfs.types import StoreInfo

TOKEN_HINT = "set APIFY_TOKEN, name a file with --token-file, or log in with the Apify CLI"  # noqa: S105


TryToken = Callable[[str, str], Awaitable[None]]
"""Takes a store's ID and a token."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A store that answers. `identity` is the same each time that it is opened, and names its cache folder."""

    store: Store
    info: StoreInfo
    identity: str
    client: ApifyStore
    """What sends the store's requests, below all views of it."""
    meter: StoreMeter
    read_only: bool = False
    """Whether nobody could write to it in this way."""
    following: FollowingStore | None = None
    """What `store` asks, where it may lead to another one."""
    longest_key: int = names.MAX_KEY_LENGTH
    """Characters that a key of `store` can have."""
    layout: Layout | None = None
    """Where `store` shows each record, unless under its own key."""
    credential: Credential = field(default_factory=lambda: Credential(None))
    """What its requests carry."""
    try_token: TryToken | None = None
    """Raises StoreError where another token may not read the store; None where there is no changing it."""


@dataclass(frozen=True, slots=True)
class OpenedAccount:
    """The stores of an account that answers. `identity` is the same each time that it is opened."""

    client: ApifyStoreCollection
    username: str
    identity: str
    meter: StoreMeter
    credential: Credential
    try_token: TryToken


@dataclass(frozen=True, slots=True)
class _Api:
    """Where a source's store is asked for."""

    stores: ApifyStoreCollection
    identity: str
    credential: Credential
    meter: StoreMeter

    @property
    def has_token(self) -> bool:
        """Whether requests carry one."""
        return self.credential.token is not None


@asynccontextmanager
async def opened(settings: MountConfig, *, make_local: bool = True) -> AsyncIterator[Opened]:
    """Open the store of a mount; leaving the context closes its connections. Raises CommandError.

    `make_local`: a store of this machine is made where there is none.
    """
    source, prefix = parse_source(settings.source), key_prefix(settings.prefix or "")
    if isinstance(source, AccountSource):
        raise CommandError(ExitCode.USAGE, "account: stands for all your stores: name one of them")
    if isinstance(source, LocalSource) and not make_local:
        source = replace(source, made=False)
    if settings.create and not isinstance(source, RemoteSource | LocalSource):
        raise CommandError(
            ExitCode.USAGE, "--create makes a store by its name: give name, ~name or user/name"
        )
    async with _api_of(source, settings) as api:
        with explained(api.stores.api.base_url):
            found = await _open(source, api, create=settings.create)
        collection = settings.collection
        if isinstance(source, SharedSource):
            prefix, collection = source.prefix + prefix, collection or source.collection
        found = replace(found, credential=api.credential)
        if isinstance(source, RemoteSource | RunSource):
            found = replace(found, try_token=partial(_try_token, settings))
        yield _laid_out(_narrowed(found, prefix, collection), settings)


def key_prefix(shown: str) -> str:
    """Give the key prefix that a path in a mount stands for; a path that ends in a slash is a folder.

    Raises CommandError.
    """
    folder, slash, name = os.fsencode(shown).rpartition(b"/")
    try:
        prefix = names.encode_prefix(raw_folder(folder)) if slash else ""
        return prefix + (names.encode(names.component(name)) if name else "")
    except FileError as error:
        raise CommandError(ExitCode.USAGE, f"--prefix {shown}: {error}") from None


@asynccontextmanager
async def account(settings: MountConfig) -> AsyncIterator[ApifyStoreCollection]:
    """Give the stores of the settings' source: this machine's of `local:`, else those that the token sees at the API.

    Raises CommandError.
    """
    if settings.source == LOCAL:
        async with _local(settings) as api:
            yield api.stores
        return
    async with _remote(settings.api_url, await _credential(settings), settings) as api:
        yield api.stores


@asynccontextmanager
async def opened_account(settings: MountConfig) -> AsyncIterator[OpenedAccount]:
    """Open the stores of a mount's account; leaving the context closes its connections. Raises CommandError."""
    if settings.prefix or settings.collection or settings.create or settings.layout != "keys":
        message = "--prefix, --collection, --create and --layout are for one store: mount it by its name"
        raise CommandError(ExitCode.USAGE, message)
    async with _remote(settings.api_url, await _credential(settings), settings) as api:
        if not api.has_token:
            raise CommandError(ExitCode.NO_TOKEN, f"account: needs a token: {TOKEN_HINT}")
        with explained(settings.api_url):
            username = await api.stores.username()
        identity = f"{api.identity}:account:{username}"
        try_token = partial(_try_account_token, settings, username)
        yield OpenedAccount(api.stores, username, identity, api.meter, api.credential, try_token)


async def _try_account_token(settings: MountConfig, username: str, _store_id: str, token: str) -> None:
    """Ask whose another token is, on a connection of its own."""
    deadlines = Deadlines.within(settings.timeout)
    async with ApifyStoreCollection(settings.api_url, token=token, deadlines=deadlines) as stores:
        if (other := await stores.username()) != username:
            raise PermissionDenied(f"the token is {other}'s, not {username}'s")


async def _credential(settings: MountConfig) -> Credential:
    read = partial(credentials.find, settings.token_file)
    return Credential(await read(), read)


async def _try_token(settings: MountConfig, store_id: str, token: str) -> None:
    """Ask for the store with another token, on a connection of its own: the mount's calls go on with theirs."""
    deadlines = Deadlines.within(settings.timeout)
    async with ApifyStoreCollection(settings.api_url, token=token, deadlines=deadlines) as stores:
        if await stores.store(store_id).get() is None:
            raise PermissionDenied(f"store {store_id}: this token does not see it")


@contextmanager
def explained(api_url: str) -> Iterator[None]:
    """Turn what the store says at the start into one line and an exit code."""
    try:
        yield
    except NotAuthorized as error:
        if error.error_type == "token-not-provided":
            raise CommandError(ExitCode.NO_TOKEN, f"this store needs a token: {TOKEN_HINT}") from error
        message = "the API does not know this token: make a new one in the Apify Console, Settings, API"
        raise CommandError(ExitCode.TOKEN_REFUSED, message) from error
    except PermissionDenied as error:
        message = f"the token may not read this store ({error}): ask its owner, or use another token"
        raise CommandError(ExitCode.NO_PERMISSION, message) from error
    except StoreUnreachable as error:
        message = f"cannot reach {api_url} ({error}): check the network and --api-url"
        raise CommandError(ExitCode.UNREACHABLE, message) from error
    except StoreError as error:
        raise CommandError(
            ExitCode.UNREACHABLE, f"{api_url} does not answer as the API does: {error}"
        ) from error


@asynccontextmanager
async def _api_of(source: StoreSource, settings: MountConfig) -> AsyncIterator[_Api]:
    if isinstance(source, LocalSource):
        async with _local(settings) as api:
            yield api
    elif isinstance(source, SharedSource):  # no token: it is nothing to whomever the URL leads to
        async with _remote(source.base_url, Credential(None), settings) as api:
            yield api
    else:
        async with _remote(settings.api_url, await _credential(settings), settings) as api:
            yield api


@asynccontextmanager
async def _local(settings: MountConfig) -> AsyncIterator[_Api]:
    folder, meter, deadlines = config.local_data_folder(), StoreMeter(), Deadlines.within(settings.timeout)
    async with local_server(folder) as server:
        credential = Credential(Found(server.token, "its own server"))
        async with ApifyStoreCollection(
            server.url, token=credential, deadlines=deadlines, meter=meter
        ) as stores:
            yield _Api(stores, f"local:{folder}", credential, meter)


@asynccontextmanager
async def _remote(url: str, credential: Credential, settings: MountConfig) -> AsyncIterator[_Api]:
    meter = StoreMeter()
    with explained(url):
        stores = ApifyStoreCollection(
            url, token=credential, deadlines=Deadlines.within(settings.timeout), meter=meter
        )
    async with stores:
        yield _Api(stores, url, credential, meter)


def _narrowed(found: Opened, prefix: str, collection: str | None) -> Opened:
    """Give a view of a store, with a cache folder of its own: its keys are others."""
    if not prefix and collection is None:
        return found
    view = ViewStore(found.store, prefix, None if collection is None else _group(found, collection))
    return replace(
        found,
        store=view,
        identity=f"{found.identity}?prefix={prefix}&collection={collection or ''}",
        longest_key=found.longest_key - len(prefix),
    )


def _laid_out(found: Opened, settings: MountConfig) -> Opened:
    """Give a store in folders of its own; it has its own cache folder, too."""
    if settings.layout == "keys":
        return found
    if isinstance(found.store, ViewStore):
        raise CommandError(
            ExitCode.USAGE, "--layout collections shows a whole store: leave out --prefix and --collection"
        )
    layout = collections_layout(found.info.schema)
    return replace(
        found,
        store=LayoutStore(found.store, layout, found.info.schema),
        identity=f"{found.identity}?layout={settings.layout}",
        layout=layout,
    )


def _group(found: Opened, collection: str) -> KeyGroup:
    groups = key_groups(found.info.schema)
    if collection in groups:
        return groups[collection]
    if (
        found.info.schema is None and found.read_only
    ):  # not told to those without a token; the server knows it
        return KeyGroup(collection)
    there_are = f"it has {', '.join(sorted(groups))}" if groups else "it has none"
    raise CommandError(
        ExitCode.USAGE, f"--collection {collection}: the store's schema has no such collection; {there_are}"
    )


async def _open(source: StoreSource, api: _Api, *, create: bool) -> Opened:
    if isinstance(source, SharedSource):
        return await _open_shared(source, api)
    if isinstance(source, LocalSource) and source.made:
        info = await api.stores.get_or_create(source.name)
    elif isinstance(source, LocalSource):
        info = await _of_this_machine(source.name, api.stores)
    elif isinstance(source, RunSource):
        info = await _of_run(source, api.stores)
        if source.is_last:
            return _follow(source, info, api)
    else:
        info = await _named(source, api, create=create)
    store = api.stores.store(info.id)
    return Opened(store, info, f"{api.identity}:{info.id}", store, api.meter, read_only=not api.has_token)


def _follow(source: RunSource, info: StoreInfo, api: _Api) -> Opened:
    """Give a store that becomes that of each newer last run."""

    async def resolve() -> StoreInfo | None:
        return await api.stores.store_of_run(source.path, source.filters)

    store = FollowingStore(resolve, api.stores.store, info)
    filters = "&".join(f"{name}={value}" for name, value in sorted(source.filters.items()))
    identity = f"{api.identity}:{source.path}?{filters}"
    client = api.stores.store(info.id)
    return Opened(store, info, identity, client, api.meter, read_only=True, following=store)


async def _open_shared(source: SharedSource, api: _Api) -> Opened:
    store = SharedStore(api.stores.api, source.store_id, source.signature)
    try:
        info = await store.get()
    except PermissionDenied as error:
        raise CommandError(ExitCode.SIGNATURE_REFUSED, str(error)) from error
    assert info is not None  # or the listing would have been refused
    return Opened(store, info, f"{api.identity}:{info.id}", store, api.meter, read_only=True)


async def _of_run(source: RunSource, stores: ApifyStoreCollection) -> StoreInfo:
    info = await stores.store_of_run(source.path, source.filters)
    if info is not None:
        return info
    run_id = await stores.run_id(source.path, source.filters)
    if run_id is not None:
        message = f"the store of the run {run_id} is gone: stores without a name expire"
        raise CommandError(ExitCode.NO_SUCH_STORE, message)
    what = source.path.removesuffix("/runs/last").partition("/")[2].replace("~", "/").removeprefix("/")
    if not source.is_last:
        raise CommandError(ExitCode.NO_SUCH_RUN, f"there is no run {what} that you can see: check its ID")
    kind = "task" if source.path.startswith("actor-tasks/") else "Actor"
    such = "".join(f" with {name} {value}" for name, value in source.filters.items())
    message = f"the {kind} {what} has no run{such}, or there is no such {kind} that you can see"
    raise CommandError(ExitCode.NO_SUCH_RUN, message)


async def _of_this_machine(name: str, stores: ApifyStoreCollection) -> StoreInfo:
    info = await stores.store(f"~{name}").get()
    if info is None:
        message = f"there is no store {name} on this machine: `kvsfs stores ls {LOCAL}` lists those there are"
        raise CommandError(ExitCode.NO_SUCH_STORE, message)
    return info


async def _named(source: RemoteSource, api: _Api, *, create: bool) -> StoreInfo:
    try:
        info = await api.stores.store(source.store_id).get()
    except PermissionDenied:
        if api.has_token:
            raise
        info = None
    if info is not None:
        return info
    message = f"there is no store {source.store_id.replace('~', '/').removeprefix('/')} that you can read"
    if not api.has_token:
        raise CommandError(ExitCode.NO_TOKEN, f"{message} without a token: {TOKEN_HINT}")
    if create:
        return await api.stores.get_or_create(await _name_to_create(source, api.stores))
    hint = "check its name or ID in the Apify Console"
    if "~" not in source.store_id:
        hint += f"; a store of yours with this name is ~{source.store_id}"
    raise CommandError(ExitCode.NO_SUCH_STORE, f"{message}: {hint}")


async def _name_to_create(source: RemoteSource, stores: ApifyStoreCollection) -> str:
    user, tilde, name = source.store_id.partition("~")
    if not tilde:
        message = f"there is no store {user}, and --create needs a name: ~{user} makes one of that name"
        raise CommandError(ExitCode.NO_SUCH_STORE, message)
    if user and user != (me := await stores.username()):
        message = f"there is no store {user}/{name}, and as {me} you cannot make one for {user}"
        raise CommandError(ExitCode.NO_PERMISSION, message)
    return name
