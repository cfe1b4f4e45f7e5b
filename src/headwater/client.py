"""The HTTP client of a connection: every request of its handlers passes here.

Judged by the manifest's permissions at each hop, let through by the connection's quota, tried again where that is safe,
and noted without its secrets on the invocation that made it.

    permitted? ──> slot of the quota ──> transport ──> redirect? judged again ──> answer ──> noted
                        └── 429, 5xx, silence: again within 30 s; else an error that puts the run back on its row
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Unpack
from urllib.parse import urljoin

from headwater.answer import HttpResponse, refusal
from headwater.backoff import Backoff
from headwater.call import Call, Options, prepare
from headwater.catalog import Connector
from headwater.clock import Clock
from headwater.context import Invocation, current
from headwater.errors import HeadwaterError, OutsideRouteError, ProviderError, ResponseError, RetryError
from headwater.jsonvalue import JSONValue
from headwater.permission import AllowList, parse
from headwater.quota import WAIT_SECONDS_MAX, Quota
from headwater.redaction import Redactor, is_sensitive_name
from headwater.run import RequestLog
from headwater.transport import Transport, TransportRequest, TransportResponse

if TYPE_CHECKING:
    from yarl import URL

ATTEMPTS_MAX = 4
RETRY_WAIT = Backoff(wait_initial=0.5, wait_max=8.0)
REDIRECTS_MAX = 5
REQUESTS_NOTED_MAX = 1000  # of one invocation; the newest are kept

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(slots=True)
class _Trace:
    """What became of a call so far."""

    at: datetime
    started: float
    status: int | None = None
    retries: int = 0
    notes: list[str] = field(default_factory=list)


class HttpClient:
    """The HTTP client of one connection; see `Options` for what `request` takes."""

    def __init__(
        self,
        *,
        transport: Transport,
        clock: Clock,
        allowed: AllowList,
        quota: Quota,
        redactor: Redactor,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._allowed = allowed
        self._quota = quota
        self._redactor = redactor

    async def request(self, method: str, url: str, **options: Unpack[Options]) -> HttpResponse:
        """Send a request and return its answer: 2xx, or a status in `ok`.

        Raises `ForbiddenHostError` before anything leaves; `CredentialsError` for 401 and 403; `RateLimitedError` for
        429 and `ProviderError` for 5xx, timeouts and lost connections, after the attempts that were safe;
        `ResponseError` for any other status.
        """
        call = prepare(method, url, options)
        invocation = _invocation()
        trace = _Trace(at=self._clock.now(), started=self._clock.monotonic())
        try:
            return await self._attempts(call, trace, priority=invocation.priority if invocation else 0)
        finally:
            if invocation is not None:
                self._note(invocation, call, trace)

    async def _attempts(self, call: Call, trace: _Trace, *, priority: int) -> HttpResponse:
        attempt = 0
        while True:
            attempt += 1
            trace.retries, trace.status = attempt - 1, None
            try:
                response, begun_at = await self._send(call, priority)
            except ProviderError as error:
                problem: HeadwaterError = error
            else:
                trace.status = response.status
                answered = self._judge(call, response, begun_at)
                if answered is None:
                    return response
                problem = answered
            if not isinstance(problem, RetryError) or not call.idempotent or attempt == ATTEMPTS_MAX:
                raise problem
            await self._pause(problem, attempt, trace)

    async def _pause(self, problem: RetryError, attempt: int, trace: _Trace) -> None:
        asked = problem.retry_after_seconds
        wait = asked if asked is not None else RETRY_WAIT.delay_seconds(attempt, random=self._clock.random())
        if wait > WAIT_SECONDS_MAX:
            raise problem
        reason = "Retry-After" if asked is not None else type(problem).__name__
        trace.notes.append(f"waited {wait:.1f} s for {reason}")
        await self._clock.sleep(wait)

    async def _send(self, call: Call, priority: int) -> tuple[HttpResponse, float]:
        """One attempt, redirects included, in one slot of the quota."""
        reach = self._allowed.reach(call.url)
        url = call.url
        request = TransportRequest(
            method=call.method,
            url=str(url),
            headers=call.headers,
            body=call.body,
            reach=reach,
            total_seconds=call.timeout_seconds,
        )
        begun_at = await self._quota.take(priority)
        try:
            for _ in range(REDIRECTS_MAX + 1):
                answer = await self._transport(request)
                if answer.status not in _REDIRECTS or answer.status in call.ok or "location" not in answer.headers:
                    break
                url, request = self._redirected(url, request, answer)
            else:
                raise ResponseError(
                    f"More than {REDIRECTS_MAX} redirects from {self._name(call)}.", status=answer.status
                )
        finally:
            self._quota.give_back()
        response = HttpResponse(status=answer.status, headers=answer.headers, body=answer.body, url=request.url)
        return response, begun_at

    def _redirected(
        self, url: URL, request: TransportRequest, answer: TransportResponse
    ) -> tuple[URL, TransportRequest]:
        """The request that a redirect asks for; it is judged like any other, and leaves the credentials behind."""
        target = parse(urljoin(str(url), answer.headers["location"]))
        reach = self._allowed.reach(target)
        method, body, headers = request.method, request.body, dict(request.headers)
        if (answer.status == 303 and method != "HEAD") or (answer.status in (301, 302) and method == "POST"):
            method, body = "GET", b""
            headers = {name: value for name, value in headers.items() if not name.lower().startswith("content-")}
        if target.origin() != url.origin():
            headers = {name: value for name, value in headers.items() if not self._is_credential(name, value)}
            if body and self._redactor.holds_secret(body.decode("utf-8", "replace")):
                raise ResponseError("A redirect would carry a secret to another host.", status=answer.status)
        return target, replace(request, method=method, url=str(target), headers=headers, body=body, reach=reach)

    def _is_credential(self, name: str, value: str) -> bool:
        return is_sensitive_name(name) or self._redactor.holds_secret(value)

    def _judge(self, call: Call, response: HttpResponse, begun_at: float) -> HeadwaterError | None:
        """The error that an answer stands for, and what it teaches about the quota."""
        if 200 <= response.status < 300 or response.status in call.ok:
            self._quota.accepted(response.headers)
            return None
        found = refusal(
            name=self._name(call), status=response.status, headers=response.headers, body=response.body,
            now=self._clock.now(), redactor=self._redactor,
        )  # fmt: skip
        if found.is_rate_limit or found.retry_after_seconds is not None:
            self._quota.refused(begun_at=begun_at, retry_after_seconds=found.retry_after_seconds)
        else:
            self._quota.accepted(response.headers)
        return found.error

    def _name(self, call: Call) -> str:
        return f"{call.method} {self._redactor.url(str(call.url.with_query(None)))}"

    def _note(self, invocation: Invocation, call: Call, trace: _Trace) -> None:
        noted = RequestLog(
            at=trace.at,
            method=call.method,
            url=self._redactor.url(str(call.url)),
            status=trace.status,
            milliseconds=round((self._clock.monotonic() - trace.started) * 1000),
            retries=trace.retries,
            note="; ".join(trace.notes),
        )
        if len(invocation.requests) >= REQUESTS_NOTED_MAX:
            del invocation.requests[0]
        invocation.requests.append(noted)


class HttpClients:
    """The clients of one process: one transport for all, a quota for each connection that outlives its client."""

    def __init__(
        self,
        clock: Clock,
        transport: Transport,
        *,
        through: Callable[[Transport, Redactor], Transport] | None = None,
    ) -> None:
        self._clock = clock
        self._transport = transport
        self._through = through  # such as a cassette's recorder
        self._quotas: dict[int, Quota] = {}
        self.on_silence: Callable[[int, float], None] = lambda connection_id, seconds: None  # noqa: ARG005

    def block(self, connection_id: int, seconds: float) -> None:
        """Ask nothing on behalf of that connection for so long."""
        self._quota(connection_id).block(seconds)

    def client(
        self, *, connection_id: int, connector: Connector, settings: Mapping[str, JSONValue], redactor: Redactor
    ) -> HttpClient:
        """The client of a connection, with its permissions as its settings complete them."""
        permissions = connector.permissions
        transport = self._through(self._transport, redactor) if self._through else self._transport
        return HttpClient(
            transport=transport,
            clock=self._clock,
            allowed=AllowList(
                permissions.patterns(settings),
                loopback=permissions.loopback_patterns(settings),
                private=permissions.private,
            ),
            quota=self._quota(connection_id),
            redactor=redactor,
        )

    def _quota(self, connection_id: int) -> Quota:
        quota = self._quotas.get(connection_id)
        if quota is None:
            quota = Quota(self._clock, on_silence=lambda seconds: self.on_silence(connection_id, seconds))
            self._quotas[connection_id] = quota
        return quota


def _invocation() -> Invocation | None:
    try:
        return current("http")
    except OutsideRouteError:
        return None
