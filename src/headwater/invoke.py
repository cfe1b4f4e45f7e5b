"""A stored connection brought to life, and a route invoked on its behalf.

A live connection is a stored one with its project's code, its secrets in the clear and its HTTP client. It is kept for
a few seconds and then read again, because another process (the command line) may have changed it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol

from headwater import http
from headwater.catalog import Connector
from headwater.clock import Clock, to_micros
from headwater.connection import KeyRing, secret_aad
from headwater.context import HttpPort, Invocation, OAuthPort, invoking
from headwater.errors import HeadwaterError, NotFoundError, near_miss
from headwater.grant import TOKEN_FIELD, Token, oauth_of
from headwater.intention import StoredConnection, StoredSecret
from headwater.jsonvalue import JSONValue
from headwater.log_line import NewLogLine
from headwater.project import NOT_LOADED_HINT, Project
from headwater.redaction import Redactor
from headwater.route import Response, SetupRequest
from headwater.route_log import RouteLog
from headwater.run import Priority
from headwater.tokens import Refreshes, Tokens, TokenStore

READ_AGAIN_SECONDS = 3.0  # a change made in another process is seen within this
MISS_SECONDS = 1.0  # an endpoint that is not known is looked for in the store at most this often
THREADS_MAX = 32  # plain `def` routes at work at once, in one process
TEST_SECONDS_MAX = 60.0  # of a connection test

# Apart from the loop's own threads: routes that wait for HTTP must not keep names from being resolved there.
_threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="headwater-route")


class HttpFor(Protocol):
    """Makes the HTTP client of a connection: `HttpClients.client`."""

    def __call__(
        self, *, connection_id: int, connector: Connector, settings: Mapping[str, JSONValue], redactor: Redactor
    ) -> HttpPort:
        """The client of that connection."""
        ...


@dataclass(frozen=True, kw_only=True)
class SecretVersion:
    """A secret in the clear, and until when it is valid; a field has two while it is rotated."""

    value: str = field(repr=False)
    expires_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class LiveConnection:
    """A connection ready to work; its repr shows no secret."""

    stored: StoredConnection
    project: Project
    settings: Mapping[str, JSONValue]  # with defaults
    secrets: Mapping[str, str] = field(repr=False)  # the newest of each field
    versions: Mapping[str, Sequence[SecretVersion]] = field(repr=False)  # by field, newest first
    redactor: Redactor
    http: HttpPort = field(repr=False)
    clock: Clock = field(repr=False)
    tokens: OAuthPort | None = field(default=None, repr=False)  # of a connector that declares OAuth

    def webhook_secrets(self) -> Sequence[str]:
        """The signing secrets valid now, newest first; none where the connection has not set one."""
        webhooks = self.project.connector.webhooks
        if webhooks is None:
            return ()
        at = self.clock.now()
        versions = self.versions.get(webhooks.secret, ())
        return [one.value for one in versions if one.expires_at is None or one.expires_at > at]


@dataclass(frozen=True, kw_only=True)
class _Index:
    """All stored connections as read at one instant."""

    read_at: float
    by_id: Mapping[int, StoredConnection]
    by_key: Mapping[str, StoredConnection]
    by_endpoint: Mapping[str, StoredConnection]


@dataclass(kw_only=True)
class _Entry:
    """A live connection with what it was made of."""

    live: LiveConnection
    stored_secrets: Sequence[StoredSecret] = field(repr=False)
    read_at: float
    index: _Index | None = None  # the newest in which its connection was found unchanged


class LiveConnections:
    """The live connections of this process, read from the store as they are needed."""

    def __init__(
        self,
        store: TokenStore,
        projects: Mapping[str, Project],
        key_ring: KeyRing,
        clock: Clock,
        http_for: HttpFor,
    ) -> None:
        self.projects = projects  # by connector key; one that is replaced there is used from the next look on
        self._store = store
        self._key_ring = key_ring
        self._clock = clock
        self._http_for = http_for
        self._index: _Index | None = None
        self._entries: dict[int, _Entry] = {}
        self._forgotten = 0
        self._reading = asyncio.Lock()
        self._refreshes = Refreshes()

    async def get(self, connection_id: int) -> LiveConnection:
        """The connection of that id.

        Raises `NotFoundError` when there is none or its connector is not loaded, `SettingsError` when its secrets
        cannot be decrypted.
        """
        entry = self._entries.get(connection_id)
        if entry is not None and self._is_fresh(entry):
            return entry.live
        stored = (await self._read(READ_AGAIN_SECONDS)).by_id.get(connection_id)
        if stored is None:
            stored = (await self._read(0)).by_id.get(connection_id)
        if stored is None:
            raise NotFoundError(f"There is no connection with the id {connection_id}.")
        return await self._live(stored)

    async def by_key(self, key: str) -> LiveConnection:
        """The connection of that key; raises as `get` does."""
        index = await self._read(READ_AGAIN_SECONDS)
        if key not in index.by_key:
            index = await self._read(0)
        if key not in index.by_key:
            raise NotFoundError(f"There is no connection `{key}`.", hint=near_miss(key, index.by_key))
        return await self._live(index.by_key[key])

    async def by_endpoint(self, endpoint_id: str) -> LiveConnection | None:
        """The connection whose webhook URL ends so; None when there is none, or its connector is not loaded."""
        stored = (await self._read(READ_AGAIN_SECONDS)).by_endpoint.get(endpoint_id)
        if stored is None:
            # Anybody may ask for any endpoint: a guess must not cost a look into the store each time.
            stored = (await self._read(MISS_SECONDS)).by_endpoint.get(endpoint_id)
        if stored is None or stored.connector not in self.projects:
            return None
        return await self._live(stored)

    def forget(self, connection_id: int | None = None) -> None:
        """Read a connection (or all of them) from the store again at its next use: it was changed."""
        self._forgotten += 1
        self._index = None
        if connection_id is None:
            self._entries.clear()
        else:
            self._entries.pop(connection_id, None)

    def redactor(self) -> Redactor:
        """Knows the secrets of every connection that is live: for the log of the whole process."""
        return Redactor(secret for entry in self._entries.values() for secret in entry.live.redactor.secrets)

    def _is_fresh(self, entry: _Entry) -> bool:
        """Whether nothing of it needs to be read again or compared."""
        index, now = self._index, self._clock.monotonic()
        return (
            index is not None
            and entry.index is index
            and now - index.read_at < READ_AGAIN_SECONDS
            and now - entry.read_at < READ_AGAIN_SECONDS
            and self.projects.get(entry.live.stored.connector) is entry.live.project
        )

    async def _read(self, seconds_max: float) -> _Index:
        """What the store holds, as read at most so long ago."""
        index = self._index
        if index is not None and self._clock.monotonic() - index.read_at < seconds_max:
            return index
        async with self._reading:
            while True:
                index, forgotten, read_at = self._index, self._forgotten, self._clock.monotonic()
                if index is not None and read_at - index.read_at < seconds_max:
                    return index
                stored = await self._store.connections()
                # What was forgotten while it was read may have been read before it was changed.
                if forgotten == self._forgotten:
                    self._index = _indexed(stored, read_at)
                    self._entries = {key: one for key, one in self._entries.items() if key in self._index.by_id}
                    return self._index

    async def _live(self, stored: StoredConnection) -> LiveConnection:
        project = self.projects.get(stored.connector)
        if project is None:
            raise NotFoundError(
                f"The connector `{stored.connector}` of the connection `{stored.key}` is not loaded.",
                hint=near_miss(stored.connector, self.projects) or NOT_LOADED_HINT,
            )
        entry, read_at = self._entries.get(stored.id), self._clock.monotonic()
        is_same = entry is not None and entry.live.stored == stored and entry.live.project is project
        if entry is not None and is_same and read_at - entry.read_at < READ_AGAIN_SECONDS:
            entry.index = self._index
            return entry.live
        forgotten = self._forgotten
        secrets = await self._store.secrets(stored.id, at=self._clock.now())
        if entry is not None and is_same and entry.stored_secrets == secrets:
            live = entry.live
        else:
            live = self._made(stored, project, secrets)
        if forgotten == self._forgotten:
            self._entries[stored.id] = _Entry(live=live, stored_secrets=secrets, read_at=read_at)
        return live

    def _made(
        self, stored: StoredConnection, project: Project, stored_secrets: Sequence[StoredSecret]
    ) -> LiveConnection:
        versions: dict[str, list[SecretVersion]] = {}
        for one in stored_secrets:
            value = self._key_ring.decrypt(one.ciphertext, aad=secret_aad(stored.key, one.field))
            versions.setdefault(one.field, []).append(SecretVersion(value=value, expires_at=one.expires_at))
        settings = project.connector.with_defaults(stored.settings)
        redactor = Redactor(_said(versions))
        secrets = {name: many[0].value for name, many in versions.items()}
        http = self._http_for(
            connection_id=stored.id, connector=project.connector, settings=settings, redactor=redactor
        )
        oauth = oauth_of(project.connector.connection.oauth)
        tokens = (
            None
            if oauth is None
            else Tokens(
                connection_id=stored.id,
                connection=stored.key,
                oauth=oauth,
                settings=settings,
                secrets=secrets,
                http=http,
                store=self._store,
                key_ring=self._key_ring,
                clock=self._clock,
                refreshes=self._refreshes,
                forget=self.forget,
            )
        )
        return LiveConnection(
            stored=stored,
            project=project,
            settings=settings,
            secrets={name: value for name, value in secrets.items() if name != TOKEN_FIELD},
            versions=versions,
            redactor=redactor,
            http=http,
            clock=self._clock,
            tokens=tokens,
        )


def _said(versions: Mapping[str, Sequence[SecretVersion]]) -> Iterator[str]:
    """Every secret that must not be told, a token's parts one by one."""
    for name, many in versions.items():
        for one in many:
            if name == TOKEN_FIELD:
                token = Token.of_text(one.value)
                yield from (part for part in (token.access_token, token.refresh_token) if part)
            else:
                yield one.value


