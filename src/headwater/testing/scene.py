"""One connector with one connection in a simulated installation: polled, sent its events, killed, and looked at."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headwater.clock import from_micros
from headwater.project import Project, load, unload
from headwater.testing.answering import Provider, SentEvent
from headwater.testing.auditor import Auditor
from headwater.testing.drive import CONNECTION, delivery_headers, signing_secret
from headwater.testing.network import WireFaults
from headwater.testing.simulation import Plan, Simulation
from headwater.testing.stage import Key, Seen
from headwater.testing.virtual import START, EndlessError, VirtualLoop, run_virtual
from headwater.transport import Transport, TransportRequest, TransportResponse

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  a folder of our own is made in it; a real disk is slower, no better
SCHEDULE = "* * * * *"  # whatever the manifest says: virtual hours cost real seconds
PATIENCE_SECONDS = 1800.0  # of virtual time, for a stream to be polled to its end, or a delivery to be settled
LOOK_SECONDS = 2.0
SEND_AGAIN_SECONDS = 5.0

Snapshot = dict[Key, Seen]


@dataclass
class Played:
    """What a history came to."""

    problems: list[str] = field(default_factory=list)  # in plain words: promises that were broken, work left undone
    snapshots: dict[str, Snapshot] = field(default_factory=dict)  # as the act noted them
    passed: dict[str, int] = field(default_factory=dict)  # failpoints, and how often
    pages: int = 0
    hash: str = ""


class Scene:
    """A history under way; `Act`s direct it."""

    def __init__(self, simulation: Simulation, project: Project, provider: Provider, played: Played) -> None:
        self.simulation = simulation
        self.project = project
        self.provider = provider
        self._played = played
        self._secret = signing_secret(project, provider)
        self._url: str | None = None
        self._sent = 0

    async def begin(self) -> None:
        """Connect the account, and let a process serve it."""
        webhooks = self.project.connector.webhooks
        secrets = dict(self.provider.secrets)
        if webhooks is not None and webhooks.secret in self.project.connector.secret_fields:
            secrets.setdefault(webhooks.secret, self._secret)
        values = {**self.provider.settings, **secrets}
        self.answer_by(self.provider.transport)
        urls = await self.simulation.install({CONNECTION: (self.project.connector.key, values)})
        self._url = urls[CONNECTION]
        self._serving = asyncio.create_task(self.simulation.serve())

    def answer_by(self, transport: Transport) -> None:
        """Let the connector's requests be answered by this from now on."""

        async def timed(request: TransportRequest) -> TransportResponse:
            self._tell_time()
            return await transport(request)

        self.simulation.network.anywhere = timed

    def shift(self) -> None:
        """Let the account change, where it can."""
        self._tell_time()
        if self.provider.shift:
            self.provider.shift()

    def _tell_time(self) -> None:
        if self.provider.tell_time:
            self.provider.tell_time(self.simulation.world_clock.now())

    async def end(self) -> None:
        """Stop in order."""
        await self.simulation.close()
        await self._serving

    async def poll(self, *, seconds_max: float = PATIENCE_SECONDS) -> bool:
        """Wait until each poll stream was polled to its end by a run begun from now on; says what was not."""
        newest = self._auditor.newest_run()
        end = self.simulation.loop.time() + seconds_max
        while self._auditor.left(newest).get("streams"):
            if self.simulation.loop.time() > end:
                self._say_unpolled(newest)
                return False
            await asyncio.sleep(LOOK_SECONDS)
        return True

    async def deliver(self, events: Sequence[SentEvent]) -> bool:
        """Send events one after the other, each until it is accepted, and wait until all are settled."""
        for event in events:
            if not await self._send(event):
                return False
        end = self.simulation.loop.time() + PATIENCE_SECONDS
        while self._auditor.rows("SELECT 1 FROM deliveries WHERE state = 'pending' LIMIT 1"):
            if self.simulation.loop.time() > end:
                self.problem("A delivery is still pending: the webhook route fails again and again.")
                return False
            await asyncio.sleep(LOOK_SECONDS)
        for _, event_type, error in self._auditor.dead()[:1]:
            self.problem(f"The webhook route cannot take an event of type {event_type}: {error}")
        return True

    def note(self, name: str) -> None:
        """Keep the records as they stand now."""
        self._played.snapshots[name] = {
            Key(kind, source_id): Seen(
                payload=bytes(payload), deleted=bool(deleted), versions=version, as_of=from_micros(as_of)
            )
            for _, kind, source_id, deleted, payload, version, as_of in self._auditor.records()
        }

    def problem(self, words: str) -> None:
        """Say that something is wrong."""
        self._played.problems.append(words)

    def set_clock(self, offset_seconds: float) -> None:
        """Set the machine's clock wrongly by so much; 0 is right."""
        self.simulation.clock.offset_seconds = offset_seconds

    def trouble(self, wire: WireFaults | None) -> None:
        """Let the wire fail, or not any more."""
        self.simulation.network.faults = wire or WireFaults()

    async def reset(self) -> None:
        """Forget every checkpoint, as an operator does."""
        self._auditor.operator_moves_checkpoints = True
        async with self.simulation.command() as platform:
            for state in await platform.store.streams(at=self.simulation.world_clock.now()):
                if state.mode == "poll":
                    await platform.store.set_checkpoint(state.id, None, at=self.simulation.world_clock.now())
        self._auditor.operator_moves_checkpoints = False

    def checkpoints(self) -> list[str]:
        """The cursors that are saved."""
        return [cursor for (cursor,) in self._auditor.rows("SELECT cursor FROM streams WHERE cursor IS NOT NULL")]

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query on the store's file."""
        return self._auditor.rows(sql, *values)

    @property
    def _auditor(self) -> Auditor:
        assert self.simulation.auditor is not None, "it has begun"
        return self.simulation.auditor

    async def _send(self, event: SentEvent) -> bool:
        assert self._url is not None, "the connector has webhooks"
        self._sent += 1
        end = self.simulation.loop.time() + PATIENCE_SECONDS
        status = 0
        while not 200 <= status < 300:
            if self.simulation.loop.time() > end:
                self.problem(f"A signed event of type {event.event_type} is not accepted: it is answered {status}.")
                return False
            at = self.simulation.world_clock.now()
            headers = delivery_headers(self.project, event, secret=self._secret, at=at, number=self._sent)
            try:
                status = await self.simulation.network.post(self._url, headers, event.body)
            except (OSError, TimeoutError):
                status = 0
            if not 200 <= status < 300:
                await asyncio.sleep(SEND_AGAIN_SECONDS)
        return True

    def _say_unpolled(self, newest: int) -> None:
        for stream_id, key in self._auditor.rows("SELECT id, key FROM streams WHERE mode = 'poll'"):
            runs = self._auditor.rows(
                "SELECT state, error FROM runs WHERE stream_id = ? AND id > ? ORDER BY id DESC", stream_id, newest
            )
            if not any(state == "succeeded" for state, _ in runs):
                error = next((error for _, error in runs if error), "no run of it ended")
                self.problem(f"The stream {key} is not polled to its end: {error}")


