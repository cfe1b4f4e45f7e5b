"""Kill the real server with SIGKILL at each named failpoint, again and again, and compare its store with the truth.

A fake Stripe on loopback lives on (creates, updates, deletes, fails, sends webhooks and sends them again); `headwater
serve` polls and receives, is killed, and starts anew. In the end, without faults, the store must equal the provider's
ledger: nothing lost, nothing twice.

Commands are killed as well: a migration, a replay, a deploy and, of a SQLite file, the copy of an installation to
PostgreSQL, which is given again until it says that all is there.

Usage: python tests/crash/cycles.py [--store sqlite|postgres] [--cycles 500] [--seed 1] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import uvicorn

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parent.parent))

from databases import Database, PostgresDatabase, SqliteFile

from cluster_nodes import own_server
from headwater import failpoint
from headwater.canonical.registry import shipped
from headwater.clock import SystemClock
from headwater.testing import provider_webhook
from headwater.testing.drive import loaded_project
from headwater.testing.provider import API_KEY, FakeStripe, Faults, WebhookFaults, post_over, seed_account

ROOT = Path(__file__).parent.parent.parent
PROJECT = ROOT / "connectors" / "stripe"
HEADWATER = str(Path(sys.executable).parent / "headwater")
VERSION = 'version="0.1.0"'  # in the manifest
IMPORT = "from headwater import WebhookRequest"  # in the webhook route
ROUTE = "async def post(request: WebhookRequest) -> None:\n"
PASSING_FAULT = """\
    if request.attempt == 1 and request.delivery_id % 10 == 0:
        raise errors.ProviderError("What the handler needs is not there at the moment.")
