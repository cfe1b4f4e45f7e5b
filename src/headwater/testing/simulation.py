"""A whole installation in virtual time under seeded faults: its process is killed, frozen and started again, its clock
set wrongly, its wire cut; what was promised is looked for after every transaction.

    faults ──> process ── kill · freeze · drain ──> the next process, the same file
                  └── every commit ──> auditor ──> violations, in the history
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from headwater import backfill
from headwater.app import Platform, open_platform
from headwater.config import Config
from headwater.delivery import DeliveryFilter, DeliveryState
from headwater.dispatch import replay
from headwater.errors import HeadwaterError
from headwater.intention import StoredConnection
from headwater.project import Project
from headwater.run import RunState, Window
from headwater.testing.auditor import Auditor
from headwater.testing.history import History
from headwater.testing.network import Network, WireFaults
from headwater.testing.process import Killer, Process
from headwater.testing.stepped import stepped
from headwater.testing.virtual import START, VirtualClock, VirtualLoop

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="  # of nobody: a history must be the same each time
LOOK_SECONDS = 5.0
BACKFILL_DAYS = 120
BACKFILL_WINDOWS = 4


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much goes wrong in a history."""

    seconds: float = 600.0  # with faults
    pause_seconds: float = 25.0  # between two acts against the process, on the average
    killed: float = 0.75  # share of the processes that die at a drawn failpoint
    wire: WireFaults = WireFaults(refused=0.02, lost=0.02, cut=0.02, slow=0.02)  # noqa: RUF009  frozen
    store_fails: float = 0.003  # share of the transactions that fail, or say so although they were committed
    liveness_seconds: float = 3600.0  # after the faults, everything has settled within
    clock_seconds_max: float = 120.0  # how wrongly the machine's clock is set now and then


