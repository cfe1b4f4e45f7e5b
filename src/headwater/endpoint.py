"""The inbound URL of a connection: found by its unguessable last segment, with all that judges a delivery to it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from headwater.catalog import Webhooks
from headwater.clock import Clock, to_micros
from headwater.delivery import NewDelivery
from headwater.intention import StoredConnection
from headwater.jsonvalue import content_hash
from headwater.project import Project
from headwater.redaction import Redactor
from headwater.signature import Scheme, SchemeLookup, Verified
from headwater.signatures import registry

ENDPOINTS_CACHED = 10_000
ENDPOINT_SECONDS = 2.0  # a changed secret or a removed connection is noticed within this
SAMPLE_BODY_BYTES = 512
SAMPLE_HEADERS_MAX = 100
SAMPLE_HEADERS_CHARS = 4096
SAMPLE_VALUE_CHARS = 256

NOT_STORED = frozenset({"authorization", "cookie", "proxy-authorization"})

Headers = Sequence[tuple[bytes, bytes]]

_ENDPOINT_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Receiver(Protocol):
    """What an endpoint needs of a live connection."""

    @property
    def stored(self) -> StoredConnection:
        """The connection."""
        ...

    @property
    def project(self) -> Project:
        """Its connector."""
        ...

    @property
    def redactor(self) -> Redactor:
        """Knows its secrets."""
        ...

    def webhook_secrets(self) -> Sequence[str]:
        """The signing secrets valid now."""
        ...


class Receivers(Protocol):
    """Where live connections are found."""

    async def by_endpoint(self, endpoint_id: str) -> Receiver | None:
        """The connection whose URL ends so."""
        ...


def provider_id_of(verified: Verified, body: bytes) -> str:
    """What names a delivery within its connection: its id at the provider, or else the hash of its body."""
    return verified.provider_id or content_hash(body).hex()


class Endpoint:
    """An endpoint as it was when it was looked up."""

    __slots__ = (
        "_not_stored", "_redactor", "body_bytes_max", "connection", "expires", "options", "scheme", "secrets", "url",
    )  # fmt: skip

    def __init__(self, live: Receiver, webhooks: Webhooks, scheme: Scheme, *, url: str, expires: float) -> None:
        self.connection = live.stored
        self.scheme = scheme
        self.secrets = tuple(live.webhook_secrets())
        self.options: Mapping[str, Any] = webhooks.options
        self.body_bytes_max = webhooks.body_bytes_max
        self.url = url
        self.expires = expires
        self._redactor = live.redactor
        self._not_stored = NOT_STORED | registry.signature_headers(scheme, webhooks.options)

    def delivery(self, verified: Verified, headers: Headers, body: bytes, received_at: datetime) -> NewDelivery:
        """A verified request as it is stored: its headers without those that prove or unlock anything."""
        return NewDelivery(
            connection_id=self.connection.id,
            received_at=to_micros(received_at),
            provider_id=provider_id_of(verified, body),
            event_type=verified.event_type,
            headers=self._stored_headers(headers),
            body=body,
        )

    def sample(self, headers: Headers, body: bytes) -> str:
        """Enough of a refused request to see what is wrong with it; nothing that proves or unlocks anything."""
        shown: dict[str, str] = {}
        for raw_name, raw_value in headers[:SAMPLE_HEADERS_MAX]:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            hidden = name in self._not_stored
            shown[name] = f"({len(value)} characters, not kept)" if hidden else value[:SAMPLE_VALUE_CHARS]
        lines = [f"{name}: {value}" for name, value in self._redactor.headers(shown).items()]
        text = self._redactor.text(body[:SAMPLE_BODY_BYTES].decode("utf-8", errors="backslashreplace"))
        more = f"\n({len(body) - SAMPLE_BODY_BYTES} bytes more)" if len(body) > SAMPLE_BODY_BYTES else ""
        return "\n".join(lines)[:SAMPLE_HEADERS_CHARS] + "\n\n" + text + more

    def _stored_headers(self, headers: Headers) -> bytes:
        kept: dict[str, str] = {}
        for raw_name, raw_value in headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            if name in self._not_stored:
                continue
            kept[name] = f"{kept[name]}, {value}" if name in kept else value
        return msgspec.json.encode(kept)


class Endpoints:
    """Finds endpoints by the path of a request, and remembers them for a moment."""

    def __init__(
        self, connections: Receivers, clock: Clock, *, public_url: str, scheme: SchemeLookup = registry.scheme
    ) -> None:
        self._connections = connections
        self._clock = clock
        self._public_url = public_url.rstrip("/")
        self._scheme = scheme
        self._known: dict[str, Endpoint] = {}

    def forget(self) -> None:
        """Look every endpoint up anew."""
        self._known.clear()

    def known(self, path: str, now: float) -> Endpoint | None:
        """The endpoint of a path that was looked up a moment ago."""
        endpoint = self._known.get(path)
        return endpoint if endpoint is not None and now < endpoint.expires else None

    async def look_up(self, path: str, *, root_path: str = "") -> Endpoint | None:
        """The endpoint of a path; None for everything that is not one, whatever the reason."""
        self._known.pop(path, None)
        endpoint_id = path.rpartition("/")[2]
        if _ENDPOINT_ID.fullmatch(endpoint_id) is None:
            return None
        live = await self._connections.by_endpoint(endpoint_id)
        webhooks = live.project.connector.webhooks if live else None
        if live is None or webhooks is None:
            return None
        expected = f"{webhooks.endpoint.rstrip('/')}/{endpoint_id}"
        if path not in (expected, root_path + expected):
            return None
        scheme = self._scheme(webhooks.auth)
        if scheme is None:
            raise LookupError(f"There is no signature scheme `{webhooks.auth}`.")
        expires = self._clock.monotonic() + ENDPOINT_SECONDS
        endpoint = Endpoint(live, webhooks, scheme, url=self._public_url + expected, expires=expires)
        if len(self._known) >= ENDPOINTS_CACHED:
            self._known.clear()
        self._known[path] = endpoint
        return endpoint
