"""Composition root: builds the parts of a mount, runs them in one nursery, takes them down in order."""

from __future__ import annotations

import logging
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

import trio

from kvsfs import config
from kvsfs.cache.blobs import BlobFolder
from kvsfs.cache.folder import CacheFolder
from kvsfs.control.commands import Commands
from kvsfs.control.server import ControlServer
from kvsfs.control.status import DRAINING, About, Status
from kvsfs.core.filesystem import FileSystem
from kvsfs.core.inodes import Ownership
from kvsfs.core.tuning import Tuning
from kvsfs.errors import (
    CommandError,
    ExitCode,
    NotAuthorized,
    PermissionDenied,
    StoreError,
    StoreUnreachable,
)
from kvsfs.fuse.invalidation import Invalidation
from kvsfs.fuse.presence import Presence
from kvsfs.fuse.session import (
    MountOptions,
    Session,
    check_allow_other,
    check_fuse,
    check_mount_point,
)
from kvsfs.metrics import StoreMeter
from kvsfs.options import CACHE_BYTES, MountConfig
from kvsfs.server.spawn import local_server
from kvsfs.store.apify import ApifyStore, ApifyStoreCollection
from kvsfs.store.retry import Deadlines
from kvsfs.store.sources import LocalSource, RemoteSource, parse_source
from kvsfs.types import ContentEncoding, StoreInfo

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Mounted:
    """An opened store. `identity` is the same at every mount of it, and names its cache folder."""

    store: ApifyStore
    info: StoreInfo
    identity: str
    meter: StoreMeter


def check(settings: MountConfig) -> None:
    """Raise CommandError for whatever can be known to be wrong before anything is started."""
    parse_source(settings.source)
    check_mount_point(settings.mount_point)
    check_fuse()
    if settings.allow_other:
        check_allow_other()


async def run(settings: MountConfig, ready: Callable[[], None]) -> ExitCode:
    """Mount and serve until unmounted; `ready` is called once the mount answers.

    Raises CommandError when the mount cannot be had. Returns NOT_ALL_UPLOADED when bytes are left that no
    store took: they are set aside in the cache folder, and logged.
    """
    check(settings)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the token
    async with AsyncExitStack() as stack:
        mounted = await stack.enter_async_context(_opened(settings))
        cache_dir = settings.cache_dir or config.cache_folder(mounted.identity)
        cache = CacheFolder(cache_dir, settings.cache_min_free)
        stack.callback(cache.close)
        _note_mount(cache, settings, mounted.info)
        background = await stack.enter_async_context(trio.open_nursery())
        invalidation = Invalidation()
        tuning = _tuning(settings, cache.blobs)
        filesystem = FileSystem(
            mounted.store,
            mounted.info,
            cache,
            background,
            tuning=tuning,
            ownership=_ownership(settings),
            kernel=invalidation,
        )
        stack.callback(filesystem.close)
        status = Status(
            _about(settings, mounted.info, cache, tuning), filesystem, mounted.store, mounted.meter
        )
        session = Session(filesystem, settings.mount_point, invalidation)
        presence = await _serve(session, settings, status, background, ready)
        left = await _drain(filesystem, settings.drain_timeout)
        background.cancel_scope.cancel()
    presence.end(left)
    return ExitCode.NOT_ALL_UPLOADED if left else ExitCode.OK


async def _serve(
    session: Session,
    settings: MountConfig,
    status: Status,
    background: trio.Nursery,
    ready: Callable[[], None],
) -> Presence:
    session.mount(MountOptions(settings.source, settings.read_only, settings.allow_other))
    try:
        presence = Presence(settings.mount_point)
        control = ControlServer(
            presence.folder, settings.mount_point, Commands(status, status.steering).by_name()
        )
        await background.start(control.run)
        async with trio.open_nursery() as nursery:

            async def answering() -> None:
                ready()
                log.info("%s is mounted on %s", settings.source, settings.mount_point)

            await nursery.start(_detach_on_signal, session)
            await session.serve(answering)
            nursery.cancel_scope.cancel()
    finally:
        session.close()
    status.state = DRAINING
    return presence


