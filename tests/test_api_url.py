"""What can be an API's address, and that a refusal does not repeat it."""

from __future__ import annotations

import traceback

import pytest

from kvsfs.config import API_URL, check_api_url


@pytest.mark.parametrize(
    "url",
    [
        API_URL,
        "http://127.0.0.1:8765",
        "HTTPS://Api.Example.COM/",
        "http://[::1]:80",
        "http://localhost",
        "https://proxy.example/apify/v2-old/~me",
        "http://my_host:65535",
    ],
)
def test_addresses(url: str) -> None:
    check_api_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3cret",
        "s3cret.example",
        "ftp://s3cret.example",
        "https://",
        "https:///s3cret",
        "https://:80/s3cret",
        "https://me:s3cret@host",
        "https://s3cret@host",
        "https://me:s3cret@[::1",
        "https:me:s3cret@host",
        "https:\\\\me:s3cret@host",
        "https://host/me:s3cret@host",
        "https://host?token=s3cret",
        "https://host#s3cret",
        "https://host:s3cret",
        "https://host:65536/s3cret",
        "https://host:0/s3cret",
        "https://[::s3cret]",
        "https://ho st/s3cret",
        "https://host/s3cret\n",
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match="--api-url") as caught:
        check_api_url(url)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
