"""Exports from a store: complete, resumable at every write, and continued by the feed."""

import asyncio
from decimal import Decimal

import msgspec
import pytest

from headwater import export
from headwater.errors import UsageError
from headwater.sinks.format import file_sink
from headwater.testing.clock import FakeClock
from stored import connect, emit, ingest, open_store


def run(story):
    async def main():
        clock = FakeClock()
        async with open_store(clock=clock) as store:
            await connect(store, clock)
            await story(store, clock)

    asyncio.run(main())


def sink(path, *, what="records"):
    return file_sink(path, format="jsonl", request={"what": what}, continues=what == "changes")


def rows(path):
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


class CutOff:
    """A sink that fails at its nth write: before the bytes, or after them and before anybody is told."""

    def __init__(self, inner, *, at, after):
        self.inner, self.left, self.after = inner, at, after

    async def open(self):
        return await self.inner.open()

    async def write(self, changes, *, position):
        self.left -= 1
        if self.left == 0 and not self.after:
            raise OSError("cut off")
        await self.inner.write(changes, position=position)
        if self.left == 0:
            raise OSError("cut off")

    async def finish(self):
        await self.inner.finish()

    async def close(self):
        await self.inner.close()


def test_records_leave_in_their_current_form_without_the_deleted(tmp_path):
    async def story(store, clock):
        await ingest(store, clock, emit("a", clock, balance=Decimal("1.10")), emit("b", clock), emit("c", clock))
        await clock.advance(1)
        await ingest(store, clock, emit("a", clock, balance=Decimal("1.20")), emit("b", clock, deleted=True))
        done = await export.export_records(store, sink(tmp_path / "out.jsonl"))
        found = rows(tmp_path / "out.jsonl")
        assert [(row["id"], row["version"], row["data"]) for row in found] == [
            ("a", 2, {"id": "a", "balance": "1.20"}),
            ("c", 1, {"id": "c"}),
        ]
        assert (done.rows, done.written, done.resumed) == (2, 2, False)
        await export.export_records(store, sink(tmp_path / "all.jsonl"), with_deleted=True)
        assert [(row["id"], row["op"]) for row in rows(tmp_path / "all.jsonl")] == [
            ("a", "upsert"),
            ("b", "delete"),
            ("c", "upsert"),
        ]

    run(story)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_export_cut_off_at_any_write_goes_on_exactly(tmp_path, monkeypatch, at, after):
    monkeypatch.setattr(export, "WRITE_CHANGES_MAX", 3)
    monkeypatch.setattr(export, "LIST_LIMIT_MAX", 2)

    async def story(store, clock):
        await ingest(store, clock, *[emit(f"c{n:02}", clock) for n in range(11)])
        for what, function in (("records", export.export_records), ("changes", export.export_changes)):
            path = tmp_path / f"{what}.jsonl"
            with pytest.raises(OSError, match="cut off"):
                await function(store, CutOff(sink(path, what=what), at=at, after=after))
            done = await function(store, sink(path, what=what))
            assert [row["id"] for row in rows(path)] == [f"c{n:02}" for n in range(11)]
            assert done.rows == 11
            assert done.resumed is (at > 1 or after)

    run(story)


def test_the_feed_after_a_snapshots_position_brings_all_that_came_later(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "WRITE_CHANGES_MAX", 2)
    monkeypatch.setattr(export, "LIST_LIMIT_MAX", 2)

    async def story(store, clock):
        await ingest(store, clock, *[emit(f"c{n}", clock) for n in range(6)])
        path = tmp_path / "out.jsonl"
        with pytest.raises(OSError, match="cut off"):
            await export.export_records(store, CutOff(sink(path), at=1, after=True))
        await clock.advance(1)
        await ingest(store, clock, emit("c0", clock, name="late"), emit("a0", clock))
        done = await export.export_records(store, sink(path))
        later = await store.changes(after=done.position)
        current = {row["id"]: row["version"] for row in rows(path)}
        current |= {one.source_id: one.version for one in later.changes}
        assert current == {one.source_id: one.version for one in await store.records()}

    run(story)


def test_changes_hold_tombstones_and_go_on_where_the_file_ends(tmp_path):
    async def story(store, clock):
        path = tmp_path / "feed.jsonl"
        await ingest(store, clock, emit("a", clock))
        first = await export.export_changes(store, sink(path, what="changes"))
        assert (first.rows, first.resumed) == (1, False)
        await clock.advance(1)
        await ingest(store, clock, emit("a", clock, deleted=True))
        second = await export.export_changes(store, sink(path, what="changes"))
        assert (second.rows, second.written, second.resumed) == (2, 1, True)
        assert [(row["op"], row["data"]) for row in rows(path)] == [("upsert", {"id": "a"}), ("delete", None)]

    run(story)


def test_a_filtered_export_of_changes_remembers_what_it_passed_over(tmp_path):
    async def story(store, clock):
        await connect(store, clock, "other")
        await ingest(store, clock, emit("a", clock))
        await ingest(store, clock, emit("b", clock), connection="other")
        path = tmp_path / "feed.jsonl"
        done = await export.export_changes(store, sink(path, what="changes"), connection="acme")
        assert [row["id"] for row in rows(path)] == ["a"]
        assert done.position == (await store.changes(after=0)).high_water

    run(story)


def test_a_position_from_another_database_is_refused(tmp_path):
    async def story(store, clock):
        with pytest.raises(UsageError, match="The feed ends at 0, before position 5"):
            await export.export_changes(store, sink(tmp_path / "feed.jsonl", what="changes"), after=5)

    run(story)


def test_a_file_of_records_is_not_gone_on_with_as_changes(tmp_path):
    async def story(store, clock):
        await ingest(store, clock, emit("a", clock))
        path = tmp_path / "out.jsonl"
        with pytest.raises(OSError, match="cut off"):
            await export.export_records(store, CutOff(sink(path), at=1, after=True))
        with pytest.raises(UsageError, match="holds records, not changes"):
            await export.export_changes(store, sink(path))

    run(story)
