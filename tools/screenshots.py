"""The pictures of the documentation: an installation with a morning behind it, at an instant that is always the same.

The connectors are that of the guides and that of Stripe, their providers are in this process, the clock is ours, and a
real browser takes the pictures: `make screenshots` writes docs/images/.
"""

import asyncio
import importlib
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
from playwright.async_api import Browser, async_playwright

from headwater import scaffold, server
from headwater.app import Platform, open_platform
from headwater.application import Application
from headwater.backfill import start
from headwater.config import Config
from headwater.delivery import DeliveryFilter, DeliveryState
from headwater.dispatch import Dispatcher
from headwater.ingress import Ingress
from headwater.intention import StoredConnection
from headwater.key_ring import generate_key
from headwater.project import load
from headwater.run import RunRef, Window
from headwater.schedule import Ticker
from headwater.testing.answering import SentEvent, answering
from headwater.testing.clock import FakeClock
from headwater.testing.drive import delivery_headers
from headwater.testing.provider import API_KEY, FakeStripe, seed_account
from headwater.transport import Headers, TransportRequest, TransportResponse

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
BEGIN = datetime(2026, 3, 10, 6, 0, tzinfo=UTC)
STEPS = 92  # to a quarter to two
STEP_SECONDS = 300.0
LAST_SECONDS = 100.0
REQUEST_SECONDS = 0.14  # what an answer of a provider takes
ACTS_PER_STEP = 2
CUSTOMERS = 60
ORDERS = 120
WIDTH = 1180
SECRET = "whsec_cGljdHVyZXMtcGljdHVyZXMtcGljdHVyZXM="
PICTURES = {  # by name: the page, how much of it, and the scheme of colours
    "overview": ("/", 1180, "light"),
    "overview-dark": ("/", 1180, "dark"),
    "connection": ("/connections/northwind", 560, "light"),
    "stream": ("/connections/northwind/streams/orders?partition=eu", 900, "light"),
    "run": ("/runs/{run}", 900, "light"),
    "delivery": ("/deliveries/{dead}?reveal=true", 900, "light"),
    "record": ("/records/northwind/order/o_12?reveal=true", 800, "light"),
    "backfill": ("/backfills/1", 640, "light"),
    "connect": ("/connect/shop", 700, "light"),
}


class Hand:
    """An engine that only notes what it is given: carried out in turn, runs make the same picture each time."""

    transactional = False
    depth = 0

    def __init__(self) -> None:
        self.given: list[RunRef] = []

    async def submit(self, transaction: object, runs: Sequence[RunRef]) -> None:
        """See `Engine`."""
        self.given += runs


@dataclass
class Providers:
    """Shops and a Stripe account, told apart by their hosts; what is in `refused` is answered otherwise."""

    clock: FakeClock
    shop: ModuleType
    stripe: FakeStripe
    refused: dict[tuple[str, str], TransportResponse] = field(default_factory=dict)

    async def __call__(self, request: TransportRequest) -> TransportResponse:
        """See `Transport`."""
        await self.clock.advance(REQUEST_SECONDS)
        for (host, part), answer in self.refused.items():
            if host in request.url and part in request.url:
                return answer
        return await answering(self.stripe if "stripe" in request.url else self.shop.app)(request)


