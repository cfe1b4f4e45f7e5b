"""A provider's answer: what handlers read of it, and which error one stands for that is no success."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, TypeVar, overload

import msgspec

from headwater import jsonvalue
from headwater.errors import (
    CredentialsError,
    HeadwaterError,
    InvalidPayloadError,
    ProviderError,
    RateLimitedError,
    ResponseError,
)
from headwater.jsonvalue import JSONValue
from headwater.quota import retry_after_seconds
from headwater.redaction import Redactor

T = TypeVar("T")

SAID_CHARACTERS_MAX = 200  # of the provider's own words, in an operator's message
SAID_BODY_BYTES_MAX = 64 * 1024  # a longer error body is no message
BODY_START_CHARACTERS = 1_000  # of an error's body, in the log

_decoder: Callable[[Any], msgspec.json.Decoder[Any]] = lru_cache(maxsize=256)(
    partial(msgspec.json.Decoder, float_hook=jsonvalue.decimal)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpResponse:
    """A provider's answer."""

    status: int
    headers: Mapping[str, str] = field(repr=False)  # names in any case
    body: bytes = field(repr=False)  # decompressed
    url: str = field(repr=False)  # that answered, after redirects

    @overload
    def json(self) -> JSONValue: ...

    @overload
    def json(self, type: type[T]) -> T: ...

    def json(self, type: type[T] | None = None) -> T | JSONValue:
        """The body as JSON with every digit (`int` and `Decimal`), or decoded into a msgspec `type`.

        `ProviderError` when it is not JSON at all (an outage page, most often), `ResponseError` when it is JSON of
        another shape than `type`.
        """
        try:
            if type is None:
                return jsonvalue.decode(self.body)
            value: T = _decoder(type).decode(self.body)
        except msgspec.ValidationError as error:
            raise ResponseError(f"The provider's answer has another shape: {error}.", status=self.status) from None
        except (msgspec.DecodeError, InvalidPayloadError, RecursionError, UnicodeDecodeError) as error:
            raise ProviderError(f"The provider's answer is not usable JSON: {error}") from None
        return value

    def text(self) -> str:
        """The body as UTF-8 text; what is none is replaced."""
        return self.body.decode("utf-8", "replace")


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An answer that is no success, understood."""

    error: HeadwaterError
    is_rate_limit: bool
    retry_after_seconds: float | None


def refusal(
    *, name: str, status: int, headers: Mapping[str, str], body: bytes, now: datetime, redactor: Redactor
) -> Refusal:
    """What an answer outside 2xx means; `name` is the request's method and URL, redacted."""
    wait = retry_after_seconds(headers, now=now)
    said = _said(body)
    words = f": {redactor.line(said)[:SAID_CHARACTERS_MAX].strip()}" if said else ""
    message = f"{name} answered {status}{words}" + ("" if words.endswith((".", "!", "?")) else ".")  # a hint may follow
    detail = redactor.line(body[: 2 * BODY_START_CHARACTERS].decode("utf-8", "replace"))[:BODY_START_CHARACTERS]
    # Some providers say 403 where they mean 429, and show it by these headers.
    is_rate_limit = status == 429 or (status == 403 and wait is not None)
    error: HeadwaterError
    if is_rate_limit:
        error = RateLimitedError(message, retry_after_seconds=wait, detail=detail)
    elif status in (401, 403):
        error = CredentialsError(message, hint="Check the credentials of this connection.", detail=detail)
    elif status >= 500 or status == 408:
        error = ProviderError(message, retry_after_seconds=wait, detail=detail)
    else:
        error = ResponseError(message, status=status, detail=detail)
    return Refusal(error=error, is_rate_limit=is_rate_limit, retry_after_seconds=wait)


def _said(body: bytes) -> str | None:
    """The sentence in an error body, where providers usually put it."""
    if not body or len(body) > SAID_BODY_BYTES_MAX:
        return None
    try:
        value = jsonvalue.decode(body)
    except InvalidPayloadError:
        return None
    if isinstance(value, Mapping) and isinstance(value.get("error"), Mapping):
        value = value["error"]
    if not isinstance(value, Mapping):
        return None
    words = (value.get(key) for key in ("message", "error_description", "detail", "title", "error"))
    return next((word for word in words if isinstance(word, str) and word), None)
