"""Where in `connector.py` each part of the manifest stands, and the manifest mended so far that it can be read on."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields

from headwater.catalog import Connection, Connector, Permissions, Stream, Webhooks
from headwater.check import code
from headwater.check.diagnostic import Findings
from headwater.check.facts import Facts, is_open
from headwater.errors import near_miss

PARTS = {part.__name__: part for part in (Connector, Connection, Permissions, Stream, Webhooks)}


@dataclass(frozen=True, kw_only=True)
class Places:
    """Lines of the manifest's parts; where the text does not tell, the nearest line that does."""

    facts: Facts
    calls: Mapping[str, Sequence[ast.Call]]  # by the class that is called
    misnamed: frozenset[int]  # lines of calls that have an unknown field, or lack a required one

    def line(self, part: str, field: str = "", value: object = None) -> int:
        """The line of a part (`Webhooks`), of one of its fields, or of a text inside that field."""
        calls = self.calls[part]
        if not calls:
            return self.line("Connector") if part != "Connector" else self._connector_line()
        return self.line_in(calls[0], field, value)

    def line_in(self, call: ast.Call, field: str, value: object = None) -> int:
        """The line of a field of one call, or of a text inside it."""
        node: ast.expr = next((keyword.value for keyword in call.keywords if keyword.arg == field), call)
        if value is not None:
            node = self._text(node, value) or node
        elif node is not call:
            return next(keyword.lineno for keyword in call.keywords if keyword.arg == field)
        return node.lineno

    def stream_call(self, key: object, occurrence: int) -> ast.Call | None:
        """The call that declares the nth stream of that key; None where the streams are made otherwise."""
        same = [call for call in self.calls["Stream"] if self._stream_key(call) == key]
        if same:
            return same[min(occurrence, len(same) - 1)]
        computed = [call for call in self.calls["Stream"] if self._stream_key(call) is None]
        return computed[0] if len(computed) == 1 else None

    def stream_line(self, call: ast.Call | None, field: str = "") -> int:
        """The line of a stream, or of one of its fields."""
        return self.line("Connector", "streams") if call is None else self.line_in(call, field)

    def _stream_key(self, call: ast.Call) -> str | None:
        given = next((keyword.value for keyword in call.keywords if keyword.arg == "key"), None)
        return self.facts.literal(given or (call.args[0] if call.args else None))

    def _connector_line(self) -> int:
        statement = self.facts.bound("connector")
        return statement.lineno if statement else 1

    def _text(self, node: ast.expr, value: object) -> ast.expr | None:
        if isinstance(node, ast.Name):
            node = self.facts.constants.get(node.id, node)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Constant) and inner.value == value:
                return inner
        return None


def read_places(facts: Facts, found: Findings) -> Places:
    """The places of a manifest, with the fields that its calls misname or leave out among the findings."""
    calls: dict[str, list[ast.Call]] = {name: [] for name in PARTS}
    for name, call in facts.calls:
        part = name.removeprefix("headwater.")
        if part in PARTS and name != part:
            calls[part].append(call)
    misnamed = {call.lineno for name, of in calls.items() for call in of if _misnamed(facts.path, name, call, found)}
    for of in calls.values():
        of.sort(key=lambda call: (call.lineno, call.col_offset))
    bound = facts.constants.get("connector")
    if isinstance(bound, ast.Call) and bound in calls["Connector"]:
        calls["Connector"] = [bound]
    return Places(facts=facts, calls=calls, misnamed=frozenset(misnamed))


def mended(facts: Facts) -> ast.Module:
    """The manifest's tree without the fields that do not exist, and with None for those that must be there.

    It serves to find the other problems of a manifest whose import stops at the first such field.
    """
    for name, call in facts.calls:
        part = PARTS.get(name.removeprefix("headwater.")) if name.startswith("headwater.") else None
        if part is None:
            continue
        known = {one.name for one in fields(part)}
        call.keywords = [keyword for keyword in call.keywords if keyword.arg is None or keyword.arg in known]
        for missing in _missing(part.__name__, call):
            keyword = ast.keyword(arg=missing, value=ast.Constant(value=None))
            ast.copy_location(keyword, call)
            call.keywords.append(keyword)
    return ast.fix_missing_locations(facts.tree)


def _misnamed(path: str, name: str, call: ast.Call, found: Findings) -> bool:
    known = [one.name for one in fields(PARTS[name])]
    unknown = [keyword for keyword in call.keywords if keyword.arg is not None and keyword.arg not in known]
    for keyword in unknown:
        found.add(
            code.FIELD_UNKNOWN,
            path,
            keyword.lineno,
            f"`{name}` has no field `{keyword.arg}`.",
            near_miss(str(keyword.arg), known) or f"its fields are {', '.join(known)}.",
        )
    missing = _missing(name, call)
    if missing:
        words = " and ".join(f"`{one}`" for one in missing)
        found.add(code.FIELD_UNKNOWN, path, call.lineno, f"`{name}` needs {words}.")
    return bool(unknown or missing)


def _missing(name: str, call: ast.Call) -> list[str]:
    if is_open(call):
        return []
    given = {keyword.arg for keyword in call.keywords}
    required = [one for one in fields(PARTS[name]) if one.default is MISSING and one.default_factory is MISSING]
    positional = [one.name for one in fields(PARTS[name]) if not one.kw_only][: len(call.args)]
    return [one.name for one in required if one.name not in given and one.name not in positional]
