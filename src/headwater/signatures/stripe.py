"""Stripe's signature (https://docs.stripe.com/webhooks#verify-manually): `Stripe-Signature: t=…,v1=…[,v1=…]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from headwater.errors import SignatureError
from headwater.signature import SignedRequest, Verified
from headwater.signatures import identity, proof


class _Event(msgspec.Struct):
    id: str | None = None
    type: str | None = None


_decoder = msgspec.json.Decoder(_Event)


class StripeSignature:
    """HMAC-SHA256 in hexadecimal over `{t}.{body}`; the secret is the whole `whsec_…` text."""

    name = "stripe_signature"
    headers = frozenset({"stripe-signature"})

    def verify(self, request: SignedRequest, secrets: Sequence[str], options: Mapping[str, Any]) -> Verified:
        """See `Scheme`. Unlike Stripe's own library, a timestamp in the future is refused as well."""
        keys = proof.text_keys(secrets)
        timestamp, signatures = _read(proof.required(request, "Stripe-Signature"))
        proof.check_timestamp(timestamp, request.received_at, proof.tolerance(options))
        proof.prove(signatures, keys, (timestamp.encode(), b".", request.body), proof.hex_digest)
        event = identity.read(_decoder, request.body) or _Event()
        return Verified(provider_id=identity.usable(event.id), event_type=identity.usable(event.type))

    def sign(
        self, body: bytes, secret: str, *, at: datetime, provider_id: str, options: Mapping[str, Any]
    ) -> dict[str, str]:
        """See `Scheme`. The provider's id is in the body, as the event's `id`."""
        timestamp = str(int(at.timestamp()))
        parts = (timestamp.encode(), b".", body)
        signature = proof.digest_of(secret.encode(), parts, proof.hex_digest).decode()
        return {"Stripe-Signature": f"t={timestamp},v1={signature}"}

    def problems(self, options: Mapping[str, Any]) -> Sequence[str]:
        """What is wrong with the options of a manifest, one sentence each."""
        return proof.option_problems(options, ("tolerance_seconds",))


def _read(header: str) -> tuple[str, list[str]]:
    timestamps: list[str] = []
    signatures: list[str] = []
    for item in header.split(","):
        name, _, value = item.partition("=")
        if name == "t":
            timestamps.append(value)
        elif name == "v1":
            signatures.append(value)
    if len(timestamps) != 1 or not signatures:
        raise SignatureError("The header Stripe-Signature has not the form `t=…,v1=…`.")
    return timestamps[0], signatures
