"""What `serve` runs: the loops of a platform and its HTTP, started together and drained together.

ticker ──> engine ──> runner          ingress ──> dispatcher          api · metrics · dashboard
   └──────────┴──────────┴────── store ──┴───────────┴────────────────────┘
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from headwater import alerter, dispatch, metrics
from headwater.acts.act import Desk
from headwater.alerter import Alerter, Channels
from headwater.api import routes as api
from headwater.api.access import Caller, Guard, key_guard, loopback_guard, open_guard
from headwater.api.session import door_guard
from headwater.app import Platform, local_engine, make_engine
from headwater.clock import SharedClock
from headwater.dashboard import views
from headwater.deploy import Deployer
from headwater.dispatch import Dispatcher
from headwater.door import Door
from headwater.engine import Handler
from headwater.errors import HeadwaterError, StoreUnavailableError
from headwater.front import Front
from headwater.in_process import answering
from headwater.ingress import Ingress, Limits, Receive, Scope, Send
from headwater.intention import StoredConnection
from headwater.node import Node, Topic, slots_of
from headwater.presence import Presence, this_node
from headwater.project import Project
from headwater.run import LEASE_SECONDS, RunRef, Window
from headwater.runtime import OnePage
from headwater.schedule import Ticker
from headwater.silence import Silences
from headwater.transport import TransportRequest

LOOK_SECONDS = 2.0  # between two looks for what was activated by another process
CLOCK_BACK_SECONDS = 5.0  # a smaller step back delays a tick by no more
LEASE_SECONDS_LONGEST = max(LEASE_SECONDS, dispatch.CLAIM_SECONDS, alerter.CLAIM_SECONDS)  # none may end early
PURGE_SECONDS = 3600.0  # between two looks for what is older than its retention
PURGE_FIRST_SECONDS = 60.0  # not at once: a start has enough to do
STORE_LOOK_SECONDS = 0.5
WORKER_SLOTS = 4
WORKER_LOOK_SECONDS = 0.1

logger = logging.getLogger("headwater.application")


class Application:
    """A platform at work; `asgi` is its HTTP."""

    def __init__(self, platform: Platform, *, version: str, base_url: str | None = None) -> None:
        config, live = platform.config, platform.live
        self.platform = platform
        self._base_url = base_url
        self._roles = config.roles
        self._slots = config.slots
        self._drained = asyncio.Event()
        self._engine = make_engine(config, platform.clock)
        self._ticker = Ticker(
            store=platform.store,
            engine=self._engine,
            clock=platform.clock,
            slots=config.slots if "worker" in config.roles else 0,
            per_connection_max=config.connection_slots,
            readmits=not self._engine.transactional,
        )
        self.dispatcher = Dispatcher(platform.store, live.connections, platform.clock)
        self.ingress = Ingress(
            platform.store,
            live.connections,
            platform.clock,
            public_url=base_url or config.base_url,
            on_appended=self.dispatcher.wake,
            limits=Limits(pending_max=config.pending_max),
        )
        self._alerter = Alerter(
            platform.store, platform.clock, live.transport, Channels.of(config), base_url=self._pages_url()
        )
        self._presence = self._make_presence()
        shared = platform.shared
        self._silences = Silences(shared, platform.clock, live.clients) if shared is not None else None
        self._connector_names: dict[str, str] = {}
        self._endpoints: tuple[str, ...] = ()
        self._note_projects()
        self.door = Door(
            store=platform.store,
            clock=platform.clock,
            key_ring=platform.live.key_ring,
            breached=platform.breached,
            factor_required=config.second_factor_required,
        )
        self._pages = Front(
            self._starlette(version), trusted=config.trusted_proxies, public_url=base_url or config.public_url
        )
        self._ingress_drain: asyncio.Task[None] | None = None

    def asgi(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Deliveries go to the ingress with nothing in between, everything else to the API and the pages."""
        app = self.ingress if scope["path"].startswith(self._endpoints) else self._pages
        return app(scope, receive, send)

    async def first_link(self) -> str | None:
        """A link that makes the first admin, once; None when there is an account, or nobody signs in here."""
        config = self.platform.config
        if "dashboard" not in self._roles or config.dashboard_public:
            return None
        token = await self.door.setup_token()
        return token and f"{config.base_url}/setup?token={token}"

    async def run(self) -> None:
        """Work until `drain`; raises `StoreUnavailableError` when the store cannot write any more."""
        self.platform.live.prepare()
        if self._presence is not None:
            await self._presence.beat()  # before the first tick, which asks how many slots there are
        runner = self.platform.live.runner
        work: list[Coroutine[Any, Any, object]] = [self._drained.wait()]
        beside: list[Coroutine[Any, Any, object]] = [
            self._watch_store(),
            self._follow_activations(),
            self._follow_clock(),
        ]
        if self._presence is not None:
            beside.append(self._presence.serve())
            beside.append(self._presence.hear(self._heard))
        if "ticker" in self._roles:
            work.append(self._ticker.serve())
            beside.append(self._purge())
            beside.append(self._alerter.serve())
        if "worker" in self._roles:
            work.append(self._engine.serve(self._ticker.waking(self._up_to_date(runner.carry_out)), slots=self._slots))
            work.append(self.dispatcher.serve())
        await _together(work, beside=beside)
        if self._ingress_drain is not None:
            await self._ingress_drain

    def drain(self) -> None:
        """Refuse new deliveries and start nothing more; `run` returns when what is under way has ended."""
        self._ingress_drain = asyncio.get_running_loop().create_task(self.ingress.drain())
        self.platform.live.runner.drain()
        self._ticker.drain()
        self._engine.drain()
        self.dispatcher.drain()
        self._drained.set()

    async def reload(self, path: Path) -> Project | None:
        """Check and load a project again; None when it is refused, and the version before it goes on."""
        self.platform.refused.clear()
        project = await self.platform.load_project(path)
        if project is not None:
            self.platform.live.connections.forget()
            self._note_projects()
            self._ticker.wake()
        return project

    async def look(self) -> None:
        """Take up what was deployed since the last look."""
        if not self.platform.config.bundles:
            return
        swapped = await self.platform.activations.look()
        for project in swapped:
            logger.info("%s runs %s now, from its bundle.", project.connector.key, project.version)
        if swapped:
            self.platform.live.connections.forget()
            self._note_projects()
            self.wake()

    def wake(self) -> None:
        """Look for due work now."""
        self._ticker.wake()
        self.dispatcher.wake()

    def _pages_url(self) -> str:
        return self._base_url or self.platform.config.base_url

    def _make_presence(self) -> Presence | None:
        platform = self.platform
        if platform.shared is None:
            return None
        node = this_node(platform.clock, url=platform.config.local_url, roles=self._roles, slots=self._slots)
        return Presence(
            platform.shared,
            platform.clock,
            node,
            runs=lambda: self._engine.depth,
            on_nodes=self._seen,
        )

    def _seen(self, nodes: Sequence[Node]) -> None:
        self._ticker.resize(slots_of(nodes))
        clock, presence = self.platform.clock, self._presence
        for node in nodes:
            if presence is not None and node.id == presence.node.id and isinstance(clock, SharedClock):
                clock.set_right(node.clock_offset_seconds)

    def _heard(self, topic: Topic) -> None:
        if topic == "runs":
            self._ticker.wake()
        elif topic == "deliveries":
            self.dispatcher.wake()
        elif self._silences is not None:
            self._silences.learn()

    def _note_projects(self) -> None:
        connectors = [project.connector for project in self.platform.projects.values()]
        self._connector_names.update({one.key: one.name for one in connectors})
        if "ingress" in self._roles:
            self._endpoints = tuple(one.webhooks.endpoint.rstrip("/") + "/" for one in connectors if one.webhooks)

    def _starlette(self, version: str) -> Starlette:
        store, clock = self.platform.store, self.platform.clock
        guard = _guard(self.platform, self.door)
        own = metrics.routes(store=store, clock=clock, guard=_metrics_guard(self.platform, guard), version=version)
        if "dashboard" not in self._roles:
            return Starlette(routes=own)
        names = self._connector_names
        pages = views.routes(
            store=store,
            clock=clock,
            guard=guard,
            connector_names=names,
            version=version,
            installation=self.platform,
            public_url=self._base_url,
            door=None if self.platform.config.dashboard_public else self.door,
            make_desk=self._desk,
        )
        return Starlette(
            routes=[
                *api.routes(
                    store=store,
                    clock=clock,
                    guard=guard,
                    one_page=self._one_page,
                    connector_names=names,
                    version=version,
                    make_desk=self._desk,
                    deployer=Deployer(store, clock, projects=self.platform.projects, activated=self.look),
                ),
                *own,
                *pages,
            ],
            exception_handlers=dict(views.EXCEPTION_HANDLERS),
        )

    def _desk(self, actor: str, *, tenant: str | None) -> Desk:
        desk = self.platform.desk(actor, tenant=tenant)
        return replace(desk, wake=self.wake, take_in=self._take_in, base_url=self._pages_url())

    async def _take_in(self, stored: StoredConnection, headers: Mapping[str, str], body: bytes) -> int:
        self.ingress.forget()  # its secret may have been set a moment ago
        url = self.platform.webhook_url(stored)
        assert url is not None, "its connector has webhooks: it was signed"
        request = TransportRequest(method="POST", url=url, headers=headers, body=body)
        return (await answering(self.ingress)(request)).status

    async def _one_page(
        self,
        connection: str,
        stream: str,
        *,
        cursor: str | None,
        window: Window | None,
        limit: int | None,
        partition: str,
    ) -> OnePage:
        live = self.platform.live
        return await live.runner.one_page(
            await live.connections.by_key(connection),
            stream,
            cursor=cursor,
            window=window,
            limit=limit,
            partition=partition,
        )

    def _up_to_date(self, handler: Handler) -> Handler:
        """`handler`, after a look for a newer version where the one here does not know the run's stream yet."""

        async def carry_out(ref: RunRef) -> object:
            with suppress(HeadwaterError):  # the run will meet it, and tell it as its own end
                live = await self.platform.live.connections.get(ref.connection_id)
                if ref.stream_key not in live.project.stream_keys:
                    await self.look()
            return await handler(ref)

        return carry_out

    async def _follow_activations(self) -> None:
        while True:
            await self.platform.clock.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except StoreUnavailableError as error:
                logger.warning("Whether something was deployed is not known: %s", error)

    async def _follow_clock(self) -> None:
        """Let nothing wait for an instant of a clock that was ahead, once it is put right, now or before this start."""
        clock = self.platform.clock
        wall, steady = clock.now(), clock.monotonic()
        back: float | None = None  # seconds, not known yet
        while True:
            try:
                back = await self._dated_ahead_seconds() if back is None else back
                if back >= CLOCK_BACK_SECONDS:
                    logger.warning("The clock is %.0f s behind what it was; what it had put off is due now.", back)
                    await self._bring_back()
                back = 0.0
            except StoreUnavailableError as error:
                logger.warning("What a clock that was ahead has put off is not due yet: %s", error)
            await clock.sleep(LOOK_SECONDS)
            stepped = clock.monotonic() - steady - (clock.now() - wall).total_seconds()
            wall, steady = clock.now(), clock.monotonic()
            back = None if back is None else back + stepped

    async def _dated_ahead_seconds(self) -> float:
        last = await self.platform.store.last_instant()
        return (last - self.platform.clock.now()).total_seconds() if last is not None else 0.0

    async def _bring_back(self) -> None:
        platform = self.platform
        await platform.store.bring_back(platform.clock.now(), lease_seconds=LEASE_SECONDS_LONGEST)
        for project in list(platform.projects.values()):
            await platform.declare(project)
        self.wake()

    async def _purge(self) -> None:
        clock, retention = self.platform.clock, timedelta(days=self.platform.config.retention_days)
        await clock.sleep(PURGE_FIRST_SECONDS)
        while True:
            before = clock.now() - retention
            try:
                purged = await self.platform.store.purge(deliveries_before=before, runs_before=before)
            except StoreUnavailableError as error:
                logger.warning("Nothing could be purged: %s", error)
            else:
                logger.debug("Purged %d deliveries and %d runs.", purged.deliveries, purged.runs)
            await clock.sleep(PURGE_SECONDS)

    async def _watch_store(self) -> None:
        while not (reason := getattr(self.platform.store, "broken", None)):
            await self.platform.clock.sleep(STORE_LOOK_SECONDS)
        raise StoreUnavailableError(
            f"The store cannot write any more: {reason}.",
            hint="What was acknowledged is on disk. Mend the disk, then start again.",
        )


