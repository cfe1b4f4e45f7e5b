"""`/acts/{name}`: what an act would do, the form of what it needs to know, and doing it.

GET with the act's fields ──> its plan ──> POST ──> done: on to the page where it can be followed, or its own
 └── a form of what a person fills in <── SHOW ──┘   its fields count as they are when it is sent
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headwater.acts.act import Act, Desk, Done, Plan, command_line, perform
from headwater.acts.registry import ACTS
from headwater.api.access import Caller
from headwater.api.csrf import FIELD, fields_of
from headwater.api.endpoint import json_response
from headwater.api.problem import not_found
from headwater.api.query import QUERY_CHARACTERS_MAX, parse_instant
from headwater.dashboard.login import see_other
from headwater.dashboard.screen import Answer, Screens
from headwater.errors import ConflictError, RecordError, RequestError, UsageError

SHOW = "show"  # the button of a form that asks for the plan of what it says
_KINDS = {"int": "number", "datetime": "datetime-local", "bool": "checkbox"}


@dataclass(frozen=True, kw_only=True)
class Input:
    """A field of an act as a form shows it."""

    name: str
    label: str
    help: str
    kind: str  # of the HTML input
    is_required: bool
    value: str
    choices: Sequence[str] = ()
    error: str = ""


class FieldsError(UsageError):
    """Fields of a form that cannot be read; `errors` by field."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("This is not complete yet: " + " ".join(errors.values()))
        self.errors = errors


def routes(screens: Screens) -> list[Route]:
    """One page for all acts: each knows its fields, its plan, and what came of it."""
    made = _Acts(screens)
    return [
        screens.route("/acts/{name}", made.show, scope="operate"),
        screens.route("/acts/{name}", made.carry_out, scope="operate", methods=["POST"]),
    ]


class _Acts:
    """The handlers."""

    def __init__(self, screens: Screens) -> None:
        self._screens = screens

    async def show(self, request: Request, caller: Caller) -> Answer | Response:
        """The plan of an act, and the form of what it needs to know."""
        kind = _kind(request)
        if len(request.url.query) > QUERY_CHARACTERS_MAX:
            raise UsageError("That is too much for one page.", hint="Choose by filter, and not one by one.")
        desk = self._screens.services.desk(caller)
        names = [name for name in request.query_params if name != "format"]
        given = {name: ",".join(request.query_params.getlist(name)) for name in names}
        try:
            act = read(kind, given)
        except FieldsError as error:
            asked = any(name in given for name in kind.inputs)
            if not set(error.errors) <= set(kind.inputs):
                raise
            return await self._answer(desk, kind, given, errors=error.errors if asked else {})
        try:
            plan = await act.plan(desk)
        except UsageError as error:
            return await self._answer(desk, kind, given, act=act, problem=str(error))
        return await self._answer(desk, kind, given, act=act, plan=plan)

    async def carry_out(self, request: Request, caller: Caller) -> Response:
        """Do it, with what its form says now; or show what that would do, where that is what was pressed."""
        kind = _kind(request)
        given = {name: ",".join(values) for name, values in (await fields_of(request)).items() if name != FIELD}
        if given.pop(SHOW, ""):
            words = {name: value for name, value in given.items() if name != "expected" and value}
            return see_other(f"{request.url.path}?{urlencode(words)}")
        desk = self._screens.services.desk(caller)
        act: Act | None = None
        try:
            act = read(kind, given)
            return self._after(request, caller, act, await perform(act, desk))
        except FieldsError as error:
            if not set(error.errors) <= set(kind.inputs):
                raise
            found, status = await self._answer(desk, kind, given, errors=error.errors), 422
        except (UsageError, ConflictError, RecordError) as error:
            plan = None
            if isinstance(error, ConflictError) and act is not None:
                plan = await msgspec.structs.replace(act, expected=None).plan(desk)
            found, status = await self._answer(desk, kind, given, act=act, plan=plan, problem=str(error)), 409
        values = dict(found.values)
        return self._screens.render(request, found.template, caller=caller, status=status, **values)

    def _after(self, request: Request, caller: Caller, act: Act, done: Done) -> Response:
        if request.query_params.get("format") == "json":
            return json_response({"ok": done.ok, "sentence": done.sentence, "value": done.value})
        if done.place is not None and self._screens.reaches(done.place.path.partition("?")[0]):
            return see_other(done.place.path)
        values: dict[str, Any] = {
            "act": act, "done": done, "command": command_line(act), "back": act.about().path,
        }  # fmt: skip
        return self._screens.render(request, "act_done.html", caller=caller, **values)

    async def _answer(
        self,
        desk: Desk,
        kind: type[Act],
        given: Mapping[str, str],
        *,
        act: Act | None = None,
        plan: Plan | None = None,
        problem: str = "",
        errors: Mapping[str, str] = {},
    ) -> Answer:
        fields = inputs(kind, given, errors, await kind.choices(given, desk))
        shown = {name: value for name, value in given.items() if name != "expected" and value}
        kept = [(name, value) for name, value in shown.items() if name not in kind.inputs]
        expected = plan.count if plan is not None and "expected" in kind.__struct_fields__ else None
        values: dict[str, Any] = {
            "kind": kind, "inputs": fields, "is_long": any(one.kind == "textarea" for one in fields),
            "kept": kept, "expected": expected, "plan": plan, "problem": problem,
            "command": command_line(act) if act else "", "back": act.about().path if act else _back(kind, given),
        }  # fmt: skip
        twin = {"act": kind.name, "plan": plan, "problem": problem or None, "command": values["command"] or None}
        return Answer(template="act.html", values=values, twin=twin)


