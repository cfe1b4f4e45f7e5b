"""The fake provider's API: a request's path and parameters → an act of the account or a page of the ledger."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from headwater.testing.provider_account import Account
from headwater.testing.provider_ledger import ApiError, Slice, State
from headwater.testing.provider_webhook import WebhookSender

LIMIT_MAX = 100
LIMIT_DEFAULT = 10
TYPES_MAX = 20  # of one `types[]` filter

FILTERS: Mapping[str, frozenset[str]] = {
    "customers": frozenset({"email"}),
    "products": frozenset({"active"}),
    "prices": frozenset({"active", "product", "type", "currency"}),
    "subscriptions": frozenset({"customer", "status"}),
    "invoices": frozenset({"customer", "status"}),
    "charges": frozenset({"customer", "payment_intent"}),
    "refunds": frozenset({"charge", "payment_intent"}),
    "disputes": frozenset({"charge", "payment_intent"}),
    "credit_notes": frozenset({"customer", "invoice"}),
    "payouts": frozenset({"status"}),
    "balance_transactions": frozenset({"type", "source", "currency"}),
    "events": frozenset({"type"}),
}
_PAGING = {"limit", "starting_after", "ending_before", "created", "expand"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer."""

    status: int = 200
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


class Api:
    """The routes."""

    def __init__(self, account: Account, webhooks: WebhookSender) -> None:
        self._account = account
        self._ledger = account.ledger
        self._webhooks = webhooks
        self._creates: dict[str, Callable[[Mapping[str, Any]], State]] = {
            "customers": account.create_customer,
            "products": account.create_product,
            "prices": account.create_price,
            "subscriptions": account.create_subscription,
            "invoices": account.create_invoice,
            "charges": account.create_charge,
            "refunds": account.create_refund,
            "credit_notes": account.create_credit_note,
            "payouts": account.create_payout,
        }
        self._deletes: dict[str, Callable[[str], State]] = {
            "customers": lambda identity: account.delete("customers", identity),
            "products": lambda identity: account.delete("products", identity),
            "subscriptions": account.cancel_subscription,
            "invoices": account.delete_invoice,
        }
        self._acts: dict[tuple[str, str], Callable[[str], State]] = {
            ("invoices", "finalize"): account.finalize_invoice,
            ("invoices", "pay"): account.pay_invoice,
            ("invoices", "void"): account.void_invoice,
            ("disputes", "close"): account.close_dispute,
        }

    def answer(self, asked: Asked) -> Answer:
        """Carry out a request that has proved itself; `ApiError` for what Stripe would refuse."""
        parts = asked.path.strip("/").split("/")
        if parts[0] != "v1" or not 2 <= len(parts) <= 4:
            raise self._unknown(asked)
        kind, *rest = parts[1:]
        params = form(asked.query if asked.method == "GET" else asked.body.decode("utf-8", "replace"))
        if kind == "webhook_endpoints":
            return Answer(body=self._endpoint(asked, rest, params))
        if kind == "balance" and asked.method == "GET":
            return Answer(body=self._balance())
        if kind not in FILTERS:
            raise self._unknown(asked)
        return Answer(body=self._resource(asked, kind, rest, params))

    def _resource(self, asked: Asked, kind: str, rest: list[str], params: dict[str, Any]) -> State:
        match asked.method, rest:
            case "GET", []:
                return self._list(kind, params)
            case "GET", [identity]:
                return self._retrieve(kind, identity)
            case "POST", [] if kind in self._creates:
                return self._creates[kind](params)
            case "POST", [identity] if kind in self._creates or kind == "disputes":
                return self._account.change(kind, identity, _typed(params))
            case "POST", [identity, act] if (kind, act) in self._acts:
                return self._acts[kind, act](identity)
            case "DELETE", [identity] if kind in self._deletes:
                return self._deletes[kind](identity)
            case _:
                raise self._unknown(asked)

    def _retrieve(self, kind: str, identity: str) -> State:
        buried = self._ledger.buried(kind).get(identity)
        if buried is not None:
            return {"id": identity, "object": buried["object"], "deleted": True}
        return self._ledger.get(kind, identity)

    def _list(self, kind: str, params: dict[str, Any]) -> State:
        types = params.pop("types", None) if kind == "events" else None
        for name in params:
            if name not in _PAGING | FILTERS[kind]:
                raise ApiError(400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name)
        filters = {name: value for name, value in params.items() if name in FILTERS[kind]}
        if kind == "subscriptions":
            filters.setdefault("status", "")  # all but the canceled ones
        states, has_more = self._ledger.page(kind, _slice(params), _matcher(filters, types))
        return {"object": "list", "url": f"/v1/{kind}", "has_more": has_more, "data": states}

    def _endpoint(self, asked: Asked, rest: list[str], params: Mapping[str, Any]) -> Mapping[str, Any]:
        match asked.method, rest:
            case "POST", []:
                if not params.get("url"):
                    raise ApiError(400, "Missing required param: url.", code="parameter_missing", param="url")
                events = params.get("enabled_events") or ["*"]
                return self._webhooks.register(params["url"], enabled_events=events).shown(with_secret=True)
            case "GET", []:
                data = [endpoint.shown() for endpoint in reversed(self._webhooks.endpoints.values())]
                return {"object": "list", "url": "/v1/webhook_endpoints", "has_more": False, "data": data}
            case "DELETE", [identity]:
                self._webhooks.remove(identity)
                return {"id": identity, "object": "webhook_endpoint", "deleted": True}
            case _:
                raise self._unknown(asked)

    def _balance(self) -> Mapping[str, Any]:
        amounts = {"available": 0, "pending": 0}
        for state in self._ledger.current("balance_transactions").values():
            amounts[state["status"]] += state["net"]
        parts = {name: [{"amount": amount, "currency": "usd"}] for name, amount in amounts.items()}
        return {"object": "balance", "livemode": False, **parts}

    @staticmethod
    def _unknown(asked: Asked) -> ApiError:
        return ApiError(404, f"Unrecognized request URL ({asked.method}: {asked.path}).")


