"""localstripe, a Stripe server that this project did not write, as a process of its own.

It is free software under the GPL and is never imported here: it is started as any program is, and spoken to over HTTP.
"""

import asyncio
import os
import socket
import sys
from contextlib import asynccontextmanager

import aiohttp

API_KEY = "sk_test_localstripe"
START_SECONDS_MAX = 20


class LocalStripe:
    """A running localstripe."""

    def __init__(self, url, session):
        self.url = url
        self._session = session

    async def get(self, path):
        return await self._ask("GET", path)

    async def post(self, path, **params):
        return await self._ask("POST", path, params)

    async def delete(self, path):
        return await self._ask("DELETE", path)

    async def send_webhooks_to(self, url, secret):
        async with self._session.post(
            f"{self.url}/_config/webhooks/headwater", json={"url": url, "secret": secret}
        ) as answer:
            assert answer.status == 200, await answer.text()

    async def _ask(self, method, path, params=None):
        async with self._session.request(method, f"{self.url}{path}", json=params) as answer:
            assert answer.status == 200, f"{method} {path}: {await answer.text()}"
            return await answer.json()


@asynccontextmanager
async def running(folder):
    """A fresh localstripe on a free port; what it keeps on disk goes below `folder`."""
    port = _free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "localstripe", "--from-scratch", "--port", str(port),
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    headers = {"Authorization": f"Bearer {API_KEY}"}
    try:
        async with aiohttp.ClientSession(headers=headers) as session:
            await asyncio.wait_for(_answers(session, port, process), START_SECONDS_MAX)
            yield LocalStripe(f"http://127.0.0.1:{port}", session)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _free_port():
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::", 0))
        return probe.getsockname()[1]


async def _answers(session, port, process):
    while True:
        assert process.returncode is None, "localstripe did not start"
        try:
            async with session.get(f"http://127.0.0.1:{port}/v1/customers") as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientConnectionError:
            await asyncio.sleep(0.05)
