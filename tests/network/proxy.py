"""A TCP proxy that does what networks do to bytes: late, cut, half closed, dribbling, twice, out of turn."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from dataclasses import dataclass

KINDS = ("latency", "reset", "half_close", "truncation", "slow_loris", "duplicate", "reorder")
CHUNK_BYTES = 65_536
BYTES_BEFORE_MAX = 6_000  # a fault strikes within so many bytes of one direction, early rather than late
LATENCY_SECONDS_MAX = 0.2
DRIBBLE_BYTES_MAX = 60
DRIBBLE_SECONDS = 0.01
TURN_SECONDS_MAX = 0.3  # a connection that lets others pass waits no longer


@dataclass(frozen=True, kw_only=True)
class Weather:
    """What may happen to the connections of a while."""

    share: float = 0.0  # of the connections that something happens to
    kinds: tuple[str, ...] = ()


def drawn(chance: random.Random) -> Weather:
    """One to all kinds of faults, on a share of the connections."""
    return Weather(share=chance.uniform(0.3, 0.9), kinds=tuple(chance.sample(KINDS, chance.randint(1, len(KINDS)))))


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to one connection: to its requests or to its answers, after so many bytes."""

    kind: str
    upward: bool
    after_bytes: int
    seconds: float


class Proxy:
    """In front of one address; `calm` ends the faults, and `renew` the connections as well."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Event()
        self._chance = random.Random(0)
        self._weather = Weather()
        self.met = 0  # connections that came in this weather
        self.struck: Counter[str] = Counter()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Listen on a free port of loopback."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Listen no more, and end what is open."""
        assert self._server is not None
        self._server.close()
        await self.renew(Weather(), random.Random(0))

    async def renew(self, weather: Weather, chance: random.Random) -> None:
        """End every connection; the next ones meet this weather."""
        self._weather, self._chance, self.met = weather, chance, 0
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def calm(self) -> None:
        """No faults any more."""
        await self.renew(Weather(), random.Random(0))

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.met += 1
        task = asyncio.create_task(self._carry(reader, writer, self._fault()))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _fault(self) -> Fault | None:
        chance, weather = self._chance, self._weather
        if not weather.kinds or chance.random() >= weather.share:
            return None
        kind = chance.choice(weather.kinds)
        return Fault(
            kind=kind, upward=kind == "duplicate" or chance.random() < 0.5,
            after_bytes=int(BYTES_BEFORE_MAX ** chance.random()),
            seconds=chance.uniform(0, LATENCY_SECONDS_MAX),
        )  # fmt: skip

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault | None) -> None:
        with contextlib.suppress(OSError):
            async with contextlib.AsyncExitStack() as stack:
                stack.callback(writer.transport.abort)
                above, upwards = await asyncio.open_connection("127.0.0.1", self._target_port)
                stack.callback(upwards.transport.abort)
                if fault and fault.kind == "reorder":
                    self.struck["reorder"] += 1
                    await self._let_pass()
                self._turn.set()
                up = self._pump(reader, upwards, fault if fault and fault.upward else None)
                down = self._pump(above, writer, fault if fault and not fault.upward else None)
                both = {asyncio.create_task(up), asyncio.create_task(down)}
                try:
                    await asyncio.wait(both, return_when=asyncio.FIRST_EXCEPTION)
                finally:
                    for task in both:
                        task.cancel()
                    await asyncio.gather(*both, return_exceptions=True)

    async def _let_pass(self) -> None:
        self._turn.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._turn.wait(), TURN_SECONDS_MAX)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault | None) -> None:
        """Carry one direction to its end; the fault strikes once."""
        passed, before = 0, b""
        while data := await reader.read(CHUNK_BYTES):
            if fault and passed + len(data) > fault.after_bytes:
                place = fault.after_bytes - passed
                await self._send(writer, data[:place])
                await self._strike(writer, fault, before + data, data[place:])
                fault = None
            else:
                await self._send(writer, data)
            passed, before = passed + len(data), (before + data)[-CHUNK_BYTES:]
        if writer.can_write_eof():
            writer.write_eof()

    async def _strike(self, writer: asyncio.StreamWriter, fault: Fault, whole: bytes, rest: bytes) -> None:
        if fault.kind != "reorder":
            self.struck[fault.kind] += 1
        if fault.kind == "reset":
            # Lingering for no time makes the kernel send a reset in place of an orderly end.
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            raise ConnectionResetError
        if fault.kind == "truncation":
            await writer.drain()
            raise ConnectionAbortedError
        if fault.kind == "half_close":
            writer.write_eof()
            await asyncio.sleep(fault.seconds)
            raise ConnectionAbortedError
        if fault.kind == "latency":
            await asyncio.sleep(fault.seconds)
        if fault.kind == "slow_loris":
            for number in range(min(DRIBBLE_BYTES_MAX, len(rest))):
                await self._send(writer, rest[number : number + 1])
                await asyncio.sleep(DRIBBLE_SECONDS)
            rest = rest[DRIBBLE_BYTES_MAX:]
        if fault.kind == "duplicate":
            await self._again(whole)
        await self._send(writer, rest)

    async def _again(self, data: bytes) -> None:
        """The same bytes come to the same address on a connection of their own, and nobody reads the answer."""
        with contextlib.suppress(OSError):
            _, twin = await asyncio.open_connection("127.0.0.1", self._target_port)
            try:
                await self._send(twin, data)
                await asyncio.sleep(LATENCY_SECONDS_MAX)
            finally:
                twin.transport.abort()

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        await writer.drain()
