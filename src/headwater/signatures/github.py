"""GitHub's signature
(https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries): `X-Hub-Signature-256: sha256=…`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from headwater.errors import SignatureError
from headwater.signature import SignedRequest, Verified
from headwater.signatures import identity, proof

PREFIX = "sha256="
PONG = (200, "text/plain; charset=utf-8", b"pong")


class GitHubSignature:
    """HMAC-SHA256 in hexadecimal over the body; the older SHA-1 header proves nothing here.

    GitHub signs no timestamp and no delivery id, and gives a redelivery the id of the first.
    """

    name = "github_signature"
    headers = frozenset({"x-hub-signature-256", "x-hub-signature"})
    event_header = "X-GitHub-Event"

    def verify(self, request: SignedRequest, secrets: Sequence[str], options: Mapping[str, Any]) -> Verified:
        """See `Scheme`. A `ping`, sent when the webhook is made, is answered and not stored."""
        keys = proof.text_keys(secrets)
        given = proof.required(request, "X-Hub-Signature-256")
        if not given.startswith(PREFIX):
            raise SignatureError("The header X-Hub-Signature-256 has not the form `sha256=…`.")
        proof.prove([given.removeprefix(PREFIX)], keys, (request.body,), proof.hex_digest)
        event_type = identity.from_header(request, self.event_header)
        return Verified(
            provider_id=identity.from_header(request, "X-GitHub-Delivery"),
            event_type=event_type,
            reply=PONG if event_type == "ping" else None,
        )

    def sign(
        self, body: bytes, secret: str, *, at: datetime, provider_id: str, options: Mapping[str, Any]
    ) -> dict[str, str]:
        """See `Scheme`."""
        signature = proof.digest_of(secret.encode(), (body,), proof.hex_digest).decode()
        return {"X-Hub-Signature-256": PREFIX + signature, "X-GitHub-Delivery": provider_id}

    def problems(self, options: Mapping[str, Any]) -> Sequence[str]:
        """What is wrong with the options of a manifest, one sentence each."""
        return proof.option_problems(options, ())
