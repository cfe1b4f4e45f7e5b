"""A short form of the power cuts, of which `make nightly-power` runs the long one; and whether they find bugs."""

import asyncio
import contextlib
import random
import sys
from collections import Counter
from pathlib import Path

import apsw
import pytest

sys.path.insert(0, str(Path(__file__).parent / "power"))

import cuts
from disk import CLASSES, Disk, RecordingVFS

from headwater import failpoint
from headwater.delivery import DeliveryFilter
from headwater.errors import StartError, StoreUnavailableError
from headwater.stores.sqlite import database, write_ahead
from headwater.testing.conformance.world import new_delivery
from worlds import opened

POSTS = 6
SHORT = cuts.Plan(lives=3)
SEEDS = (1, 2)
BUG_SEEDS = range(1, 13)  # tried one after the other until the bug is found


class Worst(random.Random):
    """Of what was not synced, nothing is kept."""

    def choice(self, among):
        return among[0]

    def random(self):
        return 1.0


class FailsOnce:
    """Once armed with a kind of act, the next one fails."""

    def __init__(self, kind="", error=None):
        self.kind = kind
        self.error = error or apsw.IOError("it failed")
        self.is_done = False

    def __call__(self, act):
        if act.kind != self.kind:
            return None
        self.kind, self.is_done = "", True
        return self.error


@contextlib.contextmanager
def recorded(fails):
    trace = []
    disk = RecordingVFS("recorded", trace, fails)
    try:
        yield trace
    finally:
        disk.unregister()


def test_no_cut_loses_what_was_acked_and_each_kind_of_act_was_cut_after():
    cut = Counter()
    for seed in SEEDS:
        told = cuts.history(seed, SHORT)
        assert not told.problems, str(told)
        cut += told.cuts
    assert set(cut) == set(CLASSES)


@pytest.mark.parametrize("bug", ["OFF", "lying disk", "checkpoint apart", "done apart"])
def test_a_planted_bug_loses_something(bug):
    assert any(cuts.told_of(seed, bug).problems for seed in BUG_SEEDS)


def test_normal_loses_what_was_acked():
    """Why the store pays for FULL: the file is whole, and the last commits are not in it."""
    for seed in BUG_SEEDS:
        problems = cuts.told_of(seed, "NORMAL").problems
        assert not any("corrupt" in problem for problem in problems)
        if any("lost: " in problem and "was acked" in problem for problem in problems):
            return
    pytest.fail(f"nothing was lost in {len(BUG_SEEDS)} histories")


def test_one_seed_is_one_history():
    one, other = cuts.history(3, cuts.Plan(lives=1)), cuts.history(3, cuts.Plan(lives=1))
    assert one == other
    assert one != cuts.history(4, cuts.Plan(lives=1))


@pytest.mark.parametrize("believed", [False, True])
def test_what_a_failed_sync_left_in_the_page_cache_is_not_built_upon(tmp_path, monkeypatch, believed):
    """The process that failed dies; the next one acknowledges a delivery; then the power is cut.

    Where the log is believed as it reads, its new commit stands behind one that is not on the disk, and goes with it.
    """
    if believed:
        monkeypatch.setattr(write_ahead, "renew", lambda path: None)
    fails, disk, worst = FailsOnce(), Disk(), Worst()

    async def failing():
        async with opened(tmp_path / "power.db") as world:
            connection = await world.connect()
            await world.deliver(connection.id, "before")
            fails.kind = "log: sync"
            with pytest.raises(StoreUnavailableError):
                await world.deliver(connection.id, "failed")
            for act in trace:
                disk.apply(act, worst)
            return connection.id, disk.cache()  # SIGKILL

    async def next_one(path, connection_id):
        async with opened(path) as world:
            await world.deliver(connection_id, "acked")
            for act in trace:
                disk.apply(act, worst)
            return disk.image(worst)

    async def stored(path):
        async with opened(path) as world:
            return {one.provider_id for one in await world.store.deliveries(DeliveryFilter())}

    with recorded(fails) as trace:
        connection_id, files = asyncio.run(failing())
    with recorded(fails) as trace, cuts.folder_of(files) as folder:
        files = asyncio.run(next_one(folder / "power.db", connection_id))
    with cuts.folder_of(files) as folder:
        found = asyncio.run(stored(folder / "power.db"))
    assert "before" in found
    assert ("acked" in found) is not believed


