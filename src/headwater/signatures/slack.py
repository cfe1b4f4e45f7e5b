"""Slack's signature
(https://docs.slack.dev/authentication/verifying-requests-from-slack): `X-Slack-Signature: v0=…`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from headwater.errors import SignatureError
from headwater.signature import SignedRequest, Verified
from headwater.signatures import identity, proof

PREFIX = "v0="


class _Inner(msgspec.Struct):
    type: str | None = None


class _Event(msgspec.Struct):
    type: str | None = None
    event_id: str | None = None
    challenge: str | None = None
    event: _Inner | None = None


_decoder = msgspec.json.Decoder(_Event)


class SlackSignature:
    """HMAC-SHA256 in hexadecimal over `v0:{timestamp}:{body}`.

    Interactive requests are forms, not JSON: they have no event id, and their body's hash serves.
    """

    name = "slack_signature"
    headers = frozenset({"x-slack-signature"})

    def verify(self, request: SignedRequest, secrets: Sequence[str], options: Mapping[str, Any]) -> Verified:
        """See `Scheme`. The `url_verification` handshake is answered with its challenge, once it is proved."""
        keys = proof.text_keys(secrets)
        timestamp = proof.required(request, "X-Slack-Request-Timestamp")
        given = proof.required(request, "X-Slack-Signature")
        proof.check_timestamp(timestamp, request.received_at, proof.tolerance(options))
        if not given.startswith(PREFIX):
            raise SignatureError("The header X-Slack-Signature has not the form `v0=…`.")
        parts = (b"v0:", timestamp.encode(), b":", request.body)
        proof.prove([given.removeprefix(PREFIX)], keys, parts, proof.hex_digest)
        return _named(request.body)

    def sign(
        self, body: bytes, secret: str, *, at: datetime, provider_id: str, options: Mapping[str, Any]
    ) -> dict[str, str]:
        """See `Scheme`. The provider's id is in the body, as `event_id`."""
        timestamp = str(int(at.timestamp()))
        parts = (b"v0:", timestamp.encode(), b":", body)
        signature = proof.digest_of(secret.encode(), parts, proof.hex_digest).decode()
        return {"X-Slack-Request-Timestamp": timestamp, "X-Slack-Signature": PREFIX + signature}

    def problems(self, options: Mapping[str, Any]) -> Sequence[str]:
        """What is wrong with the options of a manifest, one sentence each."""
        return proof.option_problems(options, ("tolerance_seconds",))


def _named(body: bytes) -> Verified:
    event = identity.read(_decoder, body) or _Event()
    challenge = identity.usable(event.challenge)
    if event.type == "url_verification" and challenge:
        reply = (200, "text/plain; charset=utf-8", challenge.encode())
        return Verified(provider_id=None, event_type=event.type, reply=reply)
    inner = event.event.type if event.event else None
    return Verified(
        provider_id=identity.usable(event.event_id),
        event_type=identity.usable(inner) or identity.usable(event.type),
    )
