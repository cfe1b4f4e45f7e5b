"""Histories of an installation with two Stripe accounts, each a fake that lives on, in virtual time.

Usage: python tests/simulation/two_accounts.py [--seeds 200] [--first 1] [--seed N] [--seconds 600] [--trace] [--jobs 2]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import sys
import time
from dataclasses import replace
from functools import partial
from multiprocessing import Pool
from pathlib import Path

from histories import Told, Totals, tell

from headwater.canonical.registry import shipped
from headwater.errors import ProviderError
from headwater.project import load, unload
from headwater.testing import provider_webhook
from headwater.testing.answering import answering
from headwater.testing.provider import API_KEY, FakeStripe, Faults, WebhookFaults, seed_account
from headwater.testing.simulation import Plan, Simulation
from headwater.testing.virtual import VirtualLoop

ROOT = Path(__file__).parent.parent.parent
PROJECT = ROOT / "connectors" / "stripe"
ACCOUNTS = ("acme", "bolt")
CUSTOMERS = 25
ACTS_PER_SECOND = 0.15  # of each account
RETRY_SECONDS = (5.0, 10.0, 20.0, 30.0) * 50
FORGED_SECONDS = 40.0  # between two deliveries with a wrong signature
SCHEDULE = "* * * * *"
PAGE_RECORDS = 8
BUGGY_TYPE = "payment_intent.created"
PASSING_FAULTS = 0.05
FAULTS = Faults(rate_limited=0.02, retry_after_seconds=5, failed=0.03, reset=0.01, churn=0.1, latency_seconds=0.3)
WEBHOOK_FAULTS = WebhookFaults(duplicated=0.15, reordered=0.3, late=0.15, late_seconds=120.0, lost_response=0.1)


class Handler:
    """The connector's webhook route, which fails in passing now and then, and has a bug, until it is mended."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(f"handler {seed}")
        self.is_faulty = False

    def around(self, route):
        """`route` with its faults."""

        async def post(request):
            if self.is_faulty and request.event_type == BUGGY_TYPE:
                raise KeyError("a bug of the connector")
            if self.is_faulty and self._chance.random() < PASSING_FAULTS:
                raise ProviderError("something that the handler needs is not there at the moment")
            return await route(request)

        return post


def altered(project) -> None:
    """Nothing; a deliberate bug of the connector takes its place (`bugs.py`)."""


def projects(handler: Handler | None = None):
    """The Stripe connector, loaded anew as in a new process, polling every minute."""
    project = load(PROJECT)
    unload(project.package)
    project = load(PROJECT)
    altered(project)
    if handler:
        project = replace(project, webhook_route=handler.around(project.webhook_route))
    streams = tuple(
        replace(one, schedule=SCHEDULE, page_records=PAGE_RECORDS) if one.mode == "poll" else one
        for one in project.connector.streams
    )
    return [replace(project, connector=replace(project.connector, streams=streams))]


class Accounts:
    """The providers of a history."""

    def __init__(self, simulation: Simulation, seed: int) -> None:
        self._simulation = simulation
        self._chance = random.Random(f"forger {seed}")
        self.fakes = {}
        for number, key in enumerate(ACCOUNTS):
            fake = FakeStripe(seed * 10 + number, simulation.world_clock, api_key=f"{API_KEY}_{key}")
            seed_account(fake, customers=CUSTOMERS)
            fake.webhooks.post = self._posting(key)
            self.fakes[key] = fake
            simulation.network.hosts[f"{key}.stripe.test"] = answering(fake)
        simulation.network.on_answer = self._answered

    def settings(self, key: str):
        """What its connection is made of."""
        return "stripe", {
            "api_key": self.fakes[key].api_key, "webhook_secret": f"whsec_{key}", "api_base": f"https://{key}.stripe.test",
        }  # fmt: skip

    def register(self, urls) -> None:
        """Tell each account where its webhooks go."""
        self._urls = urls
        for key, url in urls.items():
            self.fakes[key].webhooks.register(url, secret=f"whsec_{key}")

    def begin(self):
        """Everything goes wrong; the tasks of the accounts' lives."""
        simulation = self._simulation
        tasks = [asyncio.create_task(self._forge())]
        for fake in self.fakes.values():
            fake.faults, fake.webhooks.faults = FAULTS, WEBHOOK_FAULTS
            tasks.append(asyncio.create_task(fake.webhooks.serve()))
            tasks.append(asyncio.create_task(fake.activity.serve(simulation.world_clock, per_second=ACTS_PER_SECOND)))
        return tasks

    def calm(self) -> None:
        """Nothing goes wrong, and nothing more happens."""
        for fake in self.fakes.values():
            fake.activity.stop()
            fake.faults, fake.webhooks.faults = Faults(), WebhookFaults()

    def waiting(self) -> int:
        """Webhooks yet to be answered."""
        return sum(fake.webhooks.waiting for fake in self.fakes.values())

    def owns(self, key: str, source_id: str) -> bool:
        """Whether that object is, or was, that account's."""
        return bool(self.fakes[key].ledger.history(source_id))

    def compare(self, records, note) -> int:
        """Sets equal: each live object of each ledger against the records, by canonical bytes; how many."""
        stored = {
            (key, kind, source): bytes(payload) for key, kind, source, deleted, payload, *_ in records if not deleted
        }
        resources = projects()[0].module("lib.stream").RESOURCES
        truth = {}
        for key, fake in self.fakes.items():
            for resource in resources:
                encode = shipped()[resource.canonical_type].encode
                for source, state in fake.ledger.current(resource.stream).items():
                    truth[key, resource.canonical_type, source] = encode(resource.transform(dict(state)))
            for source, event in fake.ledger.current("events").items():
                if event["type"] == BUGGY_TYPE:  # told by its webhook alone
                    truth[key, "event", source] = None
        kinds = {resource.canonical_type for resource in resources}
        stored = {place: payload for place, payload in stored.items() if place[1] in kinds or place in truth}
        for words, places in (
            ("lost", truth.keys() - stored.keys()),
            ("should not be", stored.keys() - truth.keys()),
            ("differ", [place for place in truth.keys() & stored.keys() if truth[place] not in (stored[place], None)]),
        ):
            if places:
                note(f"7: {len(places)} records {words}: {sorted(places)[:3]}")
        return len(truth)

    def _posting(self, key: str):
        async def post(url, headers, body):
            status = await self._simulation.network.post(url, headers, body)
            self._simulation.history.note(key, f"webhook {json.loads(body)['type']} {status}")
            return status

        return post

    def _answered(self, url, headers, body, status) -> None:
        self._simulation.auditor.answered(json.loads(body)["id"], status)

    async def _forge(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / FORGED_SECONDS))
            number += 1
            event = {"id": f"evt_forged_{number}", "object": "event", "type": "customer.created", "data": {}}
            body = json.dumps(event).encode()
            self._simulation.auditor.forged.add(event["id"])
            timestamp = str(int(self._simulation.world_clock.now().timestamp()))
            # By the other account's secret, or by nobody's.
            url, other = self._urls["acme"], self._chance.choice(("whsec_bolt", "whsec_nobody"))
            proof = provider_webhook.sign(body, other, timestamp)
            try:
                await self._simulation.network.post(url, {"stripe-signature": f"t={timestamp},v1={proof}"}, body)
            except (OSError, TimeoutError):
                continue


