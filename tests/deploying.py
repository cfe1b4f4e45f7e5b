"""Versions of the scaffolded project as bundles, and platforms to deploy them to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from headwater import bundle, config
from headwater.api.access import api_key_hash
from headwater.app import Platform, open_platform
from headwater.application import Application
from headwater.archive import pack
from headwater.bundle import Bundle
from headwater.clock import SystemClock
from headwater.config import Config
from headwater.testing.answering import answering
from headwater.transport import TransportRequest
from loopback import API_KEY, WEBHOOK_SECRET, Shop, shop_project
from project_builder import replaced

LIMIT_SECONDS = 30
DEPLOY_KEY = "hw_test-deploy"
MANIFEST = "connector.py"
CUSTOMERS = "src/api/sync/customers.py"

ORDERS = (
    '        Stream("events", mode="webhook"',
    '        Stream("orders", mode="poll", schedule="0 3 * * *"),\n        Stream("events", mode="webhook"',
)
HALF_HOURLY = ('"*/15 * * * *"', '"*/30 * * * *"')
LIB_BROKEN = {"src/lib/extra.py": "def (:\n"}
SECOND = ('version="0.1.0"', 'version="0.2.0"')


def version(folder: Path, *replacements: tuple[str, str], files: dict[str, str] | None = None) -> Path:
    """The scaffolded project with parts of its manifest replaced, and other files."""
    shop_project(folder)
    manifest = folder / MANIFEST
    manifest.write_text(replaced(manifest.read_text(), *replacements))
    if ORDERS in replacements:
        customers = (folder / CUSTOMERS).read_text()
        (folder / "src/api/sync/orders.py").write_text(customers.replace('stream="customers"', 'stream="orders"'))
    for name, content in (files or {}).items():
        (folder / name).write_text(content)
    return folder


def packed(folder: Path) -> tuple[Bundle, bytes]:
    """A folder as a bundle and its archive."""
    read = bundle.read(folder)
    return read, pack(read)


def config_in(folder: Path, **choices: object) -> Config:
    return replace(config.load({}, directory=folder), **choices)


def opened(chosen: Config, act: Callable[[Platform], Awaitable[None]]) -> None:
    async def main() -> None:
        async with open_platform(chosen, SystemClock(), with_projects=True) as platform:
            await act(platform)

    asyncio.run(main())


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


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not await holds():
            await asyncio.sleep(0.01)


async def connect(platform: Platform, shop: Shop) -> None:
    values = {"api_key": API_KEY, "webhook_secret": WEBHOOK_SECRET, "api_base": shop.url}
    await platform.add_connection("shop", values, key="acme")


class Api:
    """The deploy side of an application's API, asked with a key."""

    def __init__(self, application: Application, key: str = DEPLOY_KEY) -> None:
        self.application = application
        self._key = key

    async def make_key(self, *scopes: str, key: str = DEPLOY_KEY, tenant: str | None = None) -> None:
        platform = self.application.platform
        await platform.store.add_api_key(
            name="ci", hash=api_key_hash(key), scopes=scopes or ("read", "deploy"), tenant=tenant,
            at=platform.clock.now(), expires_at=None,
        )  # fmt: skip

    async def ask(
        self, method: str, path: str, *, expect: int, body: bytes = b"", key: str | None = None, **headers: str
    ) -> Any:
        key = self._key if key is None else key
        sent = {"authorization": f"Bearer {key}"} if key else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        request = TransportRequest(method=method, url=f"http://127.0.0.1:8700/api/v1{path}", headers=sent, body=body)
        answer = await answering(self.application.asgi)(request)
        assert answer.status == expect, answer.body
        return msgspec.json.decode(answer.body)

    async def bring(self, folder: Path, *, expect: int = 201) -> Any:
        read, archive = packed(folder)
        return await self.ask(
            "POST", f"/bundles?hash={read.content_hash}", expect=expect, body=archive,
            content_type="application/octet-stream",
        )  # fmt: skip

    async def wanted(self, *, expect: int = 201, **words: object) -> Any:
        body = msgspec.json.encode(words)
        return await self.ask("POST", "/deployments", expect=expect, body=body, content_type="application/json")

    async def deploy(self, folder: Path, *, brought: int = 201, **words: object) -> Any:
        content_hash = (await self.bring(folder, expect=brought))["hash"]
        return await self.wanted(bundle=content_hash, **words)
