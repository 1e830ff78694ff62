"""Records over HTTP: bytes, types, encodings, conditions, ranges, refusals."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime

import brotli  # type: ignore[import-untyped]
import httpx
import pytest

TEXT = b"".join(b"line %d of a text that compresses\n" % number for number in range(60_000))
"""2 MB: more than one piece for every buffer on the way."""


def raw_deflate(content: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(content) + stream.flush()


def gzip_members(content: bytes) -> bytes:
    return gzip.compress(content[:1000]) + gzip.compress(content[1000:])


ENCODERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("gzip", gzip_members),
    ("br", brotli.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
]


def error_type(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["type"])


def stored(client: httpx.Client, path: str, accept: str) -> tuple[httpx.Response, bytes]:
    """Get a record as the server sends it, not decoded by the client."""
    with client.stream("GET", path, headers={"Accept-Encoding": accept}) as answer:
        return answer, b"".join(answer.iter_raw())


@pytest.mark.parametrize("size", [0, 1, 4096, 65_536, 65_537, 262_144, 1_048_576, 3_000_001])
@pytest.mark.parametrize("chunked", [False, True])
def test_bytes_come_back_as_they_were_sent(
    joe: httpx.Client, store: str, size: int, *, chunked: bool
) -> None:
    content = random.Random(size).randbytes(size)

    def pieces() -> Iterator[bytes]:
        for start in range(0, size, 100_000):
            yield content[start : start + 100_000]

    answer = joe.put(
        f"{store}/records/a", content=pieces() if chunked else content, headers={"Content-Type": "image/png"}
    )
    assert (answer.status_code, answer.json()) == (201, {})
    assert answer.headers["location"].endswith(f"{store}/records/a")
    got = joe.get(f"{store}/records/a")
    assert got.content == content
    assert got.headers["content-type"] == "image/png"
    assert got.headers["content-length"] == str(size)
    assert got.headers["accept-ranges"] == "bytes"
    assert got.headers["etag"] == answer.headers["etag"]
    head = joe.head(f"{store}/records/a")
    told = ("content-type", "content-length", "etag", "last-modified", "accept-ranges")
    assert [head.headers[name] for name in told] == [got.headers[name] for name in told]
    assert joe.get(f"{store}/keys").json()["data"]["items"][0]["size"] == size


def test_post_is_an_alias_and_the_last_write_wins(joe: httpx.Client, store: str) -> None:
    etags = [joe.put(f"{store}/records/a", content=b"1").headers["etag"]]
    etags.append(joe.post(f"{store}/records/a", content=b"22").headers["etag"])
    assert etags[0] != etags[1]
    assert joe.get(f"{store}/records/a").content == b"22"


def test_the_etag_names_type_and_encoding_too(joe: httpx.Client, store: str) -> None:
    def etag(**headers: str) -> str:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return str(joe.put(f"{store}/records/a", content=b"x", headers=sent).headers["etag"])

    assert etag(content_type="a/b") == etag(content_type="a/b")
    assert (
        len(
            {
                etag(content_type="a/b"),
                etag(content_type="a/c"),
                etag(content_type="a/b", content_encoding="br"),
            }
        )
        == 3
    )


@pytest.mark.parametrize(("encoding", "encode"), ENCODERS)
def test_encoded_records(
    joe: httpx.Client, store: str, encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    encoded = encode(TEXT)
    path = f"{store}/records/a"
    put = joe.put(path, content=encoded, headers={"Content-Encoding": encoding, "Content-Type": "text/plain"})
    assert put.status_code == 201
    assert joe.get(f"{store}/keys").json()["data"]["items"][0]["size"] == len(encoded)

    answer, body = stored(joe, path, f"identity;q=0.5, {encoding}")
    assert body == encoded
    assert answer.headers["content-encoding"] == encoding
    assert answer.headers["content-length"] == str(len(encoded))
    assert answer.headers["etag"] == put.headers["etag"]
    assert answer.headers["vary"] == "Accept-Encoding"

    for accept in ("identity", f"{encoding};q=0", "", "zstd"):
        answer, body = stored(joe, path, accept)
        assert body == TEXT
        assert "content-encoding" not in answer.headers
        assert "content-length" not in answer.headers
        assert "accept-ranges" not in answer.headers
        assert answer.headers["etag"] == f"W/{put.headers['etag']}"
        head = joe.head(path, headers={"Accept-Encoding": accept})
        assert "content-length" not in head.headers
        assert head.headers["etag"] == answer.headers["etag"]


def test_identity_is_no_encoding(joe: httpx.Client, store: str) -> None:
    joe.put(f"{store}/records/a", content=b"x", headers={"Content-Encoding": "identity"})
    assert "content-encoding" not in joe.get(f"{store}/records/a").headers


def test_a_value_that_is_not_what_it_says_is_cut_off_not_ended(joe: httpx.Client, store: str) -> None:
    path = f"{store}/records/a"
    for broken in (b"not gzip at all", gzip.compress(TEXT)[:-20], gzip.compress(TEXT)[:5000]):
        joe.put(path, content=broken, headers={"Content-Encoding": "gzip"})
        with pytest.raises(httpx.RemoteProtocolError):
            stored(joe, path, "identity")
        assert stored(joe, path, "gzip")[1] == broken


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=299990-", 299_990, 300_000),
        ("bytes=-5", 299_995, 300_000),
        ("bytes=-999999", 0, 300_000),
        ("bytes=5-999999", 5, 300_000),
        ("BYTES=1-2", 1, 3),
    ],
)
def test_ranges(joe: httpx.Client, store: str, asked: str, start: int, stop: int) -> None:
    content = random.Random(1).randbytes(300_000)
    joe.put(f"{store}/records/a", content=content)
    answer = joe.get(f"{store}/records/a", headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == content[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/300000"


@pytest.mark.parametrize(
    "asked", ["bytes=", "bytes=-", "bytes=5-4", "bytes=0-1,4-5", "lines=0-1", "bytes=a-b"]
)
def test_ranges_that_make_no_sense_give_the_whole(joe: httpx.Client, store: str, asked: str) -> None:
    joe.put(f"{store}/records/a", content=b"0123456789")
    answer = joe.get(f"{store}/records/a", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, b"0123456789")


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=99-100", "bytes=-0"])
def test_ranges_past_the_end_are_refused(joe: httpx.Client, store: str, asked: str) -> None:
    joe.put(f"{store}/records/a", content=b"0123456789")
    answer = joe.get(f"{store}/records/a", headers={"Range": asked})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */10")


def test_if_range_gives_the_whole_of_another_version(joe: httpx.Client, store: str) -> None:
    path = f"{store}/records/a"
    old = joe.put(path, content=b"0123456789").headers["etag"]
    new = joe.put(path, content=b"abcdefghij").headers["etag"]
    headers = {"Range": "bytes=2-3"}
    assert joe.get(path, headers=headers | {"If-Range": new}).content == b"cd"
    for other in (old, f"W/{new}", "Mon, 23 Nov 2020 01:39:19 GMT"):
        answer = joe.get(path, headers=headers | {"If-Range": other})
        assert (answer.status_code, answer.content) == (200, b"abcdefghij")


def test_no_range_of_a_record_that_is_decoded(joe: httpx.Client, store: str) -> None:
    path = f"{store}/records/a"
    encoded = gzip.compress(TEXT)
    joe.put(path, content=encoded, headers={"Content-Encoding": "gzip"})
    decoded = joe.get(path, headers={"Range": "bytes=2-3", "Accept-Encoding": "identity"})
    assert (decoded.status_code, decoded.content) == (200, TEXT)
    headers = {"Range": "bytes=2-3", "Accept-Encoding": "gzip"}
    with joe.stream("GET", path, headers=headers) as answer:
        assert (answer.status_code, b"".join(answer.iter_raw())) == (206, encoded[2:4])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_unchanged_records_are_not_sent_again(joe: httpx.Client, store: str, method: str) -> None:
    path = f"{store}/records/a"
    etag = joe.put(path, content=b"1").headers["etag"]
    modified = joe.head(path).headers["last-modified"]
    earlier = format_datetime(parsedate_to_datetime(modified) - timedelta(seconds=1), usegmt=True)

    def status(**headers: str) -> int:
        return joe.request(
            method, path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        ).status_code

    for condition in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        answer = joe.request(method, path, headers={"If-None-Match": condition})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert status(if_none_match='"x"') == 200
    assert status(if_modified_since=modified) == 304
    assert status(if_modified_since=earlier) == 200
    assert status(if_modified_since="nonsense") == 200
    assert status(if_none_match='"x"', if_modified_since=modified) == 200
    joe.put(path, content=b"2")
    assert status(if_none_match=etag) == 200


def test_last_modified_is_now(joe: httpx.Client, store: str) -> None:
    joe.put(f"{store}/records/a", content=b"1")
    modified = parsedate_to_datetime(joe.head(f"{store}/records/a").headers["last-modified"])
    assert timedelta(0) <= datetime.now(UTC) - modified < timedelta(minutes=5)


def test_attachment(joe: httpx.Client, store: str) -> None:
    path = f"{store}/records/it's(1).html"
    joe.put(path, content=b"<b>", headers={"Content-Type": "text/html; charset=utf-8"})
    answer = joe.get(path, params={"attachment": "true"})
    assert answer.content == b"<b>"
    assert answer.headers["content-disposition"] == 'attachment; filename="it\'s(1).html"'
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "content-disposition" not in joe.get(path).headers


def test_delete(joe: httpx.Client, store: str) -> None:
    path = f"{store}/records/a"
    joe.put(path, content=b"1")
    assert [joe.delete(path).status_code for _ in range(2)] == [204, 204]
    answer = joe.get(path)
    assert (answer.status_code, error_type(answer)) == (404, "record-not-found")
    head = joe.head(path)
    assert (head.status_code, head.content) == (404, b"")


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("a%2Fb", "'/'"),
        ("a/b", "'/'"),
        ("a~b", "'~'"),
        ("a%20b", "' '"),
        ("%C3%A9", "'é'"),
        ("a" * 257, "257"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
def test_invalid_keys_are_named(joe: httpx.Client, store: str, method: str, key: str, named: str) -> None:
    answer = joe.request(method, f"{store}/records/{key}")
    assert (answer.status_code, error_type(answer)) == (400, "invalid-record-key")
    assert named in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "content_type", ["text", "/", "text/", "a b/c", "text/plain; charset", "text/plain, a/b"]
)
def test_invalid_content_types(joe: httpx.Client, store: str, content_type: str) -> None:
    answer = joe.put(f"{store}/records/a", content=b"", headers={"Content-Type": content_type})
    assert (answer.status_code, error_type(answer)) == (400, "invalid-content-type-header")


@pytest.mark.parametrize(
    ("content_type", "encoding", "status", "expected"),
    [
        ("text/html", "gzip", 400, "content-encoding-forbidden-for-html"),
        ("Text/HTML; charset=utf-8", "br", 400, "content-encoding-forbidden-for-html"),
        ("text/plain", "bla", 415, "unsupported-content-encoding"),
        ("text/plain", "gzip, br", 415, "unsupported-content-encoding"),
    ],
)
def test_refused_encodings(
    joe: httpx.Client, store: str, content_type: str, encoding: str, status: int, expected: str
) -> None:
    headers = {"Content-Type": content_type, "Content-Encoding": encoding}
    answer = joe.put(f"{store}/records/a", content=b"x", headers=headers)
    assert (answer.status_code, error_type(answer)) == (status, expected)
    assert joe.head(f"{store}/records/a").status_code == 404
