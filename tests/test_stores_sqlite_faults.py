"""A disk that fails or is full, a process that is killed, and another process at the same file."""

import asyncio
import sqlite3

import apsw
import pytest

from headwater.delivery import DeliveryFilter
from headwater.errors import StoreUnavailableError
from headwater.record import Outcome
from headwater.stores.sqlite import database
from headwater.testing.conformance.world import at, emission, new_delivery
from victim import killed_at
from worlds import opened


@pytest.fixture
def path(tmp_path):
    return tmp_path / "headwater.db"


class FailingDisk(apsw.VFS):
    """A disk whose writes to the log fail once `failing` is set."""

    def __init__(self, name):
        self.failing = None  # "write" or "sync"
        super().__init__(name, "unix", makedefault=True)

    def xOpen(self, name, flags):
        return FailingFile(self, name, flags)


class FailingFile(apsw.VFSFile):
    def __init__(self, disk, name, flags):
        self.disk = disk
        super().__init__("unix", name, flags)

    def xWrite(self, data, offset):
        if self.disk.failing == "write":
            raise apsw.FullError("no space left")
        super().xWrite(data, offset)

    def xSync(self, flags):
        if self.disk.failing == "sync":
            raise apsw.IOError("fsync failed")
        super().xSync(flags)


@pytest.mark.parametrize("failing", ["sync", "write"])
def test_a_disk_that_fails_breaks_the_store_and_loses_nothing_acknowledged(path, failing):
    async def main():
        disk = FailingDisk(f"failing-{failing}")
        try:
            async with opened(path) as world:
                connection = await world.connect()
                await world.deliver(connection.id, "acked")
                disk.failing = failing
                results = await asyncio.gather(
                    *(world.deliver(connection.id, f"lost{n}") for n in range(5)), return_exceptions=True
                )
                assert [type(result) for result in results] == [StoreUnavailableError] * 5
                assert world.store.broken
                disk.failing = None
                with pytest.raises(StoreUnavailableError, match="broken"):
                    await world.deliver(connection.id, "after")
                findings = {finding.name: finding.ok for finding in await world.store.examine()}
                assert findings["writable"] is False
        finally:
            disk.unregister()

    asyncio.run(main())

    async def again():
        async with opened(path) as world:
            stored = {one.provider_id for one in await world.store.deliveries(DeliveryFilter())}
            assert "acked" in stored
            assert "after" not in stored
            assert all(finding.ok for finding in await world.store.examine())

    asyncio.run(again())


def test_a_full_disk_breaks_the_store(path):
    async def main():
        async with opened(path) as world:
            connection = await world.connect()
            await world.deliver(connection.id, "acked")
            world.store._writer._db.execute("PRAGMA max_page_count = 1").fetchall()
            big = [new_delivery(connection.id, f"big{n}", body=b"x" * 100_000) for n in range(3)]
            with pytest.raises(StoreUnavailableError):
                await world.store.append_deliveries(big)
            assert "full" in world.store.broken
            assert await world.store.pending_deliveries() == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    "name", ["page.before_records", "page.before_checkpoint", "page.before_commit", "page.after_commit"]
)
def test_a_killed_process_leaves_whole_pages(path, name):
    assert killed_at(f"{name}:4", path) == ["0", "1", "2"]

    async def main():
        async with opened(path) as world:
            committed = 4 if name == "page.after_commit" else 3
            found = [record.source_id for record in await world.store.records()]
            assert found == [f"r{number}" for number in range(committed)]
            assert (await world.state()).cursor == str(committed - 1)
            assert await world.store.readmit(at(1)) == 1
            (ref,) = (await world.tick(at(1))).admitted
            assert (ref.cursor, ref.page_number, ref.attempt) == (str(committed - 1), committed, 2)
            assert await world.commit(ref, emission("r2", "x"), emission("new", "x")) == [
                Outcome.DUPLICATE,
                Outcome.CREATED,
            ]

    asyncio.run(main())


def test_a_process_killed_in_a_migration_leaves_no_half_of_it(path):
    assert killed_at("migration.before_commit", path) == []
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)

    async def main():
        async with opened(path) as world:
            await world.connect()

    asyncio.run(main())


def test_another_process_may_write_the_same_file(path):
    """Sequences, epochs and ids are read in the transaction, never remembered."""

    async def main():
        async with opened(path) as ours, opened(path) as theirs:
            await ours.connect("ours")
            await theirs.connect("theirs")
            one, two = await ours.admit("ours"), await theirs.admit("theirs")
            for number in range(10):
                await asyncio.gather(
                    ours.commit(one, emission(f"a{number}", "x", key=f"k{number}"), has_more=True),
                    theirs.commit(two, emission(f"b{number}", "x"), has_more=True),
                )
            feed = await ours.store.changes(after=0)
            assert [change.sequence for change in feed.changes] == list(range(1, 21))
            result = await asyncio.gather(*(world.tick(at(3600)) for world in (ours, theirs)))
            assert sum(len(one.admitted) for one in result) == 2
            connection = await ours.store.connection("ours")
            await asyncio.gather(*(world.deliver(connection.id, "evt") for world in (ours, theirs)))
            assert await theirs.store.count_deliveries(DeliveryFilter()) == 1

    asyncio.run(main())


def test_a_lock_held_by_another_process_is_waited_for_once(path):
    async def main():
        async with opened(path) as world:
            connection = await world.connect()
            other = apsw.Connection(str(path))
            other.execute("BEGIN IMMEDIATE")
            waits = []

            def give_up(tries):
                waits.append(tries)
                return False

            world.store._writer._db.set_busy_handler(give_up)
            with pytest.raises(StoreUnavailableError):
                await world.store.append_deliveries([new_delivery(connection.id, "evt")])
            assert waits == [0]
            other.close()

    asyncio.run(main())


def test_a_lock_held_by_another_process_is_a_passing_fault(path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MILLISECONDS", 1)

    async def main():
        async with opened(path) as world:
            other = apsw.Connection(str(path))  # not sqlite3: two SQLites in one process do not see each other's locks
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailableError):
                await world.connect()
            other.execute("ROLLBACK")
            other.close()
            assert world.store.broken is None
            await world.connect()

    asyncio.run(main())
