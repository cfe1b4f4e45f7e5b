"""Every promise of the store's contract, over a file and over memory; and emissions against a small model of them."""

import asyncio
import inspect
import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater import failpoint
from headwater.delivery import DeliveryFilter
from headwater.record import Outcome
from headwater.store import Store
from headwater.stores.postgres.store import PostgresStore
from headwater.stores.sqlite.store import SQLiteStore
from headwater.testing import conformance
from headwater.testing.clock import START, FakeClock
from headwater.testing.conformance.world import World, done, emission, grave, name_in
from headwater.testing.store_conformance import CHECKS, run_check
from worlds import opened


@pytest.mark.parametrize("kind", ["file", "memory"])
@pytest.mark.parametrize("name", sorted(CHECKS))
def test_the_store_keeps_its_promise(name, kind, tmp_path):
    path = ":memory:" if kind == "memory" else str(tmp_path / "headwater.db")
    run_check(name, lambda clock: SQLiteStore(path, clock))


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_postgres_keeps_its_promise(name, postgres_url):
    run_check(name, lambda clock: PostgresStore(postgres_url, clock))


def test_the_suite_covers_every_method_of_the_contract():
    text = "".join(path.read_text() for path in Path(conformance.__path__[0]).glob("*.py"))
    methods = {name for name, member in inspect.getmembers(Store, inspect.isfunction) if not name.startswith("_")} - {
        "open",
        "close",
    }
    assert {name for name in methods if f"store.{name}(" not in text} == set()


class Model:
    """What CONTRACT 6 says of one connection's emissions, in the plainest words."""

    def __init__(self):
        self.current = {}  # source id → (content or None for a tombstone, as_of, by object key)
        self.keys = {}

    def emit(self, source_id, content, as_of, key):
        known = self.current.get(source_id)
        if key is not None and key in self.keys and self.keys[key] == (source_id, content):
            return Outcome.DUPLICATE
        outcome = self._outcome(known, content, as_of, key)
        if key is not None and outcome is not Outcome.DUPLICATE:
            self.keys[key] = (source_id, content)
        if outcome in (Outcome.CREATED, Outcome.UPDATED, Outcome.DELETED):
            self.current[source_id] = (content, as_of, key is None)
        elif outcome is Outcome.UNCHANGED and key is not None:
            self.current[source_id] = (known[0], max(as_of, known[1]), known[2])
        return outcome

    def _outcome(self, known, content, as_of, key):
        if known is None:
            return Outcome.DELETED if content is None else Outcome.CREATED
        if known[0] == content:
            return Outcome.DUPLICATE if key is None and known[2] else Outcome.UNCHANGED
        if as_of < known[1]:
            return Outcome.STALE
        if content is None:
            return Outcome.DELETED
        return Outcome.CREATED if known[0] is None else Outcome.UPDATED


one = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from(["x", "y", None]),
    st.integers(0, 4),
    st.one_of(st.none(), st.sampled_from(["k1", "k2", "k3"])),
)
pages = st.lists(st.lists(one, max_size=6), min_size=1, max_size=6)
cuts = st.sets(st.integers(1, 5))


def made(source_id, content, as_of, key):
    # A key stands for content; equal tombstones of two records are equal content, so a key names its record too.
    key = None if key is None else f"{key}-{source_id}"
    return grave(source_id, as_of, key=key) if content is None else emission(source_id, content, as_of, key=key)


def keyed(source_id, content, as_of, key):
    return source_id, content, as_of, None if key is None else f"{key}-{source_id}"


async def behaves_as_the_model(world, given_pages, *, cuts, connection="acme"):
    """Pages are given together up to each cut: those that meet are one commit."""
    store, model = world.store, Model()
    await world.connect(connection)
    ref = await world.admit(connection)
    commits = [
        world.page(ref, *(made(*fields) for fields in page), number=number)
        for number, page in enumerate(given_pages, 1)
    ]
    expected = [[model.emit(*keyed(*fields)) for fields in page] for page in given_pages]
    results = []
    for start, end in itertools.pairwise([0, *sorted(cuts), len(commits)]):
        results += await asyncio.gather(*(store.commit_page(commit) for commit in commits[start:end]))
    assert [list(result.outcomes) for result in results] == expected
    current = {
        record.source_id: None if record.deleted else name_in(bytes(record.current.payload))
        for record in await store.records(connection=connection)
    }
    assert current == {source_id: fields[0] for source_id, fields in model.current.items()}
    live = sum(content is not None for content in current.values())
    assert sum(count for home, _, count in await store.populations() if home == connection) == live


@settings(max_examples=60)
@given(pages, cuts)
def test_random_emissions_come_to_what_the_model_says(given_pages, cuts):
    async def main():
        clock = FakeClock()
        store = SQLiteStore(":memory:", clock)
        await store.open()
        await behaves_as_the_model(World(store=store, clock=clock), given_pages, cuts=cuts)
        await store.close()

    asyncio.run(main())


def test_random_emissions_come_to_the_same_in_postgres(postgres_url):
    numbers = itertools.count()

    @settings(max_examples=30)
    @given(pages, cuts)
    def check(given_pages, cuts):
        async def main():
            async with opened(postgres_url) as world:
                connection = f"c{next(numbers)}"  # the database stays: every example has a connection of its own
                await behaves_as_the_model(world, given_pages, cuts=cuts, connection=connection)

        asyncio.run(main())

    check()


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("delivery", ["delivery.before_commit", "delivery.after_commit"]),
        ("dispatch", ["dispatch.before_commit", "dispatch.after_commit"]),
        ("tick", ["tick.before_commit", "tick.after_commit"]),
        ("page", ["page.before_records", "page.before_checkpoint", "page.before_commit", "page.after_commit"]),
        ("replay", ["replay.before_commit"]),
    ],
)
def test_every_failpoint_is_passed_by_its_operation(kind, names, store, request):
    passed = []
    url = request.getfixturevalue("postgres_url") if store == "postgres" else ":memory:"

    async def main():
        async with opened(url) as world:
            connection = await world.connect()
            ref = await world.admit()
            await world.deliver(connection.id, "evt")
            (claim,) = await world.claim()
            for name in failpoint.NAMES:
                failpoint.arm(name, lambda name=name: passed.append(name))
            if kind == "delivery":
                await world.deliver(connection.id, "evt2")
            elif kind == "dispatch":
                await world.store.finish_delivery(done(claim))
            elif kind == "tick":
                await world.tick()
            elif kind == "page":
                await world.commit(ref, emission("a", "x"))
            else:
                await world.store.replay_deliveries(DeliveryFilter(), at=START)
            failpoint.disarm()

    asyncio.run(main())
    assert passed == names
