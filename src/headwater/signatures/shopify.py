"""Shopify's signature (https://shopify.dev/docs/apps/build/webhooks/subscribe/https): `X-Shopify-Hmac-Sha256`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from headwater.errors import SignatureError
from headwater.signature import SignedRequest, Verified
from headwater.signatures import identity, proof


class ShopifyHmac:
    """HMAC-SHA256 in base64 over the body, by the app's client secret.

    Shopify signs no timestamp and no delivery id. Its newer event subscriptions send the same headers without `X-`.
    """

    name = "shopify_hmac"
    headers = frozenset({"x-shopify-hmac-sha256", "shopify-hmac-sha256"})
    event_header = "X-Shopify-Topic"

    def verify(self, request: SignedRequest, secrets: Sequence[str], options: Mapping[str, Any]) -> Verified:
        """See `Scheme`."""
        keys = proof.text_keys(secrets)
        classic = request.header("X-Shopify-Hmac-Sha256")
        newer = request.header("Shopify-Hmac-Sha256")
        if classic and newer:
            raise SignatureError("The request carries both X-Shopify-Hmac-Sha256 and Shopify-Hmac-Sha256.")
        given = classic or newer
        if not given:
            raise SignatureError("The header X-Shopify-Hmac-Sha256 is missing.")
        proof.prove([given], keys, (request.body,), proof.base64_digest)
        prefix = "X-Shopify" if classic else "Shopify"
        return Verified(
            provider_id=identity.from_header(request, f"{prefix}-Webhook-Id"),
            event_type=identity.from_header(request, f"{prefix}-Topic"),
        )

    def sign(
        self, body: bytes, secret: str, *, at: datetime, provider_id: str, options: Mapping[str, Any]
    ) -> dict[str, str]:
        """See `Scheme`."""
        signature = proof.digest_of(secret.encode(), (body,), proof.base64_digest).decode()
        return {"X-Shopify-Hmac-Sha256": signature, "X-Shopify-Webhook-Id": provider_id}

    def problems(self, options: Mapping[str, Any]) -> Sequence[str]:
        """What is wrong with the options of a manifest, one sentence each."""
        return proof.option_problems(options, ())
