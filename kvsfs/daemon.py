"""Composition root: builds the parts of a mount, runs them in one nursery, takes them down in order."""

from __future__ import annotations

import gc
import logging
import os
import resource
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from functools import partial

import trio

from kvsfs import config
from kvsfs.cache.blobs import BlobFolder
from kvsfs.cache.folder import CacheFolder
from kvsfs.control import service, signals
from kvsfs.control.commands import Commands
from kvsfs.control.metrics_server import MetricsServer
from kvsfs.control.server import ControlServer
from kvsfs.control.status import About, Status
from kvsfs.control.told import DRAINING
from kvsfs.core.account import Account
from kvsfs.core.account_opening import AccountParts
from kvsfs.core.filesystem import FileSystem
from kvsfs.core.inodes import Ownership
from kvsfs.core.kernel import KernelCaches
from kvsfs.core.mountable import Mountable
from kvsfs.core.tuning import Tuning
from kvsfs.errors import ExitCode
from kvsfs.fuse.invalidation import Invalidation
from kvsfs.fuse.presence import Presence
from kvsfs.fuse.session import (
    MountOptions,
    Session,
    check_allow_other,
    check_fuse,
    check_mount_point,
    clear_dead_mount,
)
from kvsfs.opening import Opened, OpenedAccount, opened, opened_account
from kvsfs.options import CACHE_BYTES, MountConfig
from kvsfs.service_manager import ServiceManager
from kvsfs.store.sources import AccountSource, parse_source, shown
from kvsfs.types import ContentEncoding, StoreInfo

log = logging.getLogger(__name__)

DESCRIPTORS = 65_536
"""Files that may be open at a time, one for each record that a program has open; 1,024 is what most shells leave. Where
fewer are allowed, open(2) fails with EMFILE past them."""


def check(settings: MountConfig) -> None:
    """Raise CommandError for whatever can be known to be wrong before anything is started."""
    parse_source(settings.source)
    clear_dead_mount(settings.mount_point)
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
    manager = ServiceManager()
    _allow_descriptors()
    async with AsyncExitStack() as stack:
        mounted = await stack.enter_async_context(_opened(settings))
        if isinstance(mounted, Opened):
            settings = replace(settings, read_only=settings.read_only or mounted.read_only)
        cache_dir = settings.cache_dir or config.cache_folder(mounted.identity)
        cache = CacheFolder(cache_dir, mounted.identity, settings.cache_min_free)
        stack.callback(cache.close)
        info = mounted.info if isinstance(mounted, Opened) else None
        _note_mount(cache, settings, info)
        background = await stack.enter_async_context(trio.open_nursery())
        invalidation = Invalidation()
        tuning, client = _tuning(settings, cache.blobs), mounted.client
        filesystem: Mountable
        if isinstance(mounted, Opened):
            filesystem = _store(mounted, settings, cache, background, tuning, invalidation)
        else:
            filesystem = await _account(mounted, settings, cache, background, tuning, invalidation)
        stack.callback(filesystem.close)
        status = Status(_about(settings, info, cache, tuning), filesystem, client, mounted.meter)
        if settings.metrics is not None:
            await background.start(MetricsServer(settings.metrics, status).run)
        if isinstance(mounted, Opened) and mounted.following is not None:
            mounted.following.on_switch = status.moved
        session = Session(filesystem, settings.mount_point, invalidation)

        def answering() -> None:
            ready()
            manager.tell(READY=1)

        change_token = partial(signals.change_token, status, mounted.credential, mounted.try_token)
        background.start_soon(service.report, manager, status)
        gc.freeze()  # 54,000 objects of modules: a full collection that looks at them is 33 ms without an answer
        presence = await _serve(session, settings, status, background, answering, change_token)
        left = await (_drain(filesystem, settings.drain_timeout) if status.drains else _hand_over(filesystem))
        background.cancel_scope.cancel()
    presence.end(left)
    return ExitCode.NOT_ALL_UPLOADED if left else ExitCode.OK


def _opened(settings: MountConfig) -> AbstractAsyncContextManager[Opened | OpenedAccount]:
    if isinstance(parse_source(settings.source), AccountSource):
        return opened_account(settings)
    return opened(settings)


def _store(
    mounted: Opened,
    settings: MountConfig,
    cache: CacheFolder,
    background: trio.Nursery,
    tuning: Tuning,
    kernel: KernelCaches,
) -> FileSystem:
    filesystem = FileSystem(
        mounted.store,
        mounted.info,
        cache,
        background,
        tuning=replace(tuning, longest_key=mounted.longest_key, layout=mounted.layout),
        ownership=_ownership(settings),
        kernel=kernel,
    )
    if mounted.following is not None:
        filesystem.follow(mounted.following)
    return filesystem


async def _account(
    mounted: OpenedAccount,
    settings: MountConfig,
    cache: CacheFolder,
    background: trio.Nursery,
    tuning: Tuning,
    kernel: KernelCaches,
) -> Account:
    parts = AccountParts(
        mounted.client,
        mounted.username,
        mounted.identity,
        cache,
        background,
        tuning=tuning,
        ownership=_ownership(settings),
        kernel=kernel,
        min_free=settings.cache_min_free,
        mount_point=settings.mount_point,
    )
    return await parts.open()


async def _serve(
    session: Session,
    settings: MountConfig,
    status: Status,
    background: trio.Nursery,
    ready: Callable[[], None],
    change_token: Callable[[], Awaitable[None]],
) -> Presence:
    session.mount(
        MountOptions(shown(settings.source), settings.read_only, settings.allow_other, settings.noexec)
    )
    try:
        presence = Presence(settings.mount_point)
        control = ControlServer(
            presence.folder, settings.mount_point, Commands(status, status.steering).by_name()
        )
        await background.start(control.run)
        await background.start(signals.dump, status)
        await background.start(signals.verbosity, settings.log_level)
        async with trio.open_nursery() as nursery:

            async def answering() -> None:
                ready()
                log.info("%s is mounted on %s", shown(settings.source), settings.mount_point)
                for url in status.metrics:
                    log.info("metrics are at %s", url)

            await nursery.start(signals.leave, session)
            await background.start(signals.hang_up, status, change_token)
            await session.serve(answering)
            nursery.cancel_scope.cancel()
    finally:
        session.close()
    status.state = DRAINING
    return presence


async def _drain(filesystem: Mountable, seconds: float) -> list[str]:
    with trio.move_on_after(seconds) as scope:
        await filesystem.drain()
    if scope.cancelled_caught:
        log.error("uploads took longer than %g s (--drain-timeout)", seconds)
    left = filesystem.left()
    for what in left:
        log.error("left for the next mount of this store: %s", what)
    return left


async def _hand_over(filesystem: Mountable) -> list[str]:
    await filesystem.hand_over()
    left = filesystem.left()
    log.info("left for the next mount of this store, as was asked for: %d", len(left))
    return left


def _allow_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _note_mount(cache: CacheFolder, settings: MountConfig, info: StoreInfo | None) -> None:
    about = {"source": shown(settings.source), "mount_point": settings.mount_point}
    cache.blobs.note_mount(about if info is None else {**about, "store_id": info.id})


def _about(settings: MountConfig, info: StoreInfo | None, cache: CacheFolder, tuning: Tuning) -> About:
    return About(
        source=shown(settings.source),
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
        extensions=settings.extensions,
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