async def history(simulation: Simulation, told: Told, handler: Handler) -> None:
    """Trouble, recovery, comparison, replay."""
    accounts = Accounts(simulation, told.seed)
    urls = await simulation.install({key: accounts.settings(key) for key in ACCOUNTS})
    accounts.register(urls)
    keys = dict(enumerate(ACCOUNTS, 1))
    simulation.auditor.belongs = lambda connection_id, source_id: accounts.owns(keys[connection_id], source_id)
    tasks = accounts.begin()
    handler.is_faulty = True
    serving = asyncio.create_task(simulation.serve())
    await simulation.trouble()
    accounts.calm()
    tasks[0].cancel()
    await simulation.settle(accounts.waiting)
    if wrongly := [one for one in simulation.auditor.dead() if one[1] != BUGGY_TYPE]:
        simulation.history.violated(f"5: deliveries died of a passing fault: {wrongly[:3]}")
    handler.is_faulty = False
    await simulation.revive()
    await simulation.settle(accounts.waiting)
    told.records = accounts.compare(simulation.auditor.records(), simulation.history.violated)
    if dead := simulation.auditor.dead():
        simulation.history.violated(f"7: {len(dead)} deliveries are dead: {dead[:2]}")
    await simulation.replayed()
    for fake in accounts.fakes.values():
        fake.webhooks.stop()
    await simulation.close()
    await serving


def simulate(seed: int, *, plan: Plan | None = None, on_line=None, whole: bool = True) -> Told:
    """The history of a seed; unless it is wanted `whole`, it stops where the first promise is broken."""
    plan = plan or Plan()
    told = Told(seed=seed, replay=f'make simulate SEED={seed} ARGS="--seconds {plan.seconds:g} --trace"')
    handler = Handler(seed)

    def made(loop: VirtualLoop, folder: Path) -> Simulation:
        return Simulation(loop, folder, seed=seed, load=lambda: projects(handler), plan=plan)

    return tell(
        told, lambda simulation: history(simulation, told, handler),
        made=made, retry_seconds=RETRY_SECONDS, on_line=on_line, whole=whole,
    )  # fmt: skip


def main() -> int:
    """See the module."""
    options = argparse.ArgumentParser()
    options.add_argument("--seeds", type=int, default=200)
    options.add_argument("--first", type=int, default=1)
    options.add_argument("--seed", type=int)
    options.add_argument("--seconds", type=float, default=Plan().seconds)
    options.add_argument("--trace", action="store_true")
    options.add_argument("--jobs", type=int, default=2)
    chosen = options.parse_args()
    seeds = [chosen.seed] if chosen.seed is not None else range(chosen.first, chosen.first + chosen.seeds)
    on_line = partial(print, flush=True) if chosen.trace else None
    run = partial(simulate, plan=Plan(seconds=chosen.seconds), on_line=on_line)
    logging.disable(logging.CRITICAL)
    totals = Totals(seeds[0])
    started = time.monotonic()
    with Pool(chosen.jobs) as pool:
        for told in pool.imap(run, seeds):
            print(
                f"seed {told.seed}: {told.hash} {told.records} records, {told.acked} acked, {told.kills.total()} kills,"
                f" {told.virtual_seconds:.0f} virtual s in {told.seconds:.1f} s", flush=True,
            )  # fmt: skip
            totals.note(told)
    print(json.dumps(totals.published(time.monotonic() - started), indent=1))
    return 1 if totals.problems else 0


if __name__ == "__main__":
    sys.exit(main())
