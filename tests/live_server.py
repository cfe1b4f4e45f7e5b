"""An installation with something of everything, behind the real HTTP server and the real clock, on a loopback port."""

import asyncio
import threading
from dataclasses import replace

from headwater import config, server
from headwater.api.access import api_key_hash, new_api_key
from headwater.app import open_platform
from headwater.application import Application
from headwater.clock import SystemClock
from headwater.log_line import NewLogLine
from headwater.record import Quarantined
from headwater.run import Window
from loopback import API_KEY, WEBHOOK_SECRET
from stored import deliver, dispatch, emit, fail, ingest

SCOPES = ("read", "payloads", "operate", "deploy", "admin")


async def fill(platform):
    """Something of everything, so that answers are not empty."""
    store, clock = platform.store, platform.clock

    def said(*words):
        return [
            NewLogLine(at=clock.now(), level=level, message=message)
            for level, message in zip(words[::2], words[1::2], strict=True)
        ]

    values = {"api_key": API_KEY, "webhook_secret": WEBHOOK_SECRET, "api_base": "http://127.0.0.1:9"}
    stored = await platform.add_connection("shop", values, key="acme", tenant="one")
    broken = Quarantined(
        type="customer", stream="customers", source_id="q", idempotency_key="customer:q", payload=b"{}",
        reason="name is missing", as_of=0,
    )  # fmt: skip
    await ingest(
        store,
        clock,
        emit("c1", clock, name="Ann"),
        emit("c2", clock),
        quarantined=[broken],
        log=said("info", "page 1 of 2"),
    )
    await ingest(
        store,
        clock,
        emit("c1", clock, name="Bob"),
        emit("c2", clock, deleted=True),
        log=said("warning", "c2 has no e-mail address: " + "long " * 40),
    )
    await fail(store, clock)
    for name in ("one", "two"):
        await deliver(store, clock, stored, name)
        await dispatch(store, clock, dead=name == "two", log=said("debug", "taken", "error", "not as documented"))
    await store.reject_delivery(stored.id, reason="bad signature", at=clock.now(), sample="{}")
    (state,) = await store.streams(at=clock.now(), connection="acme", stream="customers")
    span = Window(clock.now().replace(year=2025), clock.now())
    await store.add_backfill(state.id, span=span, windows=[span], at=clock.now())


class LiveServer(threading.Thread):
    """An installation behind the real HTTP server, on a loopback port, with a loop of its own."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self._folder = folder
        self._ready = threading.Event()
        self._loop = None
        self._end = None
        self.url = ""
        self.key = new_api_key()
        self.key_id = 0

    def run(self):
        asyncio.run(self._serve())

    async def _serve(self):
        chosen = replace(config.load({}, directory=self._folder), host="127.0.0.1")
        listener = server.bind("127.0.0.1", 0)
        async with open_platform(chosen, SystemClock(), with_projects=True) as platform:
            await fill(platform)
            made = await platform.store.add_api_key(
                name="fuzz", hash=api_key_hash(self.key), scopes=SCOPES, tenant=None, at=platform.clock.now(),
                expires_at=None,
            )  # fmt: skip
            self.key_id = made.id
            application = Application(platform, version="test")
            running = server._uvicorn(application)
            task = asyncio.create_task(running.serve(sockets=[listener]))
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
            self._ready.set()
            await self._end.wait()
            running.should_exit = running.force_exit = True
            await task

    def begin(self):
        self.start()
        assert self._ready.wait(30)
        return self

    def end(self):
        self._loop.call_soon_threadsafe(self._end.set)
        self.join(30)
