"""Sending a connection a sample event, signed with its own secret, through its own endpoint."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import msgspec

from headwater import jsonvalue
from headwater.acts.act import NAME_CHARACTERS_MAX, Desk, Done, Place, Plan
from headwater.acts.connections import ConnectionAct
from headwater.delivery import Delivery, DeliveryFilter
from headwater.endpoint import provider_id_of
from headwater.errors import UsageError
from headwater.project import Project
from headwater.signature import SignedRequest
from headwater.signatures import registry
from headwater.signatures.sign import signed
from headwater.store import DeliveryStore

if TYPE_CHECKING:
    from headwater.invoke import LiveConnection

SAMPLES = ("tests", "payloads")  # where a project keeps its sample events, by event type
BODY_BYTES_MAX = 16 * 1024 * 1024
RECENT = 200  # deliveries looked at for event types to choose from

_encode = msgspec.json.Encoder(decimal_format="number").encode


class SendEvent(ConnectionAct, frozen=True, kw_only=True):
    """Send a connection an event as its provider would: signed with its secret, through its endpoint."""

    name: ClassVar[str] = "deliveries.send"
    title: ClassVar[str] = "Send a test event"
    inputs: ClassVar = ("event_type",)

    event_type: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=NAME_CHARACTERS_MAX,
            title="Event type",
            description="Of a sample that the connector brings along, else a bare event of this type.",
        ),
    ]

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        live = await desk.live(self.connection)
        body, words = sample_event(live.project, self.event_type, desk.clock.now())
        signed_event(live, self.event_type, body, at=desk.clock.now())
        return Plan(
            sentence=f"{self.connection} is sent `{self.event_type}`: {words}.",
            consequences=("It is taken for the provider's: what its handler emits becomes records.",),
        )

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        live = await desk.live(self.connection)
        if desk.take_in is None:
            raise UsageError("This process has no ingress.", hint=f"`headwater trigger {self.connection} EVENT`")
        body, words = sample_event(live.project, self.event_type, desk.clock.now())
        event = signed_event(live, self.event_type, body, at=desk.clock.now())
        since = await newest_delivery(desk.store, self.connection)
        status = await desk.take_in(live.stored, event.headers, event.body)
        found = await stored_as(desk.store, self.connection, event, since=since)
        became = "It was stored." if found else "Nothing new was stored." if status < 300 else "It was refused."
        return Done(
            sentence=f"The endpoint answered {status} to `{self.event_type}`, {words}. {became}",
            value={"status": status, "delivery_id": found.id if found else None},
            target=self.connection,
            place=Place(("deliveries", found.id)) if found else None,
            ok=status < 300,
        )

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["trigger", self.connection, self.event_type]

    @classmethod
    async def choices(cls, given: Mapping[str, str], desk: Desk) -> Mapping[str, Sequence[str]]:
        """See `Act.choices`: the samples of the connector, and what came lately."""
        stored = await desk.connection(given.get("connection", ""))
        recent = await desk.store.deliveries(DeliveryFilter(connection=stored.key), limit=RECENT)
        known = {one.event_type for one in recent if one.event_type}
        project = desk.projects.get(stored.connector)
        return {"event_type": sorted(known | set(samples(project) if project else ()))}


def samples(project: Project) -> Mapping[str, Path]:
    """The sample events of a project, by name."""
    folder = project.path.joinpath(*SAMPLES)
    return {path.stem: path for path in sorted(folder.glob("*.json")) if path.is_file()}


def sample_event(project: Project, event_type: str, at: datetime) -> tuple[bytes, str]:
    """The body of an event with an id of its own, and what it was made of, in words."""
    identity = f"evt_{secrets.token_hex(12)}"
    known = samples(project)
    found = known.get(event_type) or known.get(re.sub(r"[./]", "_", event_type))
    if found is not None and found.stat().st_size <= BODY_BYTES_MAX:
        return _with_id(found.read_bytes(), identity), f"{found.name} of the project, with a new id"
    event = {
        "id": identity, "object": "event", "type": event_type, "created": int(at.timestamp()), "data": {"object": {}},
    }  # fmt: skip
    return json.dumps(event).encode(), "a bare event"


@dataclass(frozen=True, kw_only=True)
class SignedEvent:
    """An event as a provider would send it."""

    headers: Mapping[str, str]
    body: bytes
    provider_id: str  # that it is stored under


def signed_event(live: LiveConnection, event_type: str, body: bytes, *, at: datetime) -> SignedEvent:
    """An event with what proves it; `UsageError` where the connection has nothing to prove it by."""
    webhooks = live.project.connector.webhooks
    if webhooks is None:
        raise UsageError(f"The connector {live.project.connector.key} has no webhooks.")
    known = live.webhook_secrets()
    if not known:
        hint = f"`headwater connections set-secret {live.stored.key} {webhooks.secret}`"
        raise UsageError(f"The connection {live.stored.key} has no `{webhooks.secret}` to sign with.", hint=hint)
    headers = signed(
        webhooks.auth,
        body,
        known[0],
        at=at,
        provider_id=f"trigger-{secrets.token_hex(8)}",
        event_type=event_type,
        options=webhooks.options,
    )
    scheme = registry.scheme(webhooks.auth)
    assert scheme is not None, "it has signed"
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    request = SignedRequest(method="POST", url="", headers=raw, body=body, received_at=at)
    verified = scheme.verify(request, known, webhooks.options)
    return SignedEvent(headers=headers, body=body, provider_id=provider_id_of(verified, body))


async def newest_delivery(store: DeliveryStore, connection: str) -> int:
    """The id of the newest delivery of a connection; 0 where there is none."""
    found = await store.deliveries(DeliveryFilter(connection=connection), limit=1)
    return found[0].id if found else 0


async def stored_as(store: DeliveryStore, connection: str, event: SignedEvent, *, since: int) -> Delivery | None:
    """The delivery of an event among those that came after the one of id `since`; others come all the while."""
    after = None
    while True:
        page = await store.deliveries(DeliveryFilter(connection=connection), after=after, limit=RECENT)
        for one in page:
            if one.id > since and one.provider_id == event.provider_id:
                return one
        if len(page) < RECENT or page[-1].id <= since:
            return None
        after = page[-1].id


def _with_id(body: bytes, identity: str) -> bytes:
    event: Any = jsonvalue.decode(body)
    if not isinstance(event, dict) or "id" not in event:
        return body
    return _encode({**event, "id": identity})
