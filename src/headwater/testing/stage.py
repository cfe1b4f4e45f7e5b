"""A project with one connection on a store in memory, its provider in the same process: for the standard suite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from headwater import failpoint
from headwater.app import Platform, open_platform
from headwater.clock import SystemClock
from headwater.config import Config
from headwater.delivery import DeliveryFilter, DeliveryState
from headwater.dispatch import Dispatcher
from headwater.grant import Token
from headwater.ingress import Ingress
from headwater.intention import StoredConnection
from headwater.key_ring import generate_key
from headwater.project import Project
from headwater.record import record_cursor
from headwater.run import LEASE_SECONDS, Run, RunRef, RunState, StreamState
from headwater.runtime import Runner
from headwater.testing.answering import Provider, SentEvent, answering
from headwater.testing.drive import ACCESS_TOKEN, CONNECTION, delivery_headers, signing_secret
from headwater.tokens import Tokens
from headwater.transport import Transport, TransportRequest

HURRY = 50.0  # how much faster than the real one the stage's clock goes: a Retry-After of a second is 20 ms
ATTEMPTS_MAX = 10
LIST_LIMIT = 1000


class Key(NamedTuple):
    """What names a record of the stage's one connection."""

    type: str
    source_id: str


class Seen(NamedTuple):
    """A record as it stands."""

    payload: bytes
    deleted: bool
    versions: int
    as_of: datetime


class Killed(BaseException):
    """The process died here, as far as the run can tell."""


class HurriedClock:
    """A clock that begins at an instant and goes `HURRY` times as fast as the real one."""

    def __init__(self, start: datetime | None) -> None:
        self._real = SystemClock()
        self._begun = self._real.monotonic()
        self._start = start or self._real.now()

    def now(self) -> datetime:
        """See `Clock`."""
        return self._start + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """See `Clock`."""
        return (self._real.monotonic() - self._begun) * HURRY

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await asyncio.sleep(seconds / HURRY)

    def random(self) -> float:
        """See `Clock`: without jitter, the same each time."""
        return 0.5


