"""Drive one route of a project in a test: `drive` a sync route, `deliver` to a webhook route. Nothing is stored.

result = drive(PROJECT, "customers", transport=pages({"/v1/customers": {...}}))
assert [record["email"] for record in result.records] == ["ada@example.com"]
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from headwater import jsonvalue
from headwater.clock import Clock, SystemClock
from headwater.context import HttpPort, Invocation
from headwater.errors import NotFoundError, UsageError, near_miss
from headwater.http import HttpClients
from headwater.intention import StoredConnection
from headwater.invoke import LiveConnection, invocation_for, invoke
from headwater.jsonvalue import JSONValue
from headwater.log_line import NewLogLine
from headwater.project import MANIFEST, Project, load
from headwater.record import Emission, Quarantined
from headwater.redaction import Redactor
from headwater.route import Response, SyncRequest, WebhookRequest
from headwater.run import Page, RequestLog, Window
from headwater.signature import SignedRequest
from headwater.signatures import registry
from headwater.testing.answering import Provider, SentEvent, pages
from headwater.testing.signer import signed
from headwater.transport import Transport

SIGNING_SECRET = "whsec_c2lnbnMtYS10ZXN0cy1vd24tZGVsaXZlcmllcw=="  # noqa: S105  for providers without one
CONNECTION = "test"
ACCESS_TOKEN = "access-token-of-the-kit"  # noqa: S105  what `oauth.access_token()` gives

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Driven:
    """What a route did."""

    emissions: Sequence[Emission]
    quarantined: Sequence[Quarantined]
    requests: Sequence[RequestLog]
    log: Sequence[NewLogLine]  # from `info` on
    page: Page | None = None  # of a sync route
    response: Response | None = None  # of a webhook route
    records: Sequence[Mapping[str, JSONValue]] = field(init=False)  # payloads of the emissions, as they would be stored

    def __post_init__(self) -> None:
        object.__setattr__(self, "records", [_payload(emission) for emission in self.emissions])

    def of_type(self, type: str) -> list[Mapping[str, JSONValue]]:
        """The records of one canonical type."""
        pairs = zip(self.emissions, self.records, strict=True)
        return [record for emission, record in pairs if emission.type == type]


def drive(
    project: Path | str,
    stream: str,
    *,
    provider: Provider | None = None,
    transport: Transport | None = None,
    settings: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    cursor: str | None = None,
    window: Window | None = None,
    partition: str = "",
    limit: int | None = None,
    clock: Clock | None = None,
) -> Driven:
    """Ask the sync route of `stream` for one page, and give what it emitted and returned; what it raises is raised.

    The provider is a `Provider`, or the parts of one.
    """
    provider = provider or _provider(transport, settings, secrets)
    loaded, clock = loaded_project(project), clock or SystemClock()
    declared = loaded.connector.stream(stream)
    route = loaded.sync_routes.get(stream)
    if declared is None or route is None:
        hint = near_miss(stream, loaded.sync_routes)
        raise NotFoundError(f"The connector {loaded.connector.key} polls no stream `{stream}`.", hint=hint)
    invocation = _invocation(loaded, provider, clock, stream=stream, cursor=cursor, partition=partition)
    request = SyncRequest(
        stream=stream,
        cursor=cursor,
        window=window,
        limit=limit or declared.page_records,
        partition=partition,
        started_at=clock.now(),
    )
    page = _run(invoke(route, request, invocation))
    if not isinstance(page, Page):
        raise UsageError(f"The sync route of `{stream}` returned {type(page).__name__}, not a Page.")
    return _driven(invocation, page=page)


def deliver(
    project: Path | str,
    event: bytes | SentEvent,
    *,
    provider: Provider | None = None,
    transport: Transport | None = None,
    settings: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    clock: Clock | None = None,
) -> Driven:
    """Sign an event as the provider would, prove it, and hand it to the webhook route; give what that emitted.

    An event is the body of a delivery, or a `SentEvent` where more of it is told in headers.
    """
    provider = provider or _provider(transport, settings, secrets)
    loaded, clock = loaded_project(project), clock or SystemClock()
    if loaded.webhook_route is None:
        raise NotFoundError(f"The connector {loaded.connector.key} has no webhook route.")
    sent = SentEvent(body=event) if isinstance(event, bytes) else event
    request = webhook_request(loaded, sent, secret=signing_secret(loaded, provider), clock=clock)
    invocation = _invocation(loaded, provider, clock, stream=None)
    answer = _run(invoke(loaded.webhook_route, request, invocation))
    return _driven(invocation, response=answer if isinstance(answer, Response) else Response())


def _provider(
    transport: Transport | None, settings: Mapping[str, Any] | None, secrets: Mapping[str, str] | None
) -> Provider:
    return Provider(transport=transport or pages({}), settings=settings or {}, secrets=secrets or {})


@lru_cache(maxsize=32)
def _load(path: Path) -> Project:
    return load(path)


def project_folder(path: Path | str) -> Path:
    """The project's folder: `path`, or the one above it, such as for the `__file__` of its own test."""
    folder = Path(path).resolve()
    for candidate in (folder, *folder.parents):
        if (candidate / MANIFEST).is_file():
            return candidate
    return folder


