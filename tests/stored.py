"""A store in memory with connections, streams and records in it, by the store's own contract."""

from contextlib import asynccontextmanager

from headwater.clock import to_micros
from headwater.delivery import DeliveryState, NewDelivery
from headwater.intention import DeliveryCommit, DeliveryFailure, PageCommit, RunEnd, StreamDeclaration
from headwater.jsonvalue import canonical_bytes
from headwater.record import Emission
from headwater.run import RunState
from headwater.stores.sqlite.store import SQLiteStore
from headwater.testing.clock import FakeClock

LEASE_SECONDS = 60.0
VERSION = "0.1.0+test"


@asynccontextmanager
async def open_store(path=":memory:", clock=None):
    store = SQLiteStore(str(path), clock or FakeClock())
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def declare(stream, **overrides):
    values = {
        "stream": stream,
        "partition": "",
        "mode": "poll",
        "schedule": "*/15 * * * *",
        "timezone": "UTC",
        "expect_within_seconds": None,
        "next_tick_at": None,
    }
    return StreamDeclaration(**(values | overrides))


def webhook(stream="events", **overrides):
    return declare(stream, **({"mode": "webhook", "schedule": None} | overrides))


async def connect(store, clock, key="acme", *, connector="stripe", tenant=None, streams=("customers",)):
    stored = await store.add_connection(
        key=key,
        connector=connector,
        tenant=tenant,
        endpoint_id=f"ep_{key}",
        settings={},
        secrets={},
        at=clock.now(),
    )
    rows = [declare(one) if isinstance(one, str) else one for one in streams]
    await store.declare_streams(stored.id, rows, at=clock.now())
    return stored


def emit(source_id, clock, *, type="customer", stream="customers", deleted=False, **payload):
    data = canonical_bytes({"id": source_id} | payload)
    return Emission.of(
        type=type,
        stream=stream,
        source_id=source_id,
        payload=b"{}" if deleted else data,
        key=None,
        as_of=to_micros(clock.now()),
        deleted=deleted,
    )


async def begin(store, clock, *, connection="acme", stream="customers"):
    (state,) = await store.streams(at=clock.now(), connection=connection, stream=stream)
    run_id = await store.trigger_run(state.id, at=clock.now())
    ref = await store.admit_run(run_id, at=clock.now(), lease_seconds=LEASE_SECONDS)
    await store.begin_run(ref, at=clock.now(), lease_seconds=LEASE_SECONDS)
    return ref


async def ingest(store, clock, *emissions, connection="acme", stream="customers", quarantined=(), log=()):
    """One run of one page that succeeds; its id."""
    ref = await begin(store, clock, connection=connection, stream=stream)
    page = PageCommit(
        ref=ref,
        number=1,
        emissions=emissions,
        quarantined=quarantined,
        cursor="c1",
        has_more=False,
        origin="poll",
        connector_version=VERSION,
        started_at=clock.now(),
        at=clock.now(),
        lease_seconds=LEASE_SECONDS,
        log=log,
    )
    await store.commit_page(page)
    await store.finish_run(RunEnd(ref=ref, at=clock.now(), state=RunState.SUCCEEDED))
    return ref.run_id


async def fail(store, clock, *, connection="acme", stream="customers", error="It broke."):
    ref = await begin(store, clock, connection=connection, stream=stream)
    end = RunEnd(
        ref=ref, at=clock.now(), state=RunState.FAILED, error_code="stop.handler", error=error, traceback="Traceback …"
    )
    await store.finish_run(end)
    return ref.run_id


async def deliver(store, clock, stored, provider_id, *, body=b"{}", event_type="customer.created"):
    (appended,) = await store.append_deliveries(
        [
            NewDelivery(
                connection_id=stored.id,
                received_at=to_micros(clock.now()),
                provider_id=provider_id,
                event_type=event_type,
                headers=b'{"content-type":"application/json"}',
                body=body,
            )
        ]
    )
    return appended.id


async def dispatch(store, clock, *emissions, dead=False, log=()):
    """Finish, or bury, the oldest pending delivery; its id."""
    (claim,) = await store.claim_deliveries(clock.now(), limit=1, lease_seconds=LEASE_SECONDS)
    if dead:
        failure = DeliveryFailure(
            claim=claim,
            at=clock.now(),
            state=DeliveryState.DEAD,
            due_at=None,
            error_code="stop.handler",
            error="KeyError: 'object'",
            traceback="Traceback …",
            log=log,
        )
        await store.fail_delivery(failure)
    else:
        done = DeliveryCommit(
            claim=claim,
            emissions=emissions,
            quarantined=(),
            ignored=not emissions,
            origin="webhook",
            connector_version=VERSION,
            at=clock.now(),
            log=log,
        )
        await store.finish_delivery(done)
    return claim.id
