"""Signatures against vectors computed apart from the code, and the properties that make them signatures."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsfs.signatures import new_signing_key, sign_record, sign_storage, verify_record, verify_storage

NOW = 1_700_000_000_000  # ms
keys = st.text(alphabet="abzAZ019!-_.'()", min_size=1, max_size=256)
secrets = st.text(alphabet=st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=40)
expiries = st.integers(min_value=NOW + 1, max_value=NOW * 2)


def digest_number(secret: str, message: str) -> int:
    """Compute what a signature must spell, straight from the standard library."""
    return int(hmac.new(secret.encode(), message.encode(), hashlib.sha256).hexdigest()[:30], 16)


def base62_value(text: str) -> int:
    value = 0
    for character in text:
        value = value * 62 + "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ".index(character)
    return value


# Made with openssl and bc, not with this code: printf KEY | openssl dgst -sha256 -hmac SECRET, the first 30
# digits through bc with obase=62.
VECTORS = [
    ("secret_key", "test_message", "RpSDhXyBbIwDgmsJ0NnS"),
    ("my-secret", "OUTPUT", "LPvBMtNDkGg94vdJEeZd"),
    ("k", "a!b-_.'()", "HfSYG5sxmuPCYNnXhU7o"),
    ("S3cretKey", "0.0.WkzbQMuFYuamGv3YF", "1uPtmGBM3wCa97qfXKiC3"),
]


@pytest.mark.parametrize(("secret", "message", "signature"), VECTORS)
def test_known_record_signatures(secret: str, message: str, signature: str) -> None:
    assert sign_record(secret, message) == signature
    assert verify_record(secret, message, signature)


@given(secrets, keys)
def test_record_signature_spells_the_truncated_digest(secret: str, key: str) -> None:
    signature = sign_record(secret, key)
    assert base62_value(signature) == digest_number(secret, key)
    assert len(signature) == 1 or signature[0] != "0"


@given(secrets, st.none() | expiries)
def test_storage_signature_is_version_expiry_and_proof(secret: str, expires: int | None) -> None:
    signature = sign_storage(secret, "store-1", expires)
    payload = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)).decode()
    version, spelled_expiry, proof = payload.split(".")
    assert (version, spelled_expiry) == ("0", str(expires or 0))
    assert base62_value(proof) == digest_number(secret, f"0.{expires or 0}.store-1")
    assert "=" not in signature


@given(secrets, keys, keys, st.text(max_size=30))
def test_record_signature_is_for_one_key(secret: str, key: str, other: str, noise: str) -> None:
    signature = sign_record(secret, key)
    assert verify_record(secret, key, signature)
    assert verify_record(secret, other, signature) == (other == key)
    assert not verify_record(secret + "x", key, signature)
    assert verify_record(secret, key, noise) == (noise == signature)


@given(secrets, expiries, st.data())
def test_any_changed_character_spoils_a_storage_signature(
    secret: str, expires: int, data: st.DataObject
) -> None:
    signature = sign_storage(secret, "store-1", expires)
    position = data.draw(st.integers(0, len(signature) - 1))
    replacement = data.draw(st.characters().filter(lambda c: c not in (signature[position], "=")))
    tampered = signature[:position] + replacement + signature[position + 1 :]
    assert verify_storage(secret, "store-1", signature, NOW)
    assert not verify_storage(secret, "store-1", tampered, NOW)
    assert not verify_storage(secret, "store-2", signature, NOW)
    assert not verify_storage(secret + "x", "store-1", signature, NOW)


@given(secrets, expiries)
def test_expiry_is_the_first_moment_refused(secret: str, expires: int) -> None:
    signature = sign_storage(secret, "store-1", expires)
    assert verify_storage(secret, "store-1", signature, expires - 1)
    assert not verify_storage(secret, "store-1", signature, expires)


def test_an_expiry_cannot_be_moved_or_removed() -> None:
    signature = sign_storage("secret", "store-1", NOW + 1000)
    payload = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)).decode()
    for forged_expiry in ("0", str(NOW + 10**9), "00", f" {NOW + 1000}", "1_700_000_001_000"):
        forged = payload.replace(str(NOW + 1000), forged_expiry)
        encoded = base64.urlsafe_b64encode(forged.encode()).decode()
        assert not verify_storage("secret", "store-1", encoded, NOW)


def test_without_expiry_it_never_ends_and_padding_does_not_matter() -> None:
    for store in ("s", "st", "sto", "stor"):
        signature = sign_storage("secret", store, None)
        padded = signature + "=" * (-len(signature) % 4)
        assert verify_storage("secret", store, signature, 10**15)
        assert verify_storage("secret", store, padded, 10**15)


@given(st.text(max_size=60))
def test_garbage_is_refused_not_raised(noise: str) -> None:
    assert not verify_storage("secret", "store-1", noise, NOW)


@pytest.mark.parametrize(
    "noise", ["", ".", "..", "MC4w", base64.b64encode(b"0." + b"9" * 5000 + b".x").decode(), "\ud800", "é"]
)
def test_awkward_garbage_is_refused(noise: str) -> None:
    assert not verify_storage("secret", "store-1", noise, NOW)
    assert not verify_record("secret", "key", noise)


def test_new_keys_differ_and_are_printable() -> None:
    made = {new_signing_key() for _ in range(100)}
    assert len(made) == 100
    assert all(len(key) == 32 and key.isascii() for key in made)
