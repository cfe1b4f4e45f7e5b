"""What one file of a project says, read from its syntax tree: no code of it runs."""

from __future__ import annotations

import ast
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

DYNAMIC = "\0"  # stands in a text for a part that only a run can know

_AUTHORS_MODULES = ("headwater.context.", "headwater.catalog.", "headwater.route.", "headwater.run.")

# CPython 3.11 counts the depth of a tree that it builds for all threads together, and stumbles over two at once.
_one_parse_at_a_time = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """A field taken by its literal name: `secrets["api_key"]`, `settings.get("region")`."""

    of: str  # dotted name of what it is taken from
    key: str
    line: int


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The tree of one file, and what was found by walking it once."""

    path: str
    tree: ast.Module
    names: Mapping[str, str]  # what a local name was imported as: `ingest` → `headwater.ingest`
    constants: Mapping[str, ast.expr]  # top-level names bound to one expression
    calls: list[tuple[str, ast.Call]] = field(default_factory=list)  # those whose function has a dotted name
    uses: list[tuple[str, int]] = field(default_factory=list)  # dotted names that were imported, and their lines
    lookups: list[Lookup] = field(default_factory=list)
    texts: list[ast.expr] = field(default_factory=list)  # string literals and f-strings, without docstrings

    def dotted(self, node: ast.expr) -> str | None:
        """The full name that an expression refers to, such as `headwater.http.get`; None where nothing imported it."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if isinstance(node, ast.Attribute):
            base = self.dotted(node.value)
            return None if base is None else _authors_name(f"{base}.{node.attr}")
        return None

    def bound(self, name: str) -> ast.stmt | None:
        """The top-level statement that binds `name`, the last one where there are several."""
        return next((statement for statement in reversed(self.tree.body) if name in _bound_names(statement)), None)

    def literal(self, node: ast.expr | None) -> str | None:
        """The text of a string literal, or of a top-level name of this file bound to one."""
        if isinstance(node, ast.Name):
            node = self.constants.get(node.id)
        return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def read(path: str, content: bytes) -> Facts:
    """The facts of a file that is Python; raises what `ast.parse` raises where it is none."""
    with _one_parse_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an odd escape in a string is the author's linter's matter
        tree = ast.parse(content, filename=path)
    nodes = list(ast.walk(tree))
    facts = Facts(path=path, tree=tree, names=_imported(nodes, path), constants=_constants(tree))
    skipped: set[int] = set()
    for node in nodes:
        if id(node) not in skipped:
            _note(facts, node, skipped)
    return facts


def module_name(path: str) -> str:
    """The dotted name of a file below its project: `src/lib/stripe.py` → `src.lib.stripe`."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def argument(call: ast.Call, name: str, position: int | None = None) -> ast.expr | None:
    """The argument of a call by its keyword, or by its position."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    return call.args[position] if position is not None and position < len(call.args) else None


def is_open(call: ast.Call) -> bool:
    """Whether the call has `*` or `**` arguments, so that its text does not tell what it is given."""
    return any(keyword.arg is None for keyword in call.keywords) or any(
        isinstance(one, ast.Starred) for one in call.args
    )


def _note(facts: Facts, node: ast.AST, skipped: set[int]) -> None:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        skipped.add(id(node.value))
    elif isinstance(node, ast.Call):
        name = facts.dotted(node.func) or (node.func.id if isinstance(node.func, ast.Name) else None)
        if name is not None:
            facts.calls.append((name, node))
            if name.endswith(".get"):
                _note_lookup(facts, name.removesuffix(".get"), argument(node, "key", 0))
    elif isinstance(node, ast.Subscript):
        name = facts.dotted(node.value)
        if name is not None:
            _note_lookup(facts, name, node.slice)
    elif isinstance(node, ast.JoinedStr):
        skipped.update(id(part) for part in node.values)
        facts.texts.append(node)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        facts.texts.append(node)
    elif isinstance(node, (ast.Name, ast.Attribute)):
        name = facts.dotted(node)
        if name is not None:
            facts.uses.append((name, node.lineno))


def _note_lookup(facts: Facts, of: str, key: ast.expr | None) -> None:
    text = facts.literal(key)
    if key is not None and text is not None:
        facts.lookups.append(Lookup(of=of, key=text, line=key.lineno))


def _imported(nodes: Iterable[ast.AST], path: str) -> dict[str, str]:
    names: dict[str, str] = {}
    folders = PurePosixPath(path).parent.parts
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                names[name] = alias.name if alias.asname else name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*folders[: len(folders) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                names[alias.asname or alias.name] = _authors_name(f"{base}.{alias.name}")
    return names


def _authors_name(name: str) -> str:
    """`headwater.context.secrets` is what authors know as `headwater.secrets`."""
    for prefix in _AUTHORS_MODULES:
        if name.startswith(prefix):
            return f"headwater.{name.removeprefix(prefix)}"
    return name


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    constants: dict[str, ast.expr] = {}
    rebound: set[str] = set()
    for statement in tree.body:
        for name in _bound_names(statement):
            value = statement.value if isinstance(statement, (ast.Assign, ast.AnnAssign)) else None
            if name in constants or value is None:
                rebound.add(name)
            else:
                constants[name] = value
    return {name: value for name, value in constants.items() if name not in rebound}


def _bound_names(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield statement.name
    elif isinstance(statement, (ast.Import, ast.ImportFrom)):
        for alias in statement.names:
            yield alias.asname or alias.name.partition(".")[0]
    elif isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                yield target.id
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id
