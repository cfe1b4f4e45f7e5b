"""The connector's own canonical types: usable, and no second meaning for a name."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from headwater.canonical.schema import CanonicalType
from headwater.check import code
from headwater.check.manifest import KEY, key_hint
from headwater.check.settings import schema_problem
from headwater.check.subject import Subject
from headwater.project import RECORDS, own_types, shipped_types


def check_types(subject: Subject) -> None:
    """Import `src/records.py` and collect the canonical types; `types` stays None where it cannot be imported."""
    types = dict(shipped_types())
    if RECORDS not in subject.bundle.files:
        subject.types = types
        return
    module = subject.import_file(RECORDS)
    if module is None:
        return
    schemas = getattr(module, "SCHEMAS", {})
    if not isinstance(schemas, Mapping):
        subject.found.add(
            code.TYPE_INVALID,
            RECORDS,
            _line(subject, "SCHEMAS"),
            "`SCHEMAS` must be a mapping of type names to JSON Schemas.",
        )
    own: dict[str, CanonicalType] = {}
    for name, build in own_types(module):
        line = _line(subject, name)
        if name in schemas and (problem := schema_problem(schemas[name])):
            subject.found.add(code.TYPE_INVALID, RECORDS, line, f"`{name}` is no JSON Schema: {problem}.")
            continue
        try:
            built = build()
        except Exception as error:
            subject.found.add(code.TYPE_INVALID, RECORDS, line, f"`{name}` is no canonical type: {error}.")
            continue
        _check_name(subject, built, line, types, own)
        own.setdefault(built.name, built)
    subject.types = own | types


def _check_name(
    subject: Subject,
    built: CanonicalType,
    line: int,
    types: Mapping[str, CanonicalType],
    own: Mapping[str, CanonicalType],
) -> None:
    if not KEY.fullmatch(built.name):
        subject.found.add(
            code.TYPE_INVALID, RECORDS, line, f"The type name `{built.name}` is ill-formed.", key_hint(built.name)
        )
    for others, owner in ((types, "Headwater ships"), (own, "this file has")):
        other = others.get(built.name)
        if other is not None and other.json_schema() != built.json_schema():
            subject.found.add(
                code.TYPE_SHADOWS,
                RECORDS,
                line,
                f"`{built.name}` has another shape than the type of that name that {owner}.",
                "give yours a name of its own.",
            )


def _line(subject: Subject, name: str) -> int:
    tree = subject.facts[RECORDS].tree
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node.lineno
        if isinstance(node, ast.Constant) and node.value == name:
            return node.lineno
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store):
            return node.lineno
    return 1
