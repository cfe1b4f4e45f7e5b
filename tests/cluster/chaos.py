"""A whole cluster on one machine: PostgreSQL, two ingress nodes, two workers, a ticker, and a fake Stripe with faults.

Alone it shows life until Ctrl-C. With `--acts N`, or for `--minutes N`, nodes are killed, and stopped and woken, and
PostgreSQL crashes and comes back; then, without faults, the store must equal the provider's ledger: nothing lost and
nothing twice, though both ingresses are told of each event.

Usage: python tests/cluster/chaos.py [--acts 100 | --minutes 10] [--seed 1] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "crash")]

import cycles  # noqa: E402  the provider, the comparison and the figures of the programme of kills
from databases import PostgresDatabase  # noqa: E402

from cluster_nodes import own_server  # noqa: E402
from headwater.config import DatabaseUrl  # noqa: E402
from headwater.testing.provider import Faults, WebhookFaults, seed_account  # noqa: E402

ROLES = {
    "ingress-1": ("ingress", "dashboard"),
    "ingress-2": ("ingress", "dashboard"),
    "worker-1": ("worker",),
    "worker-2": ("worker",),
    "ticker": ("ticker",),
}
VICTIMS = ("worker-1", "worker-2", "worker-1", "worker-2", "ticker", "ingress-1", "ingress-2", "postgresql")
ACTS_A_SECOND = 10
STOPPED_SECONDS = (1.5, 1.5, 1.5, 35.0)  # the last is longer than the server waits for it
PAUSE_SECONDS = 1.0
AWAY_SECONDS_MAX = 4.0  # of the database
STATUS_SECONDS = 5.0
UP_SECONDS_MAX = 60.0
END_SECONDS_MAX = 60.0


class Cluster(cycles.Rig):
    """The rig of the programme of kills, with several nodes on one PostgreSQL in place of the one child."""

    def __init__(self, folder: Path, seed: int, server: Any) -> None:
        super().__init__(folder, seed, PostgresDatabase(server))
        self.server = server
        self.ports = {name: self.port if name == "ingress-1" else cycles.free_port() for name in ROLES}
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}

    def command(self, *words: str, **_: object) -> subprocess.Popen[bytes]:
        """Start a `headwater` command on the cluster's database."""
        environment = os.environ | {"HEADWATER_DATABASE": self.database.address, "HEADWATER_LOG_LEVEL": "warning"}
        with (self.folder / "child.log").open("ab") as log:
            return subprocess.Popen(
                [cycles.HEADWATER, *words], cwd=self.folder, env=environment, stdout=log, stderr=log
            )

    async def install(self, api_port: int) -> None:
        """As on one machine; and the provider tells every event to the other ingress, too."""
        await super().install(api_port)
        (first,) = self.provider.webhooks.endpoints.values()
        other = first.url.replace(f":{self.port}/", f":{self.ports['ingress-2']}/")
        self.provider.webhooks.register(other, secret=cycles.SECRET)

    def start(self, name: str) -> None:
        """Start a node, in place of the one of that name before."""
        roles = [word for role in ROLES[name] for word in ("--role", role)]
        self.nodes[name] = self.command("serve", "--port", str(self.ports[name]), *roles)

    async def act(self) -> None:
        """Do something to a node or to the database, and let the others find out."""
        name = self.random.choice(VICTIMS)
        self.figures.cycles += 1
        for one, its_node in self.nodes.items():
            if its_node.poll() is not None:
                self.figures.problems.append(f"act {self.figures.cycles}: {one} ended by itself with {its_node.poll()}")
                self.start(one)
        self.make_due()
        await asyncio.sleep(self.random.random() * PAUSE_SECONDS)
        if name == "postgresql":
            await self.crash_database()
            return
        node = self.nodes[name]
        if name.startswith("worker") and self.random.random() < 0.5:
            self.figures.kills["stopped and woken"] += 1
            node.send_signal(signal.SIGSTOP)
            # It may hold what the lapse waits for: until it is woken, or until the server has given up on it.
            lapsing = asyncio.create_task(asyncio.to_thread(self.database.lapse))
            await asyncio.sleep(self.random.choice(STOPPED_SECONDS))
            node.send_signal(signal.SIGCONT)
            await lapsing
        else:
            self.figures.kills[f"killed {name}"] += 1
            node.kill()
            node.wait()
            await asyncio.to_thread(self.database.lapse)
            self.start(name)

    async def crash_database(self) -> None:
        """Stop PostgreSQL as a crash does, without a checkpoint, and start it again a little later.

        Every node is up by then, and none may end; one that is started without a database would, with the reason.
        """
        await self.until_up()
        self.figures.kills["database crashed"] += 1
        os.kill(self.server.get_pid(), signal.SIGQUIT)
        await asyncio.sleep(self.random.random() * AWAY_SECONDS_MAX)
        await asyncio.to_thread(self.server.start)

    async def until_up(self) -> None:
        """Return once every node answers: that it listens says only that it has begun."""
        deadline = time.monotonic() + UP_SECONDS_MAX
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1.0)) as session:
            for name, port in self.ports.items():
                while not await answers(session, port):
                    if self.nodes[name].poll() is not None or time.monotonic() > deadline:
                        self.figures.problems.append(f"act {self.figures.cycles}: {name} did not come up")
                        break
                    await asyncio.sleep(0.05)

    async def settle(self) -> None:
        """Without faults: work until every delivery is done and every stream was polled to its end, then stop."""
        self.provider.faults, self.provider.webhooks.faults = Faults(), WebhookFaults()
        await self._until_nothing_waits(self.deliveries_waiting)
        started = time.time() * 1e6
        await self._until_nothing_waits(lambda: self.streams_behind(started))
        await self.stop()

    async def _until_nothing_waits(self, waiting) -> None:
        deadline = time.monotonic() + cycles.SETTLE_SECONDS_MAX
        while any(waiting().values()):
            if time.monotonic() > deadline:
                self.figures.problems.append(f"it did not settle: {waiting()}")
                return
            self.make_due()
            await asyncio.sleep(1.0)

    async def stop(self) -> None:
        """End every node by SIGTERM, which is an end in order."""
        for node in self.nodes.values():
            node.send_signal(signal.SIGTERM)
        for name, node in self.nodes.items():
            if await self.ended(node, END_SECONDS_MAX) != 0:
                self.figures.problems.append(f"SIGTERM ended {name} with {node.poll()}")

    def status(self) -> str:
        """One line on how it goes."""
        with self.read() as db:
            (records,) = db.execute("select count(*) from records where not deleted").fetchone()
            states = dict(db.execute("select state, count(*) from runs group by state").fetchall())
            (deliveries,) = db.execute("select count(*) from deliveries").fetchone()
        runs = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        return f"{records} records, {deliveries} deliveries; runs: {runs}"


