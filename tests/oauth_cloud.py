"""An installation with a connection of the cloud by OAuth, an operator in the browser, and the provider."""

import asyncio
import re
import threading
from contextlib import asynccontextmanager
from html import unescape

import httpx

from doors import PUBLIC, send, served
from headwater.grant import TOKEN_FIELD
from headwater.run import LEASE_SECONDS
from oauth_server import CLIENT_ID, CLIENT_SECRET, cloud_project, oauth_provider

CALLBACK = f"{PUBLIC}/oauth/callback"
SETTINGS = "/connections/acme/settings"


@asynccontextmanager
async def cloud(folder, *, revokes=False):
    """A served installation with a connection of the cloud, an operator before it, and the provider."""
    if not (folder / "cloud").exists():
        cloud_project(folder / "cloud", revokes=revokes)
    with oauth_provider(CALLBACK) as provider:
        async with served(folder) as house:
            values = {"address": provider.url, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
            await house.platform.add_connection("cloud", values, key="acme")
            yield house, await house.person("operator"), provider


def at_the_cloud(folder, story, *, revokes=False):
    async def main():
        async with cloud(folder, revokes=revokes) as (house, browser, provider):
            await story(house, browser, provider)

    asyncio.run(main())


async def leave(browser):
    """Press Connect; the provider's URL that the browser is sent to."""
    page = await send(browser, SETTINGS, "/connections/acme/authorize")
    assert page.status_code == 200, page.text
    found = re.search(r'href="(http[^"]+/authorize[^"]*)"', page.text)
    assert found, page.text
    return unescape(found[1])


async def come_back(url):
    """Say yes at the provider; the path of the callback."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(url)
    assert answer.status_code == 302, answer.text
    location = answer.headers["location"]
    assert location.startswith(CALLBACK)
    return location.removeprefix(PUBLIC)


async def authorise(browser):
    answer = await browser.get(await come_back(await leave(browser)))
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"] == SETTINGS


async def run_once(house):
    (state,) = await house.store.streams(at=house.clock.now(), connection="acme")
    run_id = await house.store.trigger_run(state.id, at=house.clock.now())
    ref = await house.store.admit_run(run_id, at=house.clock.now(), lease_seconds=LEASE_SECONDS)
    await house.platform.live.runner.carry_out(ref)
    return await house.store.run(run_id)


async def tokens_of(house):
    return (await house.platform.live.connections.by_key("acme")).tokens


async def sealed(house):
    stored = await house.store.connection("acme")
    return [
        one.ciphertext for one in await house.store.secrets(stored.id, at=house.clock.now()) if one.field == TOKEN_FIELD
    ]


async def held_renewal(house, browser, provider):
    """An account whose token is being renewed: the provider has been asked, and answers once `held` is set."""
    provider.lasts = 100
    await authorise(browser)
    await house.clock.advance(90)
    provider.held = threading.Event()
    asking = asyncio.create_task((await tokens_of(house)).access_token())
    while len(provider.asked) < 2:
        await asyncio.sleep(0)
    return asking
