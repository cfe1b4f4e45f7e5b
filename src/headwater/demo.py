"""The whole platform in one process, with nothing to set up.

A fake provider with faults, the Stripe connector, webhooks, and life on the account.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import headwater
from headwater import health
from headwater.clock import Clock
from headwater.config import Config
from headwater.delivery import DeliveryFilter
from headwater.errors import StartError
from headwater.testing.provider import API_KEY, FakeStripe, Faults, WebhookFaults, post_over, seed_account

if TYPE_CHECKING:
    import uvicorn

    from headwater.app import Platform
    from headwater.application import Application

CONNECTOR = "stripe"
CONNECTION = "acme"
SEED = 7
CUSTOMERS = 60
ACTS_PER_SECOND = 1.0
POLL_SECONDS = 20.0  # the demo asks for a poll now and then, so that a viewer need not wait for the quarter hour
STATUS_SECONDS = 5.0
ONCE_SECONDS_MAX = 120.0
LOOK_SECONDS = 0.2
FAULTS = Faults(rate_limited=0.03, failed=0.02, latency_seconds=0.05)
WEBHOOK_FAULTS = WebhookFaults(duplicated=0.05, reordered=0.1, late=0.05, late_seconds=3.0)

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a demo came to."""

    streams: list[Mapping[str, Any]]
    records: int
    deliveries: int

    @property
    def succeeded(self) -> int:
        """Streams that succeeded at least once."""
        return sum(1 for stream in self.streams if stream["succeeded"])


def connector_path() -> Path:
    """The Stripe connector: beside the sources in a checkout, inside the package where it is installed."""
    package = Path(headwater.__file__).parent
    for path in (package / "_connectors" / CONNECTOR, package.parent.parent / "connectors" / CONNECTOR):
        if (path / "connector.py").is_file():
            return path
    raise StartError("The Stripe connector is missing from this installation.", hint="Install headwater again.")


def config_for(config: Config, database: Path) -> Config:
    """`config`, with a database and a key of the demo's own, and with the Stripe connector alone."""
    from dataclasses import replace

    return replace(
        config, database=database, key=None, key_file=database.with_suffix(".key"), projects=(connector_path(),)
    )


def write_config(config: Config, file: Path) -> None:
    """Write what a command elsewhere needs to speak of this demo; `file` lies beside its database."""
    assert isinstance(config.database, Path)
    projects = json.dumps([str(path.resolve()) for path in config.projects])
    file.write_text(
        "# Of the newest `headwater demo` here: with `--config` a command speaks of it.\n"
        f"database = {json.dumps(config.database.name)}\n"
        f"key_file = {json.dumps(config.key_file.name)}\n"
        f"projects = {projects}\n",
        encoding="utf-8",
    )


