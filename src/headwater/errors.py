"""Every error of Headwater, grouped by what the platform does next.

HeadwaterError
├── StartError                refuse to start
│   ├── ConfigError
│   ├── CheckFailedError
│   └── SchemaError
├── DeliveryError             reject the delivery
│   ├── SignatureError        401
│   ├── UnknownEndpointError  404
│   ├── BodyTimeoutError      408
│   ├── BodyTooLargeError     413
│   ├── EncodingError         415
│   ├── HeadersTooLargeError  431
│   └── OverloadedError       503
├── RetryError                retry later
│   ├── ProviderError
│   ├── RateLimitedError
│   └── StoreUnavailableError
├── OperatorError             pause the connection until an operator acts
│   ├── CredentialsError
│   ├── SettingsError
│   └── MassDeleteError
├── RecordError               quarantine the record
│   └── InvalidPayloadError
├── StopError                 stop the run; a bug to mend
│   ├── HandlerError
│   ├── EmissionError
│   ├── OutsideRouteError
│   ├── ForbiddenHostError
│   ├── ResponseError
│   ├── CursorStuckError
│   ├── RepeatedPageError
│   ├── PageLimitError
│   └── RunTimeoutError
├── RunEndedError             the run is no longer ours; commit nothing
│   ├── FencedError
│   └── RunCancelledError
└── RequestError              the caller's words were wrong
    ├── UsageError
    ├── NotFoundError
    ├── SignInError           401; 429 after too many
    └── ConflictError
        └── DestructiveError
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches


def near_miss(word: str, known: Iterable[str]) -> str:
    """The sentence ``did you mean `x`?`` for the closest of `known`, or an empty string."""
    matches = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean `{matches[0]}`?" if matches else ""


def with_hint(message: str, hint: str) -> str:
    """A message and what to do about it, as sentences; the hint may be empty."""
    return f"{message} {hint[0].upper()}{hint[1:]}" if hint else message


def unforeseen(error: Exception) -> Exception | None:
    """The error where it is a bug, whose traceback belongs into the log; None where its message says all."""
    return None if isinstance(error, HeadwaterError) else error


class HeadwaterError(Exception):
    """Something went wrong in Headwater.

    `code` is stable and dotted, for programs; `hint` says what to do next. `str(error)` is fit for an operator:
    it never holds a secret. `detail` is for the log alone.
    """

    code = "error"

    def __init__(self, message: str | None = None, *, hint: str = "", detail: str = "") -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.hint = hint
        self.detail = detail
        super().__init__(self.message)

    def __str__(self) -> str:
        return with_hint(self.message, self.hint)


class StartError(HeadwaterError):
    """The platform refuses to start."""

    code = "start"


class ConfigError(StartError):
    """The configuration is not usable."""

    code = "start.config"


class CheckFailedError(StartError):
    """The connector project did not pass its check."""

    code = "start.check"


class SchemaError(StartError):
    """The database has a schema that this version does not know."""

    code = "start.schema"


class DeliveryError(HeadwaterError):
    """The delivery was rejected."""

    code = "delivery"
    status = 400


class SignatureError(DeliveryError):
    """The signature does not prove the delivery."""

    code = "delivery.signature"
    status = 401


class UnknownEndpointError(DeliveryError):
    """There is nothing here."""

    code = "delivery.endpoint"
    status = 404


class BodyTimeoutError(DeliveryError):
    """The body did not arrive in time."""

    code = "delivery.timeout"
    status = 408


class BodyTooLargeError(DeliveryError):
    """The body is larger than the limit."""

    code = "delivery.too_large"
    status = 413


class EncodingError(DeliveryError):
    """The body is compressed; signatures are over plain bytes."""

    code = "delivery.encoding"
    status = 415


class HeadersTooLargeError(DeliveryError):
    """The request has more or larger headers than the limit."""

    code = "delivery.headers_too_large"
    status = 431


class OverloadedError(DeliveryError):
    """The platform is overloaded; send the delivery again."""

    code = "delivery.overloaded"
    status = 503


class RetryError(HeadwaterError):
    """A passing fault: the same work may succeed later.

    `retry_after_seconds` is the provider's own word on when; `None` leaves it to the backoff.
    """

    code = "retry"

    def __init__(
        self,
        message: str | None = None,
        *,
        retry_after_seconds: float | None = None,
        hint: str = "",
        detail: str = "",
    ) -> None:
        super().__init__(message, hint=hint, detail=detail)
        self.retry_after_seconds = retry_after_seconds


class ProviderError(RetryError):
    """The provider could not be reached or failed."""

    code = "retry.provider"


class RateLimitedError(RetryError):
    """The provider asks us to slow down."""

    code = "retry.rate_limited"


class StoreUnavailableError(RetryError):
    """The store could not commit."""

    code = "retry.store"


class OperatorError(HeadwaterError):
    """The connection needs its operator."""

    code = "operator"


class CredentialsError(OperatorError):
    """The provider refuses the credentials of this connection."""

    code = "operator.credentials"


class SettingsError(OperatorError):
    """The settings of this connection are not usable."""

    code = "operator.settings"
    problems: Mapping[str, str] = {}  # by field, where they are known


class MassDeleteError(OperatorError):
    """A page would delete more records than its stream allows."""

    code = "operator.mass_delete"


class RecordError(HeadwaterError):
    """One record cannot be ingested."""

    code = "record"


class InvalidPayloadError(RecordError):
    """The payload does not fit its canonical type."""

    code = "record.invalid"


class StopError(HeadwaterError):
    """The run stops: the connector has a bug."""

    code = "stop"


class HandlerError(StopError):
    """The handler raised an error of its own."""

    code = "stop.handler"


class EmissionError(StopError):
    """The emission names something that does not exist."""

    code = "stop.emission"


class OutsideRouteError(StopError):
    """This is bound to a route being invoked; there is none here."""

    code = "stop.outside_route"


class ForbiddenHostError(StopError):
    """The connector may not call this host."""

    code = "stop.forbidden_host"


class ResponseError(StopError):
    """The provider refused the request."""

    code = "stop.response"

    def __init__(self, message: str | None = None, *, status: int, hint: str = "", detail: str = "") -> None:
        super().__init__(message, hint=hint, detail=detail)
        self.status = status


class CursorStuckError(StopError):
    """The cursor did not advance while the page said that there is more."""

    code = "stop.cursor_stuck"


class RepeatedPageError(StopError):
    """The same page came twice in one run."""

    code = "stop.repeated_page"


class PageLimitError(StopError):
    """The run reached its limit of pages."""

    code = "stop.page_limit"


class RunTimeoutError(StopError):
    """The run was longer than its limit."""

    code = "stop.run_timeout"


class RunEndedError(HeadwaterError):
    """The run is over; nothing of it may be committed any more."""

    code = "ended"


class FencedError(RunEndedError):
    """Another run holds the lease of this stream."""

    code = "ended.fenced"


class RunCancelledError(RunEndedError):
    """The run was cancelled."""

    code = "ended.cancelled"


class RequestError(HeadwaterError):
    """The request cannot be carried out as it was made."""

    code = "request"


class UsageError(RequestError):
    """These words do not make a command."""

    code = "request.usage"


class NotFoundError(RequestError):
    """There is no such thing."""

    code = "request.not_found"


class SignInError(RequestError):
    """The email or the password is not right."""

    code = "request.sign_in"

    def __init__(self, message: str | None = None, *, hint: str = "", retry_after_seconds: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_seconds = retry_after_seconds  # too many were tried: this one was not looked at


class ConflictError(RequestError):
    """Somebody else was faster: things are no longer as this request expected them."""

    code = "request.conflict"


class DestructiveError(ConflictError):
    """This takes something away, and nobody said that it may."""

    code = "request.conflict.destructive"
