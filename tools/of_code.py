"""The pages of what an author writes with, made of the signatures, the docstrings and the fields' comments."""

import ast
import dataclasses
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from headwater import answer, call, catalog, config, context, errors, grant, http, ingest, record, route, run
from headwater.canonical import accounting, code, commerce, event, schema
from headwater.route import Response, SetupRequest, SyncRequest, WebhookRequest
from headwater.signatures import hmac, registry
from headwater.testing import answering, drive, suite

WIDTH = 100  # of a line of code

MANIFEST = """\
# The manifest

Made of the code by `make docs`. `connector.py` at the top of a project has one value named `connector`:

```python
from headwater import Connector, Stream

connector = Connector(
    key="shop",
    name="Shop",
    version="0.1.0",
    streams=[Stream("customers", mode="poll", schedule="0 * * * *")],
)
```

The values check nothing themselves: [`headwater check`](check.md) proves all of them at once, without network and
without secrets.
"""

ROUTES = """\
# What a route may use

Made of the code by `make docs`. Everything here comes `from headwater import …`. `ingest`, `http`, `settings`,
`secrets`, `oauth`, `checkpoint` and `log` are bound to the route that is being invoked; outside one they raise
`OutsideRouteError`.

A `Payload` is a mapping, a `Canonical` struct, or the bytes of a JSON object. A `JSONValue` is what JSON can say: its
numbers are `int` and `Decimal`. A `Form` is a mapping whose values may be mappings and lists.

A route is a function `post` in its file, `async def`, or a plain `def`, which is run in a thread.
"""

TYPES = """\
# Canonical types

Made of the code by `make docs`. A record has one of these types, or one of the connector's own, declared in
`src/records.py` as a subclass of `Canonical` or, in the mapping `SCHEMAS`, as a JSON Schema by its name. Fields that
are `None` are left out; a field that the type does not have, or has otherwise, makes the record invalid. Amounts are
whole minor units or `Decimal`, never `float`; instants are aware.
"""

TESTING = """\
# The kit for tests

Made of the code by `make docs`. What each is for, with examples, is told in the [guide](../guides/test.md). Everything
runs without network and without an account.
"""


CONFIGURATION = """\
# Configuration

Made of the code by `make docs`. Each of these may stand in `headwater.toml`, in the folder where a command is given or
where `--config` or `HEADWATER_CONFIG` points; or in the environment, as `HEADWATER_` and its name in capitals, which
comes first. Lists are lists in the file; in the environment paths are separated by colons, other words by commas. Paths
in the file are relative to it. Problems are told all at once, unknown names with their near miss, and nothing starts.

"""


def configuration() -> str:
    """The page of what an operator may choose."""
    lines = ["| setting | default | what |", "|---|---|---|"]
    for name, _, default, what in _described(config.Config):
        if name != "directory":
            shown = {"None": "", "()": "", "True": "true", "False": "false"}.get(default, default.strip("'"))
            lines.append(f"| `{name}` | {f'`{shown}`' if shown else ''} | {what} |")
    return CONFIGURATION + "\n".join(lines) + "\n"


def manifest() -> str:
    """The page of the manifest."""
    kinds = (catalog.Connector, catalog.Stream, catalog.Connection, grant.OAuth, catalog.Permissions, catalog.Webhooks)
    lines = [MANIFEST, *(line for kind in kinds for line in _fields(kind, kind.__name__))]
    lines += [
        "## Signature schemes\n",
        "What `auth` of `Webhooks` may name; anybody [may add one](routes.md#a-signature-scheme-of-your-own).\n",
    ]
    lines += ["| `auth` | what proves a delivery |", "|---|---|"]
    for name in registry.names():
        kind = type(registry.scheme(name))
        lines.append(f"| `{name}` | {_first(inspect.getdoc(kind) or '')} |")
    lines += ["", "The `options` of `hmac_sha256`:\n", "| option | what |", "|---|---|"]
    lines += [f"| `{name}` | {what} |" for name, what in _options(hmac, "OPTIONS")]
    return "\n".join(lines) + "\n"