Act = Callable[[Scene], Awaitable[None]]


def play(path: Path, provider: Provider, act: Act, *, seed: int) -> Played:
    """The history of a project's folder that `act` directs."""
    played = Played()
    start = (provider.at or START).astimezone(UTC)

    async def main(loop: VirtualLoop) -> None:
        simulation = Simulation(
            loop, Path(folder), seed=seed, load=lambda: [_loaded(path)], plan=Plan(killed=0.0), start=_whole(start)
        )
        scene = Scene(simulation, _loaded(path), provider, played)
        try:
            await scene.begin()
            await act(scene)
            await scene.end()
        finally:
            played.problems += simulation.history.violations
            played.passed, played.hash = dict(simulation.killer.passed), simulation.history.hash
            if simulation.auditor is not None:
                played.pages = len(simulation.auditor.rows("SELECT 1 FROM pages"))
            simulation.release()

    parent = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="headwater-test-", dir=parent) as folder:
        try:
            run_virtual(main, chance=random.Random(f"loop {seed}"))  # noqa: S311  reproducible
        except EndlessError:
            played.problems.append("The connector goes round for ever: the history did not end.")
    return played


def _whole(start: datetime) -> datetime:
    return start.replace(microsecond=0)


def _loaded(path: Path) -> Project:
    """The project as a new process loads it: what its modules remember is gone."""
    project = load(path)
    unload(project.package)
    project = load(path)
    streams = tuple(
        replace(one, schedule=SCHEDULE, timezone="UTC") if one.mode == "poll" else one
        for one in project.connector.streams
    )
    return replace(project, connector=replace(project.connector, streams=streams))
