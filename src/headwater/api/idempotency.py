"""`Idempotency-Key`: a POST that comes again with the key it came with before is answered as before, and not repeated.

claim the key ──> carry out ──> keep the answer      refused or failed: the key is free again
      └── it stands for an answer ──> that one       under way: 409; another request: 422
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from hashlib import sha256

from starlette.requests import Request
from starlette.responses import Response

from headwater.api.access import Caller
from headwater.api.problem import ProblemError
from headwater.clock import Clock
from headwater.repetition import AnswerStore

HEADER = "idempotency-key"
REPLAYED = "Idempotent-Replayed"
KEEP_SECONDS = 24 * 3600
SILENT_SECONDS = 120  # a request that was not answered for so long is taken for one whose process is gone
_KEY = re.compile(r"[\x21-\x7e]{1,200}")


async def once(
    request: Request,
    caller: Caller,
    carry_out: Callable[[], Awaitable[Response]],
    *,
    store: AnswerStore,
    clock: Clock,
    body_bytes_max: int,
) -> Response:
    """What `carry_out` answers, or what it answered before to the same request of the same caller.

    Only what was done is kept: what is refused, or fails, may be tried again. Raises `ProblemError` 400 for a key that
    is none, 409 while the first one is under way, 411 or 413 for a body without bounds, 422 for another request.
    """
    given = request.headers.get(HEADER)
    if given is None:
        return await carry_out()
    if not _KEY.fullmatch(given):
        raise ProblemError(
            400, "`Idempotency-Key` is no text of 1 to 200 printable characters.", code="request.idempotency_key"
        )
    declared = request.headers.get("content-length", "0")
    if "transfer-encoding" in request.headers or not declared.isdigit():
        raise ProblemError(411, "A request with an idempotency key says how long it is.")
    if int(declared) > body_bytes_max:
        raise ProblemError(413, f"The body is larger than {body_bytes_max} bytes.")
    body = await request.body()  # kept by the request: its handler finds it
    who = f"{caller.is_program} {caller.tenant} {caller.name}"
    key = sha256(f"{who}\n{given}".encode()).digest()
    what = f"{request.method} {request.url.path}?{request.url.query}\n"
    fingerprint = sha256(what.encode() + body).digest()
    at = clock.now()
    found = await store.claim_answer(
        key,
        fingerprint,
        at=at,
        kept_after=at - timedelta(seconds=KEEP_SECONDS),
        silent_since=at - timedelta(seconds=SILENT_SECONDS),
    )
    if found is not None:
        if found.fingerprint != fingerprint:
            raise ProblemError(422, "This idempotency key came with another request.", hint="Choose another key.")
        if found.status is None:
            raise ProblemError(409, "The request with this idempotency key is under way.", headers={"Retry-After": "1"})
        return _response(found.status, found.location, found.body)
    try:
        answer = await carry_out()
    except BaseException:
        await store.release_answer(key)
        raise
    if answer.status_code >= 400:
        await store.release_answer(key)
    else:
        location = answer.headers.get("location")
        await store.keep_answer(key, status=answer.status_code, location=location, body=bytes(answer.body))
    return answer


def _response(status: int, location: str | None, body: bytes) -> Response:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", REPLAYED: "true"}
    headers |= {"Location": location} if location else {}
    return Response(body, status_code=status, media_type="application/json", headers=headers)
