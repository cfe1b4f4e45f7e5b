"""A load that is verified: every single event is followed from its request to its record.

Signed events of Stripe customers come at a rate that does not wait for answers; what is refused is sent again, as a
provider would. Then comes a burst. In the end each event must be stored once and done, each customer's record must be
what its last event said, byte by byte, and the server must not have grown.

Usage: python tests/load/verified.py [--store sqlite|postgres] [--minutes 10] [--rate 300] [--burst 5000]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import uvicorn

from headwater.canonical.registry import shipped
from headwater.clock import SystemClock
from headwater.delivery import DeliveryFilter, DeliveryState
from headwater.record import record_cursor
from headwater.store import Store
from headwater.stores.sqlite.store import SQLiteStore
from headwater.testing.drive import loaded_project
from headwater.testing.provider import API_KEY, FakeStripe
from headwater.testing.signer import signed

ROOT = Path(__file__).parent.parent.parent
TESTS = ROOT / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "acceptance"), str(TESTS / "crash")]

from cycles import free_port  # noqa: E402  a helper of the programme of kills
from served import Server, headwater, serving  # noqa: E402

PROJECT = ROOT / "connectors" / "stripe"
SECRET = "whsec_load"
CONNECTIONS = 64
SECONDS_APART = 3  # of two events of one customer: Stripe dates events to the second
BURST_SECONDS = 5
AGAIN_SECONDS = 0.5  # after an answer that is no 2xx
ACCEPTABLE = frozenset({200, 429, 503})
SETTLE_SECONDS_MAX = 300.0
WARM_SECONDS = 30  # before the first look at memory
LOOK_SECONDS = 60
GROWTH_MAX = 1.10
PAGE = 1000


@dataclass
class Figures:
    """What a load came to."""

    events: int = 0
    answers: Counter[int] = field(default_factory=Counter)  # by status; 0 where there was none
    seconds: list[float] = field(default_factory=list)  # from a request to its 2xx
    memory: list[int] = field(default_factory=list)  # resident KiB, each second
    problems: list[str] = field(default_factory=list)

    def growth(self) -> float | None:
        """The memory of the last minute against that of the first one after the warm-up; None for a short load."""
        if len(self.memory) < WARM_SECONDS + 2 * LOOK_SECONDS:
            return None
        first = self.memory[WARM_SECONDS : WARM_SECONDS + LOOK_SECONDS]
        return median(self.memory[-LOOK_SECONDS:]) / median(first)


class Load:
    """The sender of one load, and what is true of the account that it tells of."""

    def __init__(self, url: str, template: dict[str, Any], *, rate: int) -> None:
        self._url = url
        self._template = template
        self._pool = rate * SECONDS_APART
        self.figures = Figures()
        self.sent: list[str] = []
        self.truth: dict[str, dict[str, Any]] = {}

    async def send(self, session: aiohttp.ClientSession, *, rate: int, count: int) -> None:
        """So many events at this rate, whatever is answered; returns when each has its 2xx."""
        started = time.monotonic()
        tasks = set()
        for number in range(count):
            await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
            task = asyncio.create_task(self._deliver(session, *self._next()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        while tasks:
            await asyncio.wait(set(tasks))

    def _next(self) -> tuple[str, bytes]:
        number = len(self.sent)
        event_id, customer = f"evt_load_{number:09d}", f"cus_load_{number % self._pool:07d}"
        told = {**self._template, "id": customer, "name": f"Customer as of {number}", "balance": number}
        self.sent.append(event_id)
        self.truth[customer] = told
        event = {
            "id": event_id, "object": "event", "api_version": "2025-03-31.basil", "created": int(time.time()),
            "type": "customer.updated", "livemode": False, "pending_webhooks": 1,
            "request": {"id": None, "idempotency_key": None}, "data": {"object": told, "previous_attributes": {}},
        }  # fmt: skip
        return event_id, json.dumps(event, separators=(",", ":")).encode()

    async def _deliver(self, session: aiohttp.ClientSession, event_id: str, body: bytes) -> None:
        while True:
            headers = signed("stripe_signature", body, SECRET, at=datetime.now(UTC), provider_id=event_id)
            started = time.monotonic()
            try:
                async with session.post(self._url, data=body, headers=headers) as answer:
                    status = answer.status
            except (aiohttp.ClientError, OSError, TimeoutError):
                status = 0
            self.figures.answers[status] += 1
            if status == 200:
                self.figures.seconds.append(time.monotonic() - started)
                return
            if status not in ACCEPTABLE:
                self.figures.problems.append(f"{event_id} was answered {status}")
            await asyncio.sleep(AGAIN_SECONDS)


async def programme(folder: Path, *, database: str, seconds: float, rate: int, burst: int) -> tuple[Figures, int]:
    """The load, the burst and the comparison; the figures, and how many records were compared."""
    provider = FakeStripe(1, SystemClock())
    provider.account.create_customer({"name": "Template", "email": "t@example.com"})
    template = dict(next(iter(provider.ledger.current("customers").values())))
    async with _api(provider) as api:
        (folder / "headwater.toml").write_text(f'projects = ["{PROJECT}"]\ndatabase = "{database}"\n')
        secrets = json.dumps({"api_key": API_KEY, "webhook_secret": SECRET})
        words = ("connections", "add", "stripe", "--key", "acme", "--set", f"api_base={api}", "--secrets-stdin")
        added = await asyncio.to_thread(headwater, folder, *words, stdin=secrets)
        assert added.code == 0, added.err
        with serving(folder) as server:
            load, stored = await _loaded(folder, server, template, seconds=seconds, rate=rate, burst=burst)
    return load.figures, stored


async def _loaded(
    folder: Path, server: Server, template: dict[str, Any], *, seconds: float, rate: int, burst: int
) -> tuple[Load, int]:
    store = await _store(folder)
    try:
        (connection,) = await store.connections()
        url = f"{server.url}/webhooks/stripe/{connection.endpoint_id}"
        load = Load(url, template, rate=max(rate, burst // BURST_SECONDS))
        watching = asyncio.create_task(_watch(server.process.pid, load.figures))
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as session:
            await load.send(session, rate=rate, count=int(seconds * rate))
            watching.cancel()
            await load.send(session, rate=max(1, burst // BURST_SECONDS), count=burst)
        load.figures.events = len(load.sent)
        await _settled(store, load.figures)
        return load, await _verify(store, load)
    finally:
        await store.close()


async def _watch(pid: int, figures: Figures) -> None:
    while True:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                figures.memory.append(int(line.split()[1]))
        await asyncio.sleep(1)


async def _settled(store: Store, figures: Figures) -> None:
    limit = time.monotonic() + SETTLE_SECONDS_MAX
    while waiting := await store.count_deliveries(DeliveryFilter(state=DeliveryState.PENDING)):
        if time.monotonic() > limit:
            figures.problems.append(f"{waiting} deliveries were not done in time")
            return
        await asyncio.sleep(0.2)


async def _verify(store: Store, load: Load) -> int:
    """Compare what is stored with what was told, event by event and record by record."""
    problems, seen, after = load.figures.problems, Counter[str](), None
    while page := await store.deliveries(DeliveryFilter(), after=after, limit=PAGE):
        for one in page:
            seen[one.provider_id] += 1
            if one.state is not DeliveryState.DONE or one.counts.total != 1:
                problems.append(f"{one.provider_id} is {one.state}, and came to {one.counts.total} emissions")
        after = page[-1].id
    problems += [f"{event_id} was acked and is not stored" for event_id in set(load.sent) - seen.keys()]
    problems += [f"{event_id} is stored {count} times" for event_id, count in seen.items() if count != 1]
    transform = loaded_project(PROJECT).module("lib.stream").BY_STREAM["customers"].transform
    truth = {key: shipped()["customer"].encode(transform(told)) for key, told in load.truth.items()}
    compared, cursor = 0, None
    while records := await store.records(connection="acme", type="customer", after=cursor, limit=PAGE):
        for record in records:
            if (told := truth.pop(record.source_id, None)) is not None:
                compared += 1
                if bytes(record.current.payload) != told:
                    problems.append(f"{record.source_id} is not what its last event said")
        cursor = record_cursor(records[-1])
    problems += [f"{source_id} has no record" for source_id in truth]
    return compared


async def _store(folder: Path) -> Store:
    from headwater import config

    database = config.load({}, directory=folder).database
    if isinstance(database, Path):
        store: Store = SQLiteStore(str(database), SystemClock())
    else:
        from headwater.stores.postgres.store import PostgresStore

        store = PostgresStore(database.url, SystemClock())
    await store.open()
    return store


@contextlib.asynccontextmanager
async def _api(provider: FakeStripe):
    """The provider's API over loopback; its address."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(provider, host="127.0.0.1", port=port, log_level="critical"))
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


