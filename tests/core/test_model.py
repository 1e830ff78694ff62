"""The file system against a model of what it promises, under drawn operations, interference and time.

Two models. `Alone`: this mount is the store's only client, so POSIX semantics hold byte for byte whatever the
network does: requests that hang, answers that are late, requests that fail, evictions, remounts. `Shared`:
others write and delete too, so what is promised is less: close-to-open consistency, and that the last writer
wins with the bytes of one version.

Waits are drawn from the file system's own timers, a little before and a little after.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from kvsfs.core import names, prefetch
from kvsfs.core.content import Content
from kvsfs.core.inodes import File
from kvsfs.core.name_rules import NameRules
from kvsfs.core.requests import Changes
from kvsfs.core.tuning import GRACE, Tuning
from kvsfs.errors import PermissionDenied, StoreError, StoreTimeout, StoreUnreachable
from tests.support.mounted import NOBODY, Mounted, errno_in, mounted, on_mock_clock

TUNING = Tuning(listing_ttl=30.0, revalidate=5.0, close_timeout=100.0, cache_bytes=150_000)
EPSILON = 0.01
TIMERS = (0.0, 2.0, TUNING.revalidate, TUNING.listing_ttl)
FILES = ("a", "b", "a~", "d/a", "d/b~", "d/e/a")
FOLDERS = ("d", "d/e", "f")
REQUESTS = ("set_record", "delete_record", "get_record", "list_keys", "head_record")

Op = tuple[Any, ...]


def parent_of(path: str) -> str:
    return path.rpartition("/")[0]


def key_of(path: str) -> str:
    return names.encode(path.encode())


@pytest.fixture(autouse=True, scope="module")
def eager_guesses() -> Iterator[None]:
    """A folder has too few files here for anything to be fetched ahead as it is usually."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(prefetch, "OPENS_BEFORE", 1)
        yield


@dataclass(eq=False)
class Node:
    """A file as POSIX sees it: it outlives its name."""

    number: int
    data: bytearray = field(default_factory=bytearray)
    versions: list[bytes] = field(default_factory=lambda: [b""])
    """The bytes after each change."""
    mime_type: str | None = None
    """As it was set; None while it may be anything."""
    guessed: bool = True
    """The mount knows that it has guessed the type; after a remount it does not."""
    linked: bool = True
    closed: int | None = None
    """Number of the newest version whose close, or fsync, was answered: no crash takes it away."""

    @property
    def newest(self) -> int:
        return len(self.versions) - 1

    def changed(self) -> int:
        """Note a change; its number."""
        self.versions.append(bytes(self.data))
        return self.newest