"""
MICROSECONDS_MAX = 2**63 - 1
SECRET = "whsec_crash"
CYCLE_SECONDS_MAX = 6.0  # a cycle whose failpoint is not passed by then is killed wherever it is
RETRY_SECONDS_MAX = 20.0  # likewise, where a request is tried again for a while before its run is
COMMAND_SECONDS_MAX = 120.0
SETTLE_SECONDS_MAX = 180.0
FAULTS = Faults(rate_limited=0.02, failed=0.02, reset=0.01, churn=0.05)
WEBHOOK_FAULTS = WebhookFaults(duplicated=0.1, reordered=0.2, late=0.1, late_seconds=3.0, lost_response=0.1)
COPY = tuple(sorted(name for name in failpoint.NAMES if name.startswith("copy.")))
# Those without a command of their own are passed by `serve`. A copy is of a file; no account of Stripe's is by OAuth.
NAMES = {
    "postgres": tuple(sorted(name for name in failpoint.NAMES if not name.startswith(("copy.", "oauth.")))),
}
NAMES["sqlite"] = (*NAMES["postgres"], *COPY)
# Below those that the kernel gives to connections: one of them would keep the port of a child that is away.
PORTS = iter(random.sample(range(20_000, 30_000), 10_000))


@dataclass
class Figures:
    """What a programme of kills came to."""

    cycles: int = 0
    kills: Counter[str] = field(default_factory=Counter)  # by the failpoint at which it died
    elsewhere: int = 0  # killed wherever it was, since its failpoint was not passed in time
    acked: int = 0
    answers: Counter[int] = field(default_factory=Counter)  # to webhooks, by status; 0 where there was none
    problems: list[str] = field(default_factory=list)


class Rig:
    """One installation, one provider, and the child between them."""

    def __init__(self, folder: Path, seed: int, database: Database | None = None) -> None:
        self.folder = folder
        self.database = database or SqliteFile(folder / "crash.db")
        self.random = random.Random(seed)
        self.provider = FakeStripe(seed, SystemClock())
        self.figures = Figures()
        self.acked: set[str] = set()
        self.port = free_port()
        self.copies_to: PostgresDatabase | None = None

    def command(self, *words: str, failpoint: str = "", database: str = "") -> subprocess.Popen[bytes]:
        """Start a `headwater` command in the installation."""
        environment = os.environ | {"HEADWATER_DATABASE": database or self.database.address}
        if failpoint:
            environment["HEADWATER_FAILPOINT"] = failpoint
        with (self.folder / "child.log").open("ab") as log:
            return subprocess.Popen([HEADWATER, *words], cwd=self.folder, env=environment, stdout=log, stderr=log)

    async def ended(self, child: subprocess.Popen[bytes], seconds: float) -> int | None:
        """The exit code of a child, or None when it lives on after so long."""
        deadline = time.monotonic() + seconds
        while child.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        return child.poll()

    async def install(self, api_port: int) -> None:
        """One Stripe connection, and its webhook URL registered at the provider."""
        project = self.connector("stripe", 0)
        (self.folder / "headwater.toml").write_text(f'projects = ["{project}"]\nport = {self.port}\n')
        words = ["connections", "add", "stripe", "--key", "acme", "--set", f"api_base=http://127.0.0.1:{api_port}"]
        for name, secret in (("api_key", API_KEY), ("webhook_secret", SECRET)):
            (self.folder / name).write_text(secret)
            words += ["--secret-file", f"{name}={name}"]
        child = self.command(*words)
        assert await self.ended(child, 60) == 0, (self.folder / "child.log").read_text()
        with self.read() as database:
            (endpoint,) = database.execute("select endpoint_id from connections").fetchone()
        url = f"http://127.0.0.1:{self.port}/webhooks/stripe/{endpoint}"
        self.provider.webhooks.register(url, secret=SECRET)

    def read(self) -> contextlib.AbstractContextManager[Any]:
        """The database, read by a plain client."""
        return self.database.read()

    def make_due(self, *, unless_since: int = MICROSECONDS_MAX) -> None:
        """Bring ticks, retries and deliveries to now: time passes quickly here. What succeeded since then is left."""
        self.database.write(
            "update streams set next_tick_at = 0, blocked_until = null "
            f"where mode = 'poll' and coalesce(last_success_at, 0) < {unless_since}",
            "update runs set due_at = 0 where state in ('scheduled', 'retrying')",
            "update deliveries set due_at = 0 where state = 'pending' and lease_until is null",
        )

    async def cycle(self, name: str) -> None:
        """Start what passes one failpoint, which is armed, and wait until it is dead."""
        self.figures.cycles += 1
        nth = self.random.choice((1, 1, 2, 3, 5, 8))
        if name.startswith("copy."):
            await self.cycle_of_copy(name, nth)
        elif name.startswith(("migration.", "replay.", "deploy.")):
            await self.cycle_of_command(name)
        else:
            await self.cycle_of_server(name, 1 if name == "run.before_retry" else nth)

    async def cycle_of_server(self, name: str, nth: int) -> None:
        """The server dies as it passes it for the nth time, or else a little later, wherever it is."""
        has_outage = name == "run.before_retry"
        self.provider.faults = Faults(failed=1.0) if has_outage else FAULTS
        self.database.lapse()
        self.make_due()
        child = self.command("serve", failpoint=f"{name}:{nth}")
        code = await self.ended(child, RETRY_SECONDS_MAX if has_outage else CYCLE_SECONDS_MAX)
        self.provider.faults = FAULTS
        if code is None:
            child.kill()
            child.wait()
            self.figures.elsewhere += 1
        elif code == -signal.SIGKILL:
            self.figures.kills[name] += 1
        else:
            self.figures.problems.append(f"cycle {self.figures.cycles}: the server ended by itself with {code}")

    async def cycle_of_command(self, name: str) -> None:
        """A command dies in its transaction. What a deploy had not activated is activated when it is given again."""
        number, address = self.figures.cycles, ""
        if name.startswith("migration."):
            words, address = ["streams", "--json"], self.database.fresh(f"fresh-{number}")
        elif name.startswith("replay."):
            words = ["deliveries", "replay", "--state", "done", "--yes"]
        else:
            words = ["deploy", str(self.connector("deploy", number))]
        await self.killed(name, *words, failpoint=name, database=address)
        if name.startswith("deploy."):
            await self.succeeds(*words)
            with self.read() as database:
                active = database.execute(
                    "select d.version from activations a join deployments d on d.id = a.deployment_id"
                ).fetchone()
            if active != (f"0.1.{number}",):
                self.figures.problems.append(f"cycle {number}: {active} is active, not the version that was deployed")

    async def cycle_of_copy(self, name: str, nth: int) -> None:
        """A copy dies, and is given again: it says itself, by count and hash, whether all is there."""
        assert isinstance(self.database, SqliteFile)
        assert self.copies_to is not None
        source = self.folder / "source.db"
        if not source.exists():
            self.database.write(f"vacuum into '{source}'")
        words = ["db", "copy", "--to", self.copies_to.fresh(f"copy-{self.figures.cycles}")]
        is_of_batch = name.endswith("_batch_commit")
        await self.killed(name, *words, failpoint=f"{name}:{nth if is_of_batch else 1}", database=str(source))
        await self.succeeds(*words, database=str(source))

    async def killed(self, name: str, *words: str, **armed: str) -> None:
        """Carry out a command that is to die."""
        code = await self.ended(self.command(*words, **armed), COMMAND_SECONDS_MAX)
        if code == -signal.SIGKILL:
            self.figures.kills[name] += 1
        else:
            self.figures.problems.append(f"cycle {self.figures.cycles}: `{words[0]}` ended with {code}")

    async def succeeds(self, *words: str, database: str = "") -> None:
        """Carry out a command that is to end well."""
        code = await self.ended(self.command(*words, database=database), COMMAND_SECONDS_MAX)
        if code != 0:
            self.figures.problems.append(f"cycle {self.figures.cycles}: `{words[0]}`, given again, ended with {code}")

    def connector(self, name: str, number: int) -> Path:
        """The connector in a folder of that name, as another version, whose route fails in passing now and then."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("__pycache__", "tests"))
        edit(folder / "connector.py", VERSION, f'version="0.1.{number}"')
        edit(folder / "src/api/webhooks/stripe.py", IMPORT, f"{IMPORT}, errors")
        edit(folder / "src/api/webhooks/stripe.py", ROUTE, ROUTE + PASSING_FAULT)
        return folder

    async def settle(self) -> None:
        """Without faults: serve until every delivery is done, then until every stream was polled to its end."""
        self.provider.faults = Faults()
        self.provider.webhooks.faults = WebhookFaults()
        self.database.lapse()
        await self.serve_until(self.deliveries_waiting)
        started = time.time() * 1e6
        await self.serve_until(lambda: self.streams_behind(started))

    async def serve_until(self, waiting: Callable[[], dict[str, int]]) -> None:
        """Serve until nothing waits, then end by SIGTERM, which is an end in order."""
        self.make_due()
        child = self.command("serve")
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        while any(waiting().values()):
            if child.poll() is not None or time.monotonic() > deadline:
                self.figures.problems.append(f"it did not settle: {waiting()}")
                break
            await asyncio.sleep(0.1)
        child.send_signal(signal.SIGTERM)
        if await self.ended(child, 60) != 0:
            self.figures.problems.append(f"SIGTERM ended the server with {child.poll()}")

    def deliveries_waiting(self) -> dict[str, int]:
        """What is still to be sent or dispatched."""
        to_send = self.provider.webhooks.waiting  # first: what is acked between the two looks is then seen as pending
        with self.read() as database:
            (pending,) = database.execute("select count(*) from deliveries where state = 'pending'").fetchone()
        return {"to send": to_send, "pending": pending}

    def streams_behind(self, started: float) -> dict[str, int]:
        """Poll streams that have not succeeded since `started`."""
        with self.read() as database:
            (behind,) = database.execute(
                "select count(*) from streams where mode = 'poll' and coalesce(last_success_at, 0) < ?", (started,)
            ).fetchone()
        return {"streams behind": behind}

    def verify(self) -> None:
        """Compare the store with the ledger, object by object, and look for anything that happened twice."""
        self.figures.acked = len(self.acked)
        with self.read() as database:
            for resource in loaded_project(PROJECT).module("lib.stream").RESOURCES:
                self.compare(database, resource)
            self.look_for_repetition(database)
            known = {row[0] for row in database.execute("select provider_id from deliveries")}
            bad = database.execute("select id, state, error_code from deliveries where state <> 'done'").fetchall()
        self.report("acked deliveries are not stored", self.acked - known)
        self.report("deliveries are not done", bad)

    def compare(self, database, resource) -> None:
        """One stream's live objects against its records."""
        kind = resource.canonical_type
        encode = shipped()[kind].encode
        truth = {
            key: encode(resource.transform(dict(state)))
            for key, state in self.provider.ledger.current(resource.stream).items()
        }
        stored = dict(
            database.execute(
                "select r.source_id, v.payload from records r join types t on t.id = r.type_id "
                "join versions v on v.sequence = r.sequence where t.name = ? and not r.deleted",
                (kind,),
            )
        )
        self.report(f"records of {resource.stream} are lost", truth.keys() - stored.keys())
        self.report(f"records of {resource.stream} should not be", stored.keys() - truth.keys())
        wrong = [key for key in truth.keys() & stored.keys() if bytes(stored[key]) != truth[key]]
        self.report(f"records of {resource.stream} differ", wrong)

    def look_for_repetition(self, database) -> None:
        """No version repeats the one that was current before it; numbers have no gap; sequences are unique by key."""
        last: dict[tuple, tuple] = {}
        numbers: dict[tuple, int] = {}
        rows = database.execute(
            "select connection_id, type_id, source_id, version, stale, deleted, hash from versions order by sequence"
        )
        for connection, kind, source, version, stale, deleted, content in rows:
            place = (connection, kind, source)
            if version != numbers.get(place, 0) + 1:
                self.figures.problems.append(f"{source}: version {version} follows {numbers.get(place, 0)}")
            numbers[place] = version
            if not stale:
                if last.get(place) == (deleted, content):
                    self.figures.problems.append(f"{source}: version {version} took effect twice")
                last[place] = (deleted, content)

    def report(self, words: str, what) -> None:
        """Note a problem where there is one."""
        names = sorted(map(str, what))
        if names:
            self.figures.problems.append(f"{len(names)} {words}: {', '.join(names[:3])}")


