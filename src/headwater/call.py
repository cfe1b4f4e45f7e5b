"""A request as a handler means it: method, URL with its query, headers and one body, made ready to be sent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec

from headwater import form
from headwater.errors import HandlerError
from headwater.form import Form
from headwater.permission import parse
from headwater.transport import ACCEPT_ENCODING, TOTAL_SECONDS_MAX

if TYPE_CHECKING:
    from yarl import URL

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
USER_AGENT = "headwater"

_encode_json = msgspec.json.Encoder(decimal_format="number").encode


class Options(TypedDict, total=False):
    """What a request may say besides its method and URL."""

    params: Form  # query; nested mappings become `created[gte]`
    headers: Mapping[str, str]  # in place of those that are sent anyway, such as User-Agent
    json: Any  # body as JSON …
    data: Form  # … or as a form …
    content: bytes | str  # … or as it is
    timeout_seconds: float  # of each attempt
    ok: Collection[int]  # statuses beside 2xx that are answers, not errors
    idempotent: bool  # a POST or PATCH that may be sent twice


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A request as the handler meant it."""

    method: str
    url: URL = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    timeout_seconds: float
    ok: Collection[int]
    idempotent: bool


def prepare(method: str, url: str, options: Options) -> Call:
    unknown = options.keys() - Options.__annotations__.keys()
    if unknown:
        raise TypeError(f"http.request has no option {min(unknown)!r}")
    query = form.encode(params) if (params := options.get("params")) else ""
    if query:
        url = url.partition("#")[0]
        url = f"{url}{'&' if '?' in url else '?'}{query}"
    target = parse(url)
    body, content_type = _body(options)
    headers = {"Accept-Encoding": ACCEPT_ENCODING, "User-Agent": USER_AGENT}
    if content_type:
        headers["Content-Type"] = content_type
    given = options.get("headers")
    if given:
        lowered = {name.lower() for name in given}
        headers = {name: value for name, value in headers.items() if name.lower() not in lowered}
        headers.update(_checked(given))
    else:
        lowered = set()
    method = method.upper()
    return Call(
        method=method,
        url=target,
        headers=headers,
        body=body,
        timeout_seconds=options.get("timeout_seconds") or TOTAL_SECONDS_MAX,
        ok=options.get("ok", ()),
        idempotent=method in IDEMPOTENT_METHODS or options.get("idempotent", False) or "idempotency-key" in lowered,
    )


def _body(options: Options) -> tuple[bytes, str | None]:
    given = [name for name in ("json", "data", "content") if options.get(name) is not None]
    if len(given) > 1:
        raise TypeError(f"a request has one body: give `{given[0]}` or `{given[1]}`")
    if not given:
        return b"", None
    if given[0] == "json":
        return _encode_json(options["json"]), "application/json"
    if given[0] == "data":
        return form.encode(options["data"]).encode(), "application/x-www-form-urlencoded"
    content = options["content"]
    return (content.encode(), "text/plain; charset=utf-8") if isinstance(content, str) else (content, None)


def _checked(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        if not isinstance(value, str) or not name.isascii() or any(c < " " and c != "\t" for c in name + value):
            # The value may be a secret, so it is not repeated.
            raise HandlerError(
                f"The header {name!r} of a request cannot be sent: it must be text without line breaks.",
                hint="Does a secret of this connection end with one?",
            )
    return headers