def main() -> int:
    """See the module."""
    options = argparse.ArgumentParser()
    options.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--rate", type=int, default=300)
    options.add_argument("--burst", type=int, default=5000)
    chosen = options.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-load-")))
        database = "load.db"
        if chosen.store == "postgres":
            import postgres_server
            from cluster_nodes import as_url

            database = as_url(stack.enter_context(stack.enter_context(postgres_server.serving()).database()))
        words = {"seconds": chosen.minutes * 60, "rate": chosen.rate, "burst": chosen.burst}
        figures, compared = asyncio.run(programme(folder, database=database, **words))
    growth, seconds = figures.growth(), sorted(figures.seconds)
    if growth is not None and growth > GROWTH_MAX:
        figures.problems.append(f"the server grew to {growth:.2f} of its size")
    facts = {
        "store": chosen.store, "minutes": chosen.minutes, "rate": chosen.rate, "burst": chosen.burst,
        "events": figures.events, "answers": dict(sorted(figures.answers.items())), "records_compared": compared,
        "p50_ms": round(seconds[len(seconds) // 2] * 1000, 1),
        "p99_ms": round(seconds[len(seconds) * 99 // 100] * 1000, 1),
        "memory_growth": growth and round(growth, 3), "problems": figures.problems[:20],
    }  # fmt: skip
    print(json.dumps(facts, indent=1))
    return 1 if figures.problems else 0


if __name__ == "__main__":
    sys.exit(main())
