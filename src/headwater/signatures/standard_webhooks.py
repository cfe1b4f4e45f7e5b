"""Standard Webhooks 1.0.0 (https://www.standardwebhooks.com): `webhook-id`, `webhook-timestamp`, `webhook-signature`.

A `whsec_…` secret is a shared HMAC key (`v1`); `whpk_…` is the provider's public Ed25519 key (`v1a`). A connection may
hold both kinds while its provider moves from one to the other.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.errors import SettingsError, SignatureError
from headwater.signature import SignedRequest, Verified
from headwater.signatures import identity, proof

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

HEADER_PREFIXES = ("webhook", "svix")
ED25519_KEY_BYTES = 32
ED25519_SIGNATURE_BYTES = 64

_SHARED, _PUBLIC, _PRIVATE = "whsec_", "whpk_", "whsk_"


class _Event(msgspec.Struct):
    type: str | None = None


_decoder = msgspec.json.Decoder(_Event)


class StandardWebhooks:
    """HMAC-SHA256 (`v1`) or Ed25519 (`v1a`) in base64 over `{id}.{timestamp}.{body}`.

    The option `header_prefix` names the headers' first word: `webhook`, or `svix` for senders of before the standard.
    """

    name = "standard_webhooks"
    headers = frozenset({"webhook-signature", "svix-signature"})

    def verify(self, request: SignedRequest, secrets: Sequence[str], options: Mapping[str, Any]) -> Verified:
        """See `Scheme`."""
        prefix = _header_prefix(options)
        delivery_id = proof.required(request, f"{prefix}-id")
        timestamp = proof.required(request, f"{prefix}-timestamp")
        shared, public = _keys(secrets)
        proof.check_timestamp(timestamp, request.received_at, proof.tolerance(options))
        # With a dot in the id, bytes could move between id, timestamp and body under one signature.
        if "." in delivery_id or identity.usable(delivery_id) is None:
            raise SignatureError(f"The header {prefix}-id is not usable as an id.")
        by_version = _read(proof.required(request, f"{prefix}-signature"))
        parts = (delivery_id.encode(), b".", timestamp.encode(), b".", request.body)
        proved = proof.is_proved(by_version["v1"], shared, parts, proof.base64_digest)
        proved |= _is_proved_by_public_key(by_version["v1a"], public, parts)
        if not proved:
            raise SignatureError("No signature matches a signing secret of this connection.")
        event = identity.read(_decoder, request.body) or _Event()
        return Verified(provider_id=delivery_id, event_type=identity.usable(event.type))

    def sign(
        self, body: bytes, secret: str, *, at: datetime, provider_id: str, options: Mapping[str, Any]
    ) -> dict[str, str]:
        """See `Scheme`. A `whsk_…` secret signs as `v1a`, any other as `v1`."""
        prefix = _header_prefix(options)
        timestamp = str(int(at.timestamp()))
        parts = (provider_id.encode(), b".", timestamp.encode(), b".", body)
        try:
            if secret.startswith(_PRIVATE):
                signed = _private_key(secret).sign(b"".join(parts))
                signature = "v1a," + base64.b64encode(signed).decode()
            else:
                signature = "v1," + proof.digest_of(_decoded(secret, _SHARED), parts, proof.base64_digest).decode()
        except ValueError as error:
            raise SettingsError(f"The signing secret is not usable: {error}.") from error
        return {f"{prefix}-id": provider_id, f"{prefix}-timestamp": timestamp, f"{prefix}-signature": signature}

    def problems(self, options: Mapping[str, Any]) -> Sequence[str]:
        """What is wrong with the options of a manifest, one sentence each."""
        problems = proof.option_problems(options, ("header_prefix", "tolerance_seconds"))
        if options.get("header_prefix", "webhook") not in HEADER_PREFIXES:
            problems.append(f"The option `header_prefix` must be one of {', '.join(HEADER_PREFIXES)}.")
        return problems


def _header_prefix(options: Mapping[str, Any]) -> str:
    prefix = options.get("header_prefix", "webhook")
    if prefix not in HEADER_PREFIXES:
        raise SignatureError("The option `header_prefix` of standard_webhooks is not usable.")
    return str(prefix)


def _read(header: str) -> dict[str, list[str]]:
    signatures: dict[str, list[str]] = {"v1": [], "v1a": []}
    for item in header.split(" "):
        version, comma, value = item.partition(",")
        if not comma or not value:
            raise SignatureError("The signature header has not the form `v1,…`.")
        if version in signatures:
            signatures[version].append(value)
    return signatures


def _keys(secrets: Sequence[str]) -> tuple[list[bytes], list[Ed25519PublicKey]]:
    shared: list[bytes] = []
    public: list[Ed25519PublicKey] = []
    for secret in secrets:
        try:
            if secret.startswith((_PUBLIC, _PRIVATE)):
                public.append(_public_key(secret))
            else:
                shared.append(_decoded(secret, _SHARED))
        except ValueError:
            continue  # a secret that is no key proves nothing; another one may
    if not shared and not public:
        raise SignatureError(
            "This connection has no usable signing secret.", hint="It is `whsec_` or `whpk_` and base64."
        )
    return shared, public


def _is_proved_by_public_key(given: Sequence[str], keys: Sequence[Ed25519PublicKey], parts: Sequence[bytes]) -> bool:
    if not given or not keys:
        return False
    from cryptography.exceptions import InvalidSignature

    if len(given) > proof.SIGNATURES_MAX:
        raise SignatureError("The request carries too many signatures.")
    message = b"".join(parts)
    proved = False
    for text in given:
        try:
            signature = _strict_base64(text)
        except ValueError:
            continue
        for key in keys:
            try:
                key.verify(signature, message)
                proved = True
            except InvalidSignature:
                continue
    return proved


def _strict_base64(text: str) -> bytes:
    decoded = base64.b64decode(text, validate=True)
    if base64.b64encode(decoded).decode() != text:
        raise ValueError("base64 with stray bits")
    return decoded


@lru_cache(maxsize=proof.KEYS_CACHED)
def _decoded(secret: str, prefix: str) -> bytes:
    text = secret.strip().removeprefix(prefix).rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError("it is not base64") from error
    if not key:
        raise ValueError("it is empty")
    return key


@lru_cache(maxsize=proof.KEYS_CACHED)
def _public_key(secret: str) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if secret.startswith(_PRIVATE):
        return _private_key(secret).public_key()
    return Ed25519PublicKey.from_public_bytes(_decoded(secret, _PUBLIC))


def _private_key(secret: str) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    seed = _decoded(secret, _PRIVATE)
    if len(seed) not in (ED25519_KEY_BYTES, 2 * ED25519_KEY_BYTES):
        raise ValueError("an Ed25519 key has 32 bytes")
    return Ed25519PrivateKey.from_private_bytes(seed[:ED25519_KEY_BYTES])  # the second half repeats the public key
