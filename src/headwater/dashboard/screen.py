"""What every screen works with, and the one way from a request to a page, its JSON twin, or its CSV.

request ──> guard ──> show(request, caller) ──> Answer ──> html · json · csv
                          └── HeadwaterError ──> the same refusal, as a page or as a problem document
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Match, Route

from headwater.acts.registry import ACTS
from headwater.api.access import FACTOR_NEEDED, FACTOR_PAGE, Caller, Guard, Scope
from headwater.api.csrf import asking
from headwater.api.endpoint import Services, json_response
from headwater.api.problem import ProblemError, from_error
from headwater.api.query import Query
from headwater.clock import Clock
from headwater.dashboard.address import Address
from headwater.dashboard.csv import Table, csv_response
from headwater.dashboard.page import SECURITY_HEADERS, Pages
from headwater.door import Door
from headwater.errors import HeadwaterError
from headwater.front import seen_as
from headwater.intention import StoredConnection
from headwater.node import Node, SharedStore
from headwater.project import Project
from headwater.store import Store

FORMATS = ("html", "json")
LIST_FORMATS = ("html", "json", "csv")
NAVIGATION = (
    ("Overview", "/", "o"),
    ("Deliveries", "/deliveries", "d"),
    ("Records", "/records", "r"),
    ("Backfills", "/backfills", "b"),
    ("Quarantine", "/quarantine", "q"),
    ("Alerts", "/alerts", "l"),
    ("System", "/system", "s"),
    ("Audit", "/audit", "a"),
)


# What a page of the navigation needs, where that is more than to read.
NEEDED: Mapping[str, Scope] = {"/audit": "operate"}


class Refused(Protocol):
    """A connector project that is not loaded."""

    @property
    def path(self) -> Path:
        """Its folder."""
        ...

    @property
    def lines(self) -> Sequence[str]:
        """Why."""
        ...


class Installation(Protocol):
    """What the process around the store knows: which connectors are loaded, and where their webhooks arrive."""

    @property
    def projects(self) -> Mapping[str, Project]:
        """The loaded connectors, by key."""
        ...

    @property
    def refused(self) -> Sequence[Refused]:
        """Connector projects that did not pass their check."""
        ...

    @property
    def shared(self) -> SharedStore | None:
        """The store, where other nodes may be at work on it too."""
        ...

    def origin(self, connector: str) -> str:
        """Where the version that runs came from, in words."""
        ...

    def webhook_url(self, stored: StoredConnection, base_url: str | None = None) -> str | None:
        """The URL that a connection's provider sends deliveries to; None where its connector takes none."""
        ...


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a screen says: a template with its values for people, the same for programs, and the list as a table."""

    template: str
    values: Mapping[str, Any]
    twin: Any
    table: Table | None = None  # of a list; None: the screen is none


Show = Callable[[Request, Caller], Awaitable[Answer | Response]]


@dataclass(frozen=True, kw_only=True)
class Screens:
    """What screens work with. Each module of screens makes its routes with it, and registers in `views.py`."""

    services: Services
    pages: Pages
    version: str = ""
    installation: Installation | None = None
    public_url: str | None = None  # None: as the installation is configured
    door: Door | None = None  # None: nobody signs in here
    _routes: list[BaseRoute] = field(default_factory=list)

    @property
    def store(self) -> Store:
        """Everything durable."""
        return self.services.store

    @property
    def clock(self) -> Clock:
        """The time."""
        return self.services.clock

    @property
    def guard(self) -> Guard:
        """Who asks."""
        return self.services.guard

    def project(self, connector: str) -> Project | None:
        """The loaded connector of that key."""
        return self.installation.projects.get(connector) if self.installation else None

    def origin(self, connector: str) -> str | None:
        """Where its code came from; None where none is loaded here."""
        return self.installation.origin(connector) if self.installation and self.project(connector) else None

    async def nodes(self) -> Sequence[Node]:
        """The nodes that are here; none where the store is one process's own."""
        shared = self.installation.shared if self.installation else None
        return [node for node in await shared.nodes() if node.is_here] if shared else []

    def webhook_url(self, stored: StoredConnection) -> str | None:
        """Where deliveries of a connection arrive; None where it takes none, or nobody here knows."""
        if self.installation is None:
            return None
        return self.installation.webhook_url(stored, self.public_url or seen_as.get())

    def route(self, path: str, show: Show, *, scope: Scope | None = "read", methods: Sequence[str] = ("GET",)) -> Route:
        """A route whose handler is given a proven caller; whatever it refuses is told in the format asked for.

        With the scope None it is open to whoever signed in.
        """

        async def answer(request: Request) -> Response:
            try:
                caller = await self.guard(request)
                if scope is not None:
                    caller.require(scope)
                found = await show(request, caller)
                return found if isinstance(found, Response) else self.send(request, caller, found)
            except HeadwaterError as error:
                return self.refusal(request, error)

        return Route(path, answer, methods=list(methods))

    def add(self, routes: Iterable[BaseRoute]) -> None:
        """Register routes: links lead only to what is registered."""
        self._routes.extend(routes)

    @property
    def routes(self) -> list[BaseRoute]:
        """All that were registered, in order."""
        return list(self._routes)

    def reaches(self, path: str) -> bool:
        """Whether a page answers at `path`."""
        scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
        return any(route.matches(scope)[0] is Match.FULL for route in self._routes)

    def _can_sign_in(self, request: Request) -> bool:
        return self.door is not None and "authorization" not in request.headers

    def send(self, request: Request, caller: Caller, found: Answer) -> Response:
        """A screen's answer in the format that the request asks for."""
        wanted = request.query_params.get("format")
        if wanted == "json":
            return json_response(found.twin)
        if wanted == "csv" and found.table is not None:
            return csv_response(found.table)
        return self.render(request, found.template, caller=caller, has_csv=found.table is not None, **found.values)

    def render(
        self, request: Request, template: str, *, caller: Caller | None = None, status: int = 200, **values: Any
    ) -> Response:
        """A page inside the shell: `here`, `at`, `who` and the navigation are there for every template."""
        shell: dict[str, Any] = {
            "here": Address.of(request),
            "at": self.clock.now(),
            "who": caller,
            "product": self.version,
            "reaches": self.reaches,
            "navigation": [] if caller is None else self._navigation(caller),
            "acts": ACTS,
            "can_sign_in": self.door is not None,
            "crumbs": (),
            "has_csv": False,
        }
        return self.pages.render(template, status=status, **(shell | values))

    def _navigation(self, caller: Caller) -> list[tuple[str, str, str]]:
        if caller.lacks_factor:
            return []
        hidden = {path for path, scope in NEEDED.items() if not caller.may(scope)}
        return [(word, path, key) for word, path, key in NAVIGATION if self.reaches(path) and path not in hidden]

    def refusal(self, request: Request, error: HeadwaterError) -> Response:
        """A refusal as a page, with the status and headers of its problem document."""
        problem = from_error(error)
        if request.query_params.get("format") == "json":
            return problem
        if problem.status_code == 401 and request.method == "GET" and self._can_sign_in(request):
            wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(f"/login?next={quote(wanted, safe='/')}", 303, headers=dict(SECURITY_HEADERS))
        if isinstance(error, ProblemError) and error.problem_code == FACTOR_NEEDED and request.method == "GET":
            return RedirectResponse(FACTOR_PAGE, 303, headers=dict(SECURITY_HEADERS))
        page = self.render(
            request,
            "problem.html",
            caller=asking.get(),
            status=problem.status_code,
            message=error.message,
            hint=error.hint,
        )
        for name in ("www-authenticate", "retry-after"):
            if name in problem.headers:
                page.headers[name] = problem.headers[name]
        return page


def finish(query: Query, *, is_list: bool = False) -> None:
    """End the reading of a page's query: `format` is known to each of them."""
    query.choice("format", LIST_FORMATS if is_list else FORMATS)
    query.done()