def routes() -> str:
    """The page of what a route may use."""
    lines = [ROUTES, "## The route and its request\n", *_function(route, "route")]
    for kind in (SyncRequest, run.Window, run.Page, WebhookRequest, SetupRequest, Response):
        lines += _fields(kind, kind.__name__, level=3)
    lines += ["## Ingest\n", *_function(ingest.canonical, "ingest.canonical"), *_function(ingest.batch, "ingest.batch")]
    lines += [*_fields(ingest.Batch, "Batch", level=3), "## HTTP\n", "### `http.request`\n"]
    lines += [
        f"```python\n{_signature(http.request, 'http.request')}\n```\n",
        _paragraphs(http.HttpClient.request),
        _table("option", _described(call.Options)),
    ]
    lines += ["`http.get`, `http.post`, `http.put`, `http.patch` and `http.delete` leave out the method. "]
    lines += [
        "A plain `def` route says `http.blocking.get(…)` and so on.\n",
        *_fields(answer.HttpResponse, "HttpResponse", level=3),
    ]
    lines += [*_methods(answer.HttpResponse), "## Settings, secrets, tokens, progress, log\n"]
    for name in ("settings", "secrets", "oauth", "checkpoint", "log"):
        kind = type(getattr(context, name))
        lines += [f"### `{name}`\n", _paragraphs(kind), *_methods(kind)]
    lines += ["## Types of your own\n", *_fields(schema.Canonical, "Canonical", level=3), "## Errors\n", *_errors()]
    lines += [
        "## A signature scheme of your own\n",
        "An object with these, given to `headwater.signatures.registry.register`:\n",
    ]
    scheme = registry.Scheme
    return "\n".join([*lines, _table("field", _described(scheme)), *_methods(scheme)])


def types() -> str:
    """The page of the canonical types that are shipped."""
    lines = [TYPES]
    for module in (commerce, accounting, code, event):
        lines.append(f"## {module.__name__.rpartition('.')[2].capitalize()}\n\n{_words(module.__doc__)}\n")
        for kind in module.SHIPPED:
            lines += [
                f"### `{schema.type_name(kind)}`\n",
                f"{_words(inspect.getdoc(kind))}\n",
                _table("field", _described(kind)),
            ]
    parts = {part for module in (commerce, accounting, code, event) for part in vars(module).values() if _is_part(part)}
    lines.append("## Parts\n\nValues inside a record that have no identity of their own.\n")
    for part in sorted(parts, key=lambda one: one.__name__):
        lines += [f"### {part.__name__}\n", f"{_words(inspect.getdoc(part))}\n", _table("field", _described(part))]
    return "\n".join(lines)


def testing() -> str:
    """The page of the kit."""
    lines = [
        TESTING,
        "## `headwater.testing.drive`\n",
        *_function(drive.drive, "drive"),
        *_function(drive.deliver, "deliver"),
    ]
    lines += [
        *_fields(drive.Driven, "Driven", level=3),
        *_methods(drive.Driven),
        *_fields(record.Emission, "Emission", level=3),
    ]
    lines += ["## `headwater.testing.answering`\n", *_fields(answering.Provider, "Provider", level=3)]
    lines += [*_fields(answering.SentEvent, "SentEvent", level=3), *_function(answering.answering, "answering")]
    lines += [
        *_function(answering.pages, "pages"),
        "## `headwater.testing.suite`\n",
        *_function(suite.standard_suite, "standard_suite"),
    ]
    return "\n".join(lines)


NAMES = {
    "_Url": "str",
    "_Name": "str",
    "_Name | None": "str | None",
    "_Url | None": "str | None",
    "Mode": "Literal['poll', 'webhook', 'backfill']",
}
Described = Sequence[tuple[str, str, str, str]]  # name, type, default, comment


def _fields(kind: type, name: str, *, level: int = 2) -> Iterator[str]:
    yield f"{'#' * level} {name}\n"
    yield f"{_paragraphs(kind)}"
    if rows := _described(kind):
        yield _table("field", rows)


def _table(head: str, rows: Described) -> str:
    has_default = any(default not in ("", "None") for _, _, default, _ in rows)
    lines = [
        f"| {head} | type | {'default | ' if has_default else ''}what |",
        "|---|---|" + ("---|" if has_default else "") + "---|",
    ]
    for name, kind, default, what in rows:
        cells = [f"`{name}`", f"`{kind}`", *([f"`{default}`" if default else ""] if has_default else []), what]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def _described(kind: type) -> Described:
    """The fields of a class with what its source says of each: the comment beside it, or on the lines below."""
    source = textwrap.dedent(inspect.getsource(kind))
    comments = _comments(source)
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    found = []
    for place, node in enumerate(tree.body):
        if (
            not isinstance(node, ast.AnnAssign)
            or not isinstance(node.target, ast.Name)
            or node.target.id.startswith("_")
        ):
            continue
        following = tree.body[place + 1].lineno if place + 1 < len(tree.body) else len(source.splitlines()) + 1
        first = node.lineno - 1 if _is_above(source, node.lineno - 1) else node.lineno
        last = following - 1 if _is_above(source, following - 1) else following
        own = [comments[line] for line in range(first, last) if line in comments]
        kept = NAMES.get(ast.unparse(node.annotation), ast.unparse(node.annotation))
        if not kept.startswith("ClassVar"):
            found.append((node.target.id, kept, _default(kind, node.target.id), _joined(own)))
    return found


