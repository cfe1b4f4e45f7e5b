"""A scripted provider behind a transport, and clients and invocations to reach it with."""

import asyncio
import json
import logging

from builders import make_catalog
from headwater.catalog import Connection, Permissions
from headwater.client import HttpClient
from headwater.context import Invocation
from headwater.permission import AllowList
from headwater.quota import Quota
from headwater.redaction import Redactor
from headwater.testing.clock import FakeClock
from headwater.transport import Headers, TransportResponse

API = "https://api.example"
SECRET = "sk_live_hunter2hunter2"


def answer(status=200, body=b"{}", **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    pairs = [(name.replace("_", "-"), str(value)) for name, value in headers.items()]
    return TransportResponse(status=status, headers=Headers(pairs), body=content)


class Script:
    """A transport that gives the scripted answers in turn (the last one again and again) and keeps the requests."""

    def __init__(self, *steps):
        self.steps = list(steps) or [answer()]
        self.requests = []

    async def __call__(self, request):
        self.requests.append(request)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if callable(step):
            step = step(request)
        if isinstance(step, BaseException):
            raise step
        await asyncio.sleep(0)
        return step

    @property
    def urls(self):
        return [request.url for request in self.requests]


def make_client(transport, *, clock=None, allowed=(f"{API}/*",), secrets=(SECRET,), quota=None, **kinds):
    clock = clock or FakeClock()
    return HttpClient(
        transport=transport,
        clock=clock,
        allowed=AllowList(allowed, **kinds),
        quota=quota or Quota(clock),
        redactor=Redactor(secrets),
    )


def make_invocation(client, **overrides):
    fields = {
        "connector": make_catalog(permissions=Permissions(http=[f"{API}/*"]), connection=Connection()),
        "connection": "acme",
        "connection_id": 1,
        "streams": frozenset({"customers"}),
        "types": {},
        "stream": "customers",
        "as_of": 0,
        "settings": {},
        "secrets": {"api_key": SECRET},
        "http": client,
        "logger": logging.LoggerAdapter(logging.getLogger("test"), {}),
    }
    return Invocation(**(fields | overrides))


async def passing(clock, work, *, seconds=120.0, step=0.5):
    """The result of `work` while the clock moves on for it, at most so long."""
    task = asyncio.ensure_future(work)
    for _ in range(int(seconds / step)):
        await clock.advance(0)
        if task.done():
            break
        await clock.advance(step)
    assert task.done(), "the work did not end in time"
    return await task
