"""The page of the HTTP API, made of the OpenAPI document that a server gives."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headwater.acts.registry import ACTS
from headwater.api.access import open_guard
from headwater.api.endpoint import Endpoint
from headwater.api.openapi import document
from headwater.api.routes import PREFIX, routes
from headwater.clock import SystemClock

API = """\
# HTTP API

Made of the server's own OpenAPI 3.1 document by `make docs`. A server gives it at `GET /api/v1/openapi.json`, for
clients to be generated from.

**Who.** Below `/api/v1`, with `Authorization: Bearer hw_…`: [a key](../guides/access.md#keys) with the scope that
stands beside each operation. On loopback everything but `deploy` is open while there is no account. A key of one tenant
sees that tenant's connections, and nothing else exists for it.

**Lists** have `data` and `next_cursor`; the next page is asked for with `after=<next_cursor>`, and the last one has
`null`. Unknown parameters are refused, with the known ones.

**Instants** are RFC 3339 with an offset. **Errors** are problem details (RFC 9457): `type`, `title`, `status`,
`detail`, `code` (stable and dotted) and, where several things are wrong, `errors`.

**Repeating.** A POST with an `Idempotency-Key` that was seen within a day is not carried out again, and answered as
before.

**Acts.** Everything that an operator does is an act: `POST /acts/<name>` carries it out, `POST /acts/<name>/plan` with
the same body tells what it would do and changes nothing. `GET /acts` lists them with the JSON Schema of each body.

Two routes are beside this: `POST /webhooks/<connector>/<endpoint>` is what providers call
([webhooks](../guides/webhook.md)), and `/livez`, `/readyz` and `/metrics` are for
[probes](../guides/production.md#health).
"""

PARTS = {
    "acts": "Acts",
    "streams": "Connections and streams",
    "connections": "Connections and streams",
    "runs": "Runs and backfills",
    "backfills": "Runs and backfills",
    "deliveries": "Deliveries",
    "rejections": "Deliveries",
    "quarantine": "Records",
    "records": "Records",
    "versions": "Records",
    "logs": "Logs",
    "changes": "The change feed",
    "consumers": "The change feed",
    "bundles": "Deployments",
    "deployments": "Deployments",
    "keys": "Keys and accounts",
    "accounts": "Keys and accounts",
    "openapi.json": "This document",
}


def described() -> dict[str, Any]:
    """The OpenAPI document of a server that has every part."""
    (mount,) = routes(store=None, clock=SystemClock(), guard=open_guard(), one_page=lambda: None, deployer=object())  # type: ignore[arg-type]
    return document([one.operation for one in mount.app.routes if isinstance(one, Endpoint)], version="", prefix=PREFIX)


def api() -> str:
    """The page: operations by part, then the types that they carry."""
    told = described()
    parts: dict[str, list[str]] = {part: [] for part in PARTS.values()}
    for path, methods in told["paths"].items():
        name = path.split("/")[1]
        for method, one in methods.items():
            if name != "acts":
                parts[PARTS[name]] += _operation(method.upper(), path, one)
            elif path == "/acts":
                parts["Acts"] = [*_operation("GET", path, one), *parts["Acts"]]
            elif not path.endswith("/plan"):
                parts["Acts"] += _act(path, one)
    lines = [API]
    for part, operations in parts.items():
        lines += [f"## {part}\n", *operations]
    return "\n".join([*lines, "## Types\n", *_types(told["components"]["schemas"])])


def _act(path: str, one: Mapping[str, Any]) -> Iterator[str]:
    act = ACTS[path.split("/")[2]]
    yield f"### `POST {path}`\n"
    what = one["description"].partition("\n\nTakes the scope")[0]
    yield f"{act.title}. {what if what.endswith('.') else what + '.'} Scope `operate`. Body: {_body(one)}\n"


def _operation(method: str, path: str, one: Mapping[str, Any]) -> Iterator[str]:
    more, _, scope = one["description"].rpartition("Takes the scope ")
    yield f"### `{method} {path}`\n"
    yield " ".join([f"{one['summary']}.", *more.split(), f"Scope {scope}"]) + "\n"
    rows = [_parameter(each) for each in one["parameters"] if each["in"] != "header"]
    if rows:
        yield "\n".join(["| parameter | in | type | what |", "|---|---|---|---|", *rows, ""])
    if "requestBody" in one:
        yield f"Body: {_body(one)}\n"
    for status, answer in one["responses"].items():
        if status != "default" and (status == "204" or "content" in answer):
            yield f"{status}: {_answer(answer)}\n"


def _body(one: Mapping[str, Any]) -> str:
    ((kind, content),) = one["requestBody"]["content"].items()
    return f"{_shape(content['schema'])}" + ("" if kind == "application/json" else f" (`{kind}`)") + "."


def _answer(answer: Mapping[str, Any]) -> str:
    content = answer.get("content")
    if not content:
        return "no content."
    schema = content["application/json"]["schema"]
    fields = schema.get("properties")
    if fields is None:
        return f"{_shape(schema)}."
    return (
        ", ".join(f"`{name}` {_shape(field)}" if _shape(field) else f"`{name}`" for name, field in fields.items()) + "."
    )


def _parameter(one: Mapping[str, Any]) -> str:
    where = one["in"] + (", required" if one["required"] and one["in"] == "query" else "")
    return f"| `{one['name']}` | {where} | {_shape(one['schema'])} | {_cell(one.get('description', ''))} |"


def _types(schemas: Mapping[str, Any]) -> Iterator[str]:
    for name, schema in sorted(schemas.items()):
        yield f"### {name}\n"
        if words := schema.get("description", ""):
            yield f"{' '.join(words.split())}\n"
        if "properties" in schema:
            needed = set(schema.get("required", ()))
            yield "| field | type | what |\n|---|---|---|"
            for field, of in schema["properties"].items():
                what = [of.get("description", ""), "" if field in needed else "May be left out."]
                yield f"| `{field}` | {_shape(of)} | {_cell(' '.join(filter(None, what)))} |"
            yield ""
        else:
            yield f"{_shape(schema)}\n"


def _shape(schema: Mapping[str, Any]) -> str:
    """A schema in a word or two: `integer, 1 to 1,000`, `list of Run`, `text or null`."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_shape(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join("null" if one is None else f"`{one}`" for one in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        inner = _shape(schema.get("items", {}))
        return f"list of {inner}" if inner else "list"
    if kind == "object" and schema.get("additionalProperties"):
        return (
            f"object of {_shape(schema['additionalProperties'])}"
            if schema["additionalProperties"] is not True
            else "object"
        )
    if kind == "object" and "properties" in schema:
        return "{" + ", ".join(f"`{name}`" for name in schema["properties"]) + "}"
    words = {"string": "text", "null": "null", None: "any"}.get(kind, str(kind))
    if schema.get("format") in ("date-time", "binary"):
        words = {"date-time": "instant", "binary": "bytes"}[schema["format"]]
    return words + _bounds(schema)


def _bounds(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if isinstance(high, int) and high < 2**31:
        return f", {low or 0:,} to {high:,}"
    return f", from {low}" if low else ""


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def titles(page: str) -> Sequence[str]:
    """The operations that a page describes, as `GET /streams`."""
    return [line.removeprefix("### `").removesuffix("`") for line in page.splitlines() if line.startswith("### `")]
