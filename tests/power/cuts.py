"""Cut the power under the real store, at each kind of write, and look what a disk may have kept.

    life: open, work, close ── recorded ──> cuts, drawn ──> image ──> the store opens it: whole? all that was acked?
      ^                                                       └── or the process alone dies: the page cache lives on
      └────────────────────────────── the next life begins there

What a file may say after a cut is known beforehand: exactly what it said after the last commit that returned, or after
the one that was under way. One seed is one history, in every interpreter.

Usage: python tests/power/cuts.py [--cuts 20000] [--first 1] [--seed N] [--jobs 2] [--bug NAME]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "simulation"))

import bugs
from disk import CLASSES, Act, Disk, RecordingVFS
from workload import STEPS, Ledger, Stored, Workload, digest

from headwater.errors import HeadwaterError
from headwater.stores.sqlite import database, write_ahead
from headwater.stores.sqlite import store as sqlite_store
from headwater.stores.sqlite.store import SQLiteStore
from headwater.testing.clock import FakeClock
from headwater.testing.conformance.world import World
from headwater.testing.stepped import stepped
from headwater.testing.virtual import VirtualLoop, run_virtual

SHARED_MEMORY = Path("/dev/shm")
FILE = "power.db"
FAULT_WRITES_MAX, FAULT_SYNCS_MAX = 400, 20  # until the one that fails
LOG_PAGES = (8, 40, 200)  # until the log is moved into the file
CACHE_KIB = (64, 24 * 1024)  # a small one spills pages into the log before their commit
FINDINGS = ("schema", "integrity", "durability", "writable")

Patch = pytest.MonkeyPatch


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a history is made of."""

    lives: int = 4
    cuts: int = 20  # of a life: the first ones after each kind of act that it did
    deaths: float = 0.4  # share of the lives that follow on the death of the process alone
    faults: float = 0.35  # share of the lives in which the disk fails once, while the machine lives on


PLAN = Plan()


@dataclass
class Told:
    """What one history came to."""

    seed: int
    cuts: Counter[str] = field(default_factory=Counter)  # by the kind of the act before
    deaths: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join([*self.problems[:5], f"again: make nightly-power SEED={self.seed}"])


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where a life begins."""

    files: Mapping[str, bytes]  # what its process finds
    disk: Disk  # and what the next power cut would leave of it
    may_be: frozenset[str] = frozenset()  # digests of what a cut before the first commit may leave


class Announcing:
    """The writer's connection, which tells what each commit will have made before it begins, and when it returned."""

    def __init__(self, db: apsw.Connection, trace: list[Act]) -> None:
        self._db, self._trace = db, trace

    def execute(self, sql: str, *given: Any) -> Any:
        if sql != "COMMIT":
            return self._db.execute(sql, *given)
        self._trace.append(Act("begin", note=digest(self._db)))
        result = self._db.execute(sql, *given)
        self._trace.append(Act("commit"))
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


class Fault:
    """Fails the nth sync or write of the log or of the file, and no other."""

    def __init__(self, chance: random.Random) -> None:
        self.what = chance.choice(("sync", "sync", "write"))
        self.part = chance.choice(("log", "log", "file"))
        self.left = chance.randint(1, FAULT_WRITES_MAX if self.what == "write" else FAULT_SYNCS_MAX)
        self.kind = ""

    def __call__(self, act: Act) -> apsw.Error | None:
        if act.what != self.what or not act.kind.startswith(self.part):
            return None
        self.left -= 1
        if self.left:
            return None
        self.kind = act.kind
        return apsw.IOError("fsync failed") if act.what == "sync" else apsw.FullError("no space left")


