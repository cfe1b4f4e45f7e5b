"""A cassette: what a provider was asked and what it answered, recorded without secrets, and replayed without a network.

    {"cassette": 1, "exchanges": [{"request": {"method", "url", "body"}, "response": {"status", "headers", "body"}}]}

Requests are compared as they were recorded, that is redacted: a cassette recorded with one account's secrets is
replayed with another's, or with made-up ones. What a provider answers is the account's own data: look at it before you
share it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path

import msgspec

from headwater.errors import ConfigError, NotFoundError
from headwater.redaction import MARK, Redactor
from headwater.transport import Headers, Transport, TransportRequest, TransportResponse

VERSION = 1
CASSETTE_BYTES_MAX = 256 * 1024 * 1024
# The body is kept decompressed and whole, so the headers that speak of its form on the wire would be wrong.
_FORM_HEADERS = frozenset({"content-encoding", "content-length", "transfer-encoding", "connection", "keep-alive"})
# Tokens that a provider hands out in a body are known to nobody beforehand.
_TOKEN = re.compile(r'("(?:access_token|refresh_token|id_token|client_secret)"\s*:\s*")(?:[^"\\]|\\.)*')


@dataclass(frozen=True, kw_only=True)
class RecordedRequest:
    """A request, redacted."""

    method: str
    url: str
    body: str


@dataclass(frozen=True, kw_only=True)
class RecordedResponse:
    """An answer, redacted; a body that is not UTF-8 is base64."""

    status: int
    headers: dict[str, str]
    body: str
    is_base64: bool = False


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One request with its answer."""

    request: RecordedRequest
    response: RecordedResponse


@dataclass(frozen=True, kw_only=True)
class _Tape:
    cassette: int
    exchanges: list[Exchange]


class Recorder:
    """Keeps every exchange of the transports that go through it, until `save` writes them into one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._exchanges: list[Exchange] = []

    @property
    def exchanges(self) -> Sequence[Exchange]:
        """What was recorded so far."""
        return tuple(self._exchanges)

    def through(self, transport: Transport, redactor: Redactor) -> Transport:
        """A transport that is `transport`, recorded: what `HttpClients` takes as `through`."""

        async def recorded(request: TransportRequest) -> TransportResponse:
            response = await transport(request)
            self._exchanges.append(
                Exchange(request=_recorded_request(request, redactor), response=_recorded_response(response, redactor))
            )
            return response

        return recorded

    def save(self) -> None:
        """Write the cassette; the file before it stays until the new one is whole."""
        tape = {"cassette": VERSION, "exchanges": [asdict(exchange) for exchange in self._exchanges]}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_name(f"{self._path.name}.part")
        draft.write_text(json.dumps(tape, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.replace(self._path)


class Replay:
    """Answers from a cassette. The same request asked again gets the next of its recorded answers; after the last one
    that one is given again for a GET or HEAD, and `NotFoundError` raised for anything else.
    """

    def __init__(
        self, exchanges: Sequence[Exchange], *, redactor: Redactor | None = None, name: str = "cassette"
    ) -> None:
        self._redactor = redactor or Redactor(())
        self._name = name
        self._answers: dict[RecordedRequest, list[RecordedResponse]] = {}
        for exchange in exchanges:
            self._answers.setdefault(exchange.request, []).append(exchange.response)
        self._asked: dict[RecordedRequest, int] = {}

    async def __call__(self, request: TransportRequest) -> TransportResponse:
        """See `Transport`."""
        asked = _recorded_request(request, self._redactor)
        answers = self._answers.get(asked)
        turn = self._asked.get(asked, 0)
        if answers is None or (turn >= len(answers) and asked.method not in {"GET", "HEAD"}):
            raise self._miss(asked, known=answers is not None)
        self._asked[asked] = turn + 1
        return _answer(answers[min(turn, len(answers) - 1)])

    def _miss(self, asked: RecordedRequest, *, known: bool) -> NotFoundError:
        words = f"{asked.method} {asked.url}"
        if known:
            return NotFoundError(f"{self._name} holds no further answer to {words}.", hint="Record it again.")
        recorded = sorted({f"{request.method} {request.url}" for request in self._answers})
        close = get_close_matches(words, recorded, n=1, cutoff=0.6)
        hint = f"The closest one is {close[0]}" + (" with another body." if close[0] == words else ".") if close else ""
        return NotFoundError(f"{self._name} holds no answer to {words}.", hint=hint or "Record it again.")


def load(path: Path) -> Sequence[Exchange]:
    """The exchanges of a cassette's file; `ConfigError` when it is none."""
    try:
        if path.stat().st_size > CASSETTE_BYTES_MAX:
            raise ConfigError(f"The cassette {path.name} is larger than {CASSETTE_BYTES_MAX // 1024**2} MiB.")
        tape = msgspec.json.decode(path.read_bytes(), type=_Tape)
    except OSError as error:
        raise ConfigError(f"The cassette {path} cannot be read: {error.strerror}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path.name} is no cassette: {error}.", hint="Record it with `headwater run --record`."
        ) from None
    if tape.cassette != VERSION:
        raise ConfigError(f"{path.name} is a cassette of version {tape.cassette}; this is version {VERSION}.")
    return tape.exchanges


def replay_through(path: Path) -> Callable[[Transport, Redactor], Transport]:
    """What `HttpClients` takes as `through`, to answer from the cassette at `path` and never from a network."""
    exchanges = load(path)

    def through(transport: Transport, redactor: Redactor) -> Transport:  # noqa: ARG001  that is the point
        return Replay(exchanges, redactor=redactor, name=path.name)

    return through


def _recorded_request(request: TransportRequest, redactor: Redactor) -> RecordedRequest:
    content_type = next((value for name, value in request.headers.items() if name.lower() == "content-type"), "")
    return RecordedRequest(
        method=request.method, url=redactor.url(request.url), body=_body(request.body, content_type, redactor)
    )


def _body(body: bytes, content_type: str, redactor: Redactor) -> str:
    text = body.decode("utf-8", "replace")
    if content_type.startswith("application/x-www-form-urlencoded"):
        return redactor.url(f"?{text}")[1:]
    return _TOKEN.sub(rf"\1{MARK}", redactor.text(text))


def _recorded_response(response: TransportResponse, redactor: Redactor) -> RecordedResponse:
    headers = {name: value for name, value in redactor.headers(response.headers).items() if name not in _FORM_HEADERS}
    try:
        body, is_base64 = _TOKEN.sub(rf"\1{MARK}", redactor.text(response.body.decode())), False
    except UnicodeDecodeError:
        body, is_base64 = base64.b64encode(response.body).decode(), True
    return RecordedResponse(status=response.status, headers=headers, body=body, is_base64=is_base64)


def _answer(recorded: RecordedResponse) -> TransportResponse:
    body = base64.b64decode(recorded.body) if recorded.is_base64 else recorded.body.encode()
    return TransportResponse(status=recorded.status, headers=Headers(recorded.headers.items()), body=body)