def _indexed(stored: Sequence[StoredConnection], read_at: float) -> _Index:
    return _Index(
        read_at=read_at,
        by_id={one.id: one for one in stored},
        by_key={one.key: one for one in stored},
        by_endpoint={one.endpoint_id: one for one in stored},
    )


def invocation_for(
    live: LiveConnection,
    *,
    stream: str | None,
    as_of: datetime,
    cursor: str | None = None,
    partition: str = "",
    checkpoint_at: datetime | None = None,
    run_id: int | None = None,
    delivery_id: int | None = None,
    priority: int | None = None,
) -> Invocation:
    """One call of a route of a live connection, ready for `invoke`.

    `priority` orders its HTTP requests under the connection's quota: a poll's where a stream is given, else a
    delivery's, which comes first.
    """
    connector = live.project.connector
    facts = {"connection": live.stored.key, "stream": stream, "run": run_id, "delivery": delivery_id}
    log: list[NewLogLine] = []
    return Invocation(
        connector=connector,
        connection=live.stored.key,
        connection_id=live.stored.id,
        streams=live.project.stream_keys,
        types=live.project.types,
        stream=stream,
        as_of=to_micros(as_of),
        settings=live.settings,
        secrets=live.secrets,
        http=live.http,
        logger=RouteLog(facts, live.redactor, clock=live.clock, lines=log),
        log=log,
        cursor=cursor,
        partition=partition,
        checkpoint_at=checkpoint_at,
        oauth=live.tokens,
        priority=priority if priority is not None else Priority.POLL if stream else 0,
    )


