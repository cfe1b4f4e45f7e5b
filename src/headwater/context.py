"""What a route is given while it is invoked: `settings`, `secrets`, `oauth`, `checkpoint`, `log`, and, through the
modules of their name, `ingest` and `http`. Each is bound to the current `Invocation`; outside one, it is a clear error.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Protocol, Unpack

import msgspec

from headwater.call import Options
from headwater.canonical.schema import CanonicalType
from headwater.catalog import Connector
from headwater.errors import NotFoundError, OutsideRouteError, near_miss
from headwater.jsonvalue import JSONValue
from headwater.log_line import NewLogLine
from headwater.record import Emission, Quarantined
from headwater.run import RequestLog


class HttpPort(Protocol):
    """What an invocation needs of the HTTP client; `headwater.http` has the whole of it."""

    async def request(self, method: str, url: str, **options: Unpack[Options]) -> Any:
        """Send a request on behalf of the connection."""
        ...


class OAuthPort(Protocol):
    """Tokens of a connection that is authorised by OAuth."""

    async def access_token(self) -> str:
        """A token that is valid now."""
        ...


class Invocation(msgspec.Struct, kw_only=True):
    """One call of a route, with all that it may touch and all that it emitted."""

    connector: Connector
    connection: str  # connection key
    connection_id: int
    streams: frozenset[str]  # keys that an emission may name
    types: Mapping[str, CanonicalType]
    stream: str | None  # the stream being polled; None in a webhook or setup route
    as_of: int  # default of an emission's as_of, microseconds
    settings: Mapping[str, JSONValue]
    secrets: Mapping[str, str]
    http: HttpPort
    logger: logging.LoggerAdapter[logging.Logger]
    cursor: str | None = None
    partition: str = ""
    checkpoint_at: datetime | None = None
    oauth: OAuthPort | None = None
    priority: int = 0  # of its HTTP requests; smaller first: deliveries 0, then as `run.Priority`
    emissions: list[Emission] = msgspec.field(default_factory=list)
    quarantined: list[Quarantined] = msgspec.field(default_factory=list)
    requests: list[RequestLog] = msgspec.field(default_factory=list)
    log: list[NewLogLine] = msgspec.field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Invocation of {self.connection} {self.stream or '-'}>"  # its secrets are nobody's to read


_current: ContextVar[Invocation | None] = ContextVar("headwater_invocation", default=None)


def current(what: str) -> Invocation:
    """The invocation under way; `OutsideRouteError` naming `what` when there is none."""
    invocation = _current.get()
    if invocation is None:
        raise OutsideRouteError(
            f"`{what}` is bound to a route being invoked; there is none here.",
            hint="Call it from a route's `post`, or in a test by `headwater.testing.drive`.",
        )
    return invocation


def invoking(invocation: Invocation) -> _Bound:
    """Bind `invocation` for the block, and for the tasks and threads begun in it."""
    return _Bound(invocation)


class _Bound:
    __slots__ = ("_invocation", "_token")

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation

    def __enter__(self) -> Invocation:
        self._token = _current.set(self._invocation)
        return self._invocation

    def __exit__(self, *raised: object) -> None:
        _current.reset(self._token)


class _Fields:
    """A read-only mapping whose misses name the near miss."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _mapping(self) -> Mapping[str, Any]:
        mapping: Mapping[str, Any] = getattr(current(self._name), self._name)
        return mapping

    def __contains__(self, key: object) -> bool:
        return key in self._mapping()

    def __iter__(self) -> Iterator[str]:
        return iter(self._mapping())

    def _get(self, key: str) -> Any:
        mapping = self._mapping()
        if key not in mapping:
            raise NotFoundError(
                f"This connection has no {self._name.removesuffix('s')} `{key}`.",
                hint=near_miss(key, mapping),
            )
        return mapping[key]


class Settings(_Fields):
    """The plain settings of the connection: `settings["region"]`, `settings.get("region", "eu")`."""

    def __getitem__(self, key: str) -> JSONValue:
        value: JSONValue = self._get(key)
        return value

    def get(self, key: str, default: JSONValue = None) -> JSONValue:
        """The setting, or `default` where it is not set."""
        value: JSONValue = self._mapping().get(key, default)
        return value


class Secrets(_Fields):
    """The secret fields of the connection: `secrets["api_key"]`."""

    def __getitem__(self, key: str) -> str:
        value: str = self._get(key)
        return value

    def get(self, key: str, default: str | None = None) -> str | None:
        """The secret, or `default` where it is not set."""
        value: str | None = self._mapping().get(key, default)
        return value


class OAuth:
    """Tokens of the connection."""

    async def access_token(self) -> str:
        """A token that is valid now; `OutsideRouteError` for a connection without OAuth."""
        port = current("oauth").oauth
        if port is None:
            raise OutsideRouteError("This connection is not authorised by OAuth.")
        return await port.access_token()


class Checkpoint:
    """The checkpoint of the stream being polled, as it stood when this page began. To move it, return a `Page`."""

    @property
    def cursor(self) -> str | None:
        """The provider's token saved with the last committed page."""
        return current("checkpoint").cursor

    @property
    def partition(self) -> str:
        """The partition that it belongs to; "" where the stream has none."""
        return current("checkpoint").partition

    @property
    def saved_at(self) -> datetime | None:
        """When it was saved."""
        return current("checkpoint").checkpoint_at


class Log:
    """A logger that knows its connection, stream and run; secrets are removed before a line leaves it."""

    def debug(self, message: str, *args: object) -> None:
        """Log for the connector's author."""
        current("log").logger.debug(message, *args)

    def info(self, message: str, *args: object) -> None:
        """Log for the operator."""
        current("log").logger.info(message, *args)

    def warning(self, message: str, *args: object) -> None:
        """Log what an operator should look at."""
        current("log").logger.warning(message, *args)

    def error(self, message: str, *args: object) -> None:
        """Log what went wrong."""
        current("log").logger.error(message, *args)


settings = Settings("settings")
secrets = Secrets("secrets")
oauth = OAuth()
checkpoint = Checkpoint()
log = Log()
