"""From a URL to a bucket that works: credentials, options, and a look at it before the server answers anybody."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import obstore
from obstore import exceptions
from obstore.store import from_url

from kvsfs.errors import CommandError, ExitCode
from kvsfs.server.bucket.objects import (
    REQUEST_SECONDS,
    RETRIES,
    RETRY_SECONDS,
    BucketUnavailable,
    reason,
    translated,
)

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

SCHEMES = ("s3", "gs", "az", "memory")

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT")

CONNECT_SECONDS = 5

CLIENT_OPTIONS = (
    "timeout",
    "connect_timeout",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_url",
    "user_agent",
)
"""What `--records-option` may say of connections, whatever the object store: obstore takes them apart from its own
options, and panics where they stand among them (0.12)."""

PROBES = "probes"

HINTS = {
    "NoSuchBucket": (ExitCode.USAGE, "there is no such bucket: make it, or see the endpoint"),
    "AccessDenied": (ExitCode.NO_PERMISSION, "these credentials may not read, write, list and delete there"),
    "InvalidAccessKeyId": (ExitCode.NO_PERMISSION, "the access key is not known there"),
    "SignatureDoesNotMatch": (ExitCode.NO_PERMISSION, "the secret key is not that of the access key"),
    "PermanentRedirect": (ExitCode.USAGE, "the bucket is in another region: set AWS_REGION"),
    "AuthorizationHeaderMalformed": (ExitCode.USAGE, "the bucket is in another region: set AWS_REGION"),
}


def open_bucket(url: str, options: Mapping[str, str]) -> ObjectStore:
    """Open what a URL names, and try it: written once, it must not be written again. Raises CommandError.

    Credentials are the environment's (`AWS_*`, `GOOGLE_*`, `AZURE_*`); `options` are obstore's own. Blocks.
    """
    store = _made(url, options)
    _try(store, url)
    return store


def _made(url: str, options: Mapping[str, str]) -> ObjectStore:
    scheme = urlsplit(url).scheme
    if scheme not in SCHEMES:
        raise CommandError(
            ExitCode.USAGE,
            f"--records {url}: say s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER",
        )
    told = {key: value for key, value in options.items() if key in CLIENT_OPTIONS}
    client = cast(
        "ClientConfig",
        {
            "timeout": timedelta(seconds=REQUEST_SECONDS),
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "allow_http": _is_plain(options),
            **told,
        },
    )
    retry: RetryConfig = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)}
    try:
        if scheme == "memory":
            return from_url(url)
        opened: ObjectStore = from_url(  # type: ignore[call-overload] # one overload for each scheme
            url,
            config={key: value for key, value in options.items() if key not in told},
            client_options=client,
            retry_config=retry,
        )
    except exceptions.UnknownConfigurationKeyError as error:
        raise CommandError(ExitCode.USAGE, f"--records-option: {_first_line(error)}") from None
    except (exceptions.BaseError, ValueError) as error:
        raise CommandError(ExitCode.USAGE, f"--records {url}: {reason(error)}") from None
    return opened


def _is_plain(options: Mapping[str, str]) -> bool:
    """Whether the endpoint is plain HTTP: whoever writes such a URL means it."""
    given = [value for key, value in options.items() if "endpoint" in key.lower()]
    given += [os.environ[name] for name in ENDPOINTS if name in os.environ]
    return any(value.startswith("http://") for value in given)


def _try(store: ObjectStore, url: str) -> None:
    place = f"{PROBES}/{secrets.token_hex(8)}"
    try:
        with translated():
            obstore.put(store, place, b"", mode="create", use_multipart=False)
        try:
            with translated():
                obstore.put(store, place, b"", mode="create", use_multipart=False)
        except exceptions.AlreadyExistsError:
            return
        finally:
            with translated():
                obstore.delete(store, place)
    except BucketUnavailable as error:
        code, why = HINTS.get(error.code or "", (ExitCode.UNREACHABLE, str(error)))
        raise CommandError(code, f"--records {url} cannot be used: {why}") from None
    raise CommandError(
        ExitCode.CACHE_UNUSABLE,
        f"--records {url} cannot be used: it writes over what is there although told not to",
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