def loaded_project(path: Path | str) -> Project:
    """The project of that path, as `project_folder` finds it, loaded once."""
    return _load(project_folder(path))


def signing_secret(project: Project, provider: Provider) -> str:
    """The secret that signs the provider's deliveries: the one of its account, or a made-up one."""
    webhooks = project.connector.webhooks
    return provider.secrets.get(webhooks.secret, SIGNING_SECRET) if webhooks else SIGNING_SECRET


def delivery_headers(
    project: Project, event: SentEvent, *, secret: str, at: datetime, number: int = 1
) -> dict[str, str]:
    """The headers of a delivery as its provider would send them."""
    webhooks = project.connector.webhooks
    assert webhooks is not None, "the project has webhooks"
    return signed(
        webhooks.auth,
        event.body,
        secret,
        at=at,
        provider_id=event.provider_id or f"delivery-{number}",
        event_type=event.event_type,
        options=webhooks.options,
    )


def webhook_request(project: Project, event: SentEvent, *, secret: str, clock: Clock) -> WebhookRequest:
    """What a webhook route is given for an event; `SignatureError` when its scheme does not prove it."""
    webhooks = project.connector.webhooks
    assert webhooks is not None, "the project has webhooks"
    scheme = registry.scheme(webhooks.auth)
    if scheme is None:
        raise NotFoundError(f"There is no signature scheme `{webhooks.auth}`.")
    headers = delivery_headers(project, event, secret=secret, at=clock.now())
    proved = scheme.verify(
        SignedRequest(
            method="POST",
            url=f"https://test.invalid{webhooks.endpoint}/test",
            headers=[(name.lower().encode(), value.encode()) for name, value in headers.items()],
            body=event.body,
            received_at=clock.now(),
        ),
        [secret],
        webhooks.options,
    )
    hidden = registry.signature_headers(scheme, webhooks.options)
    return WebhookRequest(
        delivery_id=1,
        provider_id=proved.provider_id or jsonvalue.content_hash(event.body).hex(),
        event_type=proved.event_type,
        headers={name.lower(): value for name, value in headers.items() if name.lower() not in hidden},
        body=event.body,
        received_at=clock.now(),
        attempt=1,
    )


def _invocation(
    project: Project,
    provider: Provider,
    clock: Clock,
    *,
    stream: str | None,
    cursor: str | None = None,
    partition: str = "",
) -> Invocation:
    connector = project.connector
    settings = connector.with_defaults(provider.settings)
    redactor = Redactor(provider.secrets.values())
    clients = HttpClients(clock, provider.transport)
    client = clients.client(connection_id=1, connector=connector, settings=settings, redactor=redactor)
    stored = StoredConnection(
        id=1,
        key=CONNECTION,
        connector=connector.key,
        tenant=None,
        endpoint_id=CONNECTION,
        settings=provider.settings,
        paused_at=None,
        paused_reason=None,
        needs_attention=False,
        created_at=clock.now(),
    )
    live = LiveConnection(
        stored=stored,
        project=project,
        settings=settings,
        secrets=provider.secrets,
        versions={},
        redactor=redactor,
        http=cast("HttpPort", client),
        clock=clock,
        tokens=_FixedToken() if connector.connection.oauth is not None else None,
    )
    return invocation_for(live, stream=stream, as_of=clock.now(), cursor=cursor, partition=partition)


class _FixedToken:
    """What the kit's provider gave to a connector that is authorised by OAuth."""

    async def access_token(self) -> str:
        """See `OAuthPort`."""
        return ACCESS_TOKEN


def _driven(invocation: Invocation, *, page: Page | None = None, response: Response | None = None) -> Driven:
    return Driven(
        emissions=invocation.emissions,
        quarantined=invocation.quarantined,
        requests=invocation.requests,
        log=invocation.log,
        page=page,
        response=response,
    )


def _payload(emission: Emission) -> Mapping[str, JSONValue]:
    value = jsonvalue.decode(emission.payload)
    assert isinstance(value, dict), "canonical payloads are objects"
    return value


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)
