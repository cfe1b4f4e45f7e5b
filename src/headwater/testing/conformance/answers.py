"""Requests that may come twice: one is carried out, and the other is told what that came to."""

from __future__ import annotations

import asyncio
from datetime import datetime

from headwater.repetition import StoredAnswer
from headwater.testing.conformance.world import World, at

KEY, OTHER = b"k" * 32, b"o" * 32
REQUEST, ANOTHER = b"r" * 32, b"a" * 32


async def _claim(world: World, now: datetime, *, key: bytes = KEY, request: bytes = REQUEST) -> StoredAnswer | None:
    seconds = int((now - at(0)).total_seconds())
    return await world.store.claim_answer(
        key, request, at=now, kept_after=at(seconds - 1000), silent_since=at(seconds - 100)
    )


async def a_key_is_claimed_once_and_then_tells_the_answer(world: World) -> None:
    """Of two that come at once, one carries the request out."""
    both = await asyncio.gather(_claim(world, at(0)), _claim(world, at(0)))
    (waiting,) = [one for one in both if one is not None]
    assert (waiting.fingerprint, waiting.status) == (REQUEST, None)
    assert await _claim(world, at(1), key=OTHER) is None
    await world.store.keep_answer(KEY, status=202, location="/runs/7", body=b'{"run_id":7}')
    found = await _claim(world, at(2))
    assert found == StoredAnswer(fingerprint=REQUEST, status=202, location="/runs/7", body=b'{"run_id":7}')
    assert await _claim(world, at(900), request=ANOTHER) == found, "the request that had it first"


async def a_key_is_free_again_when_its_request_did_nothing(world: World) -> None:
    """Refused, gone with its process, or kept for long enough."""
    assert await _claim(world, at(0)) is None
    await world.store.release_answer(KEY)
    assert await _claim(world, at(1)) is None
    assert await _claim(world, at(50)) is not None, "it may be under way"
    assert await _claim(world, at(200), request=ANOTHER) is not None, "that is another request's"
    assert await _claim(world, at(200)) is None, "it was silent for too long"
    await world.store.keep_answer(KEY, status=200, location=None, body=b"{}")
    await world.store.release_answer(KEY)
    assert await _claim(world, at(300)) is not None, "an answer that is kept is not given back"
    assert await _claim(world, at(5000)) is None
