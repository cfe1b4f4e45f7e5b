"""The lies of a provider, for trials: it is down, it forgets its cursors, it changes while it is read."""

from __future__ import annotations

import random
from collections.abc import Sequence
from urllib.parse import unquote_plus

from headwater import jsonvalue
from headwater.testing.answering import Provider
from headwater.testing.network import WireFaults
from headwater.transport import Headers, Transport, TransportRequest, TransportResponse

TOKEN_CHARACTERS_MIN = 3  # a shorter part of a cursor is found in a request by chance
SHIFTS = 6  # changes of the account in one history
SHIFT_SHARE = 0.6  # of the answers that are followed by one, until there were so many
DOWN = WireFaults(refused=0.5, failed=1.0)
LOSSY = WireFaults(refused=0.06, lost=0.06, cut=0.06, limited=0.06, failed=0.06, slow=0.03)


class Forgetful:
    """A provider that refuses, with 410, whatever carries one of `tokens`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.tokens: list[str] = []
        self.refused = 0

    async def __call__(self, request: TransportRequest) -> TransportResponse:
        asked = unquote_plus(request.url.partition("?")[2]) + request.body.decode("utf-8", "replace")
        if any(token in asked for token in self.tokens):
            self.refused += 1
            headers = Headers([("content-type", "application/json")])
            return TransportResponse(status=410, headers=headers, body=b'{"error": "the cursor has expired"}')
        return await self._transport(request)


def changing(provider: Provider, seed: int) -> Transport:
    """The provider's transport, whose account changes after some of the answers."""
    chance, left = random.Random(f"shift {seed}"), SHIFTS  # noqa: S311  reproducible

    async def transport(request: TransportRequest) -> TransportResponse:
        nonlocal left
        response = await provider.transport(request)
        if left and chance.random() < SHIFT_SHARE:
            left -= 1
            assert provider.shift is not None, "it was asked"
            provider.shift()
        return response

    return transport


def tokens(cursors: Sequence[str]) -> list[str]:
    """The parts of cursors that a request may carry: each as it is, and what is in it where it is JSON."""
    found: list[str] = []
    for cursor in cursors:
        found.append(cursor)
        try:
            found += _leaves(jsonvalue.decode(cursor.encode()))
        except ValueError:
            continue
    return sorted({one for one in found if len(one) >= TOKEN_CHARACTERS_MIN})


def _leaves(value: object) -> list[str]:
    if isinstance(value, dict):
        return [leaf for one in value.values() for leaf in _leaves(one)]
    if isinstance(value, list):
        return [leaf for one in value for leaf in _leaves(one)]
    return [str(value)] if isinstance(value, (str, int)) and not isinstance(value, bool) else []