def read(kind: type[Act], given: Mapping[str, str]) -> Act:
    """An act from the texts of a form, lists with commas; `FieldsError` names every field that is wrong."""
    values: dict[str, Any] = {}
    errors: dict[str, str] = {}
    known = {one.name: one for one in msgspec.structs.fields(kind)}
    for name in given:
        if name not in known:
            errors[name] = f"`{kind.name}` has no field `{name}`."
    for one in known.values():
        text = given.get(one.name, "").strip() if one.name in kind.inputs else given.get(one.name, "")
        if text:
            try:
                values[one.name] = msgspec.convert(_parsed(one.type, text), one.type, strict=False)
            except (msgspec.ValidationError, ValueError) as error:
                errors[one.name] = f"{_label(one)}: {str(error).partition(' - at ')[0]}."
        elif one.required:
            errors[one.name] = f"{_label(one)} is missing."
    if errors:
        raise FieldsError(errors)
    return kind(**values)


def inputs(
    kind: type[Act],
    given: Mapping[str, str],
    errors: Mapping[str, str] = {},
    choices: Mapping[str, Sequence[str]] = {},
) -> list[Input]:
    """The fields that a person fills in."""
    known = {one.name: one for one in msgspec.structs.fields(kind)}
    found = []
    for name in kind.inputs:
        one = known[name]
        default = _default(one.default)
        base = _base(one.type)
        value = given.get(name, default)
        found.append(
            Input(
                name=name,
                label=_label(one),
                help=_schema(one).get("description", ""),
                kind="choices"
                if _is_choice(one.type)
                else "textarea"
                if _schema(one).get("format") == "json"
                else _KINDS.get(base, "text"),
                is_required=one.required,
                value=_local(value) if base == "datetime" else value,
                error=errors.get(name, ""),
                choices=choices.get(name, ()),
            )
        )
    return found


def _default(value: Any) -> str:
    if value in (msgspec.NODEFAULT, None, False):
        return ""
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _kind(request: Request) -> type[Act]:
    found = ACTS.get(request.path_params["name"])
    if found is None:
        raise not_found("act")
    return found


def _back(kind: type[Act], given: Mapping[str, str]) -> str:
    """The page of what an act is about that is not complete yet."""
    rest = {name: value for name, value in given.items() if name not in kind.inputs}
    try:
        return kind(**{**dict.fromkeys(kind.inputs), **rest}).about().path
    except (TypeError, AttributeError, RequestError):
        return "/"


def _parsed(type_: Any, text: str) -> Any:
    base = _base(type_)
    if base == "datetime":
        found = parse_instant(text.replace(" ", "+")) or parse_instant(text + "+00:00")
        if found is None:
            raise ValueError("this is no instant such as 2026-01-31T12:00")
        return found
    if base == "bool":
        return text in ("true", "on", "1")
    if base == "tuple":
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _is_choice(type_: Any) -> bool:
    """Some of a few words."""
    info = msgspec.inspect.type_info(type_)
    while isinstance(info, msgspec.inspect.Metadata):
        info = info.type
    return isinstance(info, msgspec.inspect.VarTupleType) and isinstance(info.item_type, msgspec.inspect.LiteralType)


def _base(type_: Any) -> str:
    """The plain type of a field, whatever is said beside it and whether it may be None."""
    info = msgspec.inspect.type_info(type_)
    while isinstance(info, msgspec.inspect.Metadata):
        info = info.type
    kinds: Sequence[Any] = info.types if isinstance(info, msgspec.inspect.UnionType) else [info]
    for one in kinds:
        plain = one.type if isinstance(one, msgspec.inspect.Metadata) else one
        if isinstance(plain, msgspec.inspect.IntType):
            return "int"
        if isinstance(plain, msgspec.inspect.FloatType):
            return "float"
        if isinstance(plain, msgspec.inspect.DateTimeType):
            return "datetime"
        if isinstance(plain, msgspec.inspect.BoolType):
            return "bool"
        if isinstance(plain, msgspec.inspect.VarTupleType):
            return "tuple"
    return "str"


def _schema(one: msgspec.structs.FieldInfo) -> dict[str, Any]:
    return _said(msgspec.json.schema(one.type))


def _said(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What is said to people of a field that may be None, too."""
    for inner in schema.get("anyOf", ()):
        if "title" in inner:
            return dict(inner)
    return dict(schema)


def _label(one: msgspec.structs.FieldInfo) -> str:
    return _schema(one).get("title") or one.name.replace("_", " ").capitalize()


def _local(text: str) -> str:
    """An instant as the input of a form has it, in UTC."""
    found = parse_instant(text.replace(" ", "+")) or parse_instant(text + "+00:00")
    return f"{found:%Y-%m-%dT%H:%M}" if found else text