def test_a_failed_sync_of_the_file_breaks_the_store_after_the_commit_was_acked(tmp_path, monkeypatch):
    """SQLite's own checkpoint would say nothing of it, and go on."""
    monkeypatch.setattr(database, "WAL_PAGES", 1)
    fails = FailsOnce()

    async def main():
        async with opened(tmp_path / "power.db") as world:
            connection = await world.connect()
            # In the writer's thread: the log of the commit before may yet be on its way into the file.
            failpoint.arm("delivery.before_commit", lambda: setattr(fails, "kind", "file: sync"))
            await world.deliver(connection.id, "acked")
            with pytest.raises(StoreUnavailableError):
                await world.deliver(connection.id, "after")
            assert "log was moved into the file" in world.store.broken

    with recorded(fails):
        try:
            asyncio.run(main())
        finally:
            failpoint.disarm()


ERRORS = {"EIO": lambda: apsw.IOError("disk I/O error"), "ENOSPC": lambda: apsw.FullError("database or disk is full")}
AT_WORK = [
    "log: header", "log: frame header", "log: frame", "log: commit frame header", "log: commit frame", "log: sync",
    "file: first page", "file: write", "file: truncate", "file: sync",
]  # fmt: skip
AT_START = ["log: created", "log: sync", "log: frame", "log: commit frame", "journal: created", "journal: write",
            "journal: sync", "file: first page", "file: sync", "file: created"]  # fmt: skip


async def again(path, acked):
    """A process that starts where nothing fails: what was acked is there, once, and everything else is taken again."""
    async with opened(path) as world:
        connection = await world.store.connection("acme") or await world.connect()
        stored = [one.provider_id for one in await world.store.deliveries(DeliveryFilter())]
        assert set(acked) <= set(stored)
        names = [f"evt{number}" for number in range(POSTS)]
        await world.deliver(connection.id, *names)
        stored = [one.provider_id for one in await world.store.deliveries(DeliveryFilter())]
        assert sorted(stored) == sorted(names)
        assert all(one.ok for one in await world.store.examine() if one.name in cuts.FINDINGS)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("kind", AT_WORK)
def test_an_act_that_fails_at_work_stops_the_store_and_loses_nothing_acked(tmp_path, monkeypatch, kind, error):
    monkeypatch.setattr(database, "WAL_PAGES", 4)
    monkeypatch.setattr(database, "WRITER_CACHE_KIB", 64)
    path, fails, acked = tmp_path / "power.db", FailsOnce(error=ERRORS[error]()), []

    async def main():
        async with opened(path) as world:
            connection = await world.connect()
            failpoint.arm("delivery.before_commit", lambda: setattr(fails, "kind", "" if fails.is_done else kind))
            for number in range(POSTS):
                name = f"evt{number}"
                delivery = new_delivery(connection.id, name, body=random.Random(number).randbytes(300_000))
                try:
                    await world.store.append_deliveries([delivery])
                except StoreUnavailableError:
                    continue
                acked.append(name)
            assert world.store.broken

    with recorded(fails):
        try:
            asyncio.run(main())
        finally:
            failpoint.disarm()
    asyncio.run(again(path, acked))


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("kind", AT_START)
def test_an_act_that_fails_at_the_start_is_told_in_a_sentence(tmp_path, kind, error):
    path, fails = tmp_path / "power.db", FailsOnce(kind, ERRORS[error]())

    async def main():
        async with opened(path):
            pass

    with recorded(fails):
        with pytest.raises((StartError, StoreUnavailableError)):
            asyncio.run(main())
        assert fails.is_done
    asyncio.run(again(path, []))


def test_a_log_that_somebody_else_has_open_is_left_alone(tmp_path):
    """Another process at work on the file knows how far its log is good; it may not be written under it."""
    path = tmp_path / "power.db"

    async def main():
        async with opened(path) as ours:
            await ours.connect()
            with recorded(lambda act: None) as trace:
                write_ahead.renew(str(path))
            assert trace == []

    asyncio.run(main())
