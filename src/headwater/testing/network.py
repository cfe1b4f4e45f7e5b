"""The wire between a simulated process and its providers, in memory: slow, lossy, and cut when the process dies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass, replace
from email.utils import format_datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

from headwater.clock import Clock
from headwater.errors import ProviderError
from headwater.testing.answering import ASGIApp, answering
from headwater.testing.history import History
from headwater.testing.virtual import Owner, owner
from headwater.transport import Headers, Transport, TransportRequest, TransportResponse

PROVIDER_PATIENCE_SECONDS = 20.0  # for the answer to a webhook
LATE_SECONDS = 0.001


@dataclass(frozen=True, kw_only=True)
class WireFaults:
    """Shares, from 0 to 1, of the requests to a provider that go wrong on their way."""

    latency_seconds: float = 0.2  # each way takes up to so long
    refused: float = 0.0  # never got there
    lost: float = 0.0  # carried out, and the answer lost
    cut: float = 0.0  # answered with the first half of its body
    limited: float = 0.0  # answered 429 with Retry-After, before the provider hears of it
    failed: float = 0.0  # likewise 503
    slow: float = 0.0  # answered after up to `slow_seconds`
    slow_seconds: float = 90.0


class Reachable(Protocol):
    """A process as the network sees it."""

    owner: Owner
    asgi: ASGIApp | None  # None: it does not listen yet


class Network:
    """Who answers at which host, and what goes wrong between."""

    def __init__(self, chance: random.Random, clock: Clock, history: History) -> None:
        self._chance = chance
        self._clock = clock
        self._history = history
        self._world = copy_context()
        self._open: dict[int, list[asyncio.Future[Any]]] = {}  # requests to a process, by its identity
        self._silent_until: dict[tuple[str, str], float] = {}  # by process and host
        self._answering: set[asyncio.Task[None]] = set()
        self.faults = WireFaults()
        self.hosts: dict[str, Transport] = {}
        self.anywhere: Transport | None = None  # answers for the hosts that are not named
        self.process: Reachable | None = None  # the one that listens
        self.on_answer: Callable[[str, Mapping[str, str], bytes, int], None] = lambda *_: None

    async def transport(self, request: TransportRequest) -> TransportResponse:
        """What a process sends its requests by."""
        process = owner()
        assert process is not None, "a process asks"
        process.live()
        self._heed(process, urlsplit(request.url).netloc)
        faults, chance = self.faults, self._chance
        await asyncio.sleep(chance.random() * faults.latency_seconds)
        netloc, path = urlsplit(request.url).netloc, urlsplit(request.url).path
        if chance.random() < faults.refused:
            self._history.note("wire", f"{request.method} {path} refused")
            raise ProviderError("The provider refused the connection.")
        process.live()
        host = self._stopped() or self.hosts.get(netloc) or self.anywhere
        assert host is not None, f"nobody answers at {netloc}"
        asking = asyncio.get_running_loop().create_task(self._asked(host, request), context=self._world.copy())
        asking.add_done_callback(_taken)
        response = await asyncio.shield(asking)
        wait = chance.random() * (faults.slow_seconds if chance.random() < faults.slow else faults.latency_seconds)
        if request.total_seconds and wait > request.total_seconds:
            await asyncio.sleep(request.total_seconds)
            raise ProviderError("The provider took too long.")
        await asyncio.sleep(wait)
        if chance.random() < faults.lost:
            raise ProviderError("The connection was lost before the answer came.")
        if response.status == 429 and (seconds := response.headers.get("retry-after")):
            self._silent_until[process.name, netloc] = asyncio.get_running_loop().time() + float(seconds)
        return self._cut(response) if chance.random() < faults.cut else response

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """What a provider sends its webhooks by: the status that it was answered. `OSError` where none came."""
        await asyncio.sleep(self._chance.random() * self.faults.latency_seconds)
        process = self.process
        if process is None or process.asgi is None or process.owner.is_dead:
            raise ConnectionRefusedError("nobody listens")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[int] = loop.create_future()
        self._open.setdefault(id(process), []).append(answer)
        request = TransportRequest(method="POST", url=url, headers=headers, body=body)
        context = process.owner.context.copy()
        answering_it = loop.create_task(self._answered(process, request, answer), context=context)
        self._answering.add(answering_it)
        answering_it.add_done_callback(self._answering.discard)
        try:
            async with asyncio.timeout(PROVIDER_PATIENCE_SECONDS):
                status = await answer
        finally:
            self._open.get(id(process), [answer]).remove(answer)
        await asyncio.sleep(self._chance.random() * self.faults.latency_seconds)
        return status

    def cut_off(self, process: Reachable) -> None:
        """Break every connection to a process: it died."""
        for answer in self._open.get(id(process), ()):
            if not answer.done():
                answer.set_exception(ConnectionResetError("the process died"))

    async def _answered(self, process: Reachable, request: TransportRequest, answer: asyncio.Future[int]) -> None:
        assert process.asgi is not None, "it listens"
        asgi = process.asgi

        async def app(scope: Any, receive: Any, send: Any) -> None:
            async def sent(message: Any) -> None:
                process.owner.live()
                await send(message)
                if message["type"] == "http.response.start":
                    self.on_answer(request.url, request.headers, request.body, message["status"])
                    if not answer.done():
                        answer.set_result(message["status"])

            await asgi(scope, receive, sent)

        try:
            await answering(app)(request)
        except (StopIteration, RuntimeError) as error:
            if not answer.done():
                answer.set_exception(ConnectionResetError(str(error)))

    def _stopped(self) -> Transport | None:
        """What answers in the provider's place, at times."""
        if self.faults.limited and self._chance.random() < self.faults.limited:
            return _limited
        if self.faults.failed and self._chance.random() < self.faults.failed:
            return _failed
        return None

    def _heed(self, process: Owner, host: str) -> None:
        """A provider that asked for silence is asked nothing meanwhile; a process begun since may not know of it."""
        left = self._silent_until.get((process.name, host), 0.0) - asyncio.get_running_loop().time()
        if left > LATE_SECONDS:
            self._history.violated(
                f"silence: {host} was asked {left:.1f} s before the end of the silence that it asked for"
            )

    async def _asked(self, host: Transport, request: TransportRequest) -> TransportResponse:
        response = await host(request)
        self._history.note("wire", f"{request.method} {urlsplit(request.url).path} {response.status}")
        return self._dated(response)

    def _cut(self, response: TransportResponse) -> TransportResponse:
        return replace(response, body=response.body[: len(response.body) // 2])

    def _dated(self, response: TransportResponse) -> TransportResponse:
        # https://www.rfc-editor.org/rfc/rfc9110#field.date: a server that has a clock says what it shows.
        date = format_datetime(self._clock.now(), usegmt=True)
        return replace(response, headers=Headers([*response.headers.items(), ("date", date)]))


async def _limited(request: TransportRequest) -> TransportResponse:  # noqa: ARG001  whatever it is
    return TransportResponse(status=429, headers=Headers([("retry-after", "3")]), body=b'{"error": "slow down"}')


async def _failed(request: TransportRequest) -> TransportResponse:  # noqa: ARG001  whatever it is
    return TransportResponse(status=503, body=b'{"error": "not now"}')


def _taken(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
