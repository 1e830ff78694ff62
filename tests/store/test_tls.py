"""TLS: whom the client trusts, and what it says of the others."""

from __future__ import annotations

import datetime as dt
import gc
import ssl
from pathlib import Path

import pytest
import trio
import trustme

from kvsfs import errors
from kvsfs.store.apify import ApifyStoreCollection
from kvsfs.store.retry import Deadlines
from tests.support.running import run_async

PAGE = b'{"data": {"items": [], "isTruncated": false}}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(PAGE) + PAGE
DAY = dt.timedelta(days=1)
HOST = "127.0.0.1"


async def answer(stream: trio.SSLStream[trio.SocketStream]) -> None:
    received = b""
    try:
        while b"\r\n\r\n" not in received:
            received += await stream.receive_some(65536)
        await stream.send_all(ANSWER)
        await stream.aclose()
    except trio.BrokenResourceError:
        pass  # the client did not trust us


def port_of(listener: trio.SSLListener[trio.SocketStream]) -> int:
    inner = listener.transport_listener
    assert isinstance(inner, trio.SocketListener)
    return int(inner.socket.getsockname()[1])


def list_keys(context: ssl.SSLContext) -> object:
    """Ask a server for its keys; the answer, or the error and what the calls after it raise."""

    async def main() -> object:
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_ssl_over_tcp_listeners(0, context, host=HOST)
            nursery.start_soon(trio.serve_listeners, answer, listeners)
            port = port_of(listeners[0])
            try:
                async with ApifyStoreCollection(
                    f"https://{HOST}:{port}", token="t", deadlines=Deadlines(2, 2, 3)
                ) as stores:
                    return await stores.store("s").list_keys()
            except errors.StoreError as error:
                return error
            finally:
                nursery.cancel_scope.cancel()

    found = run_async(main)
    gc.collect()
    return found


def serving(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


@pytest.mark.usefixtures("trusted")
def test_ssl_cert_file_is_trusted(authority: trustme.CA) -> None:
    found = list_keys(serving(authority.issue_cert(HOST)))
    assert not isinstance(found, errors.StoreError)


def message(context: ssl.SSLContext) -> str:
    found = list_keys(context)
    assert type(found) is errors.StoreUnreachable
    assert "\n" not in str(found)
    return str(found).removeprefix("store s: the API's TLS certificate ")


@pytest.mark.usefixtures("trusted")
def test_a_certificate_for_another_host(authority: trustme.CA) -> None:
    context = serving(authority.issue_cert("api.apify.com"))
    assert message(context) == "is another host's: check the API's URL"


@pytest.mark.usefixtures("trusted")
def test_a_certificate_that_has_expired(authority: trustme.CA) -> None:
    yesterday = dt.datetime.now(dt.UTC) - DAY
    assert message(serving(authority.issue_cert(HOST, not_after=yesterday))) == "has expired"


@pytest.mark.usefixtures("trusted")
def test_a_certificate_that_is_not_valid_yet(authority: trustme.CA) -> None:
    tomorrow = dt.datetime.now(dt.UTC) + DAY
    context = serving(authority.issue_cert(HOST, not_before=tomorrow, not_after=tomorrow + DAY))
    assert message(context) == "is not valid yet: is this machine's clock right?"


def test_an_authority_that_nobody_knows(authority: trustme.CA) -> None:
    assert message(serving(authority.issue_cert(HOST))) == (
        "comes from an authority that is not trusted here: to trust it, name its file in SSL_CERT_FILE"
    )


def test_a_certificate_signed_by_itself(authority: trustme.CA, tmp_path: Path) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    assert message(context).startswith("is signed by itself: ")


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_of_certificates_that_is_none(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(errors.StoreUnreachable, match="SSL_CERT_FILE"):
        ApifyStoreCollection(f"https://{HOST}")


def test_a_server_that_speaks_no_tls() -> None:
    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 mail.example.org ESMTP\r\n")
        await stream.aclose()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host=HOST)
            nursery.start_soon(trio.serve_listeners, greet, listeners)
            port = listeners[0].socket.getsockname()[1]
            async with ApifyStoreCollection(f"https://{HOST}:{port}", deadlines=Deadlines(1, 1, 1)) as stores:
                with pytest.raises(errors.StoreUnreachable, match=r"^store s: the API cannot be reached$"):
                    await stores.store("s").list_keys()
            nursery.cancel_scope.cancel()

    run_async(main)


@pytest.mark.usefixtures("trusted")
def test_a_bad_certificate_is_told_again_and_again(authority: trustme.CA) -> None:
    """It is no outage: who is told to wait a little would wait for ever."""

    async def main() -> set[str]:
        context = serving(authority.issue_cert("api.apify.com"))
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_ssl_over_tcp_listeners(0, context, host=HOST)
            nursery.start_soon(trio.serve_listeners, answer, listeners)
            port = port_of(listeners[0])
            told = set()
            async with ApifyStoreCollection(f"https://{HOST}:{port}") as stores:
                for _ in range(5):
                    with pytest.raises(errors.StoreUnreachable) as caught:
                        await stores.store("s").list_keys()
                    told.add(str(caught.value))
            nursery.cancel_scope.cancel()
            return told

    assert run_async(main) == {"store s: the API's TLS certificate is another host's: check the API's URL"}
