"""Network faults between the real server and its providers, on both sides, and then the comparison with the truth.

Several fake Stripe accounts live behind a proxy each, and send their webhooks through another one. A scenario is what
is drawn from one seed for one account: the weather of both proxies, and the pace of the account's life meanwhile. Then
the faults stop; everything must be sent, done and polled, and each record must be what the provider's ledger says.

Usage: python tests/network/scenarios.py [--scenarios 5000] [--first 1] [--accounts 20]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS / "network"), str(TESTS / "crash"), str(TESTS / "acceptance")]

import cycles  # noqa: E402  the provider's life and the comparison of the programme of kills
from proxy import Proxy, drawn  # noqa: E402
from served import Server, serving  # noqa: E402

from headwater import config  # noqa: E402
from headwater.app import open_platform  # noqa: E402
from headwater.clock import SystemClock  # noqa: E402
from headwater.testing.provider import API_KEY, seed_account  # noqa: E402

ACTS = 6  # of an account in one scenario
FAULTS_SECONDS = 1.5
MEETINGS = 2  # connections of polls that meet a scenario's faults
MEETING_SECONDS_MAX = 10.0
SETTLE_SECONDS_MAX = 60.0
LOOK_SECONDS = 0.1
DUE_SECONDS = 1.0  # between two times that all is brought to now
DESCRIPTORS_MORE = 8  # than before the first connection: a spare reader of the store, and the like
AGAIN = "make nightly-network SEED={seed}"


@dataclass
class Figures:
    """What a programme came to."""

    scenarios: int = 0
    struck: Counter[str] = field(default_factory=Counter)  # faults, by side and kind
    answers: Counter[int] = field(default_factory=Counter)  # to webhooks, by status; 0 where there was none
    acked: int = 0
    polled: int = 0  # connections of polls that met faults
    records: int = 0  # compared in the end
    descriptors: tuple[int, int] = (0, 0)  # of the server: before the first scenario and after the last
    problems: list[str] = field(default_factory=list)


class Account(cycles.Rig):
    """One account and its two proxies; the store is shared with the others."""

    def __init__(self, folder: Path, number: int, *, server_port: int, api_port: int) -> None:
        super().__init__(folder, number)
        self.key = f"account-{number}"
        self.connection = 0
        self.ingress, self.api = Proxy(server_port), Proxy(api_port)
        self.seed = 0
        self.polled = 0  # connections of polls that met faults

    @contextlib.contextmanager
    def read(self):
        """The store's file, cut down to this account."""
        with super().read() as database:
            for table in ("records", "versions", "deliveries", "streams"):
                database.execute(
                    f"create temp view {table} as select * from main.{table} where connection_id = {self.connection}"
                )
            yield database

    async def faults(self, seed: int) -> None:
        """One scenario's faults, while the account lives on."""
        self.seed, chance = seed, random.Random(seed)
        for proxy in (self.ingress, self.api):
            await proxy.renew(drawn(chance), random.Random(chance.random()))
        for _ in range(ACTS):
            self.provider.activity.step()
            await asyncio.sleep(chance.uniform(0, FAULTS_SECONDS / ACTS))
        # Polls begin when the server looks for what is due, which may be after the last act.
        limit = time.monotonic() + MEETING_SECONDS_MAX
        while self.api.met < MEETINGS and time.monotonic() < limit:
            await asyncio.sleep(LOOK_SECONDS)
        await asyncio.sleep(chance.uniform(0, FAULTS_SECONDS))
        self.polled += self.api.met

    async def calm(self) -> None:
        """No faults any more."""
        await self.ingress.calm()
        await self.api.calm()

    def check(self) -> list[str]:
        """What is not as it must be, with the command that draws the same weather again."""
        self.figures.problems = []
        self.verify()
        return [f"{words} ({AGAIN.format(seed=self.seed)})" for words in self.figures.problems]


