"""A connection whose answers leave whole: uvicorn writes the head and the body of each by itself, two calls of the
system and two packets.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState


class Cork:
    """Which connections hold a piece back: all let go of it as this turn of the loop ends."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._call_soon = loop.call_soon
        self._holding: list[CorkedTransport] = []

    def hold(self, transport: CorkedTransport) -> None:
        """Have `transport` flush in time."""
        if not self._holding:
            self._call_soon(self._let_go)
        self._holding.append(transport)

    def _let_go(self) -> None:
        holding, self._holding = self._holding, []
        for transport in holding:
            transport.flush()


class CorkedTransport:
    """A transport that holds one piece back until the next one comes, or this turn of the loop ends.

    What else it is asked is its transport's to answer.
    """

    __slots__ = ("_held", "_hold", "_inner", "_write", "is_closing")

    def __init__(self, inner: asyncio.Transport, cork: Cork) -> None:
        self._inner = inner
        self._write = inner.write
        self._hold = cork.hold
        self._held = b""
        self.is_closing = inner.is_closing  # asked for each answer

    def write(self, data: bytes) -> None:
        """See `asyncio.WriteTransport.write`."""
        held = self._held
        if held:
            self._held = b""
            self._write(b"".join((held, data)))
        elif data:
            self._held = bytes(data)
            self._hold(self)

    def close(self) -> None:
        """See `asyncio.Transport.close`: what is held is sent before."""
        self.flush()
        self._inner.close()

    def flush(self) -> None:
        """Send what is held, if it is still."""
        held, self._held = self._held, b""
        if held:
            self._write(held)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


_corks: WeakKeyDictionary[ServerState, Cork] = WeakKeyDictionary()


class CorkedProtocol(HttpToolsProtocol):
    """uvicorn's protocol on a corked transport; the connections of a server have one cork."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol.connection_made`."""
        cork = _corks.get(self.server_state)
        if cork is None:
            cork = _corks[self.server_state] = Cork(self.loop)
        super().connection_made(cast("asyncio.Transport", CorkedTransport(transport, cork)))
