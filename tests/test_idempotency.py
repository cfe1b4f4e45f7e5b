"""`Idempotency-Key`: a POST that comes twice does once, and is answered twice."""

import asyncio
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from headwater.api import routes as api
from headwater.api.access import Caller
from headwater.api.idempotency import KEEP_SECONDS, SILENT_SECONDS, once
from headwater.api.problem import ProblemError
from headwater.testing.clock import FakeClock
from stored import connect, open_store
from stream_states import NOON

RUNS = "/api/v1/connections/acme/streams/customers/runs"


@asynccontextmanager
async def asking():
    clock, callers = FakeClock(NOON), {"now": "ada"}

    async def guard(_):
        return Caller(name=callers["now"], scopes=frozenset({"read", "operate", "admin"}))

    async with open_store(clock=clock) as store:
        await connect(store, clock, streams=["customers", "invoices"])
        app = Starlette(routes=api.routes(store=store, clock=clock, guard=guard))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            yield store, clock, client, callers


def test_a_run_is_triggered_once_however_often_it_is_asked_for():
    async def main():
        async with asking() as (store, clock, client, callers):
            key = {"Idempotency-Key": "one"}
            first = await client.post(RUNS, json={"pages_limit": 2}, headers=key)
            assert (first.status_code, first.json()) == (202, {"run_id": 1})
            assert "idempotent-replayed" not in first.headers
            again = await client.post(RUNS, json={"pages_limit": 2}, headers=key)
            assert (again.status_code, again.json()) == (202, {"run_id": 1})
            assert again.headers["idempotent-replayed"] == "true"
            assert again.headers["location"] == first.headers["location"] == "/api/v1/runs/1"
            assert len(await store.runs()) == 1
            other = await client.post(RUNS, json={"pages_limit": 3}, headers=key)
            assert (other.status_code, other.json()["detail"][:40]) == (422, "This idempotency key came with another r")
            elsewhere = await client.post(RUNS.replace("customers", "invoices"), json={"pages_limit": 2}, headers=key)
            assert elsewhere.status_code == 422
            callers["now"] = "bob"
            assert (await client.post(RUNS, headers=key)).status_code == 409, (
                "bob's key is his own; the run is under way"
            )
            callers["now"] = "ada"
            await store.cancel_run(1, at=clock.now())
            await clock.advance(KEEP_SECONDS + 1)
            late = await client.post(RUNS, json={"pages_limit": 2}, headers=key)
            assert late.json() == {"run_id": 2}, "a day later it is another request"

    asyncio.run(main())


def test_what_is_refused_is_not_kept():
    async def main():
        async with asking() as (_, _, client, _):
            key = {"Idempotency-Key": "one"}
            refused = await client.post(RUNS.replace("customers", "nothing"), headers=key)
            assert refused.status_code == 404
            assert (await client.post(RUNS, headers=key)).status_code == 202

    asyncio.run(main())


@pytest.mark.parametrize("key", ["", "a b", "x" * 201, "é"])
def test_what_is_no_key_is_refused(key):
    async def main():
        async with asking() as (store, _, client, _):
            answer = await client.post(RUNS, headers={"Idempotency-Key": key.encode()})
            assert (answer.status_code, answer.json()["code"]) == (400, "request.idempotency_key")
            assert await store.runs() == []

    asyncio.run(main())


def test_an_answer_with_a_secret_in_it_is_never_kept():
    async def main():
        async with asking() as (store, _, client, _):
            answer = await client.post(
                "/api/v1/keys", json={"name": "ci", "scopes": ["read"]}, headers={"Idempotency-Key": "one"}
            )
            assert answer.status_code == 400
            assert await store.api_keys() == []

    asyncio.run(main())


def test_of_two_at_once_one_is_carried_out_and_one_that_is_gone_lets_go():
    async def main():
        clock = FakeClock(NOON)
        async with open_store(clock=clock) as store:
            begun, free, times = asyncio.Event(), asyncio.Event(), []

            async def carry_out():
                times.append(clock.now())
                begun.set()
                await free.wait()
                return Response(b"{}", status_code=201)

            def ask(work=carry_out):
                async def receive():
                    return {"type": "http.request", "body": b"", "more_body": False}

                scope = {
                    "type": "http", "method": "POST", "path": "/x", "query_string": b"", "root_path": "",
                    "scheme": "http", "server": ("h", 80), "headers": [(b"idempotency-key", b"k"), (b"host", b"h")],
                }  # fmt: skip
                caller = Caller(name="ada", scopes=frozenset())
                return once(Request(scope, receive), caller, work, store=store, clock=clock, body_bytes_max=10)

            first = asyncio.create_task(ask())
            await begun.wait()
            with pytest.raises(ProblemError, match="under way"):
                await ask()
            await clock.advance(SILENT_SECONDS + 1)
            free.set()
            assert (await ask()).status_code == 201, "as if the process of the first were gone"
            assert len(times) == 2
            assert (await first).status_code == 201
            assert (await ask()).headers["idempotent-replayed"] == "true"

            async def fails():
                raise RuntimeError("a bug")

            await clock.advance(KEEP_SECONDS + 1)
            with pytest.raises(RuntimeError):
                await ask(fails)
            assert (await ask()).status_code == 201, "what failed may be tried again"

    asyncio.run(main())
