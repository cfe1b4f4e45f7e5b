"""A store, the HTTP API over it, and clients that hold keys: what the tests of the API work with."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from starlette.applications import Starlette

from headwater.api import routes as api
from headwater.api.access import api_key_hash, key_guard, loopback_guard, new_api_key
from headwater.runtime import OnePage
from headwater.testing.clock import FakeClock
from stored import open_store
from stream_states import NOON

BIG = 123456789012345678901234567890


@dataclass
class World:
    """A store, its API, and a client that holds a key."""

    store: object
    clock: FakeClock
    client: httpx.AsyncClient
    pages: object

    async def get(self, path, expect=200, key=None, **query):
        return await self.call("GET", path, expect, key, params=query)

    async def post(self, path, body=None, expect=200, key=None, **query):
        return await self.call("POST", path, expect, key, params=query, json=body)

    async def call(self, method, path, expect, key=None, **more):
        headers = {"authorization": f"Bearer {key}"} if key else None
        answer = await self.client.request(method, f"/api/v1{path}", headers=headers, **more)
        assert answer.status_code == expect, answer.text
        if expect >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == expect
        return answer.json()


class FakePages:
    """The runtime, as the sync route calls it."""

    def __init__(self):
        self.calls = []
        self.result = OnePage(stream="customers", imported=3, unchanged=1, failed=0, cursor="c9", has_more=True)

    async def __call__(self, connection, stream, **given):
        self.calls.append((connection, stream, given))
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


async def make_key(store, clock, *, scopes=("read", "payloads", "operate"), tenant=None, expires_at=None):
    key = new_api_key()
    await store.add_api_key(
        name="test", hash=api_key_hash(key), scopes=scopes, tenant=tenant, at=clock.now(), expires_at=expires_at
    )
    return key


@asynccontextmanager
async def open_world(*, local=False, base_url="http://127.0.0.1"):
    clock, pages = FakeClock(NOON), FakePages()
    async with open_store(clock=clock) as store:
        guard = key_guard(store, clock)
        guard = loopback_guard(guard) if local else guard
        app = Starlette(routes=api.routes(store=store, clock=clock, guard=guard, one_page=pages))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        headers = {} if local else {"authorization": f"Bearer {await make_key(store, clock)}"}
        async with httpx.AsyncClient(transport=transport, base_url=base_url, headers=headers) as client:
            yield World(store, clock, client, pages)


def run(story, **given):
    async def main():
        async with open_world(**given) as world:
            await story(world)

    asyncio.run(main())
