"""A request that may come twice and is carried out once: what was answered, and what a store promises of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class StoredAnswer:
    """What a request with an idempotency key was answered."""

    fingerprint: bytes  # of the request
    status: int | None  # None: it is under way
    location: str | None
    body: bytes = field(repr=False)  # JSON


class AnswerStore(Protocol):
    """Requests that may come twice and are carried out once."""

    async def claim_answer(
        self, key: bytes, fingerprint: bytes, *, at: datetime, kept_after: datetime, silent_since: datetime
    ) -> StoredAnswer | None:
        """Take a key for a request: None, and it is the caller's to carry out; else what was answered to the one that
        had it first, or that this is under way.

        Keys claimed before `kept_after` are forgotten; one claimed before `silent_since` and never answered goes to the
        same request again: whoever had it is gone.
        """
        ...

    async def keep_answer(self, key: bytes, *, status: int, location: str | None, body: bytes) -> None:
        """Note what the request of a claimed key was answered."""
        ...

    async def release_answer(self, key: bytes) -> None:
        """Give a claimed key back: its request did nothing."""
        ...
