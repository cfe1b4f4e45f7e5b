"""A served installation in process, and browsers before it: what tests of the front door are built from."""

import asyncio
import re
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx

from headwater import config
from headwater.app import open_platform
from headwater.application import Application
from headwater.testing.clock import FakeClock

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
