"""Every refusal of the HTTP API as RFC 9457 problem details; nothing internal leaves with one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from math import ceil
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from headwater.errors import (
    ConflictError,
    DeliveryError,
    HeadwaterError,
    NotFoundError,
    OperatorError,
    ProviderError,
    RecordError,
    RequestError,
    RetryError,
    RunEndedError,
    SignInError,
)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5


class ProblemError(RequestError):
    """The request was refused."""

    code = "request.problem"

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        hint: str = "",
        errors: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.problem_code = code or "request." + HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")
        self.errors = tuple(errors)  # every problem of the request, not the first one
        self.headers = dict(headers or {})


def not_found(what: str) -> ProblemError:
    """The same answer for what does not exist and for what the caller may not see."""
    return ProblemError(404, f"There is no such {what}.", code="request.not_found")


def problem_response(
    *, status: int, code: str, detail: str, errors: Sequence[str] = (), headers: Mapping[str, str] | None = None
) -> Response:
    """One problem document."""
    document: dict[str, Any] = {
        "type": f"urn:headwater:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if errors:
        document["errors"] = list(errors)
    own = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(
        msgspec.json.encode(document), status_code=status, media_type=MEDIA_TYPE, headers=own | dict(headers or {})
    )


def from_error(error: HeadwaterError) -> Response:
    """The problem document of one of our own errors."""
    if isinstance(error, ProblemError):
        return problem_response(
            status=error.status,
            code=error.problem_code,
            detail=str(error),
            errors=error.errors,
            headers=error.headers,
        )
    headers = {}
    if isinstance(error, RetryError) or (isinstance(error, SignInError) and error.retry_after_seconds):
        headers["Retry-After"] = str(ceil(error.retry_after_seconds or RETRY_AFTER_SECONDS))
    return problem_response(status=_status(error), code=error.code, detail=str(error), headers=headers)


def _status(error: HeadwaterError) -> int:
    if isinstance(error, DeliveryError):
        return error.status
    if isinstance(error, SignInError):
        return 429 if error.retry_after_seconds else 401
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status
    return 500


_STATUSES: tuple[tuple[type[HeadwaterError], int], ...] = (
    (NotFoundError, 404),
    (ConflictError, 409),
    (RequestError, 400),
    (RecordError, 422),
    (OperatorError, 409),
    (RunEndedError, 409),
    (ProviderError, 502),
    (RetryError, 503),
)


async def _on_headwater_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HeadwaterError)
    return from_error(error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = {
        404: "There is nothing at this path.",
        405: f"This path does not take {request.method}.",
    }.get(error.status_code, error.detail)
    code = "request." + HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return problem_response(status=error.status_code, code=code, detail=detail, headers=error.headers)


async def _on_bug(_: Request, __: Exception) -> Response:
    # Starlette raises the exception anew after the answer: the server logs it, the caller learns nothing of it.
    return problem_response(status=500, code="error", detail="Something went wrong here; it is in the log.")


EXCEPTION_HANDLERS: Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    HeadwaterError: _on_headwater_error,
    HTTPException: _on_http_exception,
    Exception: _on_bug,
}
