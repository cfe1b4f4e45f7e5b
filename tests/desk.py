"""A desk with two connections of two tenants, at which an operator acts."""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

from headwater.acts.act import Desk
from headwater.record import Quarantined
from headwater.testing.clock import FakeClock
from stored import connect, ingest, open_store, webhook
from stream_states import NOON

THIS = {"connection": "acme", "stream": "customers"}
DAY = timedelta(days=1)


@asynccontextmanager
async def at_a_desk(*, tenant=None):
    clock = FakeClock(NOON)
    async with open_store(clock=clock) as store:
        acme = await connect(store, clock, streams=["customers", webhook()], tenant="one")
        await connect(store, clock, "other", tenant="two")
        yield Desk(store=store, clock=clock, actor="ada", tenant=tenant), acme


def at_desk(story, **choices):
    async def main():
        async with at_a_desk(**choices) as (desk, acme):
            await story(desk, acme)

    asyncio.run(main())


async def state_of(desk, stream="customers", connection="acme"):
    (found,) = await desk.store.streams(at=desk.clock.now(), connection=connection, stream=stream)
    return found


async def set_aside(desk, *names):
    records = [
        Quarantined(
            type="customer", stream="customers", source_id=name, idempotency_key=f"customer:{name}", payload=b"{}",
            reason="name is missing", as_of=0,
        )
        for name in names
    ]  # fmt: skip
    await ingest(desk.store, desk.clock, quarantined=records)