def _is_above(source: str, line: int) -> bool:
    """Whether a comment on a line of its own begins a sentence: then it is about what follows."""
    return re.match(r"\s*# [A-Z]", source.splitlines()[line - 1]) is not None


def _comments(source: str) -> dict[int, str]:
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            found[token.start[0]] = re.sub(r"^#\s*(noqa: [A-Z0-9, ]+\d\s*)?", "", token.string)
    return found


def _joined(comments: Sequence[str]) -> str:
    words = " ".join(" ".join(comments).replace(" … … ", " ").replace("… …", "…").split())
    return words[:1].upper() + words[1:]


def _default(kind: type, name: str) -> str:
    if dataclasses.is_dataclass(kind):
        own = kind.__dataclass_fields__[name]
        if own.default is not dataclasses.MISSING:
            return _shown(own.default)
        return "" if own.default_factory is dataclasses.MISSING else _shown(own.default_factory())
    if issubclass(kind, msgspec.Struct):
        own = next(one for one in msgspec.structs.fields(kind) if one.name == name)
        if own.default is not msgspec.NODEFAULT:
            return _shown(own.default)
        return "" if own.default_factory is msgspec.NODEFAULT else _shown(own.default_factory())
    return ""


def _shown(value: Any) -> str:
    if isinstance(value, frozenset):
        return ", ".join(sorted(value))
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (catalog.Connection, catalog.Permissions)):
        return f"{type(value).__name__}()"
    return f"{value:_}" if isinstance(value, int) and not isinstance(value, bool) and value > 9999 else repr(value)


def _function(function: Callable[..., Any], name: str) -> Iterator[str]:
    yield f"### `{name}`\n"
    yield f"```python\n{_signature(function, name)}\n```\n"
    yield _paragraphs(function)


def _signature(function: Callable[..., Any], name: str, *, width: int = WIDTH) -> str:
    source = textwrap.dedent(inspect.getsource(function))
    node = next(one for one in ast.walk(ast.parse(source)) if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)))
    node.args.args = [one for one in node.args.args if one.arg != "self"]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    start = "await " if isinstance(node, ast.AsyncFunctionDef) else ""
    words = re.sub(r"(: (?:[^=,\[]|\[[^\]]*\])+)=", r"\1 = ", ast.unparse(node.args))
    line = f"{start}{name}({words}){returns}"
    if len(line) <= width:
        return line
    args = re.split(r", (?![^\[(]*[\])])", words)
    return f"{start}{name}(\n" + "".join(f"    {one},\n" for one in args) + f"){returns}"


def _methods(kind: type) -> Iterator[str]:
    for name, member in vars(kind).items():
        function = member.fget if isinstance(member, property) else member
        if (name.startswith("_") and name != "__getitem__") or not inspect.isfunction(function):
            continue
        said = _first(inspect.getdoc(function) or "")
        shown = name if isinstance(member, property) else _signature(function, name, width=1000)
        yield f"- `{' '.join(shown.split())}`{f': {said}' if said else ''}"
    yield ""


def _errors() -> Iterator[str]:
    yield f"{_words((errors.__doc__ or '').partition('HeadwaterError')[0])}\n"
    tree = (errors.__doc__ or "").partition("\n\n")[2].rstrip()
    yield f"```text\n{tree}\n```\n"
    yield "A route may raise any of these. All else is a `HandlerError`, a lost network a `ProviderError`.\n"
    yield "| error | code | it says |\n|---|---|---|"
    for one in vars(errors).values():
        if isinstance(one, type) and issubclass(one, errors.HeadwaterError) and one is not errors.HeadwaterError:
            yield f"| `{one.__name__}` | `{one.code}` | {_first(inspect.getdoc(one) or '')} |"
    yield ""


def _options(module: ModuleType, name: str) -> Iterator[tuple[str, str]]:
    """The strings of a literal set with the comments beside them."""
    source = inspect.getsource(module)
    start = source.index(f"{name} = ")
    for word, what in re.findall(r'"(\w+)",\s+# (.+)', source[start : source.index("\n)", start)]):
        yield word, what[:1].upper() + what[1:]


def _is_part(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, schema.Part) and value is not schema.Part


def _paragraphs(documented: Any) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (inspect.getdoc(documented) or "").split("\n\n")) + "\n"


def _words(text: str | None) -> str:
    return " ".join((text or "").split())


def _first(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())