class Stage:
    """One connection of a project; polls and deliveries are carried out when they are asked for."""

    def __init__(self, platform: Platform, project: Project, stored: StoredConnection, secret: str) -> None:
        self.platform = platform
        self.project = project
        self._stored = stored
        self._secret = secret
        self._sent = 0

    async def poll(self, stream: str | None = None) -> list[Run]:
        """Run a poll stream (or each) to its end, on every partition; an assertion fails with the error of a run."""
        ended = []
        for state in await self.polled(stream):
            ref = await self._admitted(state)
            ended.append(await self._finished(ref))
        return ended

    async def poll_killed(self, state: StreamState, *, at_page: int) -> bool:
        """Begin a run and kill it when it has fetched its nth page; then end it as a new process would.

        False when the run has fewer pages.
        """
        ref = await self._admitted(state)
        left = at_page

        def die() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed

        failpoint.arm("page.fetched", die)
        try:
            await self._runner().carry_out(ref)
        except Killed:
            await self.platform.store.readmit(self.platform.clock.now())
        finally:
            failpoint.disarm("page.fetched")
        if left > 0:
            return False
        await self._finished(await self._readmitted(ref.run_id))
        return True

    async def begin_again(self) -> None:
        """Forget every checkpoint; the records stay."""
        for state in await self.polled():
            await self.platform.store.set_checkpoint(state.id, None, at=self.platform.clock.now())

    async def polled(self, stream: str | None = None) -> list[StreamState]:
        """The states of a poll stream, or of each."""
        states = await self.platform.store.streams(at=self.platform.clock.now(), stream=stream)
        return [state for state in states if state.mode == "poll"]

    async def send(self, events: Iterable[SentEvent], *, secret: str | None = None) -> list[int]:
        """Send events to the connection's endpoint, signed; the statuses that they were answered with."""
        clock, live = self.platform.clock, self.platform.live
        ingress = Ingress(self.platform.store, live.connections, clock, public_url=self.platform.config.base_url)
        endpoint = answering(ingress)
        url = self.platform.webhook_url(self._stored)
        assert url is not None, f"the connector {self.project.connector.key} has no webhooks"
        statuses = []
        for event in events:
            self._sent += 1
            headers = delivery_headers(
                self.project, event, secret=secret or self._secret, at=clock.now(), number=self._sent
            )
            answer = await endpoint(TransportRequest(method="POST", url=url, headers=headers, body=event.body))
            statuses.append(answer.status)
        await ingress.drain()
        return statuses

    async def deliver(self, events: Sequence[SentEvent]) -> None:
        """Send events, one after the other, and let the webhook route have each; an assertion fails where it cannot."""
        dispatcher = Dispatcher(self.platform.store, self.platform.live.connections, self.platform.clock)
        for event in events:
            (status,) = await self.send([event])
            assert status < 300, f"the endpoint answered {status}"
            # Alone: of two events of one instant, the one that is dispatched later holds.
            await dispatcher.dispatch_batch()
        for _ in range(ATTEMPTS_MAX):
            while await dispatcher.dispatch_batch():
                pass
            if not await self.platform.store.pending_deliveries():
                break
            await self.platform.clock.sleep(60)
        for state in (DeliveryState.DEAD, DeliveryState.PENDING):
            for left in await self.platform.store.deliveries(DeliveryFilter(state=state), limit=1):
                raise AssertionError(
                    f"the delivery of {left.event_type} is {state}: {left.error}\n{left.traceback or ''}"
                )

    async def records(self) -> dict[Key, Seen]:
        """Every record as it stands."""
        found: dict[Key, Seen] = {}
        after: str | None = None
        while page := await self.platform.store.records(after=after, limit=LIST_LIMIT):
            for one in page:
                found[Key(one.type, one.source_id)] = Seen(
                    payload=bytes(one.current.payload),
                    deleted=one.deleted,
                    versions=one.version,
                    as_of=one.current.as_of,
                )
            after = record_cursor(page[-1])
        return found

    async def quarantined(self) -> list[str]:
        """Why records were set aside."""
        return [one.reason for one in await self.platform.store.quarantined()]

    def _runner(self) -> Runner:
        platform = self.platform
        return Runner(store=platform.store, connections=platform.live.connections, clock=platform.clock)

    async def _admitted(self, state: StreamState) -> RunRef:
        at = self.platform.clock.now()
        run_id = await self.platform.store.trigger_run(state.id, at=at)
        return await self.platform.store.admit_run(run_id, at=at, lease_seconds=LEASE_SECONDS)

    async def _readmitted(self, run_id: int) -> RunRef:
        return await self.platform.store.admit_run(run_id, at=self.platform.clock.now(), lease_seconds=LEASE_SECONDS)

    async def _carried_out(self, ref: RunRef) -> Run:
        await self._runner().carry_out(ref)
        run = await self.platform.store.run(ref.run_id)
        assert run is not None, "a run that was made is there"
        return run

    async def _finished(self, ref: RunRef) -> Run:
        run = await self._carried_out(ref)
        for _ in range(ATTEMPTS_MAX):
            if run.state is not RunState.RETRYING:
                break
            await self.platform.clock.sleep(max(0.0, (run.due_at - self.platform.clock.now()).total_seconds()))
            run = await self._carried_out(await self._readmitted(ref.run_id))
        assert run.state is RunState.SUCCEEDED, f"{run.stream} {run.state}: {run.error}\n{run.traceback or ''}"
        return run


@asynccontextmanager
async def stage(project: Project, provider: Provider, *, transport: Transport | None = None) -> AsyncIterator[Stage]:
    """A fresh stage; `transport` takes the place of the provider's."""
    webhooks = project.connector.webhooks
    secret = signing_secret(project, provider)
    secrets = dict(provider.secrets)
    if webhooks is not None and webhooks.secret in project.connector.secret_fields:
        secrets.setdefault(webhooks.secret, secret)
    config = Config(database=Path(":memory:"), key=generate_key())
    async with open_platform(
        config, HurriedClock(provider.at), loaded=(project,), transport=transport or provider.transport
    ) as platform:
        values = {**provider.settings, **secrets}
        stored = await platform.add_connection(project.connector.key, values, key=CONNECTION)
        tokens = (await platform.live.connections.get(stored.id)).tokens
        if isinstance(tokens, Tokens):
            await tokens.keep(Token(access_token=ACCESS_TOKEN))
            await platform.store.resume_connection(stored.id, at=platform.clock.now())
        yield Stage(platform, project, stored, secret)
