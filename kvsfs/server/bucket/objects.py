"""An object store as the server asks it: obstore, with faults that are told from answers.

An answer that is an error is never taken for one about an object: a bucket that is not there is no missing record.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import obstore
from obstore import exceptions

from kvsfs.server.storage import RecordChanged, StorageUnavailable

if TYPE_CHECKING:
    from obstore import Attributes, GetResult, ObjectMeta, UpdateVersion
    from obstore.store import ObjectStore

PART_BYTES = 8 * 1024**2
"""Above it an upload goes in parts: the least that S3 takes is 5 MiB, the most parts are 10,000."""

PARTS_AT_ONCE = 2
"""Of one upload: with 16 of them (`records.LARGE_UPLOADS`) 400 MiB may be in memory."""

REQUEST_SECONDS = 30
"""For one request to the object store, with its body: a part of 8 MiB at 3 Mbit/s."""

RETRIES = 3
RETRY_SECONDS = 10
"""How long a failing object store is asked again: clients of the API try again themselves after a 503."""

PAGE = 1000
"""Objects in a page of a listing: what S3, GCS and Azure give."""

JSON_TYPE = "application/json"


class BucketUnavailable(StorageUnavailable):
    """The object store did not answer, or with a fault of its own. The message holds no URL."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        """S3's word for the fault, if it said one."""


@dataclass(frozen=True, slots=True)
class Register:
    """A small JSON object that is changed by compare-and-swap."""

    value: Any
    version: UpdateVersion


class Bucket:
    """The object store. Coroutines raise BucketUnavailable; cancelled, what they asked may still happen."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    async def create(self, path: str, value: Any) -> bool:
        """Write JSON where nothing is; whether it was written."""
        try:
            await self._put_json(path, value, mode="create")
        except exceptions.AlreadyExistsError:
            return False
        return True

    async def write(self, path: str, value: Any) -> None:
        """Write JSON, whatever is there."""
        await self._put_json(path, value, mode="overwrite")

    async def swap(self, path: str, value: Any, version: UpdateVersion) -> bool:
        """Write JSON in the place of one version; whether it was still there.

        An attempt whose answer was lost is made again and finds its own value: that is success, not a race lost.
        Ceph's gateway (16.2) compares the tag of a PUT without its quotes: where nobody has changed the object, and
        it is refused, it is told so.
        """
        bare: UpdateVersion = {**version, "e_tag": (version.get("e_tag") or "").strip('"')}
        for told in (version, bare):
            try:
                await self._put_json(path, value, mode=told)
            except (exceptions.PreconditionError, FileNotFoundError):
                found = await self.read(path)
                if found is None or found.value == value or found.version != version:
                    return found is not None and found.value == value
            else:
                return True
        raise BucketUnavailable("it will not replace an object that nobody has changed")

    async def read(self, path: str) -> Register | None:
        """Read JSON; None when it is not there."""
        result = await self.get(path)
        if result is None:
            return None
        content = await self.content(result)
        meta = result.meta
        version: UpdateVersion = {"e_tag": meta["e_tag"]}
        if meta["version"] is not None:
            version["version"] = meta["version"]
        return Register(json.loads(content), version)

    async def get(self, path: str, *, head: bool = False) -> GetResult | None:
        """Begin to read an object, or ask for its headers only; None when it is not there."""
        try:
            with translated():
                return await obstore.get_async(self.store, path, options={"head": head})
        except FileNotFoundError:
            # Nothing in the answer to a HEAD says whether the object is missing or its bucket.
            return await self.get(path) if head else None

    async def content(self, result: GetResult) -> bytes:
        """Read all of a small object."""
        with translated():
            return bytes(await result.bytes_async())

    async def stream(self, result: GetResult, piece_bytes: int) -> AsyncIterator[bytes]:
        """Yield an object in pieces of at least so many bytes."""
        pieces = aiter(result.stream(min_chunk_size=piece_bytes))
        while True:
            with translated():
                piece = await anext(pieces, None)
            if piece is None:
                return
            yield bytes(piece)

    async def get_range(self, path: str, start: int, stop: int, etag: str) -> GetResult:
        """Begin to read a part of one version. Raises RecordChanged."""
        try:
            with translated():
                return await obstore.get_async(
                    self.store, path, options={"range": (start, stop), "if_match": etag}
                )
        except (exceptions.PreconditionError, FileNotFoundError) as error:
            raise RecordChanged("a record was replaced while it was being read") from error

    async def put(
        self, path: str, content: bytes | AsyncIterator[bytes], attributes: Attributes
    ) -> str | None:
        """Write an object, in parts where it is large; gives its ETag. An exception of `content` passes."""
        with translated():
            result = await obstore.put_async(
                self.store,
                path,
                content,
                attributes=attributes,
                use_multipart=not isinstance(content, bytes),
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            )
        return result["e_tag"]

    async def remove(self, paths: Sequence[str]) -> None:
        """Remove objects. No error for those that are not there."""
        if not paths:
            return
        with contextlib.suppress(FileNotFoundError), translated():
            await obstore.delete_async(self.store, paths if len(paths) > 1 else paths[0])

    async def pages(
        self, prefix: str, after: str | None = None, size: int = PAGE
    ) -> AsyncIterator[Sequence[ObjectMeta]]:
        """Yield what is below a prefix, in order, after a name, in pages of at most `size`."""
        listing = obstore.list(self.store, prefix=prefix, offset=after, chunk_size=size)
        while True:
            with translated():
                page = await anext(listing, None)
            if page is None:
                return
            yield page

    async def folders(self, prefix: str) -> list[str]:
        """Give the names that stand between a prefix and the next slash."""
        with translated():
            found = await obstore.list_with_delimiter_async(self.store, prefix)
        return [path.rpartition("/")[2] for path in found["common_prefixes"]]

    async def _put_json(self, path: str, value: Any, mode: Any) -> None:
        content = json.dumps(value, separators=(",", ":")).encode()
        with translated():
            await obstore.put_async(
                self.store,
                path,
                content,
                attributes={"Content-Type": JSON_TYPE},
                mode=mode,
                use_multipart=False,
            )


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn the object store's faults into BucketUnavailable; what says something about an object passes."""
    try:
        yield
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
        raise
    except FileNotFoundError as error:
        _about_the_object(error)
        raise
    except (exceptions.BaseError, PermissionError, OSError) as error:
        raise BucketUnavailable(reason(error), _code(str(error))) from None  # its text may hold signed URLs


def _about_the_object(error: FileNotFoundError) -> None:
    """Raise BucketUnavailable when the bucket, and not an object, is missing."""
    code = _code(str(error))
    if code is not None and code not in ("NoSuchKey", "NotFound", "BlobNotFound"):
        raise BucketUnavailable(reason(error), code) from None


def _code(text: str) -> str | None:
    found = re.search(r"<Code>(\w+)</Code>", text)
    return found and found.group(1)


def reason(error: Exception) -> str:
    """Say in a few words what an object store has answered: no URL, no header."""
    text = str(error)
    code = _code(text)
    status = re.search(r"status code: (\d{3})", text)
    if "//169.254.169.254/" in text:  # where a cloud's machine gets its own
        return "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if code is not None:
        return f"it answered {code}"
    if status is not None:
        return f"it answered {status.group(1)}"
    if "timed out" in text or "TimedOut" in text:
        return "it did not answer in time"
    if "error sending request" in text:
        return "it cannot be reached"
    return type(error).__name__.removesuffix("Error")