def fresh_database(path: Path) -> Path:
    """Remove what a demo before this one left at `path`: its provider is gone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return path


class Demo:
    """Runs beside a served application: `live` until it is stopped, `once` until every stream has succeeded."""

    def __init__(self, clock: Clock, say: Say) -> None:
        self._clock = clock
        self._say = say
        self._provider = FakeStripe(SEED, clock, faults=FAULTS)
        self.summary: Summary | None = None

    async def live(self, application: Application, stop: asyncio.Event) -> None:
        """Show life until the end."""
        async with self._provided(application):
            polls = asyncio.create_task(self._poll(application))
            try:
                while not stop.is_set():
                    await self._clock.sleep(STATUS_SECONDS)
                    self._say(await status_line(application.platform))
            finally:
                polls.cancel()

    async def once(self, application: Application, stop: asyncio.Event) -> None:
        """Wait until every stream has succeeded, note the summary, and ask for the end."""
        try:
            async with self._provided(application):
                self.summary = await self._until_succeeded(application.platform)
        finally:
            stop.set()

    async def _until_succeeded(self, platform: Platform) -> Summary:
        limit = self._clock.monotonic() + ONCE_SECONDS_MAX
        said = ""
        while True:
            summary = await summarise(platform)
            line = f"{summary.succeeded} of {len(summary.streams)} streams have succeeded, {summary.records} records"
            if line != said:
                said = line
                self._say(line)
            if summary.succeeded == len(summary.streams) or self._clock.monotonic() > limit:
                return summary
            await self._clock.sleep(LOOK_SECONDS)

    @contextlib.asynccontextmanager
    async def _provided(self, application: Application) -> AsyncIterator[None]:
        """The provider on a loopback port, connected, sending its webhooks and full of life."""
        import aiohttp

        provider = self._provider
        seed_account(provider, customers=CUSTOMERS)
        async with serving(provider) as url, aiohttp.ClientSession() as session:
            self._say(f"provider    {url} (a fake: {FAULTS.rate_limited:.0%} 429s, {FAULTS.failed:.0%} 5xx)")
            provider.webhooks.post = post_over(session)
            provider.webhooks.faults = WEBHOOK_FAULTS
            await self._connect(application, url)
            provider.activity.unrelated()
            tasks = [
                asyncio.create_task(provider.webhooks.serve()),
                asyncio.create_task(provider.activity.serve(self._clock, per_second=ACTS_PER_SECOND)),
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(self, application: Application, url: str) -> None:
        platform = application.platform
        endpoint = self._provider.webhooks.register("")
        values = {"api_key": API_KEY, "webhook_secret": endpoint.secrets[0][0], "api_base": url}
        stored = await platform.add_connection(CONNECTOR, values, key=CONNECTION)
        # Its webhooks go to this process itself, whatever URL providers elsewhere would use.
        endpoint.url = platform.webhook_url(stored, f"http://127.0.0.1:{platform.config.port}") or ""
        application.wake()

    async def _poll(self, application: Application) -> None:
        from headwater.errors import UsageError

        platform = application.platform
        while True:
            for state in await platform.store.streams(at=self._clock.now(), connection=CONNECTION):
                if state.mode == "poll" and state.last_success_at is not None:
                    await self._clock.sleep(POLL_SECONDS)
                    with contextlib.suppress(UsageError):
                        await platform.store.trigger_run(state.id, at=self._clock.now())
                        application.wake()
            await self._clock.sleep(LOOK_SECONDS)


async def summarise(platform: Platform) -> Summary:
    """What is there now."""
    at = platform.clock.now()
    streams = [
        {
            "stream": one.name,
            "mode": one.mode,
            "status": one.status.value,
            "succeeded": one.last_success_at is not None,
        }
        for one in health.reports(await platform.store.streams(at=at), at)
    ]
    records = sum(count for _, _, count in await platform.store.populations())
    deliveries = await platform.store.count_deliveries(DeliveryFilter())
    return Summary(streams=sorted(streams, key=lambda one: str(one["stream"])), records=records, deliveries=deliveries)


async def status_line(platform: Platform) -> str:
    """One line on how it goes."""
    at = platform.clock.now()
    reports = health.reports(await platform.store.streams(at=at), at)
    summary = await summarise(platform)
    counted = ", ".join(f"{count} {status.value}" for status, count in health.status_counts(reports).items())
    return f"{at:%H:%M:%S}  {summary.records} records, {summary.deliveries} deliveries; streams: {counted}"


@contextlib.asynccontextmanager
async def serving(app: FakeStripe) -> AsyncIterator[str]:
    """An ASGI app on a free loopback port; its URL."""
    import uvicorn

    from headwater.server import bind

    listener = bind("127.0.0.1", 0)
    server = _quiet(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", interface="asgi3"))
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        await asyncio.gather(task, return_exceptions=True)
        listener.close()


def _quiet(config: uvicorn.Config) -> uvicorn.Server:
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Any:
            """Signals belong to the platform's own server."""
            yield

    return Server(config)
