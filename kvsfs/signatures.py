"""Signatures that let a URL read a record or a listing without a token.

The scheme is that of Apify's official clients, so that URLs signed here are accepted there and the other way
round. A record's signature never expires and binds the key alone; a storage's signature binds the store and
an expiry, and travels with both in the open:

    record    base62(the first 30 hex digits of HMAC-SHA256(secret, key))
    storage   base64url("0.{expires}.{record signature of '0.{expires}.{store id}'}")

Nothing here does I/O or reads a clock. A signature is a secret: never logged.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import string

_BASE62 = string.digits + string.ascii_letters
_HEX_DIGITS = 30  # 120 bits of the digest: what the platform keeps, to keep URLs short
_KEY_BYTES = 24  # 192 bits, more than the 120 bits that a signature holds
_VERSION = "0"
_NEVER = 0  # milliseconds since the epoch, by the scheme: no expiry


def new_signing_key() -> str:
    """Make the secret of a new store: random, printable."""
    return secrets.token_urlsafe(_KEY_BYTES)


def sign_record(secret: str, key: str) -> str:
    """Sign a record's key."""
    digest = hmac.new(secret.encode(), key.encode(), hashlib.sha256).hexdigest()
    return _base62(int(digest[:_HEX_DIGITS], 16))


def sign_storage(secret: str, store_id: str, expires_at_ms: int | None) -> str:
    """Sign access to a store's keys until `expires_at_ms` (milliseconds since the epoch), or for ever."""
    expires = _NEVER if expires_at_ms is None else expires_at_ms
    proof = sign_record(secret, f"{_VERSION}.{expires}.{store_id}")
    payload = f"{_VERSION}.{expires}.{proof}".encode()
    # The Python client pads, the JavaScript client does not: "=" would have to be escaped in a query.
    return base64.urlsafe_b64encode(payload).decode().rstrip("=")


def verify_record(secret: str, key: str, signature: str) -> bool:
    """Tell whether `signature` is that of `key`, in constant time."""
    return _equal(sign_record(secret, key), signature)


def verify_storage(secret: str, store_id: str, signature: str, now_ms: int) -> bool:
    """Tell whether `signature` opens the store at `now_ms` (milliseconds since the epoch).

    Anything at all may be given as the signature: what is not one is refused.
    """
    bare = signature.rstrip("=")
    expires = storage_expiry(bare)
    if expires is None:
        return False
    genuine = _equal(sign_storage(secret, store_id, expires), bare)
    return genuine and (expires == _NEVER or now_ms < expires)


def storage_expiry(signature: str) -> int | None:
    """Read until when a storage's signature is meant to open it: milliseconds since the epoch, 0 for ever.

    None for what is no such signature. Whether it is genuine only the store can tell.
    """
    unpadded = signature.rstrip("=")
    try:
        payload = base64.b64decode(unpadded + "=" * (-len(unpadded) % 4), altchars=b"-_", validate=True)
        _version, expires, _proof = payload.decode().split(".")
        return int(expires)
    except (ValueError, binascii.Error):
        return None


def _equal(expected: str, given: str) -> bool:
    # compare_digest refuses non-ASCII text, and a query string may hold any.
    return hmac.compare_digest(expected.encode(), given.encode(errors="replace"))


def _base62(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, len(_BASE62))
        digits = _BASE62[digit] + digits
    return digits or _BASE62[0]
