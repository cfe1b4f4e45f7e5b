"""A connection whose answers leave whole: uvicorn writes the head and the body of each by itself, two calls of the
system and two packets.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class CorkedTransport:
    """A transport that holds one piece back until the next one comes, or this turn of the loop ends.

    What else it is asked is its transport's to answer.
    """

    __slots__ = ("_call_soon", "_held", "_inner", "_write")

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._inner = inner
        self._write = inner.write
        self._call_soon = loop.call_soon
        self._held = b""

    def write(self, data: bytes) -> None:
        """See `asyncio.WriteTransport.write`."""
        held = self._held
        if held:
            self._held = b""
            self._write(b"".join((held, data)))
        elif data:
            self._held = bytes(data)
            self._call_soon(self._flush)

    def close(self) -> None:
        """See `asyncio.Transport.close`: what is held is sent before."""
        self._flush()
        self._inner.close()

    def _flush(self) -> None:
        held, self._held = self._held, b""
        if held:
            self._write(held)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class CorkedProtocol(HttpToolsProtocol):
    """uvicorn's protocol on a corked transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol.connection_made`."""
        super().connection_made(cast("asyncio.Transport", CorkedTransport(transport, self.loop)))
