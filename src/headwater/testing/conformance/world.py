"""What the checks of a store work with: a fresh store, a clock that stands still, and builders that take overrides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, TypeVar

import msgspec

from headwater.catalog import Mode
from headwater.clock import Clock, to_micros
from headwater.delivery import ClaimedDelivery, NewDelivery
from headwater.intention import (
    Decide,
    DeliveryCommit,
    DueStream,
    PageCommit,
    RunEnd,
    StoredConnection,
    StreamDeclaration,
    TickDecision,
    TickResult,
)
from headwater.record import Emission, Outcome, Quarantined, Record
from headwater.run import Page, RunRef, RunState, StreamState
from headwater.store import Store
from headwater.testing.clock import START, FakeClock

StoreFactory = Callable[[Clock], Store]
LEASE_SECONDS = 60.0
CADENCE = timedelta(minutes=15)
TYPE = "customer"
STREAM = "customers"

E = TypeVar("E", bound=Exception)


def at(seconds: float = 0) -> datetime:
    """An instant of the checks' day."""
    return START + timedelta(seconds=seconds)


def emission(source_id: str, content: str, as_of: float = 0, **overrides: Any) -> Emission:
    """An emission whose key names the object, unless `key` is given."""
    payload = overrides.pop("payload", f'{{"id":"{source_id}","name":"{content}"}}'.encode())
    if overrides.get("deleted"):
        payload = b"{}"
    key = overrides.pop("key", None)
    return Emission.of(
        type=overrides.pop("type", TYPE),
        stream=overrides.pop("stream", STREAM),
        source_id=source_id,
        payload=payload,
        key=None if key is None else blake2b(key.encode(), digest_size=16).digest(),
        as_of=to_micros(at(as_of)),
        **overrides,
    )


def grave(source_id: str, as_of: float = 0, **overrides: Any) -> Emission:
    """An emission that deletes."""
    return emission(source_id, "", as_of, deleted=True, **overrides)


def broken(source_id: str, **overrides: Any) -> Quarantined:
    """A record to be quarantined."""
    fields: dict[str, Any] = {
        "type": TYPE, "stream": STREAM, "source_id": source_id, "idempotency_key": f"key-{source_id}",
        "payload": b'{"id":1}', "reason": "no name", "as_of": to_micros(START),
    }  # fmt: skip
    return Quarantined(**{**fields, **overrides})


def new_delivery(connection_id: int, provider_id: str, seconds: float = 0, **overrides: Any) -> NewDelivery:
    """A delivery as ingress appends it."""
    fields: dict[str, Any] = {
        "connection_id": connection_id, "received_at": to_micros(at(seconds)), "provider_id": provider_id,
        "event_type": "customer.updated", "headers": b'{"content-type":"application/json"}', "body": b'{"ok":true}',
    }  # fmt: skip
    return NewDelivery(**{**fields, **overrides})


def every_quarter(due: Sequence[DueStream], now: datetime) -> Sequence[TickDecision]:
    """A decision as the platform makes it: start unless one is running; what was missed coalesces."""
    return [
        TickDecision(stream_id=stream.stream_id, start=not stream.is_running, next_tick_at=now + CADENCE)
        for stream in due
    ]


async def refused(kind: type[E], work: Awaitable[Any]) -> E:
    """The error of that kind that the work ends with."""
    try:
        await work
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


