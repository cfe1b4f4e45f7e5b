"""What the API answered to requests with an idempotency key."""

from __future__ import annotations

from datetime import datetime

from headwater.clock import to_micros
from headwater.repetition import StoredAnswer
from headwater.stores.postgres.database import Connection, execute, queries, row

_sql = queries("answers.sql")


async def claim_answer(
    db: Connection, key: bytes, fingerprint: bytes, *, at: datetime, kept_after: datetime, silent_since: datetime
) -> StoredAnswer | None:
    """See `AnswerStore.claim_answer`."""
    await execute(db, _sql["forget"], after=to_micros(kept_after))
    claimed = await execute(
        db, _sql["claim"], key=key, fingerprint=fingerprint, at=to_micros(at), silent=to_micros(silent_since)
    )
    found = None if claimed else await row(db, _sql["answer"], key=key)
    if found is None:
        return None
    return StoredAnswer(
        fingerprint=bytes(found["fingerprint"]),
        status=found["status"],
        location=found["location"],
        body=bytes(found["body"] or b""),
    )


async def keep_answer(db: Connection, key: bytes, *, status: int, location: str | None, body: bytes) -> None:
    """See `AnswerStore.keep_answer`."""
    await execute(db, _sql["keep"], key=key, status=status, location=location, body=body)


async def release_answer(db: Connection, key: bytes) -> None:
    """See `AnswerStore.release_answer`."""
    await execute(db, _sql["release"], key=key)
