"""`/connect` and `/connections/{key}/settings`: connecting an account, and what may be changed of it afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headwater.acts.act import Act, Desk, perform
from headwater.acts.setup import OVERLAP_HOURS_MAX, AddConnection, ChangeSettings, Key, SetSecret
from headwater.api.access import Caller, visible_connection
from headwater.api.csrf import form_of
from headwater.api.problem import ProblemError
from headwater.api.query import Query
from headwater.dashboard.connection import head
from headwater.dashboard.login import see_other
from headwater.dashboard.oauth import CALLBACK
from headwater.dashboard.schema_form import fields, read
from headwater.dashboard.screen import Answer, Screens, finish
from headwater.errors import HeadwaterError, NotFoundError, SettingsError, UsageError
from headwater.grant import TOKEN_FIELD, Token
from headwater.intention import StoredConnection
from headwater.project import Project
from headwater.tokens import Tokens

OVERLAPS = (0, 1, 24, 72)  # hours that a form offers
ERRORS = (SettingsError, UsageError, NotFoundError)


def routes(screens: Screens) -> list[Route]:
    """Choosing a connector, its form, and the settings of a connection."""
    made = _Setup(screens)
    return [
        screens.route("/connect", made.choose, scope="operate"),
        screens.route("/connect/{connector}", made.form, scope="operate"),
        screens.route("/connect/{connector}", made.add, scope="operate", methods=["POST"]),
        screens.route("/connections/{key}/settings", made.settings),
        screens.route("/connections/{key}/settings", made.change, scope="operate", methods=["POST"]),
        screens.route("/connections/{key}/secrets/{field}", made.set_secret, scope="operate", methods=["POST"]),
    ]


class _Setup:
    """The handlers."""

    def __init__(self, screens: Screens) -> None:
        self._screens = screens

    async def choose(self, request: Request, caller: Caller) -> Answer:  # noqa: ARG002  a handler's shape
        """The connectors that are loaded."""
        finish(Query(request))
        projects = self._screens.installation.projects if self._screens.installation else {}
        found = [projects[key] for key in sorted(projects)]
        twin = [{"connector": one.connector.key, "name": one.connector.name, "version": one.version} for one in found]
        return Answer(template="connect.html", values={"projects": found}, twin={"connectors": twin})

    async def form(self, request: Request, caller: Caller) -> Answer:  # noqa: ARG002  a handler's shape
        """The form of a connector's settings."""
        finish(Query(request))
        return self._form(self._project(request.path_params["connector"]), {})

    async def add(self, request: Request, caller: Caller) -> Response:
        """Connect the account; what is wrong is told at its field."""
        project = self._project(request.path_params["connector"])
        typed = await form_of(request)
        plain, secrets = read(project.connector, typed)
        try:
            act = AddConnection(
                connector=project.connector.key,
                key=_key(typed.get("connection-key", "")),
                tenant=typed.get("connection-tenant", "").strip() or None,
                settings=plain,
                secrets=secrets,
                paused=typed.get("connection-paused") == "true",
            )
            await self._perform(caller, act)
        except ERRORS as error:
            found = self._form(project, typed, error)
            return self._again(request, caller, found)
        return see_other(act_url(act))

    async def settings(self, request: Request, caller: Caller) -> Answer:
        """What is set, what may be changed, and where the provider sends its deliveries."""
        stored = await visible_connection(caller, self._screens.store, request.path_params["key"])
        finish(Query(request))
        return await self._settings(stored, caller=caller)

    async def change(self, request: Request, caller: Caller) -> Response:
        """Change the plain settings."""
        stored = await visible_connection(caller, self._screens.store, request.path_params["key"])
        typed = await form_of(request)
        plain, _ = read(self._project(stored.connector).connector, typed)
        try:
            act = ChangeSettings(connection=stored.key, settings=plain, replaces=True)
            await self._perform(caller, act)
        except ERRORS as error:
            return self._again(request, caller, await self._settings(stored, typed, error, caller=caller))
        return see_other(act_url(act))

    async def set_secret(self, request: Request, caller: Caller) -> Response:
        """Set or rotate a secret."""
        stored = await visible_connection(caller, self._screens.store, request.path_params["key"])
        typed, name = await form_of(request), request.path_params["field"]
        try:
            act = SetSecret(
                connection=stored.key, field=name, value=typed.get("value", ""), overlap_hours=_hours(typed)
            )
            if not act.value:
                raise UsageError("The new secret is empty.")
            await self._perform(caller, act)
        except ERRORS as error:
            problem = SettingsError(str(error))
            problem.problems = {name: getattr(error, "problems", {}).get(name) or str(error)}
            return self._again(request, caller, await self._settings(stored, None, problem, caller=caller))
        return see_other(act_url(act))

    async def _perform(self, caller: Caller, act: Act) -> None:
        await perform(act, self._screens.services.desk(caller))

    def _project(self, connector: str) -> Project:
        found = self._screens.project(connector)
        if found is None:
            raise ProblemError(404, f"The connector `{connector}` is not loaded here.", code="request.not_found")
        return found

    def _form(self, project: Project, typed: Mapping[str, str], error: HeadwaterError | None = None) -> Answer:
        connector = project.connector
        errors = getattr(error, "problems", {})
        shown = fields(connector, {}, errors=errors, typed=typed if error else None)
        values: dict[str, Any] = {
            "project": project, "connector": connector, "fields": shown,
            "problem": _elsewhere(error, [one.name for one in shown]),
            "key": typed.get("connection-key", connector.key), "tenant": typed.get("connection-tenant", ""),
            "is_paused": typed.get("connection-paused") == "true", "crumbs": [("Connect", "/connect")],
        }  # fmt: skip
        twin = {
            "connector": connector.key, "settings": connector.connection.settings,
            "instructions": connector.connection.instructions, "problems": errors,
        }  # fmt: skip
        return Answer(template="connect_form.html", values=values, twin=twin)

    async def _settings(
        self,
        stored: StoredConnection,
        typed: Mapping[str, str] | None = None,
        error: HeadwaterError | None = None,
        *,
        caller: Caller,
    ) -> Answer:
        desk = self._screens.services.desk(caller)
        project = self._screens.project(stored.connector)
        at = self._screens.clock.now()
        secrets = await self._screens.store.secrets(stored.id, at=at)
        set_ = {one.field for one in secrets if one.field != TOKEN_FIELD}
        expiring = {one.field: one.expires_at for one in secrets if one.expires_at is not None}
        errors = getattr(error, "problems", {})
        shown = (
            fields(project.connector, stored.settings, errors=errors, stored_secrets=set_, typed=typed)
            if project
            else []
        )
        values = {
            **await head(self._screens, stored, "settings"), "project": project, "fields": shown,
            "problem": _elsewhere(error, [one.name for one in shown]), "expiring": expiring, "overlaps": OVERLAPS,
            "oauth": project.connector.connection.oauth if project else None, "token": await _token(desk, stored),
            "callback": desk.base_url + CALLBACK,
        }  # fmt: skip
        twin = {
            "connection": stored.key, "settings": stored.settings, "secrets": sorted(set_),
            "webhook_url": values["webhook_url"], "problems": errors,
            "is_authorised": values["token"] is not None if values["oauth"] else None,
        }  # fmt: skip
        return Answer(template="settings.html", values=values, twin=twin)

    def _again(self, request: Request, caller: Caller, found: Answer) -> Response:
        values = dict(found.values)
        return self._screens.render(request, found.template, caller=caller, status=422, **values)