async def invoke(route_function: Callable[[Any], Any], request: Any, invocation: Invocation) -> Any:
    """Call a route with `invocation` bound, and return what it returned; what it raises is raised.

    An `async def` runs on this loop; a plain `def` in a thread, of which there are `THREADS_MAX`. Cancelled, an
    `async def` ends where it waits; a plain one cannot be stopped, and what it still emits is lost.
    """
    with invoking(invocation):
        if _is_async(route_function):
            return await route_function(request)
        loop = asyncio.get_running_loop()
        bound = copy_context()
        bound.run(http.serve_blocking, loop)
        result = await loop.run_in_executor(_threads, bound.run, _call, route_function, request)
        # A wrapper around an `async def` does not look like one.
        return await result if inspect.isawaitable(result) else result


_is_async = lru_cache(maxsize=128)(inspect.iscoroutinefunction)


def _call(route_function: Callable[[Any], Any], request: Any) -> Any:
    try:
        return route_function(request)
    except StopIteration as error:
        # A future cannot carry it: whoever waits would wait for ever.
        raise RuntimeError("the route raised StopIteration") from error


@dataclass(frozen=True, kw_only=True)
class ConnectionTest:
    """What came of trying a connection."""

    ok: bool
    tested: bool  # the connector has a test route
    message: str  # one sentence for the operator
    code: str | None = None  # of the error
    status: int | None = None  # of the route's response


async def test_connection(live: LiveConnection) -> ConnectionTest:
    """Try the credentials of a connection with its connector's test route; an outcome, never an exception."""
    route = live.project.test_route
    if route is None:
        return ConnectionTest(ok=True, tested=False, message="This connector has no test; nothing was tried.")
    invocation = invocation_for(live, stream=None, as_of=live.clock.now(), priority=Priority.OPERATOR)
    try:
        async with asyncio.timeout(TEST_SECONDS_MAX):
            answer = await invoke(route, SetupRequest(settings=live.settings), invocation)
    except HeadwaterError as error:
        return ConnectionTest(ok=False, tested=True, message=live.redactor.line(str(error)), code=error.code)
    except TimeoutError:
        return ConnectionTest(
            ok=False,
            tested=True,
            message=f"The test gave no answer within {TEST_SECONDS_MAX:g} s.",
            code="retry.provider",
        )
    except Exception as error:
        words = live.redactor.line(f"{type(error).__name__}: {error}")
        return ConnectionTest(ok=False, tested=True, message=f"The test itself failed: {words}", code="stop.handler")
    return _outcome(live, answer)


def _outcome(live: LiveConnection, answer: Any) -> ConnectionTest:
    response = answer if isinstance(answer, Response) else Response()
    ok = 200 <= response.status < 300
    said = response.body.get("message") if isinstance(response.body, Mapping) else response.body
    message = live.redactor.line(said) if isinstance(said, str) and said else None
    if message is None:
        message = "The connection works." if ok else f"The test answered {response.status}."
    return ConnectionTest(ok=ok, tested=True, message=message, status=response.status)