class Life:
    """One process over the file: what it did to its disk, and what that may have left at any instant."""

    def __init__(self, start: Start, ledger: Ledger, chance: random.Random, told: Told) -> None:
        self.start, self.ledger, self.chance, self.told = start, ledger, chance, told
        self.trace: list[Act] = []

    def live(self, faults: float) -> None:
        """Open, work and close, with every act recorded; for that share of the lives, on a disk that fails once."""
        fault = Fault(self.chance) if self.chance.random() < faults else None
        with folder_of(self.start.files) as folder, Patch.context() as patch:
            patch.setattr(database, "WAL_PAGES", self.chance.choice(LOG_PAGES))
            patch.setattr(database, "WRITER_CACHE_KIB", self.chance.choice(CACHE_KIB))
            connect = sqlite_store.connect_writer
            patch.setattr(sqlite_store, "connect_writer", lambda path: Announcing(connect(path), self.trace))
            disk = RecordingVFS("recording", self.trace, fault or (lambda act: None))
            try:
                with stepped(self.chance):
                    run_virtual(lambda loop: self._work(loop, folder / FILE), chance=self.chance, shuffled=False)
            except (HeadwaterError, apsw.IOError, apsw.FullError):
                if not (fault and fault.kind):
                    raise
                self.told.faults[fault.kind] += 1
            finally:
                disk.unregister()

    async def _work(self, loop: VirtualLoop, path: Path) -> None:
        world = World(store=SQLiteStore(str(path), FakeClock()), clock=FakeClock())
        await world.store.open()
        self.trace.append(Act("opened", note=digest(world.store._writer._db)))
        try:
            workload = Workload(world, self.ledger, self.chance, self.trace)
            await workload.begin()
            with contextlib.ExitStack() as stack:
                steps = self.chance.randint(STEPS // 2, STEPS)
                reading = self.chance.randint(0, 2 * steps)  # from then on somebody holds an old state open
                for step in range(steps):
                    if step == reading:
                        reader = stack.enter_context(contextlib.closing(apsw.Connection(str(path))))
                        reader.execute("BEGIN; SELECT * FROM runs").fetchall()
                    await workload.step()
        finally:
            await world.store.close()

    @property
    def failed_at(self) -> int:
        """Where in the trace a sync failed; before it, where none did."""
        return next((place for place, act in enumerate(self.trace) if act.what == "sync failed"), -1)

    def cuts(self, count: int) -> list[int]:
        """Places in the trace after which the power is cut: once after each kind of act, then each as often."""
        kinds: dict[str, list[int]] = {}
        for place, act in enumerate(self.trace):
            if act.kind:
                kinds.setdefault(act.kind, []).append(place)
        names = sorted(kinds)
        self.chance.shuffle(names)
        names += [self.chance.choice(names) for _ in range(count)]
        return sorted(self.chance.choice(kinds[name]) for name in names[:count])

    def may_be(self, place: int) -> frozenset[str]:
        """Digests of what may be stored after a cut there."""
        found, under_way, is_open = self.start.may_be, None, False
        for act in self.trace[: place + 1]:
            if act.kind:
                continue
            if act.what == "opened":
                found, is_open, under_way = found | {str(act.note)}, True, None
            elif act.what == "begin":
                under_way = str(act.note)
            elif act.what == "commit" and under_way and is_open:
                found, under_way = frozenset({under_way}), None
        if not is_open:  # the store that opens it makes it what it was when this life had opened it
            return found | {str(act.note) for act in self.trace if act.what == "opened"}
        return found | ({under_way} if under_way else set())

    def acked(self, place: int) -> list[tuple[str, Any]]:
        """What was acked by then."""
        return [act.note for act in self.trace[: place + 1] if act.what == "acked"]  # type: ignore[misc]


def history(seed: int, plan: Plan = PLAN) -> Told:
    """The lives of one seed, until one loses something."""
    told = Told(seed)
    start, ledger = Start(files={}, disk=Disk(), may_be=frozenset({digest_when_new()})), Ledger()
    for number in range(plan.lives):
        life = Life(start, ledger, random.Random(f"power {seed} {number}"), told)
        life.live(plan.faults)
        start = cut(life, plan, f"life {number}")
        if told.problems:
            break
        with opened(start.files) as db:
            Stored(db).forget_the_rest(ledger)
    return told


def cut(life: Life, plan: Plan, where: str) -> Start:
    """Cut a life's power again and again, and look at each image; where the next life begins."""
    told, chance, disk = life.told, life.chance, life.start.disk
    ends, following, done = life.cuts(plan.cuts), life.start, 0
    last = chance.choice([end for end in ends if end > life.failed_at] or ends)
    by_death = chance.random() < plan.deaths
    for end in ends:
        for act in life.trace[done : end + 1]:
            disk.apply(act, chance)
        done, files = end + 1, disk.image(chance)
        told.cuts[life.trace[end].kind] += 1
        here = f"{where}, act {end} ({life.trace[end].kind})"
        told.problems += [f"{here}: {problem}" for problem in examined(files, life, end)]
        if end == last:
            if by_death:
                files = disk.cache()
                told.deaths += 1
                told.problems += [f"{here}, its process dead: {problem}" for problem in examined(files, life, end)]
            following = Start(files=files, disk=disk.copied() if by_death else Disk(files), may_be=life.may_be(end))
        if told.problems:
            break
    return following


def examined(files: Mapping[str, bytes], life: Life, place: int) -> list[str]:
    """What is wrong with an image: as the store finds it, and as it goes on with it."""
    ledger = life.ledger.copied()
    with folder_of(files) as folder:
        try:
            return asyncio.run(_examined(folder / FILE, life, place, ledger))
        except (HeadwaterError, apsw.Error, AssertionError) as error:
            return [f"corrupt: {error!r}"]


async def _examined(path: Path, life: Life, place: int, ledger: Ledger) -> list[str]:
    world = World(store=SQLiteStore(str(path), FakeClock()), clock=FakeClock())
    await world.store.open()
    try:
        problems = [
            f"corrupt: {one.fact}" for one in await world.store.examine() if one.name in FINDINGS and not one.ok
        ]
        with contextlib.closing(apsw.Connection(str(path))) as db:
            if digest(db) not in life.may_be(place):
                problems.append("state: it is not what it was after the last commit, nor after the one under way")
            problems += Stored(db).problems(ledger, life.acked(place))
            if not problems:
                await _goes_on(world, ledger)
                problems += [f"afterwards: {one}" for one in Stored(db).problems(ledger, [])]
                again = Stored(db).deliveries
                problems += [
                    f"afterwards: {name} is there {again[name]} times" for name in ledger.deliveries if again[name] != 1
                ]
    finally:
        await world.store.close()
    return problems


async def _goes_on(world: World, ledger: Ledger) -> None:
    """Every delivery is sent again, and every run that was under way commits another page."""
    workload = Workload(world, ledger, random.Random(0), [])
    await workload.begin()
    connections = {one.id for one in await world.store.connections()}
    await world.store.append_deliveries([one for one in ledger.deliveries.values() if one.connection_id in connections])
    for ref in workload.refs.values():
        await world.store.commit_page(workload.page(ref, ref.page_number + 1))


@contextlib.contextmanager
def opened(files: Mapping[str, bytes]) -> Iterator[apsw.Connection]:
    """What files hold, once the store has opened them."""

    async def once(path: Path) -> None:
        store = SQLiteStore(str(path), FakeClock())
        await store.open()
        await store.close()

    with folder_of(files) as folder:
        asyncio.run(once(folder / FILE))
        with contextlib.closing(apsw.Connection(str(folder / FILE))) as db:
            yield db


@functools.cache
def digest_when_new() -> str:
    """Of a store that has just been made."""
    with opened({}) as db:
        return digest(db)


@contextlib.contextmanager
def folder_of(files: Mapping[str, bytes]) -> Iterator[Path]:
    """A folder with these files."""
    parent = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="headwater-power-", dir=parent) as name:
        for file, data in files.items():
            (Path(name) / file).write_bytes(data)
        yield Path(name)


