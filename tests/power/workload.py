"""What the store is asked to do while its disk is recorded, and the ledger of what it said that it kept.

Every emission has a content of its own, so that the versions in a file say which pages and deliveries are in it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import apsw
import msgspec
from disk import Act

from headwater.delivery import DeliveryState, NewDelivery
from headwater.intention import DeliveryCommit, DeliveryFailure, PageCommit
from headwater.run import RunRef
from headwater.testing.conformance.world import World, at, declaration, done, emission, grave, new_delivery

CONNECTIONS = ("acme", "bolt")
STREAMS = ("customers", "invoices")
STEPS = 22  # of a life
TOGETHER_MAX = 4  # acts without waiting for one another: they share transactions
RECORDS = 30  # of a connection: pages change the same ones again and again
FAILING_SHARE = 0.2  # of the dispatched deliveries
HASH_BYTES = 16

PageTold = tuple[int, str | None, list[str]]  # stream, cursor, contents


@dataclass
class Ledger:
    """What was submitted, by name; what of it was acked is in the trace."""

    deliveries: dict[str, NewDelivery] = field(default_factory=dict)
    pages: dict[tuple[int, int], PageTold] = field(default_factory=dict)  # by run and number
    done: dict[str, list[str]] = field(default_factory=dict)  # contents, by delivery
    count: int = 0

    def copied(self) -> Ledger:
        """The same, apart."""
        return Ledger(dict(self.deliveries), dict(self.pages), dict(self.done), self.count)

    def content(self, chance: random.Random) -> str:
        """A content that never was before; some are larger than a page of the file."""
        self.count += 1
        return f"n{self.count}-" + "x" * chance.choice((0, 20, 300, 9000))


class Workload:
    """Acts drawn one after the other, until the last step or until the store is broken."""

    def __init__(self, world: World, ledger: Ledger, chance: random.Random, trace: list[Act]) -> None:
        self.world, self.ledger, self.chance, self.trace = world, ledger, chance, trace
        self.refs: dict[int, RunRef] = {}
        self.numbers: dict[int, int] = {}

    async def begin(self) -> None:
        """Connect what is not connected yet, and take up the runs that a process before left."""
        for key in CONNECTIONS:
            known = await self.world.store.connection(key)
            if known is None:
                await self.world.connect(key, streams=STREAMS)
            else:  # the power may have been cut between its two transactions
                declared = [declaration(stream) for stream in STREAMS]
                await self.world.store.declare_streams(known.id, declared, at=at())
        await self.world.store.readmit(at())
        for ref in (await self.world.tick()).admitted:
            await self.world.store.begin_run(ref, at=at(), lease_seconds=60)
            self._take(ref)

    async def step(self) -> None:
        """Some acts at once."""
        acts = [self._pages, self._pages, self._receive, self._receive, self._dispatch, self._end, self._operate]
        drawn = [self.chance.choice(acts) for _ in range(self.chance.randint(1, TOGETHER_MAX))]
        busy: set[Any] = set()
        alone = [act for act in drawn if act in (self._receive, self._operate) or not (act in busy or busy.add(act))]
        for result in await asyncio.gather(*(act() for act in alone), return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    def acked(self, what: str, name: object) -> None:
        """Somebody was told that this is kept."""
        self.trace.append(Act("acked", note=(what, name)))

    async def _pages(self) -> None:
        ref = await self._ref()
        await asyncio.gather(*(self._page(ref) for _ in range(self.chance.randint(1, 3))))

    async def _ref(self) -> RunRef:
        key, stream = self.chance.choice(CONNECTIONS), self.chance.choice(STREAMS)
        state = await self.world.state(key, stream)
        if state.id not in self.refs:
            self._take(await self.world.admit(key, stream))
        return self.refs[state.id]

    async def _page(self, ref: RunRef) -> None:
        self.numbers[ref.run_id] += 1
        page = self.page(ref, self.numbers[ref.run_id])
        await self.world.store.commit_page(page)
        self.acked("page", (ref.run_id, page.number))

    def page(self, ref: RunRef, number: int) -> PageCommit:
        """A page of a run, written into the ledger."""
        emissions, contents = self._emissions(ref.stream_key)
        cursor = f"cursor-{ref.run_id}-{number}"
        self.ledger.pages[ref.run_id, number] = ref.stream_id, cursor, contents
        return self.world.page(ref, *emissions, number=number, cursor=cursor, has_more=True)

    def _emissions(self, stream: str) -> tuple[list[Any], list[str]]:
        emissions, contents = [], []
        sources = [f"r{number}" for number in range(RECORDS)]
        for source in self.chance.sample(sources, self.chance.randint(0, 5)):
            self.ledger.count += 1
            if self.chance.random() < 0.1:
                emissions.append(grave(source, self.ledger.count, stream=stream))
                continue
            contents.append(self.ledger.content(self.chance))
            key = self.chance.choice((None, contents[-1]))
            emissions.append(emission(source, contents[-1], self.ledger.count, stream=stream, key=key))
        return emissions, contents

    async def _receive(self) -> None:
        connections = await self.world.store.connections()
        connection = self.chance.choice([one for one in connections if one.key in CONNECTIONS])
        batch = []
        for _ in range(self.chance.randint(1, 3)):
            self.ledger.count += 1
            body = self.chance.randbytes(self.chance.choice((40, 1000, 10_000))).hex().encode()
            batch.append(new_delivery(connection.id, f"evt-{self.ledger.count}", body=body))
        self.ledger.deliveries |= {one.provider_id: one for one in batch}
        await self.world.store.append_deliveries(batch)
        for one in batch:
            self.acked("delivery", one.provider_id)

    async def _dispatch(self) -> None:
        claims = await self.world.claim(limit=self.chance.randint(1, 6))
        commits: list[DeliveryCommit] = []
        for claim in claims:
            if self.chance.random() < FAILING_SHARE:
                failure = DeliveryFailure(
                    claim=claim, at=at(), state=self.chance.choice((DeliveryState.PENDING, DeliveryState.DEAD)),
                    due_at=at(), error_code="stop.handler", error="broken", traceback=None,
                )  # fmt: skip
                await self.world.store.fail_delivery(failure)
                continue
            emissions, contents = self._emissions("events")
            self.ledger.done[claim.provider_id] = contents
            commits.append(done(claim, *emissions))
        await self.world.store.finish_deliveries(commits)
        for commit in commits:
            self.acked("done", commit.claim.provider_id)

    async def _end(self) -> None:
        if self.refs:
            ref = self.refs.pop(self.chance.choice(sorted(self.refs)))
            await self.world.end(ref)
            self.acked("run", ref.run_id)

    async def _operate(self) -> None:
        store, number = self.world.store, self.chance.randrange(3)
        if number == 0:
            await store.audit(at=at(), actor="ann", act="test", target="x", detail={"n": self.ledger.count})
        elif number == 1:
            self.ledger.count += 1
            await store.set_position(f"sink-{number}", self.ledger.count, at=at())
        else:  # pages of the file become free, and are used again
            self.ledger.count += 1
            name = f"extra-{self.ledger.count}"
            extra = await self.world.connect(name)
            await store.append_deliveries([new_delivery(extra.id, name, body=bytes(50_000))])
            await store.remove_connection(extra.id)

    def _take(self, ref: RunRef) -> None:
        self.refs[ref.stream_id] = ref
        self.numbers[ref.run_id] = ref.page_number


def digest(db: apsw.Connection) -> str:
    """A hash of the whole of what is stored, whatever the table."""
    found = blake2b(digest_size=HASH_BYTES)
    schema = db.execute(
        "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY 1, 2"
    ).fetchall()
    found.update(repr(schema).encode())
    for kind, name, _ in schema:
        if kind == "table":
            found.update(msgspec.msgpack.encode(db.execute(f'SELECT * FROM "{name}" ORDER BY 1, 2').fetchall()))
    return found.hexdigest()


class Stored:
    """What is in a file, and what of the ledger is not as it must be."""

    def __init__(self, db: apsw.Connection) -> None:
        self.deliveries = Counter(one for (one,) in db.execute("SELECT provider_id FROM deliveries"))
        self.done = {one for (one,) in db.execute("SELECT provider_id FROM deliveries WHERE state = 'done'")}
        self.pages = set(db.execute("SELECT run_id, number FROM pages").fetchall())
        self.ended = {one for (one,) in db.execute("SELECT id FROM runs WHERE state = 'succeeded'")}
        self.cursors = dict(db.execute("SELECT id, cursor FROM streams").fetchall())
        self.versions = Counter(
            payload.decode().split('"name":"')[1].rstrip('"}')
            for (payload,) in db.execute("SELECT CAST(payload AS BLOB) FROM versions WHERE NOT deleted")
        )
        self.count = int(db.execute("SELECT count(*) FROM records r JOIN versions v USING (sequence)").get)
        self.records = int(db.execute("SELECT count(*) FROM records").get)

    def problems(self, ledger: Ledger, acked: list[tuple[str, Any]]) -> list[str]:
        """What is lost, there twice, or there by half."""
        kept: dict[str, Any] = {
            "delivery": self.deliveries, "page": self.pages, "done": self.done, "run": self.ended,
        }  # fmt: skip
        found = [f"lost: {what} {name} was acked" for what, name in acked if name not in kept[what]]
        found += [f"twice: delivery {name}" for name, count in self.deliveries.items() if count > 1]
        wanted = Counter(
            content
            for contents in [
                *(contents for key, (_, _, contents) in ledger.pages.items() if key in self.pages),
                *(contents for name, contents in ledger.done.items() if name in self.done),
            ]
            for content in contents
        )
        if wanted != self.versions:
            lost, more = wanted - self.versions, self.versions - wanted
            found.append(
                f"not whole: {len(lost)} versions lack, {len(more)} are there without page or delivery, or twice"
            )
        if self.count != self.records:
            found.append("not whole: records without their versions")
        for stream, cursor in self._checkpoints(ledger).items():
            if self.cursors.get(stream) != cursor:
                found.append(f"checkpoint: stream {stream} is at {self.cursors.get(stream)}, its last page at {cursor}")
        return found

    def forget_the_rest(self, ledger: Ledger) -> None:
        """Of the ledger keep what is stored: a run that is lost leaves its number to another one."""
        ledger.pages = {key: page for key, page in ledger.pages.items() if key in self.pages}
        ledger.done = {name: contents for name, contents in ledger.done.items() if name in self.done}
        ledger.deliveries = {name: one for name, one in ledger.deliveries.items() if name in self.deliveries}

    def _checkpoints(self, ledger: Ledger) -> dict[int, str | None]:
        present = sorted((key, page) for key, page in ledger.pages.items() if key in self.pages)
        return {stream: cursor for _, (stream, cursor, _) in present}