@dataclass(kw_only=True)
class World:
    """A fresh store and what has been built in it."""

    store: Store
    clock: FakeClock
    numbers: dict[int, int] = field(default_factory=dict)  # pages committed, by run

    async def connect(
        self,
        key: str = "acme",
        *,
        streams: Sequence[str] = (STREAM,),
        mode: Mode = "poll",
        due: datetime | None = None,
        tenant: str | None = None,
        partition: str = "",
    ) -> StoredConnection:
        """A connection with streams; `due` is their next tick."""
        connection = await self.store.add_connection(
            key=key, connector="shop", tenant=tenant, endpoint_id=f"endpoint-{key}", settings={}, secrets={}, at=START
        )
        declarations = [declaration(stream, mode=mode, next_tick_at=due, partition=partition) for stream in streams]
        await self.store.declare_streams(connection.id, declarations, at=START)
        return connection

    async def state(self, connection: str = "acme", stream: str = STREAM, *, now: datetime = START) -> StreamState:
        """The state of one stream."""
        return (await self.store.streams(at=now, connection=connection, stream=stream))[0]

    async def admit(
        self, connection: str = "acme", stream: str = STREAM, *, now: datetime = START, **trigger: Any
    ) -> RunRef:
        """A run that an operator triggered, admitted and begun."""
        state = await self.state(connection, stream)
        run_id = await self.store.trigger_run(state.id, at=now, **trigger)
        ref = await self.store.admit_run(run_id, at=now, lease_seconds=LEASE_SECONDS)
        await self.store.begin_run(ref, at=now, lease_seconds=LEASE_SECONDS)
        return ref

    async def commit(
        self, ref: RunRef, *emissions: Emission, cursor: str | None = None, has_more: bool = False, **overrides: Any
    ) -> Sequence[Outcome]:
        """Commit the next page of a run; its outcomes."""
        page = self.page(ref, *emissions, result=Page(cursor=cursor, has_more=has_more), **overrides)
        result = await self.store.commit_page(page)
        if not page.dry:
            self.numbers[ref.run_id] = page.number
        return result.outcomes

    def page(self, ref: RunRef, *emissions: Emission, result: Page | None = None, **overrides: Any) -> PageCommit:
        """The next page of a run."""
        result = result or Page()
        page = PageCommit(
            ref=ref,
            number=self.numbers.get(ref.run_id, ref.page_number) + 1,
            emissions=emissions,
            quarantined=(),
            cursor=result.cursor,
            has_more=result.has_more,
            origin="poll",
            connector_version="1.0",
            started_at=START,
            at=START,
            lease_seconds=LEASE_SECONDS,
        )
        return replace(page, **overrides)

    async def ingest(self, *emissions: Emission, connection: str = "acme", now: datetime = START) -> Sequence[Outcome]:
        """A whole run of one page."""
        ref = await self.admit(connection, now=now)
        outcomes = await self.commit(ref, *emissions, at=now)
        await self.end(ref, now=now)
        return outcomes

    async def end(
        self, ref: RunRef, state: RunState = RunState.SUCCEEDED, *, now: datetime = START, **fields: Any
    ) -> None:
        """Finish an attempt."""
        await self.store.finish_run(RunEnd(ref=ref, at=now, state=state, **fields))

    async def tick(
        self,
        now: datetime = START,
        *,
        decide: Decide = every_quarter,
        admit_max: int = 100,
        per_connection_max: int = 4,
    ) -> TickResult:
        """One tick."""
        return await self.store.tick(
            now,
            decide=decide,
            admit_max=admit_max,
            per_connection_max=per_connection_max,
            lease_seconds=LEASE_SECONDS,
        )

    async def deliver(self, connection_id: int, *provider_ids: str, seconds: float = 0) -> Sequence[int]:
        """Append deliveries; their ids."""
        appended = await self.store.append_deliveries(
            [new_delivery(connection_id, provider_id, seconds) for provider_id in provider_ids]
        )
        return [one.id for one in appended]

    async def claim(self, now: datetime = START, **overrides: Any) -> Sequence[ClaimedDelivery]:
        """Claim what is due."""
        asked: dict[str, Any] = {"limit": 100, "lease_seconds": LEASE_SECONDS, **overrides}
        return await self.store.claim_deliveries(now, **asked)

    async def current(self, source_id: str, connection: str = "acme", type: str = TYPE) -> Record:
        """The current record."""
        record = await self.store.record(connection, type, source_id)
        assert record is not None, f"there is no record {source_id}"
        return record

    async def history(self, source_id: str, connection: str = "acme") -> list[tuple[int, str, bool]]:
        """(version, name or operation, stale) of a record, oldest first."""
        versions = await self.store.versions(connection, TYPE, source_id)
        return [(one.version, name_in(bytes(one.payload)), one.stale) for one in reversed(versions)]


def name_in(payload: bytes) -> str:
    """The content that `emission` put into a payload; a tombstone has none."""
    return "" if payload == b"{}" else payload.decode().split('"name":"')[1].rstrip('"}')


def declaration(stream: str, **overrides: Any) -> StreamDeclaration:
    """A stream as a catalog declares it: a poll every 15 minutes."""
    mode = overrides.get("mode", "poll")
    fields: dict[str, Any] = {
        "stream": stream, "partition": "", "mode": mode, "schedule": "*/15 * * * *" if mode == "poll" else None,
        "timezone": "UTC", "expect_within_seconds": None, "next_tick_at": None,
    }  # fmt: skip
    return StreamDeclaration(**{**fields, **overrides})


def done(claim: ClaimedDelivery, *emissions: Emission, now: datetime = START, **overrides: Any) -> DeliveryCommit:
    """A dispatched delivery that came to these emissions."""
    commit = DeliveryCommit(
        claim=claim,
        emissions=emissions,
        quarantined=(),
        ignored=not emissions,
        origin="webhook",
        connector_version="1.0",
        at=now,
    )
    return msgspec.structs.replace(commit, **overrides)