class Simulation:
    """One installation. `serve` is its supervisor, `trouble` acts against it, `settle` waits for its recovery."""

    def __init__(
        self,
        loop: VirtualLoop,
        folder: Path,
        *,
        seed: int,
        load: Callable[[], Sequence[Project]],
        plan: Plan,
        start: datetime = START,
        roles: frozenset[str] = Config.roles,
        keeps_connections: bool = False,
    ) -> None:
        self.chance = random.Random(f"simulation {seed}")  # noqa: S311  reproducible
        self.loop = loop
        self.plan = plan
        self.history = History(loop.time)
        self.world_clock = VirtualClock(loop, random.Random(f"world {seed}"), start=start)  # noqa: S311
        self.clock = VirtualClock(loop, random.Random(f"clock {seed}"), start=start)  # noqa: S311
        self.network = Network(random.Random(f"network {seed}"), self.world_clock, self.history)  # noqa: S311
        self.config = Config(database=folder / "simulated.db", key=KEY, bundles=False, roles=roles)
        self._load = load
        self._commits = contextlib.ExitStack()
        self._committed = self._commits.enter_context(
            stepped(random.Random(f"store {seed}"), keeps_connections=keeps_connections)  # noqa: S311
        )
        self.killer = Killer(random.Random(f"killer {seed}"), self.history)  # noqa: S311
        self._is_over = False
        self._process: Process | None = None
        self._lives = 0
        self.auditor: Auditor | None = None
        loop.on_error = self._uncaught

    @property
    def kills(self) -> Mapping[str, int]:
        """How often a process died, by failpoint."""
        return self.killer.kills

    async def install(self, connections: Mapping[str, tuple[str, Mapping[str, Any]]]) -> dict[str, str | None]:
        """Connect accounts, by key: (connector, settings); the webhook URL of each."""
        urls: dict[str, str | None] = {}
        async with self.command() as platform:
            for key, (connector, values) in connections.items():
                stored = await platform.add_connection(connector, values, key=key)
                urls[key] = platform.webhook_url(stored)
        self.watch()
        return urls

    def watch(self) -> None:
        """Audit every transaction from now on; the file is installed."""
        self.auditor = Auditor(Path(str(self.config.database)), self.history, self.clock)
        self._committed.on_commit = self.auditor.committed

    @contextlib.asynccontextmanager
    async def command(self) -> Any:
        """The platform as a command sees it, in a process of its own that dies of nothing."""
        async with open_platform(
            self.config, self.world_clock, loaded=self._load(), transport=self.network.transport
        ) as platform:
            yield platform

    async def serve(self) -> None:
        """Keep a process alive until `close`: another one begins where one ended."""
        while not self._is_over:
            self._lives += 1
            process = Process(
                f"process{self._lives}",
                loop=self.loop, config=self.config, clock=self.clock, network=self.network, load=self._load,
                history=self.history,
            )  # fmt: skip
            self._process = self.killer.process = process
            if self.plan.killed:
                self.killer.aim(process, share=self.plan.killed)
            await process.live()
            if process.error is not None:
                self.history.violated(f"7: the process ended by itself: {process.error!r}")
            if self.auditor is not None:
                self.auditor.whole()
            await asyncio.sleep(self.chance.random() * 5)

    async def trouble(self) -> None:
        """Act against the process for as long as the plan says, then stop all that goes wrong."""
        self.network.faults = self.plan.wire
        self.killer.store_fails = self.plan.store_fails
        end = self.loop.time() + self.plan.seconds
        while True:
            await asyncio.sleep(self.chance.expovariate(1 / self.plan.pause_seconds))
            if self.loop.time() >= end:
                break
            act = self.chance.choice(
                (self._kill, self._freeze, self._drain, self._set_clock, self._lapse, self._operate)
            )
            await act()
        self.network.faults = WireFaults()
        self.clock.offset_seconds = 0.0
        self.killer.spare()
        self.plan = replace(self.plan, killed=0.0)
        self.history.note("world", "nothing goes wrong any more")

    async def settle(self, waiting: Callable[[], int]) -> None:
        """Return when nothing waits: no delivery here, none at the provider (`waiting`), and each poll stream has been
        polled to its end since. Invariant 7.
        """
        assert self.auditor is not None, "it is installed"
        begun = self.loop.time()
        newest = self.auditor.newest_run()
        left: Mapping[str, int] = {}
        limit = self.plan.liveness_seconds
        while self.loop.time() < begun + limit:
            await asyncio.sleep(LOOK_SECONDS)
            left = self.auditor.left(newest)
            if waiting() or "deliveries" in left:
                newest = self.auditor.newest_run()  # what counts is a poll after the last delivery
            elif not left:
                self.history.note("world", "settled")
                return
        self.history.violated(f"7: after {limit:g} s without faults still {left}, {waiting()} to be sent")

    async def revive(self) -> None:
        """Replay every dead delivery: what killed it is mended."""
        async with self.command() as platform:
            await replay(platform.store, DeliveryFilter(state=DeliveryState.DEAD), at=self.world_clock.now())

    async def replayed(self) -> None:
        """Replay every delivery, and see that nothing changes: Invariant 6."""
        assert self.auditor is not None, "it is installed"
        before = self.auditor.records()
        async with self.command() as platform:
            await replay(platform.store, DeliveryFilter(state=DeliveryState.DONE), at=self.world_clock.now())
        await self.settle(lambda: 0)
        if before != self.auditor.records():
            self.history.violated("6: a replay of all deliveries changed records")

    async def close(self) -> None:
        """End the process in order, and look at everything once more."""
        self._is_over = True
        process = self._process
        if process is not None and not process.owner.is_dead:
            await process.drained()
        assert self.auditor is not None, "it is installed"
        self.auditor.whole()
        self.history.note("world", f"store {self.auditor.digest()}")

    def release(self) -> None:
        """Let go of what is shared by all of this interpreter."""
        self.killer.close()
        self._commits.close()
        if self.auditor is not None:
            self.auditor.close()

    def _uncaught(self, context: Mapping[str, Any]) -> None:
        self.history.violated(f"an exception that nobody took: {context.get('exception') or context.get('message')!r}")

    async def _kill(self) -> None:
        if self._process is not None:
            self._process.die("wherever it was")

    async def _freeze(self) -> None:
        process = self._process
        if process is None or not process.is_here:
            return
        seconds = self.chance.choice((5.0, 30.0, 100.0))
        self.history.note(process.owner.name, f"stopped for {seconds:g} s")
        process.freeze()
        await asyncio.sleep(seconds)
        process.thaw()

    async def _drain(self) -> None:
        if self._process is not None:
            self._process.drain()

    async def _set_clock(self) -> None:
        self.clock.offset_seconds = (self.chance.random() * 2 - 1) * self.plan.clock_seconds_max
        self.history.note("world", f"the clock is {self.clock.offset_seconds:+.0f} s off")

    async def _lapse(self) -> None:
        """Every lease and claim runs out, as if its holder had been silent."""
        assert self.auditor is not None, "it is installed"
        self.auditor.lapse_leases()
        self.history.note("world", "every lease ran out")

    async def _operate(self) -> None:
        acts: Sequence[Callable[[Platform, StoredConnection, datetime], Awaitable[object]]] = (
            self._trigger, self._replay, self._pause, self._cancel, self._backfill,
        )  # fmt: skip
        act = self.chance.choice(acts)
        async with self.command() as platform:
            stored = self.chance.choice(await platform.store.connections())
            with contextlib.suppress(HeadwaterError):  # such as: it runs already
                await act(platform, stored, self.world_clock.now())
            self.history.note("operator", f"{act.__name__} {stored.key}")

    async def _trigger(self, platform: Platform, stored: StoredConnection, at: datetime) -> None:
        states = [one for one in await platform.store.streams(at=at, connection=stored.key) if one.mode == "poll"]
        await platform.store.trigger_run(self.chance.choice(states).id, at=at)

    async def _replay(self, platform: Platform, stored: StoredConnection, at: datetime) -> None:
        await replay(platform.store, DeliveryFilter(connection=stored.key, state=DeliveryState.DONE), at=at)

    async def _pause(self, platform: Platform, stored: StoredConnection, at: datetime) -> None:
        await platform.store.pause_connection(stored.id, reason="simulated", needs_attention=False, at=at)
        await asyncio.sleep(self.chance.random() * 20)
        await platform.store.resume_connection(stored.id, at=at + timedelta(seconds=20))

    async def _cancel(self, platform: Platform, stored: StoredConnection, at: datetime) -> None:
        for run in await platform.store.runs(connection=stored.key):
            if run.state not in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED):
                await platform.store.cancel_run(run.id, at=at)
                break

    async def _backfill(self, platform: Platform, stored: StoredConnection, at: datetime) -> None:
        connector = platform.project(stored.connector).connector
        stream = self.chance.choice([one.key for one in connector.streams if one.mode != "webhook"])
        span = Window(at - timedelta(days=BACKFILL_DAYS * BACKFILL_WINDOWS), at)
        await backfill.start(
            platform.store, connector=connector, connection=stored.key, stream=stream, span=span, at=at,
            days=BACKFILL_DAYS,
        )  # fmt: skip
