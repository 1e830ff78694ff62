"""What went wrong, in the words of `errors.py`: from HTTP statuses and from httpcore's exceptions."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpcore

from kvsfs import errors
from kvsfs.errors import StoreError
from kvsfs.store.retry import Transient

LONGEST_MESSAGE = 200
"""Characters of the API's own words that are repeated: a line for people, not a page."""

_BY_STATUS: Mapping[int, type[StoreError]] = {
    401: errors.NotAuthorized,
    402: errors.QuotaExceeded,
    403: errors.PermissionDenied,
    408: errors.StoreUnreachable,
    413: errors.RecordTooLarge,
    429: errors.RateLimited,
}

_HEALING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
"""408 is about the time that a request took: that of a laptop which was asleep amid an upload or, by some proxies, what
stands on a connection that was idle (RFC 9110, 15.5.9). As a refusal it would keep the record from ever being sent."""

_HINTS: Mapping[type[StoreError], str] = {
    errors.NotAuthorized: "check the token",
    errors.QuotaExceeded: "the account's plan allows no more",
    errors.PermissionDenied: "the token may not do this",
    errors.RateLimited: "too many requests, also after waiting",
    errors.RecordTooLarge: "larger than the API allows",
}

# Most special first. The text stands behind "SUBJECT: "; httpcore's own is only kept as the cause.
_BY_EXCEPTION: tuple[tuple[type[Exception], type[StoreError], str], ...] = (
    (httpcore.ConnectTimeout, errors.StoreTimeout, "no connection to the API in time"),
    (httpcore.TimeoutException, errors.StoreTimeout, "the API stopped answering"),
    (httpcore.ConnectError, errors.StoreUnreachable, "the API cannot be reached"),
    (httpcore.NetworkError, errors.StoreUnreachable, "the connection to the API was lost"),
    (httpcore.ProxyError, errors.StoreUnreachable, "the proxy refuses the connection"),
    (httpcore.RemoteProtocolError, errors.StoreUnreachable, "the API's answer broke off"),
    (httpcore.ProtocolError, errors.ProtocolViolation, "the exchange with the API failed"),
)

TRANSPORT_ERRORS = tuple(kind for kind, _, _ in _BY_EXCEPTION)
"""What an exchange raises, that is not answered."""


# By OpenSSL's codes (X509_V_ERR_*, x509_vfy.h); the text stands behind "the API's TLS certificate".
_CERTIFICATE_FAULTS: Mapping[int, str] = {
    9: "is not valid yet: is this machine's clock right?",
    10: "has expired",
    18: "is signed by itself: to trust it, name its file in SSL_CERT_FILE",
    19: "comes from an authority that is not trusted here: to trust it, name its file in SSL_CERT_FILE",
    20: "comes from an authority that is not trusted here: to trust it, name its file in SSL_CERT_FILE",
    62: "is another host's: check the API's URL",
    64: "is another host's: check the API's URL",
}


def from_exception(error: Exception, subject: str) -> StoreError:
    """Translate one of `TRANSPORT_ERRORS`, raised while `subject` was asked for."""
    if (failure := _certificate_failure(error)) is not None:
        words = _CERTIFICATE_FAULTS.get(failure.verify_code, "cannot be verified")
        return errors.StoreUnreachable(f"{subject}: the API's TLS certificate {words}")
    for kind, translated, text in _BY_EXCEPTION:
        if isinstance(error, kind):
            return translated(f"{subject}: {text}")
    raise AssertionError(type(error))


def is_transient(error: StoreError, cause: Exception) -> bool:
    """Whether another attempt may do better."""
    return isinstance(error, errors.StoreUnreachable) and _certificate_failure(cause) is None


def from_status(
    status: int,
    *,
    subject: str,
    error_type: str | None,
    message: str | None,
    missing: type[StoreError],
) -> StoreError:
    """Translate a status that is not a success; `missing` is what 404 means for this call."""
    kind = _kind(status, missing)
    words = _one_line(message) if message else _phrase(status)
    hint = f"; {_HINTS[kind]}" if kind in _HINTS else ""
    return kind(f"{subject}: {words} ({status}{hint})", status=status, error_type=error_type)


def as_attempt(error: StoreError, headers: Mapping[str, str]) -> StoreError | Transient:
    """Wrap an answered error that another attempt may heal: 408, 429 and 5xx."""
    if error.status in _HEALING or (error.status or 0) >= 500:
        return Transient(error, parse_retry_after(headers.get("retry-after")))
    return error


def parse_retry_after(value: str | None) -> float | None:
    """Seconds to wait, from seconds or a date (RFC 9110, 10.2.3); None when it is neither."""
    if value is None:
        return None
    if re.fullmatch(r"\d{1,9}", value.strip(), re.ASCII):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _kind(status: int, missing: type[StoreError]) -> type[StoreError]:
    if status == HTTPStatus.NOT_FOUND:
        return missing
    if status >= 500:
        return errors.StoreUnreachable
    if status >= 400:
        return _BY_STATUS.get(status, errors.RequestRefused)
    return errors.ProtocolViolation


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "an unknown status"


def _one_line(message: str) -> str:
    # A signature or a token in a quoted URL goes; so does what would break the line or the terminal.
    without_urls = re.sub(r"https?://\S+", "URL", message)
    printable = "".join(c if c.isprintable() else " " for c in without_urls)
    return " ".join(printable.split())[:LONGEST_MESSAGE]


def _certificate_failure(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error
