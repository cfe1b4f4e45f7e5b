"""People with a second factor: their phones, and their way through a login."""

import re

import pyotp

from doors import EMAIL, GOOD, csrf_in, send
from headwater.second_factor import STEP_SECONDS


class App:
    """Somebody's phone."""

    def __init__(self, house, secret):
        self._house = house
        self._codes = pyotp.TOTP(secret)

    async def code(self):
        """The next code that was not shown before."""
        await self._house.clock.advance(STEP_SECONDS)
        return self._codes.at(self._house.clock.now())


async def with_factor(house, role="admin", email=EMAIL):
    """Somebody who is signed in and has a second factor: browser, app and recovery codes."""
    browser = await house.person(role, email)
    page = await send(browser, "/account", "/account/factor", current=GOOD)
    assert page.status_code == 200, page.text
    app = App(house, re.search(r"<code>([A-Z2-7]{32})</code>", page.text)[1])
    done = await browser.post("/account/factor/confirm", data={"csrf": csrf_in(page), "code": await app.code()})
    codes = re.search(r"<code>([0-9a-f\n-]+)</code>", done.text)[1].split()
    return browser, app, codes


def ticket_in(page):
    return re.search(r'name="ticket" value="([^"]+)"', page.text)[1]


async def by_code(browser, page, code):
    return await browser.post("/login/code", data={"ticket": ticket_in(page), "code": code, "next": "/system"})