def less_durable(mode: str) -> Callable[[Patch], None]:
    """The store's own connection, with another `synchronous`."""

    def plant(patch: Patch) -> None:
        connect = sqlite_store.connect_writer

        def connected(path: str) -> apsw.Connection:
            db = connect(path)
            db.execute(f"PRAGMA synchronous = {mode}")
            return db

        patch.setattr(sqlite_store, "connect_writer", connected)

    return plant


def lying_disk(patch: Patch) -> None:
    """A sync that returns and has done nothing."""
    apply = Disk.apply
    patch.setattr(Disk, "apply", lambda self, act, chance: None if act.what == "sync" else apply(self, act, chance))


def log_believed(patch: Patch) -> None:
    """What a failed sync left in the page cache is taken for written."""
    patch.setattr(write_ahead, "renew", lambda path: None)


BUGS: Mapping[str, tuple[Callable[[Patch], None], Plan]] = {
    "NORMAL": (less_durable("NORMAL"), PLAN),
    "OFF": (less_durable("OFF"), PLAN),
    "lying disk": (lying_disk, PLAN),
    "log believed": (log_believed, Plan(deaths=1.0, faults=1.0)),
    "checkpoint apart": (bugs.checkpoint_before_records, PLAN),
    "done apart": (bugs.done_before_its_emissions, PLAN),
}


def told_of(seed: int, bug: str = "") -> Told:
    """The history of a seed, with a bug planted where one is named."""
    plant, plan = BUGS[bug] if bug else (lambda patch: None, PLAN)
    with Patch.context() as patch:
        plant(patch)
        return history(seed, plan)


def main() -> int:
    """See the module."""
    options = argparse.ArgumentParser()
    options.add_argument("--cuts", type=int, default=20_000)
    options.add_argument("--first", type=int, default=1)
    options.add_argument("--seed", type=int)
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--bug", choices=BUGS, default="")
    chosen = options.parse_args()
    histories = -(-chosen.cuts // (PLAN.lives * PLAN.cuts))
    seeds = [chosen.seed] if chosen.seed is not None else range(chosen.first, chosen.first + histories)
    started, whole = time.monotonic(), Told(0)
    with ProcessPoolExecutor(chosen.jobs) as pool:
        for told in pool.map(functools.partial(told_of, bug=chosen.bug), seeds):
            whole.cuts += told.cuts
            whole.faults += told.faults
            whole.deaths += told.deaths
            if told.problems:
                whole.problems.append(f"seed {told.seed}: {told.problems[0]}")
                print(f"seed {told.seed}:\n{told}", flush=True)
    by_act = {one: whole.cuts[one] for one in CLASSES}
    print(
        json.dumps(
            {
                "first_seed": seeds[0], "last_seed": seeds[-1], "cuts": whole.cuts.total(), "by_act": by_act,
                "deaths": whole.deaths, "faults": dict(sorted(whole.faults.items())),
                "seconds": round(time.monotonic() - started), "problems": whole.problems,
            },
            indent=1,
        )
    )  # fmt: skip
    return 1 if whole.problems else 0


if __name__ == "__main__":
    sys.exit(main())