class Morning:
    """What happened until the pictures are taken."""

    def __init__(self, platform: Platform, providers: Providers) -> None:
        self.platform, self.providers, self.clock = platform, providers, providers.clock
        store, connections = platform.store, platform.live.connections
        self.hand = Hand()
        self.ticker = Ticker(store=store, engine=self.hand, clock=self.clock, slots=50, per_connection_max=50)  # type: ignore[arg-type]
        self.ingress = answering(Ingress(store, connections, self.clock, public_url=platform.config.base_url))
        self.dispatcher = Dispatcher(store, connections, self.clock)

    async def pass_by(self) -> None:
        """From the first connection to the last picture."""
        platform, shop, stripe = self.platform, self.providers.shop, self.providers.stripe
        values = {"api_key": "test-key", "webhook_secret": SECRET, "api_base": "https://api.example.com"}
        northwind = await platform.add_connection("shop", {**values, "accounts": ["eu", "us"]}, key="northwind")
        tailwind = {**values, "api_base": "https://api.tailwind.example", "accounts": ["eu"]}
        await platform.add_connection("shop", tailwind, key="tailwind")
        await self.begin_stripe()
        for step in range(STEPS):
            for _ in range(ACTS_PER_STEP):
                stripe.activity.step()
            await stripe.webhooks.deliver()
            if step % 3 == 1:
                await self.change(northwind, shop.ORDERS[(7 * step) % ORDERS], step)
            if step == STEPS - 20:
                revoked = TransportResponse(status=401, headers=Headers([]), body=b'{"error": "the key was revoked"}')
                self.providers.refused[("tailwind.example", "")] = revoked
            if step == STEPS - 4:
                not_found = TransportResponse(status=404, headers=Headers([]), body=b'{"error": "no such account"}')
                self.providers.refused[("example.com", "account=us")] = not_found
            await self.settle()
            await self.clock.advance(STEP_SECONDS - self.clock.monotonic() % STEP_SECONDS)
        await self.settle()
        await self.clock.advance(LAST_SECONDS)
        order = {**shop.ORDERS[11], "total": 48_00, "updated": self.iso(self.clock.now())}
        shop.ORDERS[11] = order
        await self.receive(northwind, "order.updated", {"id": "e_12", "at": self.iso(self.clock.now()), "order": order})
        broken = {name: value for name, value in order.items() if name != "currency"}
        await self.receive(
            northwind, "order.updated", {"id": "e_13", "at": self.iso(self.clock.now()), "order": broken}
        )
        await self.backfill()

    async def begin_stripe(self) -> None:
        """An account of Stripe, whose webhooks come to us."""
        stripe = self.providers.stripe
        endpoint = stripe.webhooks.register("")
        values = {"api_key": API_KEY, "webhook_secret": endpoint.secrets[0][0], "api_base": "https://api.stripe.com"}
        stored = await self.platform.add_connection("stripe", values, key="acme")
        endpoint.url = str(self.platform.webhook_url(stored))

        async def post(url: str, headers: dict[str, str], body: bytes) -> int:
            return (await self.ingress(TransportRequest(method="POST", url=url, headers=headers, body=body))).status

        stripe.webhooks.post = post

    async def change(self, stored: StoredConnection, order: dict[str, Any], step: int) -> None:
        """An order is another one, and by webhook we hear of it, or only by the next poll."""
        order |= {"total": order["total"] + 100 * step, "updated": self.iso(self.clock.now())}
        if step % 2:
            event = {"id": f"e_{1000 + step}", "at": order["updated"], "order": order}
            await self.receive(stored, "order.updated", event)

    async def backfill(self) -> None:
        """A year of orders, of which a good part is there."""
        at, connector = self.clock.now(), self.platform.projects["shop"].connector
        span = Window(at.replace(year=2025, month=1, day=1, hour=0, minute=0, second=0, microsecond=0), at)
        await start(
            self.platform.store, connector=connector, connection="northwind", stream="orders", partition="eu",
            span=Window(span.start, span.start + timedelta(days=360)), at=at,
        )  # fmt: skip
        refused = TransportResponse(status=404, headers=Headers([]), body=b'{"error": "archived"}')
        ticker = Ticker(store=self.platform.store, engine=self.hand, clock=self.clock, slots=50, per_connection_max=4)  # type: ignore[arg-type]
        for turn in range(6):
            if turn == 2:
                self.providers.refused[("example.com", "created_from")] = refused
            await ticker.tick()
            for ref in sorted(self.hand.given, key=lambda one: one.run_id):
                await self.platform.live.runner.carry_out(ref)
                self.providers.refused.pop(("example.com", "created_from"), None)
            self.hand.given.clear()
        await ticker.tick()  # what runs now

    async def settle(self) -> None:
        """Dispatch what was received, and carry out what is due."""
        while await self.dispatcher.dispatch_batch():
            pass
        while True:
            await self.ticker.tick()
            if not self.hand.given:
                return
            for ref in sorted(self.hand.given, key=lambda one: one.run_id):
                await self.platform.live.runner.carry_out(ref)
            self.hand.given.clear()

    async def receive(self, stored: StoredConnection, event_type: str, event: dict[str, Any]) -> None:
        """A delivery of the shop, as it would send it."""
        project = self.platform.projects[stored.connector]
        sent = SentEvent(body=msgspec.json.encode(event), event_type=event_type, provider_id=f"d_{event['id']}")
        headers = delivery_headers(project, sent, secret=SECRET, at=self.clock.now())
        url = str(self.platform.webhook_url(stored))
        answer = await self.ingress(TransportRequest(method="POST", url=url, headers=headers, body=sent.body))
        assert answer.status == 200, answer.body
        while await self.dispatcher.dispatch_batch():
            pass

    @staticmethod
    def iso(at: datetime) -> str:
        """An instant as the shop writes it."""
        return at.strftime("%Y-%m-%dT%H:%M:%S+00:00")


