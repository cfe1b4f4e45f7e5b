"""A store with one connection of one project, live, and its provider behind a transport."""

import asyncio

from builders import make_catalog, make_project, open_memory_store
from headwater.catalog import Connection, Permissions, Webhooks
from headwater.client import HttpClients
from headwater.connection import KeyRing, encrypt_secrets
from headwater.invoke import LiveConnections
from headwater.testing.clock import FakeClock
from http_fakes import API, SECRET, Script

RING = KeyRing([bytes(32)])
SETTINGS = {
    "type": "object",
    "properties": {
        "api_key": {"type": "string", "x-secret": True},
        "webhook_secret": {"type": "string", "x-secret": True},
        "region": {"type": "string", "default": "eu"},
    },
}


def catalog(**overrides):
    return make_catalog(
        connection=Connection(settings=SETTINGS),
        permissions=Permissions(http=[f"{API}/*"]),
        webhooks=Webhooks(endpoint="/webhooks/fake", auth="hmac_sha256"),
        **overrides,
    )


class Scene:
    """A store with one connection of one project, and its live connections."""

    def __init__(self, store, clock, project, script):
        self.store, self.clock = store, clock
        self.counted = Counted(store)
        self.projects = {"fake": project}
        clients = HttpClients(clock, script)
        self.connections = LiveConnections(self.counted, self.projects, RING, clock, clients.client)

    async def add(self, key="acme", ring=RING, secrets=None, connector="fake"):
        secrets = {"api_key": SECRET} if secrets is None else secrets
        return await self.store.add_connection(
            key=key, connector=connector, tenant=None, endpoint_id=f"endpoint-{key}", settings={},
            secrets=encrypt_secrets(ring, key, secrets), at=self.clock.now(),
        )  # fmt: skip


class Counted:
    """A connection store that counts its reads; `during` is called inside of one."""

    def __init__(self, store):
        self.store = store
        self.reads = []
        self.during = None

    async def connections(self):
        self.reads.append("connections")
        found = await self.store.connections()
        if self.during:
            await self.during()
        return found

    async def secrets(self, connection_id, *, at):
        self.reads.append("secrets")
        return await self.store.secrets(connection_id, at=at)


def scene(body, *, project=None, script=None):
    """Run `body` with a scene; its result."""

    async def main():
        clock = FakeClock()
        async with open_memory_store(clock) as store:
            return await body(Scene(store, clock, project or make_project(connector=catalog()), script or Script()))

    return asyncio.run(main())


def with_live(body, *, project=None, script=None, secrets=None):
    async def inside(made):
        stored = await made.add(secrets=secrets)
        return await body(made, await made.connections.get(stored.id))

    return scene(inside, project=project, script=script)