async def _token(desk: Desk, stored: StoredConnection) -> Token | None:
    """What the account gave us; only whether, for what and until when is shown."""
    try:
        tokens = (await desk.live(stored.key)).tokens
    except HeadwaterError:
        return None  # its connector is not loaded here, or its secrets cannot be read: the page says so elsewhere
    return tokens.kept if isinstance(tokens, Tokens) else None


def act_url(act: Act) -> str:
    """The settings of the connection that an act is about."""
    key = act.key if isinstance(act, AddConnection) else act.connection  # type: ignore[attr-defined]  # each has it
    return f"/connections/{key}/settings"


def _key(text: str) -> str:
    try:
        return str(msgspec.convert(text.strip(), Key))
    except msgspec.ValidationError as error:
        refused = SettingsError("The name is not usable.")
        refused.problems = {"connection-key": "Letters, digits and . _ - @, beginning with a letter or digit."}
        raise refused from error


def _hours(typed: Mapping[str, str]) -> float:
    text = typed.get("overlap", "0")
    if not text.isascii() or not text.isdigit() or int(text) > OVERLAP_HOURS_MAX:
        raise UsageError("Choose for how long the secret before stays valid.")
    return float(text)


def _elsewhere(error: HeadwaterError | None, shown: list[str]) -> str:
    """What is wrong, where no field says it."""
    if error is None:
        return ""
    told = getattr(error, "problems", {})
    return "" if told and set(told) <= {*shown, "connection-key"} else str(error)
