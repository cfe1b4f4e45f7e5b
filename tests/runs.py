"""A runner over a store in memory and one connection, whose routes are the functions of a test."""

import asyncio
from contextlib import asynccontextmanager

from builders import make_catalog, make_live, make_project, make_stream, open_memory_store, seeded_stream
from headwater import ingest
from headwater.errors import NotFoundError
from headwater.run import Page, RunState
from headwater.runtime import Runner
from headwater.schedule import decide
from headwater.testing.clock import FakeClock, settle

SECRET = "sk_test_canary_4f6a"
WAIT_SECONDS_MAX = 20  # real time: a test that hangs fails


class Connections:
    """The one live connection, in place of those of a whole process."""

    def __init__(self, live):
        self.live = live
        self.forgotten = []

    async def get(self, connection_id):
        if connection_id != self.live.stored.id:
            raise NotFoundError(f"There is no connection {connection_id}.")
        return self.live

    def forget(self, connection_id=None):
        self.forgotten.append(connection_id)


class Passing:
    """A store that does what it is told before it hands a call on."""

    def __init__(self, store, **before):
        self._store = store
        self._before = before

    def __getattr__(self, name):
        call = getattr(self._store, name)
        before = self._before.get(name)
        if before is None:
            return call

        async def passing(*args, **kwargs):
            await before(*args, **kwargs)
            return await call(*args, **kwargs)

        return passing


def emit(source_id, stream="customers", **payload):
    return ingest.canonical(
        "customer", {"id": source_id} | payload, stream=stream, idempotency_key=f"fake:customer:{source_id}"
    )


def listing(pages, *, records=2, seen=None):
    """A route whose provider has so many pages of customers, `c<page>-<position>`; their cursors are page numbers."""

    async def post(request):
        if seen is not None:
            seen.append(request)
        number = int(request.cursor or 0)
        if number >= pages:
            return Page(cursor=request.cursor)
        for position in range(records):
            emit(f"c{number}-{position}")
        return Page(cursor=str(number + 1), has_more=number + 1 < pages)

    return post


class Scene:
    """Everything that a test of the runner looks at."""

    def __init__(self, clock, store, runner, connections, stored):
        self.clock, self.store, self.runner, self.connections, self.stored = clock, store, runner, connections, stored

    async def tick(self):
        return await self.store.tick(
            self.clock.now(), decide=decide, admit_max=10, per_connection_max=10, lease_seconds=60
        )

    async def admit(self):
        """The reference of the one run that is due after the next quarter of an hour."""
        await self.clock.advance(15 * 60)
        (ref,) = (await self.tick()).admitted
        return ref

    async def readmit(self, seconds=0.0):
        """The reference of the one run that waits, so many seconds later."""
        await self.clock.advance(seconds)
        (ref,) = (await self.tick()).admitted
        return ref

    async def poll(self):
        return await self.runner.carry_out(await self.admit())

    async def run(self):
        """The newest run."""
        return (await self.store.runs())[0]

    async def state(self, stream="customers"):
        return (await self.store.streams(at=self.clock.now(), stream=stream))[0]

    async def ids(self):
        return [record.current.source_id for record in await self.store.records(limit=1000)]

    async def assert_each_once(self, pages, *, records=2):
        """No record is missing, and none has a second version."""
        expected = sorted(f"c{page}-{position}" for page in range(pages) for position in range(records))
        assert sorted(await self.ids()) == expected
        for source_id in expected:
            assert len(await self.store.versions("acme", "customer", source_id)) == 1

    @asynccontextmanager
    async def under_way(self, ref):
        """A run carried out beside the test."""
        task = asyncio.create_task(self.runner.carry_out(ref))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait({task})


def with_runner(body, route=None, *, stream=None, partition="", before=None, **options):
    """Run `body(scene)` with the given route of `customers` (or of `stream`)."""
    stream = stream or make_stream()

    async def main():
        clock = FakeClock()
        async with open_memory_store(clock) as store:
            catalog = make_catalog(stream)
            stored = await seeded_stream(store, clock, catalog=catalog, partition=partition)
            project = make_project({stream.key: route} if route else {}, connector=catalog)
            connections = Connections(make_live(stored, project, clock, secrets={"api_key": SECRET}))
            runner = Runner(store=Passing(store, **(before or {})), connections=connections, clock=clock, **options)
            return await body(Scene(clock, store, runner, connections, stored))

    return asyncio.run(main())


async def soon(awaitable):
    """The result, within the time that a test may take."""
    return await asyncio.wait_for(awaitable, WAIT_SECONDS_MAX)


async def moved(scene, seconds, task):
    """Move the clock in steps until `task` is done; at each, the store takes all that was given to it."""
    for _ in range(1000):
        if task.done():
            return
        await scene.clock.advance(seconds)
        for _ in range(3):
            await scene.store.connections()
            await settle()
    raise AssertionError("the task did not end")


__all__ = ["SECRET", "Connections", "Passing", "RunState", "Scene", "emit", "listing", "moved", "soon", "with_runner"]
