"""What every resource of the API shares: its services, the way from request to answer, lists that respect a caller."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headwater.acts.act import Desk
from headwater.api import idempotency
from headwater.api.access import Caller, Guard, Scope
from headwater.api.idempotency import once
from headwater.api.operation import Operation
from headwater.api.problem import ProblemError
from headwater.clock import Clock
from headwater.run import Window
from headwater.store import Store

if TYPE_CHECKING:
    from headwater.deploy import Deployer
    from headwater.runtime import OnePage

# Decimals are strings wherever they appear: a reader's parser must not turn an amount into a float.
_encode = msgspec.json.Encoder(decimal_format="string").encode


class PageOnDemand(Protocol):
    """Fetches and commits one page of a stream: the runtime, bound to the live connections."""

    async def __call__(
        self,
        connection: str,
        stream: str,
        *,
        cursor: str | None,
        window: Window | None,
        limit: int | None,
        partition: str,
    ) -> OnePage:
        """See `Runner.one_page`."""
        ...


class MakeDesk(Protocol):
    """Makes the desk of somebody who acts: `Platform.desk`, with what works beside it."""

    def __call__(self, actor: str, *, tenant: str | None) -> Desk:
        """The desk."""
        ...


@dataclass(frozen=True, kw_only=True)
class Services:
    """What the resources work with."""

    store: Store
    clock: Clock
    guard: Guard
    one_page: PageOnDemand | None = None  # None: this process fetches nothing
    deployer: Deployer | None = None  # None: nothing is deployed by way of this process
    make_desk: MakeDesk | None = None  # None: what acts on the store alone can be done, and no more
    connector_names: Mapping[str, str] = field(default_factory=dict)  # connector key → its name for people

    def desk(self, caller: Caller) -> Desk:
        """What a caller's acts work with."""
        if self.make_desk is not None:
            return self.make_desk(caller.name, tenant=caller.tenant)
        return Desk(store=self.store, clock=self.clock, actor=caller.name, tenant=caller.tenant)

    def connector_name(self, key: str) -> str:
        """The name of a connector for people."""
        return self.connector_names.get(key) or key.replace("_", " ").capitalize()


class HasId(Protocol):
    """Anything that lists are ordered by, newest first."""

    @property
    def id(self) -> int:
        """Grows with time."""
        ...


Handler = Callable[[Request, Caller], Awaitable[Any]]
T = TypeVar("T", bound=HasId)


class Endpoint(Route):
    """A route of the API, with what it takes and gives."""

    def __init__(self, operation: Operation, answer: Callable[[Request], Awaitable[Response]]) -> None:
        super().__init__(operation.path, answer, methods=[operation.method])
        self.operation = operation


def endpoint(
    services: Services, method: str, path: str, handler: Handler, *, scope: Scope | None = None, **told: Any
) -> Endpoint:
    """A route whose handler is given a proven caller and returns a value for JSON, or a response.

    `told` says what it takes and gives: the fields of `Operation`.
    """
    needed: Scope = scope or ("read" if method == "GET" else "operate")
    operation = Operation(
        method=method,
        path=path,
        name=f"{method.lower()}_{handler.__name__}",
        description=inspect.getdoc(handler) or "",
        scope=needed,
        **told,
    )

    async def answer(request: Request) -> Response:
        caller = await services.guard(request)
        caller.require(needed)
        if method == "POST" and operation.is_repeatable:
            return await once(
                request,
                caller,
                lambda: carry_out(request, caller),
                store=services.store,
                clock=services.clock,
                body_bytes_max=operation.body_bytes_max,
            )
        if idempotency.HEADER in request.headers and method == "POST":
            raise ProblemError(400, "This answer holds a secret, and is not kept.", hint="Leave `Idempotency-Key` out.")
        return await carry_out(request, caller)

    async def carry_out(request: Request, caller: Caller) -> Response:
        value = await handler(request, caller)
        return value if isinstance(value, Response) else json_response(value)

    return Endpoint(operation, answer)


def json_response(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer; canonical payloads inside it are embedded byte for byte."""
    own = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(
        _encode(value), status_code=status, media_type="application/json", headers=own | dict(headers or {})
    )


def listing(entries: Sequence[Any], *, limit: int, cursor: Callable[[Any], Any], **more: Any) -> dict[str, Any]:
    """The shape of every list: `data`, and the cursor to go on after, or null at the end."""
    following = str(cursor(entries[-1])) if len(entries) >= limit else None
    return {"data": entries, "next_cursor": following, **more}


def entry_of(value: Any, *, without: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of a dataclass by name, save some."""
    return {each.name: getattr(value, each.name) for each in fields(value) if each.name not in without}


async def newest(
    keys: Sequence[str] | None, fetch: Callable[[str | None], Awaitable[Sequence[T]]], *, limit: int
) -> list[T]:
    """The newest entries over the connections in `keys`, or over all when it is None.

    Ids are global, so that one cursor serves the merged lists.
    """
    if keys is None:
        return list(await fetch(None))
    found = chain.from_iterable([await fetch(key) for key in keys])
    return sorted(found, key=lambda entry: -entry.id)[:limit]