async def answers(session: aiohttp.ClientSession, port: int) -> bool:
    """Whether a node is alive."""
    try:
        async with session.get(f"http://127.0.0.1:{port}/livez") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


@contextlib.asynccontextmanager
async def running(folder: Path, seed: int) -> AsyncIterator[Cluster]:
    """A cluster at work, with a provider full of life; whatever is left of it in the end is killed."""
    with own_server() as server:
        cluster = Cluster(folder, seed, server)
        seed_account(cluster.provider, customers=80)
        async with cycles.living(cluster) as api_port:
            await cluster.install(api_port)
            cluster.provider.faults, cluster.provider.webhooks.faults = cycles.FAULTS, cycles.WEBHOOK_FAULTS
            acting = asyncio.create_task(
                cluster.provider.activity.serve(cluster.provider.clock, per_second=ACTS_A_SECOND)
            )
            try:
                for name in ROLES:
                    cluster.start(name)
                yield cluster
            finally:
                acting.cancel()
                await asyncio.gather(acting, return_exceptions=True)
                for node in cluster.nodes.values():
                    node.kill()
                    node.wait()


async def programme(folder: Path, *, acts: int, minutes: float = 0.0, seed: int) -> cycles.Figures:
    """So many acts against the cluster, and for so long at least; then the comparison."""
    async with running(folder, seed) as cluster:
        end = time.monotonic() + minutes * 60
        while cluster.figures.cycles < acts or time.monotonic() < end:
            await cluster.act()
        cluster.provider.activity.stop()
        await cluster.settle()
        cluster.verify()
        print(cluster.status(), file=sys.stderr)
        return cluster.figures


async def show(folder: Path, seed: int) -> None:
    """A cluster to look at, until it is interrupted."""
    interrupted = asyncio.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(one, interrupted.set)
    async with running(folder, seed) as cluster:
        for name in ("ingress-1", "ingress-2"):
            port = cluster.ports[name]
            print(f"{name:<10}  http://127.0.0.1:{port}/", flush=True)
        print(f"database    {DatabaseUrl(cluster.database.address)}\nCtrl-C stops it.", flush=True)
        while not interrupted.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(interrupted.wait(), STATUS_SECONDS)
            cluster.make_due()
            print(cluster.status(), flush=True)
        await cluster.stop()


def main() -> int:
    """See the module."""
    options = argparse.ArgumentParser()
    options.add_argument("--acts", type=int, default=0)
    options.add_argument("--minutes", type=float, default=0.0)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--keep", type=Path)
    chosen = options.parse_args()
    with contextlib.ExitStack() as stack:
        folder = chosen.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-cluster-")))
        folder.mkdir(exist_ok=True)
        if not chosen.acts and not chosen.minutes:
            asyncio.run(show(folder, chosen.seed))
            return 0
        started = time.monotonic()
        figures = asyncio.run(programme(folder, acts=chosen.acts, minutes=chosen.minutes, seed=chosen.seed))
    told = {
        "acts": figures.cycles,
        "of_them": dict(sorted(figures.kills.items())),
        "acked": figures.acked,
        "answers": dict(sorted(figures.answers.items())),
        "problems": figures.problems,
        "seconds": round(time.monotonic() - started),
        "seed": chosen.seed,
    }
    print(json.dumps(told, indent=1))
    return 1 if figures.problems else 0


if __name__ == "__main__":
    sys.exit(main())