@asynccontextmanager
async def working(platform: Platform) -> AsyncIterator[None]:
    """Carry out waiting runs and windows in this process during the block; no schedule is kept.

    For a command that waits for its work where no server does it; two processes at work do no harm.
    """
    engine = local_engine()

    async def admit() -> None:
        while True:
            admitted = await platform.store.tick(
                platform.clock.now(),
                decide=lambda due, at: (),  # noqa: ARG005  ticks are the server's
                admit_max=max(0, WORKER_SLOTS - engine.depth),
                per_connection_max=WORKER_SLOTS,
                lease_seconds=LEASE_SECONDS,
            )
            await engine.submit(None, admitted.admitted)
            await platform.clock.sleep(WORKER_LOOK_SECONDS)

    platform.live.prepare()
    runner = platform.live.runner
    tasks = [
        asyncio.create_task(admit()),
        asyncio.create_task(engine.serve(runner.carry_out, slots=WORKER_SLOTS)),
    ]
    try:
        yield
    finally:
        tasks[0].cancel()
        runner.drain()
        engine.drain()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _together(
    work: Sequence[Coroutine[Any, Any, object]], *, beside: Sequence[Coroutine[Any, Any, object]]
) -> None:
    """Wait until all of `work` has ended, with `beside` running meanwhile; the first failure ends everything."""
    needed = [asyncio.create_task(one) for one in work]
    extra = [asyncio.create_task(one) for one in beside]
    try:
        waiting = {*needed, *extra}
        while not all(task.done() for task in needed):
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in (*needed, *extra):
            task.cancel()
        for task in (*needed, *extra):
            with suppress(asyncio.CancelledError, Exception):
                await task


def _guard(platform: Platform, door: Door) -> Guard:
    if platform.config.dashboard_public:
        return open_guard()
    by_key = key_guard(platform.store, platform.clock)
    open_until_first = loopback_guard(by_key) if platform.config.is_loopback else None
    return door_guard(door, by_key=by_key, open_until_first=open_until_first)


def _metrics_guard(platform: Platform, guard: Guard) -> Guard:
    return _anybody_reading if platform.config.metrics_public else guard


async def _anybody_reading(_: Any) -> Caller:
    return Caller(name="public", scopes=frozenset({"read"}))
