"""Payloads are shown to those who may see them; who saw which is in the audit."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette

from headwater.api import routes as api
from headwater.api.access import Caller
from headwater.api.problem import ProblemError
from headwater.api.reveal import reveal
from headwater.record import Quarantined
from headwater.testing.clock import FakeClock
from stored import connect, deliver, emit, ingest, open_store, webhook
from stream_states import NOON

CANARY = "4111-canary-1111"

VIEWER = Caller(name="vera", scopes=frozenset({"read"}), is_person=True)
OPERATOR = Caller(name="otto", scopes=frozenset({"read", "payloads", "operate"}), is_person=True)
PROGRAM = Caller(name="sink", scopes=frozenset({"read", "payloads"}), is_program=True)
METER = Caller(name="meter", scopes=frozenset({"read"}), is_program=True)
LOCAL = Caller(name="local", scopes=frozenset({"read", "payloads"}))

PATHS = (
    "/records", "/records/acme/customer/c1", "/versions/acme/customer/c1", "/changes", "/deliveries/{delivery}",
    "/quarantine", "/rejections",
)  # fmt: skip


def run(story):
    async def main():
        clock = FakeClock(NOON)
        async with open_store(clock=clock) as store:
            stored = await connect(store, clock, streams=["customers", webhook()])
            broken = Quarantined(
                type="customer", stream="customers", source_id="q", idempotency_key="q", payload=CANARY.encode(),
                reason="no name", as_of=0,
            )  # fmt: skip
            await ingest(store, clock, emit("c1", clock, card=CANARY), quarantined=[broken])
            delivery = await deliver(store, clock, stored, "evt_1", body=f'{{"card":"{CANARY}"}}'.encode())
            await store.reject_delivery(stored.id, reason="bad signature", at=clock.now(), sample=CANARY)

            async def ask(caller, path):
                async def guard(_):
                    return caller

                app = Starlette(routes=api.routes(store=store, clock=clock, guard=guard))
                transport = httpx.ASGITransport(app)
                async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                    answer = await client.get("/api/v1" + path.format(delivery=delivery))
                    assert answer.status_code == 200, answer.text
                    return answer.text

            await story(store, clock, ask)

    asyncio.run(main())


async def acts(store):
    return [(one.actor, one.act, one.target) for one in reversed(await store.audit_log())]


@pytest.mark.parametrize("path", PATHS)
def test_the_api_shows_payloads_to_those_who_may_see_them_and_to_nobody_else(path):
    async def story(store, clock, ask):
        for caller in (VIEWER, METER):
            assert CANARY not in await ask(caller, path)
        assert await acts(store) == []
        for caller in (PROGRAM, LOCAL):
            assert CANARY in await ask(caller, path)
        assert await acts(store) == []
        assert CANARY in await ask(OPERATOR, path)
        ((actor, act, target),) = await acts(store)
        assert (actor, act) == ("otto", "payloads.reveal")
        assert target in (path[1:], "record acme/customer/c1", "changes after 0", f"delivery {1}")

    run(story)


def test_a_page_shows_a_payload_when_it_is_asked_for_and_writes_down_to_whom():
    async def story(store, clock, ask):
        given = {"target": "delivery 7"}
        assert not await reveal(OPERATOR, store, clock, asked=False, **given)
        assert await acts(store) == []
        assert await reveal(OPERATOR, store, clock, asked=True, **given)
        assert await reveal(LOCAL, store, clock, asked=True, **given)
        seen = [("otto", "payloads.reveal", "delivery 7"), ("local", "payloads.reveal", "delivery 7")]
        assert await acts(store) == seen

    run(story)


def test_who_may_not_see_payloads_is_refused_and_not_fobbed_off():
    async def story(store, clock, ask):
        assert not await reveal(VIEWER, store, clock, asked=False, target="delivery 7")
        with pytest.raises(ProblemError) as refused:
            await reveal(VIEWER, store, clock, asked=True, target="delivery 7")
        assert (refused.value.status, refused.value.problem_code) == (403, "request.scope")
        assert await acts(store) == []

    run(story)


def test_a_program_is_given_what_its_key_is_for():
    async def story(store, clock, ask):
        assert await reveal(PROGRAM, store, clock, asked=False, target="delivery 7")
        assert not await reveal(METER, store, clock, asked=False, target="delivery 7")
        assert await acts(store) == []

    run(story)