def edit(path: Path, old: str, new: str) -> None:
    """Put `new` for `old`, which a file has once."""
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def free_port() -> int:
    """A port of loopback that nobody listens on, another one each time."""
    for port in PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("every port is taken")


@contextlib.asynccontextmanager
async def living(rig: Rig) -> AsyncIterator[int]:
    """The provider over loopback, with activity and webhooks, for the block; its port."""
    port = free_port()
    usual, provider_webhook.RETRY_SECONDS = provider_webhook.RETRY_SECONDS, (0.3,) * 100_000  # there are no hours here
    server = uvicorn.Server(uvicorn.Config(rig.provider, host="127.0.0.1", port=port, log_level="critical"))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        post = post_over(session)

        async def noted(url: str, headers: dict[str, str], body: bytes) -> int:
            try:
                status = await post(url, headers, body)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                rig.figures.answers[0] += 1
                raise OSError(str(error)) from error
            rig.figures.answers[status] += 1
            if 200 <= status < 300:
                rig.acked.add(msgspec.json.decode(body)["id"])
            return status

        rig.provider.webhooks.post = noted
        tasks = [asyncio.create_task(server.serve()), asyncio.create_task(rig.provider.webhooks.serve())]
        try:
            while not server.started:
                await asyncio.sleep(0.01)
            yield port
        finally:
            provider_webhook.RETRY_SECONDS = usual
            rig.provider.webhooks.stop()
            server.should_exit = True
            await asyncio.gather(*tasks)


