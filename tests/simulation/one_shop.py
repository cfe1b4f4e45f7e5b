"""Brief histories of an installation with one account of a small shop: twenty seconds of faults, then recovery.

A schedule of steps that is rare needs many histories, so that these are cheap; the long ones are `two_accounts.py`'s.

Usage: python tests/simulation/one_shop.py [--seeds 2000] [--first 1] [--seed N] [--jobs 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import random
import sys
import tempfile
import time
from dataclasses import replace
from functools import cache
from multiprocessing import Pool
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from histories import Told, Totals, tell

from headwater.errors import ProviderError
from headwater.project import Project, load
from headwater.testing import provider_webhook
from headwater.testing.network import WireFaults
from headwater.testing.provider_ledger import Ledger
from headwater.testing.provider_webhook import WebhookFaults, WebhookSender
from headwater.testing.simulation import Plan, Simulation
from headwater.testing.virtual import VirtualLoop, run_virtual
from headwater.transport import Headers, TransportRequest, TransportResponse

PROJECT = Path(__file__).parent / "shop"
SECRETS = {"api_key": "sk_shop", "webhook_secret": "whsec_shop"}
PLAN = Plan(
    seconds=20.0, pause_seconds=4.0, liveness_seconds=1000.0, store_fails=0.01,
    wire=WireFaults(refused=0.04, lost=0.04, cut=0.04, slow=0.04, limited=0.06, failed=0.04),
)  # fmt: skip
WEBHOOK_FAULTS = WebhookFaults(duplicated=0.15, reordered=0.3, late=0.15, late_seconds=20.0, lost_response=0.1)
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0) * 50
ROLES = frozenset({"ingress", "worker", "ticker"})  # the pages of the dashboard would be made for each process
CHUNK = 100  # seeds of one task
CHUNKS_OF_A_PROCESS = 20
CUSTOMERS = 6  # to begin with
PAGE = 4
ACT_SECONDS = 2.0  # between two changes, on the average
PASSING_FAULTS = 0.05
FORGED = 0.2  # share of the changes beside which somebody sends an event of his own


class Shop:
    """The provider: its customers by the number of their last change, and the events that it sends."""

    def __init__(self, simulation: Simulation, seed: int) -> None:
        self._simulation = simulation
        self._chance = random.Random(f"shop {seed}")
        self._ledger = Ledger(seed=seed, clock=simulation.world_clock)
        self._number = 0
        self._told = asyncio.Event()
        self._ledger.listeners.append(lambda event: self._told.set())
        self.customers: dict[str, dict] = {}  # in the order of their last change
        self.webhooks = WebhookSender(self._ledger, simulation.world_clock, seed=seed, post=self._post)
        for _ in range(CUSTOMERS):
            self._change(f"c_{len(self.customers) + 1}")
        simulation.network.hosts["shop.test"] = self._answer
        simulation.network.on_answer = lambda url, headers, body, status: simulation.auditor.answered(
            json.loads(body)["id"], status
        )

    async def live(self) -> None:
        """One change after another."""
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / ACT_SECONDS))
            joins = self._chance.random() < 0.3
            self._change(f"c_{len(self.customers) + 1}" if joins else self._chance.choice(list(self.customers)))
            if self._chance.random() < FORGED:
                await self._forge()

    async def send(self) -> None:
        """Send the events that are due, as they come."""
        clock = self._simulation.world_clock
        while True:
            self._told.clear()
            await self.webhooks.deliver()
            due = self.webhooks.next_at
            try:
                async with asyncio.timeout(None if due is None else max(0.0, (due - clock.now()).total_seconds())):
                    await self._told.wait()
            except TimeoutError:
                continue

    def compare(self, records, note) -> int:
        """Sets equal: each customer against its record; how many."""
        stored = {
            source: None if deleted else json.loads(payload)["email"] for _, _, source, deleted, payload, *_ in records
        }
        truth = {source: None if one["gone"] else one["email"] for source, one in self.customers.items()}
        # Whoever left before anything was known of him needs no record.
        odd = [one for one in truth.keys() | stored.keys() if truth.get(one) != stored.get(one)]
        if odd:
            first = min(odd)
            note(f"7: {len(odd)} records are wrong: {first} is {stored.get(first)}, not {truth.get(first)}")
        return len(truth)

    def _change(self, identity: str) -> None:
        self._number += 1
        before = self.customers.pop(identity, None)
        gone = before is not None and not before["gone"] and self._chance.random() < 0.2
        at = self._simulation.world_clock.now()
        self.customers[identity] = one = {
            "id": identity, "email": f"{identity}.{self._number}@example.com", "number": self._number,
            "changed_at": at.isoformat(), "gone": gone,
        }  # fmt: skip
        self._ledger.tell({
            "id": f"evt_{self._number}", "created": int(at.timestamp()), "type": "customer.changed", "data": one,
        })  # fmt: skip

    async def _answer(self, request: TransportRequest) -> TransportResponse:
        after = int(parse_qs(urlsplit(request.url).query)["after"][0])
        left = [one for one in self.customers.values() if one["number"] > after]
        page = left[:PAGE]
        body = {"data": page, "last": page[-1]["number"] if page else after, "more": len(left) > PAGE}
        headers = Headers([("content-type", "application/json")])
        return TransportResponse(status=200, headers=headers, body=json.dumps(body).encode())

    async def _post(self, url, headers, body) -> int:
        status = await self._simulation.network.post(url, headers, body)
        self._simulation.history.note("shop", f"webhook {json.loads(body)['id']} {status}")
        return status

    async def _forge(self) -> None:
        simulation = self._simulation
        body = json.dumps({"id": f"evt_forged_{self._number}", "type": "customer.changed", "data": {}}).encode()
        simulation.auditor.forged.add(f"evt_forged_{self._number}")
        timestamp = str(int(simulation.world_clock.now().timestamp()))
        proof = provider_webhook.sign(body, "whsec_nobody", timestamp)
        endpoint = next(iter(self.webhooks.endpoints.values()))
        with contextlib.suppress(OSError, TimeoutError):
            await simulation.network.post(endpoint.url, {"stripe-signature": f"t={timestamp},v1={proof}"}, body)


@cache
def loaded() -> Project:
    """The shop's connector, whose modules keep nothing between two calls: one loading is every process's."""
    return load(PROJECT)


def faulty(chance: random.Random, is_faulty) -> Project:
    """The connector, whose webhook route fails in passing now and then."""
    project = loaded()
    route = project.webhook_route

    async def post(request):
        if is_faulty() and chance.random() < PASSING_FAULTS:
            raise ProviderError("something that the handler needs is not there at the moment")
        return await route(request)

    return replace(project, webhook_route=post)


@cache
def installed() -> tuple[bytes, str]:
    """The file of an installation to which nothing has happened yet, and its webhook URL: where histories begin."""

    async def main(loop: VirtualLoop) -> str:
        simulation = Simulation(loop, Path(folder), seed=0, load=lambda: [loaded()], plan=PLAN)
        urls = await simulation.install({"shop": ("shop", SECRETS)})
        simulation.release()
        return urls["shop"]

    with tempfile.TemporaryDirectory() as folder:
        url = run_virtual(main, chance=random.Random(0))
        (file,) = Path(folder).iterdir()
        return file.read_bytes(), url


def opened(simulation: Simulation, seed: int) -> Shop:
    """The shop of an installation to which nothing has happened yet."""
    shop = Shop(simulation, seed)
    file, url = installed()
    simulation.config.database.write_bytes(file)
    simulation.watch()
    shop.webhooks.register(url, secret=SECRETS["webhook_secret"])
    return shop


async def history(simulation: Simulation, told: Told) -> None:
    """Trouble, recovery, comparison, replay."""
    shop = opened(simulation, told.seed)
    shop.webhooks.faults = WEBHOOK_FAULTS
    tasks = [asyncio.create_task(shop.live()), asyncio.create_task(shop.send())]
    serving = asyncio.create_task(simulation.serve())
    await simulation.trouble()
    tasks[0].cancel()
    shop.webhooks.faults = WebhookFaults()
    await simulation.settle(lambda: shop.webhooks.waiting)
    told.records = shop.compare(simulation.auditor.records(), simulation.history.violated)
    if dead := simulation.auditor.dead():
        simulation.history.violated(f"5: deliveries died of a passing fault: {dead[:3]}")
    if told.seed % 4 == 0:
        await simulation.replayed()
    tasks[1].cancel()
    await simulation.close()
    await serving


def simulate(seed: int, *, plan: Plan = PLAN, history=history, on_line=None, whole: bool = True) -> Told:
    """The history of a seed; unless it is wanted `whole`, it stops where the first promise is broken."""
    told = Told(seed=seed, replay=f"make nightly-schedules SEED={seed}")
    chance = random.Random(f"handler {seed}")
    installed()

    def made(loop: VirtualLoop, folder: Path) -> Simulation:
        simulation = Simulation(
            loop, folder, seed=seed, plan=plan, roles=ROLES, keeps_connections=True,
            load=lambda: [faulty(chance, lambda: simulation.killer.store_fails > 0)],
        )  # fmt: skip
        return simulation

    return tell(
        told, lambda simulation: history(simulation, told),
        made=made, retry_seconds=RETRY_SECONDS, on_line=on_line, whole=whole,
    )  # fmt: skip


def total(seeds: range) -> Totals:
    """What the histories of some seeds came to together."""
    logging.disable(logging.CRITICAL)
    totals = Totals(seeds[0])
    for seed in seeds:
        totals.note(simulate(seed))
    return totals


def main() -> int:
    """See the module."""
    options = argparse.ArgumentParser()
    options.add_argument("--seeds", type=int, default=2000)
    options.add_argument("--first", type=int, default=1)
    options.add_argument("--seed", type=int)
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    if chosen.seed is not None:
        logging.disable(logging.CRITICAL)
        told = simulate(chosen.seed, on_line=print)
        print(told if told.violations else f"seed {told.seed}: {told.hash}, no promise is broken")
        return 1 if told.violations else 0
    end = chosen.first + chosen.seeds
    chunks = [range(first, min(first + CHUNK, end)) for first in range(chosen.first, end, CHUNK)]
    totals = Totals(chosen.first)
    started = time.monotonic()
    with Pool(chosen.jobs, maxtasksperchild=CHUNKS_OF_A_PROCESS) as pool:
        for found in pool.imap(total, chunks):
            totals.add(found)
            if chosen.json:
                chosen.json.write_text(json.dumps(totals.published(time.monotonic() - started), indent=1) + "\n")
            print(f"to seed {totals.last_seed}: {len(totals.problems)} broke a promise", flush=True)
    print(json.dumps(totals.published(time.monotonic() - started)))
    return 1 if totals.problems else 0


if __name__ == "__main__":
    sys.exit(main())