@dataclass(eq=False)
class Handle:
    fh: int
    node: Node
    flags: int
    busy: int = 0
    written: int | None = None
    """Number of the newest version that this handle wrote."""

    @property
    def writable(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY


def moved(name: str, path: str, new: str) -> str:
    """Give the name that something has after `path` was renamed to `new`."""
    return new + name[len(path) :] if name == path or name.startswith(f"{path}/") else name


def is_held_back(path: str) -> bool:
    """Tell whether a file's upload may wait for the grace; the end of the mount shows that it comes."""
    return NameRules().is_temporary(path.encode())


class Alone:
    """Runs operations and compares. What may wait for the network runs in a task of its own, as requests of
    the kernel do; the kernel's own locks are kept: one operation on names at a time."""

    def __init__(self, mount: Mounted) -> None:
        self.m = mount
        self.writes_back = mount.tuning.write_back is not None
        self.files: dict[str, Node] = {}
        self.folders: set[str] = set()
        self.past: dict[str, list[bytes]] = {}
        """What files had in them that were removed, or replaced, under a name."""
        self.handles: list[Handle] = []
        self.pending: list[str] = []
        self.names_busy = False
        self.markers_may_stay = False
        self.counter = 0

    # --- running ------------------------------------------------------------------------------------

    async def start(self, what: str, body: Callable[[], Awaitable[None]], *, on_names: bool = False) -> None:
        """Run `body` beside; come back when everything waits."""
        if on_names and self.names_busy:
            return
        self.names_busy = self.names_busy or on_names

        async def task() -> None:
            self.pending.append(what)
            try:
                await body()
            finally:
                self.pending.remove(what)
                if on_names:
                    self.names_busy = False

        self.m.nursery.start_soon(task)
        await trio.testing.wait_all_tasks_blocked()

    async def attempt(self, call: Awaitable[Any], *expected: int) -> tuple[Any, int]:
        """Give the result and its errno, which is 0, expected, or of a request that the test made fail."""
        raised, started = self.m.hooks.raised, trio.current_time()
        try:
            result = await call
        except Exception as error:
            number = errno_in(error)
            if isinstance(error, StoreTimeout):
                waited = trio.current_time() - started
                assert waited > TUNING.close_timeout - EPSILON or self.m.hooks.raised > raised
            elif isinstance(error, StoreError) and self.m.hooks.raised > raised:
                pass
            elif number not in expected:
                raise
            return None, number
        assert not expected or 0 in expected, f"expected {expected}, but it worked"
        return result, 0

    async def finish(self) -> None:
        """Let everything that waits go on to its end."""
        self.m.hooks.clear()
        for _ in range(1000):
            if not self.pending:
                return
            await trio.sleep(0.1)
        raise AssertionError(f"still waiting: {self.pending}")

    def bytes_for(self, length: int) -> bytes:
        self.counter = self.counter % 255 + 1
        return bytes([self.counter]) * length

    def handle(self, place: int) -> Handle | None:
        return self.handles[place % len(self.handles)] if self.handles else None

    def is_there(self, folder: str) -> bool:
        return not folder or folder in self.folders

    def children(self, folder: str) -> list[str]:
        paths = [p for p in (*self.files, *self.folders) if parent_of(p) == folder]
        return sorted(p.rpartition("/")[2] for p in paths)

    # --- operations on names ------------------------------------------------------------------------

    async def op_create(self, path: str, flags: int) -> None:
        async def body() -> None:
            if path in self.files or not self.is_there(parent_of(path)):
                return
            _, failed = await self.attempt(self.m.walk(path), errno.ENOENT)
            if failed != errno.ENOENT:
                return
            fh, failed = await self.attempt(self.m.create(path, flags), 0)
            if failed:  # to append it asks the store, which may be held back or out of reach
                return
            node = Node(self.m.fs.files.handles.get(fh).file.number)
            self.files[path] = node
            self.handles.append(Handle(fh, node, flags, written=0))

        await self.start(f"create {path}", body, on_names=True)

    async def op_unlink(self, path: str) -> None:
        async def body() -> None:
            if not self.is_there(parent_of(path)):
                return
            expected = 0 if path in self.files else errno.ENOENT
            _, failed = await self.attempt(self.m.unlink(path), expected)
            if not failed:
                self.unlink(path)

        await self.start(f"unlink {path}", body, on_names=True)

    def unlink(self, path: str) -> None:
        node = self.files.pop(path)
        node.linked = False
        self.past.setdefault(path, []).extend(node.versions)

    async def op_rename(self, path: str, new: str) -> None:
        async def body() -> None:
            if not self.is_there(parent_of(path)) or not self.is_there(parent_of(new)):
                return
            source, target = self.files.get(path), self.files.get(new)
            if target is not None:
                self.m.hooks.forgive("delete_record")
            self.m.hooks.answer("set_record")
            expected = 0 if source is not None else errno.ENOENT
            _, failed = await self.attempt(self.m.rename(path, new), expected)
            if failed:
                if source is not None and target is None:
                    await self.m.other.delete(key_of(new))  # after a failed DELETE both keys hold the bytes
                return
            if source is None or source is target:
                return
            if target is not None:
                self.unlink(new)
                if source.mime_type is None and source.guessed:
                    source.mime_type = target.mime_type
            self.files[new] = self.files.pop(path)

        await self.start(f"rename {path} {new}", body, on_names=True)

    async def op_rename_folder(self, path: str, new: str) -> None:
        async def body() -> None:
            if not self.is_there(parent_of(path)) or not self.is_there(parent_of(new)):
                return
            if f"{new}/".startswith(f"{path}/") or f"{path}/".startswith(f"{new}/"):
                return  # the kernel's business
            self.m.hooks.answer("set_record")
            expected = 0
            if path not in self.folders:
                expected = errno.ENOENT
            elif new in self.folders and self.children(new):
                expected = errno.ENOTEMPTY
            outcomes = (expected, errno.EXDEV) if not expected else (expected,)
            _, failed = await self.attempt(self.m.rename(path, new), *outcomes)
            if not failed:
                self.files = {moved(name, path, new): node for name, node in self.files.items()}
                self.folders = {moved(name, path, new) for name in self.folders}
            elif new in self.folders and not self.children(new) and expected == 0:
                _, gone = await self.attempt(self.m.walk(new), 0, errno.ENOENT)
                if gone:
                    self.folders.discard(new)

        await self.start(f"rename folder {path} {new}", body, on_names=True)

    async def op_mkdir(self, path: str) -> None:
        async def body() -> None:
            if not self.is_there(parent_of(path)):
                return
            is_new = path not in self.folders
            _, failed = await self.attempt(self.m.walk(path), errno.ENOENT if is_new else 0)
            if is_new and failed == errno.ENOENT:
                await self.m.mkdir(path)
                self.folders.add(path)

        await self.start(f"mkdir {path}", body, on_names=True)

    async def op_rmdir(self, path: str) -> None:
        async def body() -> None:
            if not self.is_there(parent_of(path)):
                return
            expected = 0
            if path not in self.folders:
                expected = errno.ENOENT
            elif self.children(path):
                expected = errno.ENOTEMPTY
            _, failed = await self.attempt(self.m.rmdir(path), expected)
            if not failed:
                self.folders.remove(path)

        await self.start(f"rmdir {path}", body, on_names=True)

    async def op_ls(self, path: str) -> None:
        async def body() -> None:
            if not self.is_there(path):
                return
            found, failed = await self.attempt(self.m.names(path), 0)
            if not failed:
                assert sorted(found) == self.children(path)

        await self.start(f"ls {path}", body, on_names=True)

    async def op_lookup(self, path: str) -> None:
        async def body() -> None:
            if not self.is_there(parent_of(path)):
                return
            expected = 0 if path in self.files or path in self.folders else errno.ENOENT
            inode, failed = await self.attempt(self.m.walk(path), expected)
            if not failed and path in self.files:
                self.files[path].number = inode.number

        await self.start(f"lookup {path}", body, on_names=True)

    async def op_setxattr(self, path: str, value: str) -> None:
        async def body() -> None:
            node = self.files.get(path)
            if node is None:
                return
            self.m.hooks.answer("set_record")
            call = self.m.fs.setxattr(node.number, b"user.mime_type", value.encode())
            _, failed = await self.attempt(call, 0)
            node.mime_type = None if failed else value  # an answer that was lost leaves it open

        await self.start(f"setxattr {path}", body, on_names=True)

    # --- operations on open files -------------------------------------------------------------------

    async def op_open(self, path: str, flags: int) -> None:
        node = self.files.get(path)
        if node is None:
            return

        async def body() -> None:
            expected = (0, errno.ESTALE, errno.ENOENT)
            opened, failed = await self.attempt(self.m.fs.open(node.number, flags, NOBODY), *expected)
            if failed:
                assert failed not in (errno.ESTALE, errno.ENOENT) or not node.linked
                return
            handle = Handle(opened.fh, node, flags)
            self.handles.append(handle)
            if flags & os.O_TRUNC:
                node.data.clear()
                handle.written = node.changed()

        await self.start(f"open {path}", body)

    async def op_read(self, place: int, offset: int, length: int) -> None:
        handle = self.handle(place)
        if handle is None:
            return

        async def body() -> None:
            node, version = handle.node, handle.node.newest
            handle.busy += 1
            found, failed = await self.attempt(self.m.fs.files.read(handle.fh, offset, length), 0)
            handle.busy -= 1
            if not failed and node.newest == version:
                assert found == node.data[offset : offset + length]

        await self.start("read", body)

    async def op_write(self, place: int, offset: int, length: int) -> None:
        handle = self.handle(place)
        if handle is None or not handle.writable:
            return
        data, node = self.bytes_for(length), handle.node
        await self.m.fs.files.write(handle.fh, offset, data)
        start = len(node.data) if handle.flags & os.O_APPEND else offset
        node.data.extend(bytes(max(0, start - len(node.data))))
        node.data[start : start + length] = data
        handle.written = node.changed()

    async def op_truncate(self, place: int, size: int) -> None:
        handle = self.handle(place)
        if handle is None or not handle.writable:
            return
        await self.m.fs.setattr(handle.node.number, Changes(size=size), handle.fh)
        handle.written = self.cut(handle.node, size)

    def cut(self, node: Node, size: int) -> int:
        node.data = node.data[:size] + bytes(max(0, size - len(node.data)))
        return node.changed()

    async def op_truncate_path(self, path: str, size: int) -> None:
        await self.finish()
        node = self.files.get(path)
        if node is None:
            return
        # Without interference: an error would not tell whether the size was changed.
        await self.m.fs.setattr(node.number, Changes(size=size), None)
        self.cut(node, size)
        node.closed = node.newest
        if not is_held_back(path) and not self.writes_back:
            assert await self.m.other.read(key_of(path)) == node.data

    async def op_touch(self, path: str, time_ns: int, mode: int) -> None:
        node = self.files.get(path)
        if node is not None:
            changes = Changes(mtime_ns=time_ns, mode=mode, uid=mode)
            inode = await self.m.fs.setattr(node.number, changes, None)
            assert inode.mtime_ns == time_ns

    async def op_flush(self, place: int) -> None:
        handle = self.handle(place)
        if handle is not None:
            await self.upload(handle, "flush", self.m.fs.files.flush, handle.written)

    async def op_fsync(self, place: int) -> None:
        handle = self.handle(place)
        if handle is not None:
            await self.upload(handle, "fsync", self.m.fs.files.fsync, handle.node.newest)

    async def op_close(self, place: int) -> None:
        handle = self.handle(place)
        if handle is not None and not handle.busy:
            self.handles.remove(handle)
            await self.upload(handle, "close", self.m.close, handle.written)

    async def upload(
        self, handle: Handle, what: str, call: Callable[[int], Awaitable[None]], version: int | None
    ) -> None:
        """After the call the store has at least this version."""

        async def body() -> None:
            handle.busy += 1
            _, failed = await self.attempt(call(handle.fh), 0)
            handle.busy -= 1
            path = next((p for p, n in self.files.items() if n is handle.node), None)
            if not failed and version is not None:
                handle.node.closed = max(version, handle.node.closed or 0)
            if self.writes_back:
                return
            if not failed and version is not None and path and not is_held_back(path) and not self.names_busy:
                assert await self.m.other.read(key_of(path)) in handle.node.versions[version:]

        await self.start(what, body)

    # --- time and interference ------------------------------------------------------------------------

    async def op_wait(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def op_hold(self, operation: str) -> None:
        self.m.hooks.hold(operation)

    async def op_hold_answer(self, operation: str) -> None:
        self.m.hooks.hold_answer(operation)

    async def op_fail(self, operation: str, error: StoreError) -> None:
        self.markers_may_stay = self.markers_may_stay or operation == "delete_record"
        self.m.hooks.fail(operation, error)

    async def op_lose_answer(self) -> None:
        self.m.hooks.lose_answer("set_record", StoreTimeout("no answer"))

    async def op_unanswered(self, place: int) -> None:
        """An fsync that the store has done and could not tell."""
        await self.op_lose_answer()
        await self.op_fsync(place)

    async def op_hang(self, place: int) -> None:
        """A flush that waits in its PUT: what comes next happens meanwhile."""
        handle = self.handle(place)
        if handle is not None and handle.writable and not handle.busy:
            await self.op_write(place, 0, 2)
            self.m.hooks.hold("set_record")
            await self.op_flush(place)

    async def op_let_go(self) -> None:
        await self.finish()

    async def op_slow(self, seconds: float) -> None:
        self.m.hooks.delay = seconds

    async def op_settle(self) -> None:
        """Drain; then the store holds what the model holds, byte for byte."""
        await self.finish()
        await self.m.fs.drain()
        await self.finish()
        assert self.m.fs.left() == []
        records = await self.m.other.records()
        markers = {key for key in records if key.endswith("!2F")}
        assert {k: v for k, v in records.items() if k not in markers} == {
            key_of(path): bytes(node.data) for path, node in self.files.items()
        }
        empty = {names.encode(f.encode() + b"/") for f in self.folders if not self.children(f)}
        there = {names.encode(folder.encode() + b"/") for folder in self.folders}
        # One whose DELETE failed, or whose mount was killed, is harmless: it goes when its folder is looked at again.
        assert markers == empty or (self.markers_may_stay and empty <= markers <= there)
        for path, node in self.files.items():
            head = await self.m.other.head(key_of(path))
            assert head is not None
            assert node.mime_type in (None, head.content_type)

    async def op_restart(self) -> None:
        """Unmount and mount again: the store, and what the cache folder keeps beside it, is all that is left."""
        await self.finish()
        while self.handles:
            await self.op_close(0)
        await self.op_settle()
        kept = {path: await self.kept(path) for path in (*self.files, *self.folders)}
        await self.m.remount()
        for path, node in self.files.items():
            node.number = (await self.m.walk(path)).number
            node.guessed = False
        calls = self.m.calls
        assert {path: await self.kept(path) for path in kept} == kept
        assert self.m.calls - calls <= Counter(list_keys=1000)

    async def op_crash(self) -> None:
        """Kill the daemon: of each file there is what was closed last, or what came after it; nothing else."""
        await self.finish()
        self.handles.clear()
        self.markers_may_stay = True
        await self.m.remount()
        for folder in sorted(
            self.folders
        ):  # one that was made a moment ago may be gone, with all that is in it
            if (await self.attempt(self.m.walk(folder), 0, errno.ENOENT))[1]:
                assert not any(
                    n.closed is not None for p, n in self.files.items() if p.startswith(f"{folder}/")
                )
                self.folders.discard(folder)
        for path, node in list(self.files.items()):
            inode, failed = (None, errno.ENOENT)
            if self.is_there(parent_of(path)):
                inode, failed = await self.attempt(self.m.walk(path), 0, errno.ENOENT)
            if failed:
                assert node.closed is None, f"{path} was closed, and is gone"
                del self.files[path]
                continue
            found = await self.m.read_file(path)
            # What was never closed may not have replaced what was removed to make room for it.
            before = self.past.get(path, []) if node.closed is None else []
            assert found in node.versions[node.closed or 0 :] + before
            assert inode is not None
            fresh = Node(inode.number, bytearray(found), [found], guessed=False, closed=0)
            self.files[path] = fresh
        for folder in ("", *self.folders):
            assert sorted(await self.m.names(folder)) == self.children(folder)
        await trio.testing.wait_all_tasks_blocked()  # streams that nobody reads end

    async def kept(self, path: str) -> tuple[object, ...]:
        """What a remount changes nothing of."""
        inode = await self.m.walk(path)
        attributes = inode.mtime_ns, inode.mode, inode.uid, inode.gid
        if not isinstance(inode, File):
            return attributes
        return *attributes, inode.size, inode.size_is_exact, inode.content_type

    async def run(self, ops: list[Op]) -> None:
        for name, *arguments in ops:
            note(f"{trio.current_time() % 10000:9.2f} {name} {arguments}")
            await getattr(self, f"op_{name}")(*arguments)
            self.check()
        await self.finish()
        await self.check_every_file()
        await self.op_settle()
        while self.handles:
            await self.op_close(0)
        await self.finish()
        await self.check_every_file()
        await self.op_settle()
        self.check()
        used = {f.content.blob.path for f in self.m.fs.inodes.files() if f.content is not None}
        clean = os.path.join(self.m.blobs.path, "clean")
        assert {os.path.join(clean, name) for name in os.listdir(clean)} == used
        assert os.listdir(os.path.join(self.m.blobs.path, "dirty")) == []

    def check(self) -> None:
        """What holds after every step, without a request."""
        self.m.fs.check_invariants()
        for handle in self.handles:
            assert self.m.fs.inodes.file(handle.node.number).size == len(handle.node.data)

    async def check_every_file(self) -> None:
        for handle in self.handles:
            assert await self.m.read_all(handle.fh) == handle.node.data
        for folder in ("", *self.folders):
            assert sorted(await self.m.names(folder)) == self.children(folder)
        for path, node in self.files.items():
            assert await self.m.read_file(path) == node.data


places = st.integers(0, 2)
offsets = st.sampled_from((0, 1, 5, 70_000))
lengths = st.sampled_from((1, 3, 70_000))
sizes = st.sampled_from((0, 2, 70_001))
files = st.sampled_from(("a",) * 6 + FILES)  # on one name, operations meet
folders = st.sampled_from(FOLDERS)
waits = st.builds(
    lambda timer, off: max(0.0, timer + off), st.sampled_from(TIMERS), st.sampled_from((-EPSILON, EPSILON))
)
requests = st.sampled_from(REQUESTS)
write_flags = st.sampled_from((os.O_RDWR, os.O_WRONLY, os.O_WRONLY | os.O_APPEND))
open_flags = st.one_of(st.just(os.O_RDONLY), write_flags, st.just(os.O_WRONLY | os.O_TRUNC))
failures = st.sampled_from((StoreUnreachable("the network is down"), PermissionDenied("no")))

operations = st.one_of(
    st.tuples(st.just("create"), files, write_flags),
    st.tuples(st.just("create"), st.just("a"), write_flags),
    st.tuples(st.just("create"), files, st.just(os.O_RDWR)),
    st.tuples(st.just("open"), files, open_flags),
    st.tuples(st.just("write"), places, offsets, lengths),
    st.tuples(st.just("write"), places, offsets, lengths),
    st.tuples(st.just("read"), places, offsets, lengths),
    st.tuples(st.just("close"), places),
    st.tuples(st.just("close"), places),
    st.tuples(st.sampled_from(("flush", "fsync")), places),
    st.tuples(st.just("truncate"), places, sizes),
    st.tuples(st.just("truncate_path"), files, sizes),
    st.tuples(st.just("touch"), files, st.just(10**18), st.sampled_from((0o600, 0o644))),
    st.tuples(st.just("setxattr"), files, st.sampled_from(("text/x-one", "text/x-two"))),
    st.tuples(st.just("unlink"), files),
    st.tuples(st.just("rename"), files, files),
    st.tuples(st.sampled_from(("mkdir", "rmdir")), folders),
    st.tuples(st.just("rename_folder"), folders, folders),
    st.tuples(st.just("ls"), st.one_of(st.just(""), folders)),
    st.tuples(st.just("lookup"), st.one_of(files, folders)),
    st.tuples(st.just("wait"), waits),
    st.tuples(st.sampled_from(("hold", "hold_answer")), requests),
    st.tuples(st.just("let_go")),
    st.tuples(st.just("fail"), requests, failures),
    st.tuples(st.just("lose_answer")),
    st.tuples(st.just("unanswered"), places),
    st.tuples(st.just("hang"), places),
    st.tuples(st.just("hang"), places),
    st.tuples(st.just("slow"), st.sampled_from((0.0, 0.5, 3.0))),
    st.tuples(st.just("settle")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("crash")),
)


MODEL = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
USUAL = settings(MODEL, max_examples=300, derandomize=True)  # the same in each run: --long looks for new ones
LONG = settings(MODEL, max_examples=10_000)

ALONE = given(
    schedule=st.random_module(),  # trio shuffles its tasks: another seed is another schedule
    ops=st.lists(operations, min_size=15, max_size=60),
    page_size=st.sampled_from((1, 2, 1000)),
    write_back=st.sampled_from((None, None, 0.0, 5.0)),
)


def run_alone(schedule: object, ops: list[Op], page_size: int, write_back: float | None) -> None:
    note(f"{schedule}, {page_size=}, {write_back=}")

    async def main() -> None:
        async with mounted(tuning=replace(TUNING, write_back=write_back), page_size=page_size) as m:
            await Alone(m).run(ops)

    on_mock_clock(main)


@USUAL
@ALONE
def test_a_mount_alone_is_a_posix_file_system(
    schedule: object, ops: list[Op], page_size: int, write_back: float | None
) -> None:
    run_alone(schedule, ops, page_size, write_back)


@pytest.mark.long
@LONG
@ALONE
def test_a_mount_alone_is_a_posix_file_system_at_length(
    schedule: object, ops: list[Op], page_size: int, write_back: float | None
) -> None:
    run_alone(schedule, ops, page_size, write_back)


# --- with others ------------------------------------------------------------------------------------


@dataclass(eq=False)
class View:
    """One opened version of a file and what was written to it here; the handles that share it."""

    file: File
    data: bytearray


@dataclass(eq=False)
class Shown:
    """An open handle."""

    fh: int
    view: View
    flags: int


class Shared:
    """One mount, and somebody else who writes and deletes: one operation after the other, but for edits amid
    a request. Every version has bytes of its own, so that a mixture is found."""

    def __init__(self, mount: Mounted) -> None:
        self.m = mount
        self.history: dict[str, list[tuple[float, bytes | None]]] = {key_of(p): [(-1e9, None)] for p in FILES}
        self.edited: set[str] = set()
        """Keys that somebody else has edited during the operation."""
        self.handles: list[Shown] = []
        self.views: dict[Content, View] = {}
        self.counter = 0

    def bytes_for(self, length: int) -> bytes:
        self.counter += 1
        return (b"%05d." % self.counter * (length // 6 + 1))[:length]

    def note_store(self, key: str, content: bytes | None) -> None:
        if self.history[key][-1][1] != content:
            self.history[key].append((trio.current_time(), content))

    def in_store(self, key: str) -> bytes | None:
        return self.history[key][-1][1]

    def recent(self, key: str, seconds: float) -> list[bytes | None]:
        """Versions that the store has had within the last seconds."""
        since, found = trio.current_time() - seconds, list[bytes | None]()
        for at, content in reversed(self.history[key]):
            found.append(content)
            if at < since:
                break
        return found

    async def observe(self) -> None:
        records = await self.m.other.records()
        for key in self.history:
            self.note_store(key, records.get(key))

    async def attempt(self, call: Awaitable[Any], *allowed: int) -> tuple[Any, int]:
        try:
            return await call, 0
        except Exception as error:
            if errno_in(error) not in allowed:
                raise
            return None, errno_in(error)

    def handle(self, place: int) -> Shown | None:
        return self.handles[place % len(self.handles)] if self.handles else None

    def shown(self, fh: int, data: bytes, flags: int) -> Shown:
        handle = self.m.fs.files.handles.get(fh)
        view = self.views.setdefault(handle.content, View(handle.file, bytearray(data)))
        assert view.data == data
        found = Shown(fh, view, flags)
        self.handles.append(found)
        return found

    # --- the others -----------------------------------------------------------------------------------

    async def op_put(self, path: str, length: int) -> None:
        content = self.bytes_for(length)
        await self.m.other.put(key_of(path), content)
        self.note_store(key_of(path), content)
        self.edited.add(key_of(path))

    async def op_delete(self, path: str) -> None:
        await self.m.other.delete(key_of(path))
        self.note_store(key_of(path), None)
        self.edited.add(key_of(path))

    async def op_meanwhile(self, operation: str, path: str, length: int, after: bool) -> None:
        async def edit() -> None:
            await self.observe()  # what the mount has just sent was there for a moment
            await (self.op_put(path, length) if length else self.op_delete(path))

        self.m.hooks.meanwhile(operation, edit, after=after)

    # --- the mount ------------------------------------------------------------------------------------

    async def op_create(self, path: str, flags: int) -> None:
        if "/" in path and (await self.attempt(self.m.walk("d"), errno.ENOENT))[1]:
            await self.m.mkdir("d")
        _, failed = await self.attempt(self.m.walk(path), errno.ENOENT)
        if failed:
            fh, failed = await self.attempt(self.m.create(path, flags), errno.ESTALE)
            if failed:  # it was there when it was asked for, to append, and gone when it was opened
                return
            self.shown(fh, await self.m.read_all(fh), flags)  # empty, but to append to what came meanwhile

    async def op_open(self, path: str, flags: int) -> None:
        key = key_of(path)
        fh, failed = await self.attempt(self.m.open(path, flags), errno.ENOENT, errno.ESTALE)
        if failed:  # gone, or somebody else's and newer than the listing
            assert None in self.recent(key, TUNING.listing_ttl + 1)
            return
        handle = self.m.fs.files.handles.get(fh)
        data = await self.m.read_all(fh)
        if flags & os.O_TRUNC:
            view = self.views.setdefault(handle.content, View(handle.file, bytearray()))
            view.data.clear()
        elif not handle.content.dirty:
            ours = [view.data for content, view in self.views.items() if content is handle.content]
            assert data in self.recent(key, TUNING.revalidate + 1) or (
                data in ours and not handle.file.stored
            )
        self.shown(fh, data, flags)

    async def op_gone(self, path: str) -> None:
        """Learn from a listing that somebody has deleted it."""
        await self.op_delete(path)
        await self.op_wait(TUNING.listing_ttl + EPSILON)
        await self.op_ls(parent_of(path))

    async def op_newer(self, path: str, flags: int) -> None:
        """Open a version that came after all that is open here."""
        await self.op_put(path, 100)
        await self.op_wait(TUNING.revalidate + EPSILON)
        await self.op_open(path, flags)

    async def op_read(self, place: int) -> None:
        handle = self.handle(place)
        if handle is not None:
            assert await self.m.read_all(handle.fh) == handle.view.data

    async def op_write(self, place: int, offset: int, length: int) -> None:
        handle = self.handle(place)
        if handle is None or handle.flags & os.O_ACCMODE == os.O_RDONLY:
            return
        data, content = self.bytes_for(length), handle.view.data
        await self.m.fs.files.write(handle.fh, offset, data)
        start = len(content) if handle.flags & os.O_APPEND else offset
        content.extend(bytes(max(0, start - len(content))))
        content[start : start + length] = data

    async def op_flush(self, place: int) -> None:
        handle = self.handle(place)
        if handle is not None:
            await self.upload(handle, self.m.fs.files.flush)

    async def op_close(self, place: int) -> None:
        handle = self.handle(place)
        if handle is not None:
            self.handles.remove(handle)
            await self.upload(handle, self.m.close)

    async def upload(self, handle: Shown, call: Callable[[int], Awaitable[None]]) -> None:
        """A dirty handle's bytes are the store's when the call returns, whoever wrote before."""
        opened = self.m.fs.files.handles.get(handle.fh)
        dirty = opened.dirty
        await call(handle.fh)
        file = handle.view.file
        if dirty and not file.removed:
            await self.observe()
            assert self.in_store(file.key) == bytes(handle.view.data) or file.key in self.edited

    async def op_unlink(self, path: str) -> None:
        inode, failed = await self.attempt(self.m.walk(path), errno.ENOENT)
        if failed:
            return
        stored, open_here = inode.stored, inode.handles > 0
        await self.m.unlink(path)
        if open_here:
            await trio.sleep(GRACE + EPSILON)
            self.note_store(key_of(path), None)  # for a moment, whoever wrote it since
        await self.observe()
        assert self.in_store(key_of(path)) is None or not stored or key_of(path) in self.edited

    async def op_rename(self, path: str, new: str) -> None:
        gone = (errno.ENOENT, errno.ESTALE)
        _, failed = await self.attempt(self.m.rename(path, new), *gone)
        if failed:
            assert None in self.recent(key_of(path), TUNING.listing_ttl + 1) or not await self.folder_of(new)
            return
        await self.observe()
        file = await self.m.file(new)
        if path != new and file.stored and not file.dirty:
            assert self.in_store(key_of(path)) is None or key_of(path) in self.edited

    async def folder_of(self, path: str) -> bool:
        return not (await self.attempt(self.m.walk(parent_of(path)), errno.ENOENT))[1]

    async def op_ls(self, path: str) -> None:
        await self.attempt(self.m.names(path), errno.ENOENT)

    async def op_wait(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def op_settle(self) -> None:
        """All closed and drained: the mount shows what the store has, and lost nothing on the way."""
        self.m.hooks.clear()
        while self.handles:
            await self.op_close(0)
        await self.m.fs.drain()
        await self.observe()
        assert self.m.fs.left() == []
        await trio.sleep(TUNING.listing_ttl + 1)
        records = await self.m.other.records()
        await self.m.idle()
        assert await self.m.other.records() == records
        assert {k for k in records if not k.endswith("!2F")} == {
            k for k in self.history if self.in_store(k) is not None
        }
        for folder in ("", "d"):
            inside = {p.rpartition("/")[2] for p in FILES if parent_of(p) == folder and key_of(p) in records}
            found, failed = await self.attempt(self.m.names(folder), errno.ENOENT)
            assert set(() if failed else found) - {"d"} == inside
        for path in FILES:
            if key_of(path) in records:
                assert await self.m.read_file(path) == records[key_of(path)]

    async def run(self, ops: list[Op]) -> None:
        for name, *arguments in ops:
            note(f"{trio.current_time() % 10000:9.2f} {name} {arguments}")
            await getattr(self, f"op_{name}")(*arguments)
            await self.observe()
            self.edited.clear()
            self.m.fs.check_invariants()
            for handle in self.handles:
                assert self.m.fs.files.handles.get(handle.fh).content.size == len(handle.view.data)
        await self.op_settle()
        assert os.listdir(os.path.join(self.m.blobs.path, "dirty")) == []


SHARED_FILES = st.sampled_from(("a", "a", "a", "a", "b", "d/a"))
shared_operations = st.one_of(
    st.tuples(st.just("put"), SHARED_FILES, lengths),
    st.tuples(st.just("delete"), SHARED_FILES),
    st.tuples(
        st.just("meanwhile"),
        st.sampled_from(("get_record", "set_record", "list_keys", "delete_record")),
        SHARED_FILES,
        st.sampled_from((0, 3, 70_000)),
        st.booleans(),
    ),
    st.tuples(st.just("create"), SHARED_FILES, write_flags),
    st.tuples(st.just("open"), SHARED_FILES, st.just(os.O_RDONLY)),
    st.tuples(st.just("open"), SHARED_FILES, open_flags.filter(lambda f: f != os.O_WRONLY | os.O_TRUNC)),
    st.tuples(st.just("open"), SHARED_FILES, st.just(os.O_RDWR | os.O_TRUNC)),
    st.tuples(st.just("gone"), SHARED_FILES),
    st.tuples(st.just("newer"), SHARED_FILES, st.sampled_from((os.O_RDONLY, os.O_RDWR))),
    st.tuples(st.just("read"), places),
    st.tuples(st.just("write"), places, offsets, lengths),
    st.tuples(st.just("write"), places, offsets, lengths),
    st.tuples(st.sampled_from(("flush", "close", "close")), places),
    st.tuples(st.just("unlink"), SHARED_FILES),
    st.tuples(st.just("rename"), SHARED_FILES, SHARED_FILES),
    st.tuples(st.just("ls"), st.sampled_from(("", "d"))),
    st.tuples(st.just("wait"), waits),
    st.tuples(st.just("settle")),
)


SHARED = given(
    schedule=st.random_module(),
    ops=st.lists(shared_operations, min_size=10, max_size=50),
    validators=st.booleans(),
)


def run_shared(schedule: object, ops: list[Op], validators: bool) -> None:
    note(f"{schedule}, {validators=}")

    async def main() -> None:
        async with mounted(tuning=TUNING, validators=validators) as m:
            await Shared(m).run(ops)

    on_mock_clock(main)


@USUAL
@SHARED
def test_a_mount_among_others_loses_nothing_and_mixes_nothing(
    schedule: object, ops: list[Op], validators: bool
) -> None:
    run_shared(schedule, ops, validators)


@pytest.mark.long
@LONG
@SHARED
def test_a_mount_among_others_loses_nothing_and_mixes_nothing_at_length(
    schedule: object, ops: list[Op], validators: bool
) -> None:
    run_shared(schedule, ops, validators)