async def programme(folder: Path, *, store: str = "sqlite", cycles: int, seed: int) -> Figures:
    """So many kills, then the comparison."""
    with own_server() as server:
        beside = PostgresDatabase(server)
        rig = Rig(folder, seed, beside if store == "postgres" else None)
        rig.copies_to = beside
        seed_account(rig.provider, customers=120)
        async with living(rig) as api_port:
            await rig.install(api_port)
            rig.provider.faults, rig.provider.webhooks.faults = FAULTS, WEBHOOK_FAULTS
            acting = asyncio.create_task(rig.provider.activity.serve(rig.provider.clock, per_second=20))
            for number in range(cycles):
                await rig.cycle(NAMES[store][number % len(NAMES[store])])
                if rig.figures.problems:
                    break
            rig.provider.activity.stop()
            await acting
            await rig.settle()
        rig.verify()
        return rig.figures


def main() -> int:
    """See the module."""
    options = argparse.ArgumentParser()
    options.add_argument("--store", choices=sorted(NAMES), default="sqlite")
    options.add_argument("--cycles", type=int, default=500)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--keep", type=Path)
    chosen = options.parse_args()
    with contextlib.ExitStack() as stack:
        folder = chosen.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-crash-")))
        folder.mkdir(exist_ok=True)
        started = time.monotonic()
        figures = asyncio.run(programme(folder, store=chosen.store, cycles=chosen.cycles, seed=chosen.seed))
    print(
        json.dumps(
            {
                "store": chosen.store,
                "cycles": figures.cycles,
                "killed_at_failpoint": dict(sorted(figures.kills.items())),
                "killed_elsewhere": figures.elsewhere,
                "acked": figures.acked,
                "problems": figures.problems,
                "seconds": round(time.monotonic() - started),
                "seed": chosen.seed,
            },
            indent=1,
        )
    )
    return 1 if figures.problems else 0


if __name__ == "__main__":
    sys.exit(main())
