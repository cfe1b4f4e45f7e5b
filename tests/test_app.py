"""The platform opened, loaded and found; the application's loops and its HTTP in process."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from headwater import config, server
from headwater.app import Platform, open_platform, project_paths
from headwater.application import Application
from headwater.clock import SystemClock
from headwater.config import Config
from headwater.delivery import DeliveryFilter
from headwater.errors import ConfigError, NotFoundError, StartError, StoreUnavailableError, UsageError
from headwater.run import of_partition
from headwater.testing.answering import SentEvent, answering
from headwater.testing.drive import delivery_headers
from headwater.transport import TransportRequest, TransportResponse
from loopback import API_KEY, WEBHOOK_SECRET, Shop, loopback_shop, shop_project
from stream_states import make_state

EVENT = SentEvent(body=b'{"id": "e_1", "type": "report.ready", "at": 1767398460, "data": {}}')
LIMIT_SECONDS = 30


def config_in(folder: Path, **choices: object) -> Config:
    return replace(config.load({}, directory=folder), **choices)


def opened(chosen: Config, act: Callable[[Platform], Awaitable[None]], *, with_projects: bool = True) -> None:
    async def main() -> None:
        async with open_platform(chosen, SystemClock(), with_projects=with_projects) as platform:
            await act(platform)

    asyncio.run(main())


async def connect(platform: Platform, shop: Shop, key: str = "acme") -> None:
    values = {"api_key": API_KEY, "webhook_secret": WEBHOOK_SECRET, "api_base": shop.url}
    await platform.add_connection("shop", values, key=key)


@asynccontextmanager
async def at_work(platform: Platform) -> AsyncIterator[Application]:
    application = Application(platform, version="test")
    running = asyncio.create_task(application.run())
    try:
        yield application
    finally:
        application.drain()
        async with asyncio.timeout(LIMIT_SECONDS):
            await running


async def ask(application: Application, path: str, *, key: str = "", method: str = "GET") -> TransportResponse:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    request = TransportRequest(method=method, url=f"http://127.0.0.1:8700{path}", headers=headers)
    return await answering(application.asgi)(request)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not await holds():
            await asyncio.sleep(0.01)


@pytest.fixture
def shop() -> AsyncIterator[Shop]:
    with loopback_shop() as running:
        yield running


def test_a_malformed_project_is_refused_with_its_diagnostics_and_the_others_are_loaded(tmp_path: Path) -> None:
    good, bad = shop_project(tmp_path / "good"), shop_project(tmp_path / "bad")
    (bad / "src/api/sync/customers.py").unlink()

    async def act(platform: Platform) -> None:
        assert list(platform.projects) == ["shop"]
        (refused,) = platform.refused
        assert refused.path == bad
        assert "connector.py" in str(refused)

    opened(config_in(tmp_path, projects=(bad, good)), act)


def test_a_second_project_of_the_same_key_is_refused(tmp_path: Path) -> None:
    first, second = shop_project(tmp_path / "first"), shop_project(tmp_path / "second")

    async def act(platform: Platform) -> None:
        assert platform.projects["shop"].path == first.resolve()
        assert [one.path for one in platform.refused] == [second]

    opened(config_in(tmp_path, projects=(first, second)), act)


def test_projects_are_found_here_and_in_folders_here(tmp_path: Path) -> None:
    shop_project(tmp_path / "shop")
    shop_project(tmp_path / "connectors/other")
    assert project_paths(config_in(tmp_path))[:2] == [tmp_path / "connectors/other", tmp_path / "shop"]
    assert project_paths(config_in(tmp_path / "shop"))[:1] == [tmp_path / "shop"]
    assert project_paths(config_in(tmp_path, projects=(tmp_path / "x",)))[:1] == [tmp_path / "x"]


def test_a_connection_is_named_by_its_key_or_by_its_connector_where_that_has_one(tmp_path: Path, shop: Shop) -> None:
    shop_project(tmp_path / "shop")

    async def act(platform: Platform) -> None:
        with pytest.raises(NotFoundError, match="There is none yet"):
            await platform.find_connection("acme")
        await connect(platform, shop)
        assert (await platform.find_connection("acme")).key == "acme"
        assert (await platform.find_connection("shop")).key == "acme"
        assert (await platform.find_stream(None, "customers")).connection == "acme"
        with pytest.raises(NotFoundError, match="Did you mean `acme`"):
            await platform.find_connection("acm")
        await connect(platform, shop, "second")
        with pytest.raises(UsageError, match="acme, second"):
            await platform.find_connection("shop")
        with pytest.raises(NotFoundError, match="Did you mean `customers`"):
            await platform.find_stream("acme", "custommers")
        with pytest.raises(NotFoundError, match="no partition `eu`"):
            await platform.find_stream("acme", "customers", "eu")

    opened(config_in(tmp_path), act)


def test_of_a_stream_with_partitions_one_has_to_be_named():
    states = [make_state(stream="orders", partition=one) for one in ("eu", "us")]
    assert of_partition(states, "us") is states[1]
    with pytest.raises(NotFoundError, match=r"acme orders has partitions\. Say which: eu, us\."):
        of_partition(states, "")
    with pytest.raises(NotFoundError, match=r"no partition `usa`\. Did you mean `us`"):
        of_partition(states, "usa")


def test_the_key_file_is_private_and_never_made_anew_beside_secrets(tmp_path: Path, shop: Shop) -> None:
    shop_project(tmp_path / "shop")
    chosen = config_in(tmp_path)

    async def act(platform: Platform) -> None:
        await connect(platform, shop)

    opened(chosen, act)
    assert stat.S_IMODE(chosen.key_file.stat().st_mode) == 0o600
    chosen.key_file.unlink()
    with pytest.raises(ConfigError, match="There is no key file"):
        opened(chosen, act)


def test_the_loops_poll_and_dispatch_until_they_are_drained(tmp_path: Path, shop: Shop) -> None:
    shop_project(tmp_path / "shop")

    async def act(platform: Platform) -> None:
        await connect(platform, shop)
        async with at_work(platform) as application:
            stored = await platform.find_connection("acme")
            url = platform.webhook_url(stored)
            assert url is not None
            headers = delivery_headers(platform.project("shop"), EVENT, secret=WEBHOOK_SECRET, at=platform.clock.now())
            request = TransportRequest(method="POST", url=url, headers=headers, body=EVENT.body)
            assert (await answering(application.asgi)(request)).status == 200
            application.wake()

            async def is_ingested() -> bool:
                return {kind: count for _, kind, count in await platform.store.populations()} == {
                    "customer": 3,
                    "event": 1,
                }

            await until(is_ingested)
        refused = await answering(application.asgi)(request)
        assert refused.status == 503
        assert await platform.store.count_deliveries(DeliveryFilter()) == 1

    opened(config_in(tmp_path), act)


def test_on_loopback_everything_is_open_to_this_machine(tmp_path: Path) -> None:
    async def act(platform: Platform) -> None:
        application = Application(platform, version="test")
        for path in ("/", "/api/v1/streams", "/metrics", "/livez", "/readyz"):
            assert (await ask(application, path)).status == 200, path
        assert (await ask(application, "/nothing")).status == 404

    opened(config_in(tmp_path), act)


def test_elsewhere_pages_and_api_need_a_key_and_probes_and_endpoints_do_not(tmp_path: Path) -> None:
    from headwater.api.access import api_key_hash

    shop_project(tmp_path / "shop")

    async def act(platform: Platform) -> None:
        application = Application(platform, version="test")
        for path in ("/?format=json", "/api/v1/streams", "/metrics"):
            assert (await ask(application, path)).status == 401, path
        assert (await ask(application, "/")).headers["location"] == "/login?next=/"
        assert (await ask(application, "/livez")).status == 200
        assert (await ask(application, "/webhooks/shop/unknown", method="POST")).status == 404
        at = platform.clock.now()
        hashed = api_key_hash("hw_test")
        await platform.store.add_api_key(name="ci", hash=hashed, scopes=["read"], tenant=None, at=at, expires_at=None)
        for path in ("/", "/api/v1/streams", "/metrics"):
            assert (await ask(application, path, key="hw_test")).status == 200, path

    opened(config_in(tmp_path, host="0.0.0.0"), act)


def test_metrics_and_pages_are_public_only_where_that_is_configured(tmp_path: Path) -> None:
    async def act(platform: Platform) -> None:
        application = Application(platform, version="test")
        assert (await ask(application, "/metrics")).status == 200
        assert (await ask(application, "/?format=json")).status == 401
        platform.config = replace(platform.config, metrics_public=False, dashboard_public=True)
        assert (await ask(Application(platform, version="test"), "/")).status == 200

    opened(config_in(tmp_path, host="0.0.0.0", metrics_public=True), act)


def test_a_reload_takes_the_new_version_and_keeps_the_old_one_when_its_check_fails(tmp_path: Path) -> None:
    project = shop_project(tmp_path / "shop")

    async def act(platform: Platform) -> None:
        application = Application(platform, version="test")
        first = platform.project("shop").version
        manifest = (project / "connector.py").read_text()
        (project / "connector.py").write_text(manifest.replace('version="0.1.0"', 'version="0.2.0"'))
        loaded = await application.reload(project)
        assert loaded is not None
        assert platform.project("shop").version.startswith("0.2.0+") != first.startswith("0.2.0+")
        (project / "connector.py").write_text("connector = 1\n")
        assert await application.reload(project) is None
        assert platform.project("shop") is loaded
        assert len(platform.refused) == 1

    opened(config_in(tmp_path), act)


def test_a_store_that_cannot_write_any_more_ends_the_work_and_says_why(tmp_path: Path) -> None:
    class Broken:
        def __init__(self, store: object) -> None:
            self._store = store
            self.broken = "disk full"

        def __getattr__(self, name: str) -> object:
            return getattr(self._store, name)

    async def act(platform: Platform) -> None:
        platform.store = Broken(platform.store)
        with pytest.raises(StoreUnavailableError, match="disk full"):
            await Application(platform, version="test").run()

    opened(config_in(tmp_path), act)


def test_only_one_process_serves_a_database_and_the_next_is_told_which(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    assert server.running_url(database) is None
    with server.only_server(database) as note_url:
        note_url("http://127.0.0.1:9")
        assert server.running_url(database) == "http://127.0.0.1:9"
        with (
            pytest.raises(StartError, match=r"serves .* already, at http://127\.0\.0\.1:9"),
            server.only_server(database),
        ):
            raise AssertionError("the lock was given twice")
        assert server.running_url(database) == "http://127.0.0.1:9"
    assert server.running_url(database) is None
    with server.only_server(database):
        pass


def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    listener = server.bind("127.0.0.1", 0)
    try:
        with pytest.raises(StartError, match="Cannot listen on"):
            server.bind("127.0.0.1", listener.getsockname()[1])
    finally:
        listener.close()