class Programme:
    """One server and its accounts, from scenario to scenario."""

    def __init__(self, folder: Path, server: Server, accounts: list[Account]) -> None:
        self._folder = folder
        self._server = server
        self._accounts = accounts
        self._started = 0.0  # of the polls that are waited for
        self.figures = Figures()

    async def run(self, seeds: list[int]) -> None:
        """Each seed once, as many at a time as there are accounts; ends at the first that breaks a promise."""
        await self._settle()
        before = self._descriptors()
        for first in range(0, len(seeds), len(self._accounts)):
            part = list(zip(self._accounts, seeds[first:], strict=False))
            self._make_due()
            await asyncio.gather(*(account.faults(seed) for account, seed in part))
            await asyncio.gather(*(account.calm() for account, _ in part))
            await self._settle()
            self.figures.problems += [problem for account, _ in part for problem in account.check()]
            self.figures.scenarios += len(part)
            print(f"{self.figures.scenarios} of {len(seeds)} scenarios", file=sys.stderr)
            if self.figures.problems:
                break
        await asyncio.gather(*(account.calm() for account in self._accounts))
        await self._until(lambda: self._descriptors() > before + DESCRIPTORS_MORE, "descriptors are left open")
        self.figures.descriptors = (before, self._descriptors())
        self._sum_up()

    async def _settle(self) -> None:
        await self._until(self._any_waiting, "not sent, or not done")
        self._started = time.time() * 1e6
        self._make_due()
        await self._until(self._any_behind, "not polled")
        async with aiohttp.ClientSession() as session, session.get(f"{self._server.url}/livez") as answer:
            if answer.status != 200:
                self.figures.problems.append(f"the server answers {answer.status}")

    def _any_waiting(self) -> bool:
        return any(sum(one.deliveries_waiting().values()) for one in self._accounts)

    def _any_behind(self) -> bool:
        return any(sum(one.streams_behind(self._started).values()) for one in self._accounts)

    async def _until(self, waits: Callable[[], bool], words: str) -> None:
        limit, due = time.monotonic() + SETTLE_SECONDS_MAX, time.monotonic() + DUE_SECONDS
        while waits():
            if time.monotonic() > limit or self._server.process.poll() is not None:
                first, last = self._accounts[0].seed, self._accounts[-1].seed
                again = AGAIN.format(seed=first)
                self.figures.problems.append(f"{words}, in one of the scenarios {first} to {last} ({again})")
                return
            if time.monotonic() > due:
                self._make_waiting_due()
                due = time.monotonic() + DUE_SECONDS
            await asyncio.sleep(LOOK_SECONDS)

    def _make_due(self) -> None:
        self._accounts[0].make_due()

    def _make_waiting_due(self) -> None:
        """Retries need not wait their minutes here."""
        self._accounts[0].make_due(unless_since=int(self._started))

    def _descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self._server.process.pid}/fd").iterdir())

    def _sum_up(self) -> None:
        for account in self._accounts:
            self.figures.answers += account.figures.answers
            self.figures.acked += len(account.acked)
            self.figures.polled += account.polled
            for side, proxy in (("ingress", account.ingress), ("provider", account.api)):
                self.figures.struck.update({f"{side}: {kind}": count for kind, count in proxy.struck.items()})
            with account.read() as database:
                (records,) = database.execute("select count(*) from records where not deleted").fetchone()
            self.figures.records += records


async def programme(folder: Path, *, seeds: list[int], accounts: int) -> Figures:
    """The server, the accounts, and each seed's scenario."""
    port = cycles.free_port()
    (folder / "headwater.toml").write_text(f'projects = ["{cycles.PROJECT}"]\ndatabase = "crash.db"\n')
    async with contextlib.AsyncExitStack() as stack:
        lives = []
        for number in range(1, accounts + 1):
            account = Account(folder, number, server_port=port, api_port=0)
            seed_account(account.provider, customers=6)
            api_port = await stack.enter_async_context(cycles.living(account))
            account.api = Proxy(api_port)
            for proxy in (account.ingress, account.api):
                await proxy.start()
                stack.push_async_callback(proxy.stop)
            lives.append(account)
        await _install(folder, lives)
        server = stack.enter_context(serving(folder, "--port", str(port)))
        running = Programme(folder, server, lives)
        await running.run(seeds)
        return running.figures


async def _install(folder: Path, accounts: list[Account]) -> None:
    chosen = config.load({}, directory=folder)
    async with open_platform(chosen, SystemClock(), with_projects=True) as platform:
        for account in accounts:
            values = {
                "api_key": API_KEY, "webhook_secret": cycles.SECRET,
                "api_base": f"http://127.0.0.1:{account.api.port}",
            }  # fmt: skip
            stored = await platform.add_connection("stripe", values, key=account.key)
            account.connection = stored.id
            url = f"http://127.0.0.1:{account.ingress.port}/webhooks/stripe/{stored.endpoint_id}"
            account.provider.webhooks.register(url, secret=cycles.SECRET)


def main() -> int:
    """See the module."""
    options = argparse.ArgumentParser()
    options.add_argument("--scenarios", type=int, default=5000)
    options.add_argument("--first", type=int, default=1)
    options.add_argument("--accounts", type=int, default=20)
    chosen = options.parse_args()
    seeds = list(range(chosen.first, chosen.first + chosen.scenarios))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="headwater-network-") as folder:
        figures = asyncio.run(programme(Path(folder), seeds=seeds, accounts=min(chosen.accounts, len(seeds))))
    facts = {
        "scenarios": figures.scenarios, "first_seed": chosen.first, "struck": dict(sorted(figures.struck.items())),
        "answers": dict(sorted(figures.answers.items())), "acked": figures.acked, "polled": figures.polled,
        "records": figures.records,
        "descriptors": figures.descriptors, "problems": figures.problems, "seconds": round(time.monotonic() - started),
    }  # fmt: skip
    print(json.dumps(facts, indent=1))
    return 1 if figures.problems else 0


if __name__ == "__main__":
    sys.exit(main())