def shop_project(folder: Path) -> ModuleType:
    """Write the project of the guides, and give the stand-in for its provider, with more orders."""
    scaffold.init(folder / "shop", template="poll")
    for guide in ("poll", "webhook"):
        text = (ROOT / "docs" / "guides" / f"{guide}.md").read_text()
        for name, code in re.findall(r'^```python title="([^"]+)"\n(.*?)^```', text, re.MULTILINE | re.DOTALL):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code)
    sys.path.insert(0, str(folder / "shop" / "tests"))
    shop = importlib.import_module("orders")
    first = BEGIN - timedelta(days=ORDERS * 3)
    shop.ORDERS[:] = [
        {"id": f"o_{n}", "account": ("eu", "us")[n % 2], "total": 900 + 370 * n, "currency": "eur",
         "created": Morning.iso(first + timedelta(days=3 * n)), "updated": Morning.iso(first + timedelta(days=3 * n))}
        for n in range(1, ORDERS + 1)
    ]  # fmt: skip
    return shop


@asynccontextmanager
async def installation(folder: Path) -> AsyncIterator[Platform]:
    """An installation in that folder, once the morning is over."""
    clock = FakeClock(BEGIN)
    stripe = FakeStripe(3, clock)
    seed_account(stripe, customers=CUSTOMERS)
    providers = Providers(clock=clock, shop=shop_project(folder), stripe=stripe)
    shutil.copytree(ROOT / "connectors" / "stripe", folder / "stripe")
    projects = [load(folder / "shop"), load(folder / "stripe")]
    config = Config(database=folder / "headwater.db", key=generate_key())
    async with open_platform(config, clock, loaded=projects, transport=providers) as platform:
        await Morning(platform, providers).pass_by()
        yield platform


async def main() -> None:
    """Take the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        async with installation(Path(folder)) as platform:
            await served(platform)


async def served(platform: Platform) -> None:
    """The pages of what is there, to a browser."""
    (dead, *_) = await platform.store.deliveries(DeliveryFilter(state=DeliveryState.DEAD), limit=1)
    (run, *_) = [
        one
        for one in await platform.store.runs(connection="northwind", limit=200)
        if one.trigger == "tick" and one.error
    ]
    listener = server.bind("127.0.0.1", 0)
    running = server._uvicorn(Application(platform, version="0.1.0"))
    task = asyncio.create_task(running.serve(sockets=[listener]))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("chromium-browser"), args=["--no-sandbox"]
        )
        for name, (path, height, scheme) in PICTURES.items():
            await taken(browser, url + path.format(dead=dead.id, run=run.id), IMAGES / f"{name}.png", height, scheme)
        await browser.close()
    running.should_exit = running.force_exit = True
    await task


async def taken(browser: Browser, url: str, path: Path, height: int, scheme: Any) -> None:
    """One picture."""
    size: Any = {"width": WIDTH, "height": height}
    context = await browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    page = await context.new_page()
    answer = await page.goto(url)
    assert answer is not None, url
    assert answer.ok, f"{url}: {answer.status}"
    await page.screenshot(path=path)
    await context.close()


if __name__ == "__main__":
    asyncio.run(main())
