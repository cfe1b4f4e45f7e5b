"""A served installation in process, and browsers before it: what tests of the front door are built from."""

import asyncio
import json
import re
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import httpx

from headwater import config, server
from headwater.app import open_platform
from headwater.application import Application
from headwater.testing.clock import FakeClock
from headwater.testing.signer import signed
from loopback import API_KEY, WEBHOOK_SECRET

GOOD, BETTER = "correct horse battery", "tundra gravel omelette"
EMAIL = "ann@example.com"
PUBLIC = "https://hw.example.com"


class House:
    """An application and its door; `browser` makes a client with cookies of its own."""

    def __init__(self, application, base_url, clients):
        self.application = application
        self.platform = application.platform
        self.store = application.platform.store
        self.clock = application.platform.clock
        self.door = application.door
        self._base_url = base_url
        self._clients = clients

    def browser(self, base_url=None, client=("192.0.2.7", 4711), **headers):
        transport = httpx.ASGITransport(self.application.asgi, client=client, raise_app_exceptions=False)
        made = httpx.AsyncClient(transport=transport, base_url=base_url or self._base_url, headers=headers)
        self._clients.append(made)
        return made

    async def person(self, role="admin", email=EMAIL, **more):
        """Somebody with an account, signed in: their browser."""
        if await self.store.account(email) is None:
            await self.door.add(email=email, name="Ann", role=role, password=GOOD, actor="cli:me")
        browser = self.browser(**more)
        answer = await sign_in(browser, email=email)
        assert answer.status_code == 303, answer.text
        return browser

    async def key(self, *scopes, tenant=None):
        """A program that holds a key: its client."""
        from headwater.api.access import api_key_hash, new_api_key

        key = new_api_key()
        await self.store.add_api_key(
            name="ci", hash=api_key_hash(key), scopes=scopes, tenant=tenant, at=self.clock.now(), expires_at=None
        )
        return self.browser(authorization=f"Bearer {key}")

    async def acts(self):
        """What the audit says, oldest first."""
        return [(one.act, one.actor, one.target) for one in reversed(await self.store.audit_log())]


@asynccontextmanager
async def served(folder, *, base_url=PUBLIC, **choices):
    """An installation on a file in `folder`: by default behind TLS, at `PUBLIC`."""
    by_default = {"host": "0.0.0.0", "public_url": PUBLIC} if base_url == PUBLIC else {}
    chosen = replace(config.load({}, directory=folder), **(by_default | choices))
    clients = []
    async with open_platform(chosen, FakeClock(), with_projects=True) as platform:
        try:
            yield House(Application(platform, version="test"), base_url, clients)
        finally:
            for client in clients:
                await client.aclose()


def visit(folder, act, **choices):
    """Carry out `act(house)`."""

    async def main():
        async with served(folder, **choices) as house:
            await act(house)

    asyncio.run(main())


async def sign_in(browser, *, email=EMAIL, text=GOOD, **fields):
    """Send the form of the login."""
    return await browser.post("/login", data={"email": email, "password": text, **fields})


def csrf_in(answer):
    """The token of the forms of a page."""
    found = re.search(r'name="csrf" value="([^"]+)"', answer.text)
    assert found, answer.text
    return found[1]


async def send(browser, page, path, **fields):
    """Send a form that stands on a page."""
    return await browser.post(path, data={"csrf": csrf_in(await browser.get(page)), **fields})


async def connect_shop(house, key="acme", tenant=None):
    """A connection of the scaffolded connector in `tmp_path / "shop"`, and the path of its endpoint."""
    values = {"api_key": API_KEY, "webhook_secret": WEBHOOK_SECRET, "api_base": "http://127.0.0.1:9"}
    stored = await house.platform.add_connection("shop", values, key=key, tenant=tenant)
    house.application.ingress.forget()
    return stored, urlsplit(house.platform.webhook_url(stored)).path


def event(number=1, **fields):
    """A delivery's body."""
    return json.dumps({"id": f"e_{number}", "type": "report.ready", "at": 1767398460, "data": {}, **fields}).encode()


def proof(house, body, *, number=1, secret=WEBHOOK_SECRET):
    """The headers that prove it."""
    return signed("standard_webhooks", body, secret, at=house.clock.now(), provider_id=f"msg_{number}")


@asynccontextmanager
async def on_a_port(house):
    """The application behind the real HTTP server, on a loopback port."""
    listener = server.bind("127.0.0.1", 0)
    running = server._uvicorn(house.application)
    task = asyncio.create_task(running.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        running.should_exit = running.force_exit = True
        await task
        listener.close()


async def raw(port, data):
    """What the server answers to these bytes, until it closes or falls silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        async with asyncio.timeout(1):
            return await reader.read()
    except TimeoutError:
        return b""
    finally:
        writer.close()
