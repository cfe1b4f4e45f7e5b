"""A version brought into service: received, checked apart, planned, activated, taken up, and returned from."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploying import (
    CUSTOMERS,
    HALF_HOURLY,
    ORDERS,
    SECOND,
    Api,
    at_work,
    config_in,
    connect,
    opened,
    packed,
    until,
    version,
)
from headwater import activation, deploy
from headwater.app import Platform, open_platform
from headwater.application import Application
from headwater.check import apart
from headwater.clock import SystemClock
from headwater.deploy import BundleRefusedError, Deployer, before_newest
from headwater.deployment import Deployment, StoredBundle
from headwater.errors import CheckFailedError, ConflictError, DestructiveError, NotFoundError, RetryError, UsageError
from headwater.stores.postgres.store import PostgresStore
from headwater.testing.clock import START, FakeClock
from loopback import Shop, loopback_shop
from stored import open_store

EXITS = "import os\nos._exit(0)\n"
LOOPS = "while True:\n    pass\n"
LIB = "src/lib/extra.py"
IMPORTS_EXTRA = {CUSTOMERS: "from ...lib import extra\nfrom headwater import Page, route\n\n\n"
                 '@route(auth="api_key")\nasync def post(request):\n    return Page()\n'}  # fmt: skip


@pytest.fixture
def shop() -> Iterator[Shop]:
    with loopback_shop() as running:
        yield running


async def nothing() -> None:
    return None


def with_deployer(story) -> None:
    async def main() -> None:
        async with open_store() as store:
            await story(Deployer(store, FakeClock(), projects={}, activated=nothing), store)

    asyncio.run(main())


async def received(deployer: Deployer, folder: Path) -> str:
    read, archive = packed(folder)
    return (await deployer.receive(archive, content_hash=read.content_hash, actor="ci")).bundle.hash


def test_a_bundle_is_checked_stored_planned_and_activated(tmp_path: Path) -> None:
    async def story(deployer, store):
        read, archive = packed(version(tmp_path / "one"))
        got = await deployer.receive(archive, content_hash=read.content_hash, actor="ci")
        assert (got.is_new, got.lines, got.bundle.connector, got.bundle.version) == (True, (), "shop", "0.1.0")
        assert not (await deployer.receive(archive, content_hash=read.content_hash, actor="ci")).is_new
        plan = await deployer.plan(read.content_hash)
        assert (plan.active, plan.active_version, plan.destructive) == (None, None, ())
        assert {change.name for change in plan.changes if change.area == "stream"} == {"customers", "events"}
        assert await store.active_bundles() == {}
        done = await deployer.activate(plan, act="deploy", actor="ci")
        assert await store.active_bundles() == {"shop": read.content_hash}
        assert [one["name"] for one in done.plan][:2] == ["customers", "events"]
        assert (await deployer.plan(read.content_hash)).changes == ()
        assert [one.act for one in await store.audit_log()] == ["deploy", "bundles.add"]

    with_deployer(story)


def test_what_is_taken_away_must_be_allowed_and_a_rollback_may_take_it(tmp_path: Path) -> None:
    async def story(deployer, store):
        more = await received(deployer, version(tmp_path / "more", ORDERS))
        less = await received(deployer, version(tmp_path / "less", SECOND))
        await deployer.activate(await deployer.plan(less), act="deploy", actor="ci")
        await deployer.activate(await deployer.plan(more), act="deploy", actor="ci")
        plan = await deployer.plan(less)
        with pytest.raises(DestructiveError, match=r"stream orders \(removed\)"):
            await deployer.activate(plan, act="deploy", actor="ci")
        assert await store.active_bundles() == {"shop": more}
        back = await deployer.plan_rollback("shop")
        assert (back.bundle, len(back.destructive)) == (less, 1)
        assert (await deployer.activate(back, act="rollback", actor="ci")).previous == more
        await deployer.activate(await deployer.plan(more), act="deploy", actor="ci")
        await deployer.activate(await deployer.plan(less), act="deploy", actor="ci", allow_destructive=True)
        assert await store.active_bundles() == {"shop": less}

    with_deployer(story)


def test_of_two_deploys_one_wins_and_the_other_is_told(tmp_path: Path) -> None:
    async def story(deployer, store):
        one = await received(deployer, version(tmp_path / "1"))
        two = await received(deployer, version(tmp_path / "2", SECOND))
        plans = [await deployer.plan(one), await deployer.plan(two)]
        results = await asyncio.gather(
            *(deployer.activate(plan, act="deploy", actor="ci") for plan in plans), return_exceptions=True
        )
        assert {type(result) for result in results} == {Deployment, ConflictError}
        assert len(await store.deployments()) == 1

    with_deployer(story)


def test_a_bundle_is_named_by_the_beginning_of_its_hash(tmp_path: Path) -> None:
    async def story(deployer, store):
        one = await received(deployer, version(tmp_path / "one"))
        with pytest.raises(NotFoundError, match="nothing to return to"):
            await deployer.plan_rollback("shop")
        assert (await deployer.plan_rollback("shop", one[:8])).bundle == one
        with pytest.raises(NotFoundError, match="no bundle"):
            await deployer.plan_rollback("shop", one[:3])
        with pytest.raises(NotFoundError):
            await deployer.plan_rollback("other", one)
        twin = StoredBundle(
            hash=one[:8] + "x", connector="shop", version="1", outline="{}", archive=b"", archive_bytes=0,
            created_at=START, actor="ci",
        )  # fmt: skip
        await store.add_bundle(twin)
        with pytest.raises(UsageError, match="2 bundles of shop begin with"):
            await deployer.plan_rollback("shop", one[:8])

    with_deployer(story)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ("", None),
        ("dA", None),
        ("dA dB", "A"),
        ("dA dB dC", "B"),
        ("dA dB dC rB", "A"),
        ("dA dB dC rB rA", None),
        ("dA dB rA dC", "A"),
        ("dA dB dA", "B"),
        ("dA dB dC rA", None),
        ("dA dB rX", "B"),
        ("dA dB dA dB", "A"),
    ],
)
def test_each_rollback_goes_one_further_back(history: str, expected: str | None) -> None:
    entries = [
        Deployment(
            id=number, connector="shop", bundle=word[1], version="1", previous=None,
            act="deploy" if word[0] == "d" else "rollback", activated_at=START, actor="ci",
        )
        for number, word in enumerate(history.split())
    ]  # fmt: skip
    assert before_newest(entries[::-1]) == expected


def test_what_fails_its_check_is_refused_with_every_line(tmp_path: Path) -> None:
    async def story(deployer, store):
        read, archive = packed(version(tmp_path / "bad", files={LIB: "def (:\n", CUSTOMERS: "x = 1\n"}))
        with pytest.raises(BundleRefusedError) as refused:
            await deployer.receive(archive, content_hash=read.content_hash, actor="ci")
        assert {line.split(":")[0] for line in refused.value.lines} == {LIB, CUSTOMERS}
        assert await store.bundles() == []
        assert await store.audit_log() == []

    with_deployer(story)


@pytest.mark.parametrize(("code", "said"), [(EXITS, "ended the process"), (LOOPS, "took longer than 2 s")])
def test_what_a_bundle_does_when_it_is_imported_it_does_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    monkeypatch.setattr(apart, "SECONDS_MAX", 2.0 if code == LOOPS else 60.0)

    async def story(deployer, store):
        read, archive = packed(version(tmp_path / "bad", files={LIB: code, **IMPORTS_EXTRA}))
        with pytest.raises(BundleRefusedError) as refused:
            await deployer.receive(archive, content_hash=read.content_hash, actor="ci")
        assert said in refused.value.lines[0]

    with_deployer(story)


def test_a_bundle_under_check_sees_no_setting_and_may_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_KEY", "canary")
    code = 'import os\n\nprint("{")\nassert not [name for name in os.environ if "HEADWATER" in name]\n'

    async def story(deployer, store):
        await received(deployer, version(tmp_path / "one", files={LIB: code, **IMPORTS_EXTRA}))

    with_deployer(story)


def test_a_wrong_name_and_a_truncated_archive_are_refused_before_any_code_runs(tmp_path: Path) -> None:
    async def story(deployer, store):
        read, archive = packed(version(tmp_path / "one", files={LIB: EXITS, **IMPORTS_EXTRA}))
        for data, name in ((archive, "0" * 32), (archive[:-5], read.content_hash), (b"", read.content_hash)):
            with pytest.raises(CheckFailedError) as refused:
                await deployer.receive(data, content_hash=name, actor="ci")
            assert not isinstance(refused.value, BundleRefusedError)

    with_deployer(story)


def test_a_run_ends_on_the_version_that_it_began_with_and_the_next_takes_the_new_one(
    tmp_path: Path, shop: Shop
) -> None:
    # Imported within the route: the second page needs a module of the old version after the new one took its place.
    lazy = Path(version(tmp_path / "plain") / CUSTOMERS).read_text()
    lazy = lazy.replace("from ...lib.shop import customer_record, get\n", "from ...lib.shop import get\n")
    lazy = lazy.replace(
        '    ingest.batch(\n', '    if request.cursor:\n        from ...lib.late import MARK  # noqa: F401\n'
        '    from ...lib.shop import customer_record\n\n    ingest.batch(\n', 1
    )  # fmt: skip
    old = version(tmp_path / "old", files={CUSTOMERS: lazy, "src/lib/late.py": "MARK = 1\n"})
    new = version(tmp_path / "new", SECOND)
    shop.free.clear()

    async def act(platform: Platform) -> None:
        api = Api(Application(platform, version="test"))
        await api.make_key()
        await api.deploy(old)
        first = platform.project("shop")
        first_version, package = first.version, first.package
        del first
        await connect(platform, shop)
        async with at_work(platform) as application:
            api.application = application

            async def is_asked() -> bool:
                return shop.asked.is_set()

            await until(is_asked)
            await api.deploy(new)
            assert platform.project("shop").connector.version == "0.2.0"
            shop.free.set()

            async def is_over() -> bool:
                return [run.state for run in await platform.store.runs()] == ["succeeded"]

            await until(is_over)
            (run,) = await platform.store.runs()
            assert run.pages == 2
            versions = [await platform.store.versions("acme", "customer", f"c_{number}") for number in (1, 2, 3)]
            assert [[one.connector_version for one in many] for many in versions] == [[first_version]] * 3
            shop.customers[0]["name"] = "Changed"
            state = await platform.find_stream("acme", "customers")
            await platform.store.trigger_run(state.id, at=platform.clock.now())
            application.wake()

            async def is_changed() -> bool:
                return len(await platform.store.versions("acme", "customer", "c_1")) == 2

            await until(is_changed)
            newest = (await platform.store.versions("acme", "customer", "c_1"))[0]
            assert newest.connector_version == platform.project("shop").version != first_version
        gc.collect()
        assert not [name for name in sys.modules if name.startswith(package)], "the old version is forgotten at last"

    opened(config_in(tmp_path / "node", projects=(tmp_path / "none",)), act)


def test_a_run_of_a_stream_that_is_removed_meanwhile_ends_as_it_would_have(tmp_path: Path, shop: Shop) -> None:
    more, less = version(tmp_path / "more", ORDERS), version(tmp_path / "less", SECOND)
    shop.free.clear()

    async def act(platform: Platform) -> None:
        api = Api(Application(platform, version="test"))
        await api.make_key()
        await api.deploy(more)
        await connect(platform, shop)
        async with at_work(platform) as application:
            api.application = application

            async def are_running() -> bool:
                return [run.state for run in await platform.store.runs()] == ["running", "running"]

            await until(are_running)
            await api.deploy(less, allow_destructive=True)
            shop.free.set()

            async def are_over() -> bool:
                return [run.state for run in await platform.store.runs()] == ["succeeded", "succeeded"]

            await until(are_over)
            assert {run.stream: run.pages for run in await platform.store.runs()} == {"customers": 2, "orders": 2}
            assert {one.stream for one in await platform.store.streams(at=platform.clock.now())} == {
                "customers",
                "events",
            }

    opened(config_in(tmp_path / "node", projects=(tmp_path / "none",)), act)


def test_removed_streams_keep_their_data_added_ones_are_due_and_rescheduled_ones_get_the_new_tick(
    tmp_path: Path, shop: Shop
) -> None:
    async def act(platform: Platform) -> None:
        api = Api(Application(platform, version="test"))
        await api.make_key()
        await api.deploy(version(tmp_path / "one"))
        await connect(platform, shop)
        customers = await platform.find_stream("acme", "customers")
        await platform.store.set_checkpoint(customers.id, "c_2", at=platform.clock.now())
        await api.deploy(version(tmp_path / "two", ORDERS, HALF_HOURLY))
        states = {one.stream: one for one in await platform.store.streams(at=platform.clock.now())}
        assert set(states) == {"customers", "events", "orders"}
        now = platform.clock.now()
        assert states["orders"].next_tick_at is not None
        assert states["orders"].next_tick_at <= now
        assert states["customers"].next_tick_at is not None
        assert states["customers"].next_tick_at > now
        assert states["customers"].next_tick_at.minute % 30 == 0
        back = await api.wanted(connector="shop", rollback=True)
        assert back["plan"]["destructive"]
        assert {one.stream for one in await platform.store.streams(at=now)} == {"customers", "events"}
        await api.wanted(bundle=(await platform.store.bundles())[0].hash)
        again = await platform.find_stream("acme", "customers")
        assert (again.id, again.cursor) == (customers.id, "c_2")
        assert (await platform.find_stream("acme", "orders")).id == states["orders"].id

    opened(config_in(tmp_path / "node", projects=(tmp_path / "none",)), act)


def test_a_bundle_comes_before_a_folder_and_a_node_needs_nothing_on_its_disk(tmp_path: Path) -> None:
    folder, other = version(tmp_path / "folder"), version(tmp_path / "other", SECOND)
    database = tmp_path / "shared.db"

    async def act(platform: Platform) -> None:
        assert platform.origin("shop") == str(folder)
        api = Api(Application(platform, version="test"))
        await api.make_key()
        plan = (await api.deploy(other))["plan"]
        # The folder that ran is what the first bundle is compared with.
        assert (plan["active"], plan["active_version"], plan["changes"]) == (None, "0.1.0", [])
        assert platform.project("shop").connector.version == "0.2.0"

    opened(config_in(tmp_path / "a", projects=(folder,), database=database), act)

    async def is_bundle(platform: Platform) -> None:
        assert platform.project("shop").connector.version == "0.2.0"
        assert platform.origin("shop") == f"bundle {packed(other)[0].content_hash}"
        assert platform.passed_over == ({"shop": folder} if platform.config.projects == (folder,) else {})

    opened(config_in(tmp_path / "a", projects=(folder,), database=database), is_bundle)
    opened(config_in(tmp_path / "b", projects=(tmp_path / "none",), database=database), is_bundle)

    async def is_folder(platform: Platform) -> None:
        assert platform.origin("shop") == str(folder)

    opened(config_in(tmp_path / "a", projects=(folder,), database=database, bundles=False), is_folder)


def test_another_node_takes_up_what_was_activated(tmp_path: Path) -> None:
    database = tmp_path / "shared.db"
    chosen = config_in(tmp_path, projects=(tmp_path / "none",), database=database)

    async def act(one: Platform) -> None:
        async with open_platform(chosen, SystemClock(), with_projects=True) as two:
            api, beside = Api(Application(one, version="test")), Application(two, version="test")
            await api.make_key()
            for number, parts in enumerate([(), (SECOND,)]):
                await api.deploy(version(tmp_path / str(number), *parts))
                await beside.look()
                assert two.project("shop").content_hash == one.project("shop").content_hash
            await api.wanted(connector="shop", rollback=True)
            await beside.look()
            assert two.project("shop").connector.version == "0.1.0"

    opened(chosen, act)


def test_nodes_on_one_postgresql_take_up_what_one_of_them_activated(tmp_path: Path, postgres_url: str) -> None:
    def node() -> Platform:
        clock = SystemClock()
        return Platform(config=config_in(tmp_path), clock=clock, store=PostgresStore(postgres_url, clock))

    async def story() -> None:
        one, two = node(), node()
        await one.store.open()
        await two.store.open()
        try:
            deployer = Deployer(one.store, one.clock, projects=one.projects, activated=one.activations.look)
            first, second = [
                await received(deployer, folder)
                for folder in (version(tmp_path / "1"), version(tmp_path / "2", ORDERS))
            ]
            for bundle in (first, second):
                await deployer.activate(await deployer.plan(bundle), act="deploy", actor="ci")
                assert [project.content_hash for project in await two.activations.look()] == [bundle]
                assert await two.activations.look() == []
            await deployer.activate(await deployer.plan_rollback("shop"), act="rollback", actor="ci")
            await two.activations.look()
            assert two.activations.running == one.activations.running == {"shop": first}
        finally:
            await one.store.close()
            await two.store.close()

    asyncio.run(story())


def test_more_checks_than_may_wait_are_asked_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "CHECKS_MAX", 1)

    async def story(deployer, store):
        folders = [version(tmp_path / "1"), version(tmp_path / "2", SECOND)]
        results = await asyncio.gather(*(received(deployer, folder) for folder in folders), return_exceptions=True)
        assert {type(one) for one in results} == {str, RetryError}

    with_deployer(story)


def test_a_node_that_does_not_know_a_runs_stream_yet_looks_first(tmp_path: Path, shop: Shop) -> None:
    chosen = config_in(tmp_path, projects=(tmp_path / "none",), database=tmp_path / "shared.db")

    async def act(one: Platform) -> None:
        async with open_platform(chosen, SystemClock(), with_projects=True) as two:
            api = Api(Application(one, version="test"))
            await api.make_key()
            await api.deploy(version(tmp_path / "1"))
            await connect(one, shop)
            behind = Application(two, version="test")
            await behind.look()
            await api.deploy(version(tmp_path / "2", ORDERS))
            orders = await one.find_stream("acme", "orders")
            at = one.clock.now()
            run_id = await one.store.trigger_run(orders.id, at=at)
            ref = await one.store.admit_run(run_id, at=at, lease_seconds=60)
            await behind._up_to_date(two.live.runner.carry_out)(ref)
            run = await one.store.run(run_id)
            assert run is not None
            assert (run.state, run.error) == ("succeeded", None)

    opened(chosen, act)


def test_a_bundle_that_cannot_be_loaded_here_leaves_the_one_before_in_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config_in(tmp_path, projects=(tmp_path / "none",))

    async def act(platform: Platform) -> None:
        application = Application(platform, version="test")
        api = Api(application)
        await api.make_key()
        await api.deploy(version(tmp_path / "one"))
        before = platform.project("shop")

        def fails(files):
            raise CheckFailedError("There is no module `x` on this machine.")

        with monkeypatch.context() as patched:
            patched.setattr(activation, "_loaded", fails)
            await api.deploy(version(tmp_path / "two", SECOND))
            assert platform.project("shop") is before
            await application.look()
        _, reason = platform.activations.refused["shop"]
        assert "no module `x`" in reason
        await api.wanted(connector="shop", rollback=True)
        assert platform.activations.refused == {}
        assert platform.project("shop") is before

    opened(chosen, act)
