"""The contract of a webhook signature scheme: what proves a delivery, what names it, and its handshakes.

A scheme is pure: it reads the request's bytes and the secrets it is given, and asks for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from headwater.errors import SignatureError

TOLERANCE_SECONDS = 300


class SignedRequest(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A request as it came, before anything in it is believed."""

    method: str
    url: str  # the public URL as configured, never from the Host header
    headers: Sequence[tuple[bytes, bytes]]  # as received, names in lower case, doubles kept
    body: bytes
    received_at: datetime

    def header(self, name: str) -> str | None:
        """The one value of a header; `SignatureError` when it came twice or is not ASCII."""
        wanted = name.lower().encode()
        values = [value for key, value in self.headers if key == wanted]
        if len(values) > 1:
            raise SignatureError(f"The header {name} came {len(values)} times.")
        if not values:
            return None
        try:
            return values[0].decode("ascii")
        except UnicodeDecodeError as error:
            raise SignatureError(f"The header {name} is not ASCII.") from error


class Verified(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a scheme knows of a delivery once it is proved."""

    # The delivery's id at the provider; None: the body's hash serves. At most `identity.NAME_CHARS_MAX` characters, for
    # it is a key in the store's index.
    provider_id: str | None
    event_type: str | None = None
    reply: tuple[int, str, bytes] | None = None  # status, content type, body: a handshake, answered and not stored


class Scheme(Protocol):
    """One way of signing deliveries."""

    name: str  # as a manifest's `auth` names it
    headers: frozenset[str]  # lower-case names of headers that carry signatures: not stored

    def verify(self, request: SignedRequest, secrets: Sequence[str], options: Mapping[str, Any]) -> Verified:
        """Prove `request` with any one of `secrets`, in constant time for each.

        Raises `SignatureError` for anything else: no secret, a missing, doubled, malformed, wrong or stale signature.
        """
        ...

    def sign(
        self, body: bytes, secret: str, *, at: datetime, provider_id: str, options: Mapping[str, Any]
    ) -> dict[str, str]:
        """The headers that the provider would send with `body`: for tests, `trigger` and the demo."""
        ...


SchemeLookup = Callable[[str], Scheme | None]