async def _detach_on_signal(session: Session, task_status: trio.TaskStatus[None]) -> None:
    """Leave the tree at the first signal; a later one changes nothing: open files are served on.

    SIGHUP too: it is what a mount in the foreground gets when its terminal is closed.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        detached = False
        async for number in signals:
            log.info("%s: leaving", signal.Signals(number).name)
            detached = detached or await session.detach()


async def _drain(filesystem: FileSystem, seconds: float) -> list[str]:
    with trio.move_on_after(seconds) as scope:
        await filesystem.drain()
    if scope.cancelled_caught:
        log.error("uploads took longer than %g s (--drain-timeout)", seconds)
    left = filesystem.left()
    for what in left:
        log.error("left for the next mount of this store: %s", what)
    return left


@asynccontextmanager
async def _opened(settings: MountConfig) -> AsyncIterator[_Mounted]:
    source, meter = parse_source(settings.source), StoreMeter()
    deadlines = Deadlines.within(settings.timeout)
    if isinstance(source, LocalSource):
        folder = config.local_data_folder()
        async with (
            local_server(folder) as server,
            ApifyStoreCollection(server.url, token=server.token, deadlines=deadlines, meter=meter) as stores,
        ):
            with _explained(server.url):
                info = await stores.get_or_create(source.name)
            yield _Mounted(stores.store(info.id), info, f"local:{folder}:{info.id}", meter)
        return
    token = config.find_token(settings.token_file)
    with _explained(settings.api_url):
        stores = ApifyStoreCollection(settings.api_url, token=token, deadlines=deadlines, meter=meter)
    async with stores:
        with _explained(settings.api_url):
            info = await _require(stores, source, has_token=token is not None)
        yield _Mounted(stores.store(info.id), info, f"{settings.api_url}:{info.id}", meter)


async def _require(stores: ApifyStoreCollection, source: RemoteSource, *, has_token: bool) -> StoreInfo:
    try:
        info = await stores.store(source.store_id).get()
    except PermissionDenied:
        if has_token:
            raise
        info = None
    if info is not None:
        return info
    message = f"there is no store {source.store_id.replace('~', '/').removeprefix('/')} that you can read"
    if not has_token:
        raise CommandError(ExitCode.NO_TOKEN, f"{message} without a token: {TOKEN_HINT}")
    raise CommandError(ExitCode.NO_SUCH_STORE, f"{message}: check its name or ID in the Apify Console")


TOKEN_HINT = "set APIFY_TOKEN, name a file with --token-file, or log in with the Apify CLI"  # noqa: S105


@contextmanager
def _explained(api_url: str) -> Iterator[None]:
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


def _note_mount(cache: CacheFolder, settings: MountConfig, info: StoreInfo) -> None:
    cache.blobs.note_mount(
        {"source": settings.source, "store_id": info.id, "mount_point": settings.mount_point}
    )


def _about(settings: MountConfig, info: StoreInfo, cache: CacheFolder, tuning: Tuning) -> About:
    return About(
        source=settings.source,
        mount_point=settings.mount_point,
        info=info,
        cache_folder=cache.blobs.path,
        read_only=settings.read_only,
        write_back=tuning.write_back,
        cache_limit=tuning.cache_bytes,
    )


def _tuning(settings: MountConfig, blobs: BlobFolder) -> Tuning:
    return Tuning(
        listing_ttl=settings.listing_ttl,
        revalidate=settings.revalidate,
        close_timeout=settings.close_timeout,
        write_back=settings.write_back,
        uploads=max(1, settings.uploads),
        keep_both=settings.on_conflict == "keep-both",
        grace=settings.rename_grace,
        max_dirty_age=settings.max_dirty_age,
        cache_bytes=_cache_bytes(settings, blobs),
        read_only=settings.read_only,
        strict_names=settings.names == "strict",
        exact_sizes=settings.exact_sizes,
        compress=_ENCODINGS[settings.compress],
        deferred=settings.deferred,
        local_only=settings.local_only,
        poll=settings.poll,
    )


_ENCODINGS: dict[str, ContentEncoding | None] = {"off": None, "gzip": "gzip", "br": "br"}


def _cache_bytes(settings: MountConfig, blobs: BlobFolder) -> int:
    """Give what clean files may take: what was said, else never more than half of what the disk has left."""
    if settings.cache_size is not None:
        return settings.cache_size
    return min(CACHE_BYTES, blobs.free_bytes() // 2)


def _ownership(settings: MountConfig) -> Ownership:
    return Ownership(
        uid=os.getuid() if settings.uid is None else settings.uid,
        gid=os.getgid() if settings.gid is None else settings.gid,
        file_mode=_mode(settings.file_mode, 0o666 & ~settings.umask),
        folder_mode=_mode(settings.dir_mode, 0o777 & ~settings.umask),
    )


def _mode(given: int | None, default: int) -> int:
    return default if given is None else given
