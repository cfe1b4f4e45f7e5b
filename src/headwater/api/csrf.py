"""A form of ours says so: each page gives its forms a token of the session, and each unsafe request must bring it.

A template writes `{{ csrf() }}` inside `<form method="post">`; nothing else is to be done. The guard of a session asks
for it, beside the check of where the request came from (`access.py`). A script sends it as the header `X-CSRF-Token`.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from hmac import compare_digest
from urllib.parse import parse_qs

from markupsafe import Markup
from starlette.requests import Request

from headwater.api.access import SAFE_METHODS, Caller
from headwater.api.problem import ProblemError
from headwater.api.query import BODY_BYTES_MAX

logger = logging.getLogger("headwater.access")

FIELD = "csrf"
HEADER = "x-csrf-token"
FORM_FIELDS_MAX = 1000
FORM_TYPE = "application/x-www-form-urlencoded"

# Whoever the guard let in for the request under way: templates need not be given it.
asking: ContextVar[Caller | None] = ContextVar("asking", default=None)


def csrf_field() -> Markup:
    """The hidden field of a form for whoever asks; empty where there is no session to protect."""
    caller = asking.get()
    if caller is None or not caller.csrf:
        return Markup()
    return Markup('<input type="hidden" name="{}" value="{}">').format(FIELD, caller.csrf)


async def require_csrf(request: Request, caller: Caller) -> None:
    """Refuse with 403 an unsafe request that does not bring the token of the caller's session.

    Reads the body of a form, which stays readable; raises `ProblemError` 411 or 413 where it would not be bounded.
    """
    if request.method in SAFE_METHODS:
        return
    given = request.headers.get(HEADER) or (await form_of(request)).get(FIELD, "")
    if not compare_digest(given.encode(), caller.csrf.encode()) or not caller.csrf:
        logger.warning("Refused: %s by %s without the token of its session.", request.url.path, caller.name)
        raise ProblemError(
            403,
            "This form is not one of this session.",
            code="request.csrf",
            hint="Load the page again, then send it once more.",
        )


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form as `fields_of` reads it, the last one where a name comes twice."""
    return {name: values[-1] for name, values in (await fields_of(request)).items()}


async def fields_of(request: Request) -> dict[str, list[str]]:
    """The fields of a form, each with all its values; empty for a body that is no form.

    May be asked again. Raises `ProblemError` 400 for a form that cannot be read, 411 or 413 for one without bounds.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_TYPE:
        return {}
    declared = request.headers.get("content-length", "")
    if not declared.isdigit():
        raise ProblemError(411, "A form says how long it is.", hint="Send `Content-Length`.")
    if int(declared) > BODY_BYTES_MAX:
        raise ProblemError(413, f"The form is larger than {BODY_BYTES_MAX} bytes.")
    body = await request.body()  # kept by the request: whoever reads it after us finds it
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=FORM_FIELDS_MAX)
    except ValueError as error:
        raise ProblemError(400, "The form cannot be read.", code="request.body") from error
    if any("\x00" in value for values in fields.values() for value in values):
        raise ProblemError(400, "The form holds a NUL character.", code="request.body")
    return fields