def form(text: str) -> dict[str, Any]:
    """Form parameters as Stripe nests them: `items[0][price]=x`, `metadata[k]=v`, `types[]=a`."""
    root: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        keys = [part.rstrip("]") for part in name.split("[")]
        holder = root
        for key in keys[:-1]:
            holder = holder.setdefault(key, {})
            if not isinstance(holder, dict):
                raise ApiError(400, f"Invalid parameter: {name}", param=name)
        holder[keys[-1] or str(len(holder))] = value
    return {name: value if name == "metadata" else _listed(value) for name, value in root.items()}


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(key.isdecimal() for key in value):
        return [_listed(value[key]) for key in sorted(value, key=int)]
    return {key: _listed(part) for key, part in value.items()}


def _typed(params: Mapping[str, Any]) -> dict[str, Any]:
    words = {"true": True, "false": False}
    return {
        name: words.get(value, value) if isinstance(value, str) and name != "metadata" else value
        for name, value in params.items()
    }


def _slice(params: Mapping[str, Any]) -> Slice:
    limit = _number(params.get("limit", LIMIT_DEFAULT), "limit")
    if not 1 <= limit <= LIMIT_MAX:
        raise ApiError(400, "Limit must be from 1 to 100.", code="parameter_invalid_integer", param="limit")
    created = params.get("created", {})
    if not isinstance(created, dict):
        created = {"gte": created, "lte": created}
    bounds = {name: _number(value, f"created[{name}]") for name, value in created.items()}
    if unknown := set(bounds) - {"gt", "gte", "lt", "lte"}:
        raise ApiError(400, f"Received unknown parameter: created[{min(unknown)}]", code="parameter_unknown")
    part = Slice()
    return Slice(
        limit=limit,
        starting_after=params.get("starting_after"),
        ending_before=params.get("ending_before"),
        created_from=max(bounds.get("gte", part.created_from), bounds.get("gt", part.created_from - 1) + 1),
        created_to=min(bounds.get("lt", part.created_to), bounds.get("lte", part.created_to - 1) + 1),
    )


def _number(value: Any, name: str) -> int:
    if not re.fullmatch(r"-?\d{1,18}", str(value), re.ASCII):
        raise ApiError(400, f"Invalid integer: {value}", code="parameter_invalid_integer", param=name)
    return int(value)


def _matcher(filters: Mapping[str, Any], types: object) -> Callable[[State], bool] | None:
    if types is not None and (not isinstance(types, list) or len(types) > TYPES_MAX):
        raise ApiError(400, f"`types` is an array of up to {TYPES_MAX} event types.", param="types")
    if not filters and types is None:
        return None
    names = frozenset(types) if isinstance(types, list) else None

    def wanted(state: State) -> bool:
        if names is not None and state["type"] not in names:
            return False
        return all(_agrees(state, name, value) for name, value in filters.items())

    return wanted


def _agrees(state: State, name: str, value: str) -> bool:
    if name == "status" and value in {"", "all"}:
        return value == "all" or state["status"] != "canceled"
    held = state.get(name)
    if name == "type" and value.endswith("*"):
        return str(held).startswith(value[:-1])
    return (str(held).lower() if isinstance(held, bool) else str(held)) == value
