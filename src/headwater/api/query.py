"""Reading what a request says: query parameters and JSON bodies, every problem named at once."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from starlette.requests import Request

from headwater.api.problem import ProblemError
from headwater.errors import near_miss
from headwater.intention import LIST_LIMIT, LIST_LIMIT_MAX

QUERY_CHARACTERS_MAX = 8 * 1024
BODY_BYTES_MAX = 256 * 1024
INTEGER_MAX = 2**63 - 1
_DIGITS_MAX = 19

T = TypeVar("T")
Word = TypeVar("Word", bound=str)


class Query:
    """The query string of one request: ask for each parameter, then `done` refuses what is wrong or left over."""

    def __init__(self, request: Request) -> None:
        if len(request.url.query) > QUERY_CHARACTERS_MAX:
            raise ProblemError(414, f"The query is longer than {QUERY_CHARACTERS_MAX} characters.")
        self._parameters = request.query_params
        self._known: set[str] = set()
        self._problems: list[str] = []

    def text(self, name: str) -> str | None:
        """The parameter as it stands; an empty one counts as absent."""
        self._known.add(name)
        values = self._parameters.getlist(name)
        if len(values) > 1:
            self._problems.append(f"`{name}` is given {len(values)} times.")
        if values and "\x00" in values[0]:
            self._problems.append(f"`{name}` holds a NUL character.")
        return values[0] if values and values[0] else None

    def integer(self, name: str, *, low: int = 0, high: int = INTEGER_MAX) -> int | None:
        """A whole number within bounds."""
        text = self.text(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX and low <= int(text) <= high):
            self._problems.append(f"`{name}` is no whole number from {low} to {high}.")
            return None
        return int(text)

    def limit(self, default: int = LIST_LIMIT, high: int = LIST_LIMIT_MAX) -> int:
        """How many entries the caller wants."""
        return self.integer("limit", low=1, high=high) or default

    def instant(self, name: str) -> datetime | None:
        """An RFC 3339 instant with its zone, or a day (its first instant in UTC)."""
        text = self.text(name)
        if text is None:
            return None
        # A `+` in a query string that was not encoded arrives as a space.
        found = parse_instant(text.replace(" ", "+"))
        if found is None:
            self._problems.append(f"`{name}` is no instant such as 2026-01-31T12:00:00Z, nor a day.")
        return found

    def choice(self, name: str, choices: Iterable[Word]) -> Word | None:
        """One of these words."""
        text = self.text(name)
        known = list(choices)
        if text is not None and text not in known:
            hint = near_miss(text, known) or f"one of {', '.join(known)}."
            self._problems.append(f"`{name}` is not `{text}`: {hint}")
        return next((one for one in known if one == text), None)

    def flag(self, name: str) -> bool | None:
        """`true` or `false`."""
        text = self.choice(name, ("true", "false"))
        return None if text is None else text == "true"

    def done(self) -> None:
        """Refuse the request with every problem that was found."""
        for name in self._parameters:
            if name not in self._known:
                hint = near_miss(name, self._known) or f"known are {', '.join(sorted(self._known)) or 'none'}."
                self._problems.append(f"There is no parameter `{name}`: {hint}")
        if self._problems:
            raise ProblemError(400, " ".join(self._problems), code="request.parameters", errors=self._problems)


def parse_instant(text: str) -> datetime | None:
    """The aware UTC instant of an RFC 3339 text or of a day; None for anything else."""
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            return found.replace(tzinfo=UTC) if len(text) == len("2026-01-31") else None
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


async def json_body(request: Request, type: type[T]) -> T:
    """The JSON body of a request as a value of `type`; an absent body reads as `{}`."""
    body = await raw_body(request, bytes_max=BODY_BYTES_MAX)
    if body and request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise ProblemError(415, "The body is no JSON.", hint="Send `Content-Type: application/json`.")
    try:
        return msgspec.json.decode(body or b"{}", type=type)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        message = str(error) or "it is nested too deeply"
        raise ProblemError(400, f"The body is not usable: {message}.", code="request.body") from error


async def raw_body(request: Request, *, bytes_max: int) -> bytes:
    """The body of a request; one that is longer is refused, before it is read where its length is told."""
    declared = request.headers.get("content-length", "0")
    too_large = ProblemError(413, f"The body is larger than {bytes_max} bytes.")
    if declared.isdigit() and int(declared) > bytes_max:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise too_large
    return bytes(body)
