"""The business of the fake provider: what each act does to the account, and which events Stripe tells of it.

Every act is one method: it checks its parameters, puts the new states into the ledger and appends the events, in the
order in which Stripe's documentation lists them (https://docs.stripe.com/api/events/types).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headwater.clock import Clock
from headwater.testing import provider_shape as shape
from headwater.testing.provider_ledger import ApiError, Ledger, State

Params = Mapping[str, Any]

MONTH_SECONDS = 30 * 86_400
FEE_PER_THOUSAND = 29
FEE_FIXED = 30

EVENT_PREFIX = {
    "customers": "customer",
    "products": "product",
    "prices": "price",
    "subscriptions": "customer.subscription",
    "invoices": "invoice",
    "charges": "charge",
    "refunds": "refund",
    "disputes": "charge.dispute",
    "credit_notes": "credit_note",
    "payouts": "payout",
}
CHANGEABLE = {
    "customers": {"name", "email", "phone", "description", "address", "shipping", "metadata", "balance", "tax_exempt",
                  "preferred_locales"},
    "products": {"name", "description", "active", "metadata", "url", "unit_label", "default_price", "images",
                 "tax_code", "statement_descriptor", "shippable"},
    "prices": {"active", "metadata", "nickname", "lookup_key", "tax_behavior"},
    "subscriptions": {"metadata", "description", "cancel_at_period_end", "default_payment_method"},
    "invoices": {"metadata", "description"},
    "charges": {"metadata", "description", "receipt_email"},
    "refunds": {"metadata"},
    "disputes": {"metadata"},
    "credit_notes": {"metadata", "memo"},
    "payouts": {"metadata"},
}  # fmt: skip


class Account:
    """One merchant's account. `is_quiet` acts without events, as if before the thirty days that they are kept."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self.ledger = ledger
        self._clock = clock
        self.is_quiet = False
        self.created: int | None = None  # dates new objects in the past while it is set

    def create_customer(self, params: Params) -> State:
        """A new customer."""
        return self._add("customers", shape.customer(self.ledger.new_id("cus", 14), self._second(), params))

    def create_product(self, params: Params) -> State:
        """A new product."""
        _need(params, "name")
        return self._add("products", shape.product(self.ledger.new_id("prod", 14), self._second(), params))

    def create_price(self, params: Params) -> State:
        """A new price of a product."""
        self.ledger.get("products", _need(params, "product"))
        params = {**params, "unit_amount": _whole(params, "unit_amount")}
        return self._add("prices", shape.price(self.ledger.new_id("price"), self._second(), params))

    def create_subscription(self, params: Params) -> State:
        """A new subscription to one price or several: invoiced and paid at once, as Stripe does for a saved card."""
        self.ledger.get("customers", _need(params, "customer"))
        created = self._second()
        period = (created, created + MONTH_SECONDS)
        identity = self.ledger.new_id("sub")
        wanted = list(_need(params, "items"))
        items = [
            shape.subscription_item(
                self.ledger.new_id("si", 14), created, identity, self.ledger.get("prices", _need(item, "price")),
                int(item.get("quantity", 1)), period,
            )
            for item in wanted
        ]  # fmt: skip
        state = self._add("subscriptions", shape.subscription(identity, created, params, items))
        invoice = self.create_invoice({"customer": state["customer"], "subscription": identity, "taxed": True})
        self.pay_invoice(invoice["id"])
        return self.change("subscriptions", identity, {"latest_invoice": invoice["id"]}, checked=False)

    def create_invoice(self, params: Params) -> State:
        """A new draft for what a subscription (or one `price`) costs."""
        self.ledger.get("customers", _need(params, "customer"))
        created = self._second()
        identity = self.ledger.new_id("in")
        if params.get("subscription"):
            of = self.ledger.get("subscriptions", params["subscription"])
            wanted = [(item["price"], item["quantity"]) for item in of["items"]["data"]]
        else:
            wanted = [(self.ledger.get("prices", _need(params, "price")), 1)]
        lines = [
            shape.invoice_line(self.ledger.new_id("il"), identity, price, quantity, (created, created + MONTH_SECONDS))
            for price, quantity in wanted
        ]
        currency = wanted[0][0]["currency"]
        return self._add("invoices", shape.invoice(identity, created, {**params, "currency": currency}, lines))

    def finalize_invoice(self, identity: str) -> State:
        """Make a draft final."""
        state = self.ledger.get("invoices", identity)
        _only_if(state["status"] == "draft", "This invoice is already finalized.")
        times = {**state["status_transitions"], "finalized_at": self._second()}
        number = f"{identity[-8:].upper()}-{len(self.ledger.current('invoices')):04d}"
        changes = {"status": "open", "number": number, "status_transitions": times, "effective_at": self._second()}
        return self.change("invoices", identity, changes, word="finalized", checked=False)

    def pay_invoice(self, identity: str) -> State:
        """Charge the customer for an invoice; a draft is made final first."""
        state = self.ledger.get("invoices", identity)
        if state["status"] == "draft":
            state = self.finalize_invoice(identity)
        _only_if(state["status"] == "open", "This invoice cannot be paid.")
        self.create_charge({
            "amount": state["total"], "currency": state["currency"], "customer": state["customer"],
            "description": f"Payment for invoice {state['number']}", "payment_intent": self.ledger.new_id("pi"),
        })  # fmt: skip
        times = {**state["status_transitions"], "paid_at": self._second()}
        changes = {
            "status": "paid", "amount_paid": state["total"], "amount_remaining": 0, "attempted": True,
            "attempt_count": state["attempt_count"] + 1, "status_transitions": times,
        }  # fmt: skip
        return self.change("invoices", identity, changes, word="paid", checked=False)

    def void_invoice(self, identity: str) -> State:
        """Void an open invoice."""
        state = self.ledger.get("invoices", identity)
        _only_if(state["status"] == "open", "Only an open invoice can be voided.")
        times = {**state["status_transitions"], "voided_at": self._second()}
        changes = {"status": "void", "status_transitions": times}
        return self.change("invoices", identity, changes, word="voided", checked=False)

    def delete_invoice(self, identity: str) -> State:
        """Delete a draft."""
        _only_if(self.ledger.get("invoices", identity)["status"] == "draft", "Only a draft can be deleted.")
        return self.delete("invoices", identity)

    def cancel_subscription(self, identity: str) -> State:
        """End a subscription now: it stays readable, with the status `canceled`."""
        _only_if(self.ledger.get("subscriptions", identity)["status"] != "canceled", "It is already canceled.")
        changes = {"status": "canceled", "canceled_at": self._second(), "ended_at": self._second()}
        return self.change("subscriptions", identity, changes, word="deleted", checked=False)

    def create_charge(self, params: Params) -> State:
        """Take money, or fail to when `declined` is given."""
        params = {**params, "amount": _whole(params, "amount")}
        _only_if(params["amount"] > 0, "Invalid positive integer", param="amount")
        state = shape.charge(self.ledger.new_id("ch"), self._second(), params)
        if state["paid"]:
            fee = state["amount"] * FEE_PER_THOUSAND // 1000 + FEE_FIXED
            state["balance_transaction"] = self._move("charge", state, state["amount"], fee)["id"]
        return self._add("charges", state, word="succeeded" if state["paid"] else "failed")

    def create_refund(self, params: Params) -> State:
        """Give back a charge, in full or in part."""
        of = self.ledger.get("charges", _need(params, "charge"))
        left = of["amount_captured"] - of["amount_refunded"]
        amount = _whole(params, "amount") if params.get("amount") is not None else left
        _only_if(0 < amount <= left, "Refund amount is greater than unrefunded amount on charge.", param="amount")
        state = shape.refund(self.ledger.new_id("re"), self._second(), {**params, "amount": amount}, of)
        state["balance_transaction"] = self._move("refund", state, -amount, 0)["id"]
        refunded = of["amount_refunded"] + amount
        changes = {"amount_refunded": refunded, "refunded": refunded == of["amount"]}
        self._add("refunds", state)
        self.change("charges", of["id"], changes, word="refunded", checked=False)
        return state

    def create_dispute(self, params: Params) -> State:
        """The customer's bank questions a charge."""
        of = self.ledger.get("charges", _need(params, "charge"))
        _only_if(of["paid"] and not of["disputed"], "This charge cannot be disputed.")
        identity = self.ledger.new_id("du")
        source = {"id": identity, "currency": of["currency"], "description": None}
        transaction = self._move("adjustment", source, -of["amount"], 1500)
        state = self._add("disputes", shape.dispute(identity, self._second(), of, transaction))
        self.change("charges", of["id"], {"disputed": True}, checked=False)
        return state

    def close_dispute(self, identity: str, *, won: bool = False) -> State:
        """The bank decides."""
        changes = {"status": "won" if won else "lost"}
        return self.change("disputes", identity, changes, word="closed", checked=False)

    def create_credit_note(self, params: Params) -> State:
        """Lessen a paid invoice."""
        of = self.ledger.get("invoices", _need(params, "invoice"))
        _only_if(of["status"] == "paid", "The invoice is not paid.", param="invoice")
        params = {**params, "amount": _whole(params, "amount")}
        _only_if(0 < params["amount"] <= of["amount_paid"], "The amount is too large.", param="amount")
        return self._add("credit_notes", shape.credit_note(self.ledger.new_id("cn"), self._second(), params, of))

    def create_payout(self, params: Params) -> State:
        """Send money to the bank."""
        params = {**params, "amount": _whole(params, "amount")}
        state = shape.payout(self.ledger.new_id("po"), self._second(), params)
        state["balance_transaction"] = self._move("payout", state, -state["amount"], 0)["id"]
        return self._add("payouts", state)

    def settle_payout(self, identity: str, *, failed: bool = False) -> State:
        """The bank has the money, or sends it back."""
        changes = {"status": "failed", "failure_code": "account_closed"} if failed else {"status": "paid"}
        return self.change("payouts", identity, changes, word="failed" if failed else "paid", checked=False)

    def settle_balance(self) -> int:
        """Make the movements available whose day has come; Stripe tells of it by no event."""
        settled = 0
        for state in list(self.ledger.current("balance_transactions").values()):
            if state["status"] == "pending" and state["available_on"] <= self._second():
                self.ledger.put("balance_transactions", {**state, "status": "available"})
                settled += 1
        return settled

    def change(
        self, kind: str, identity: str, changes: Params, *, word: str = "updated", checked: bool = True
    ) -> State:
        """Change fields of an object; metadata is merged, an empty value removes a key."""
        old = self.ledger.get(kind, identity)
        if checked and (unknown := set(changes) - CHANGEABLE.get(kind, set())):
            name = min(unknown)
            raise ApiError(400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name)
        if "metadata" in changes:
            merged = {**old["metadata"], **(changes["metadata"] or {})}
            changes = {**changes, "metadata": {key: value for key, value in merged.items() if value != ""}}
        if kind == "products":
            changes = {**changes, "updated": self._second()}
        new = {**old, **changes}
        self.ledger.put(kind, new)
        self._tell(f"{EVENT_PREFIX[kind]}.{word}", new, {key: old.get(key) for key in changes})
        return new

    def delete(self, kind: str, identity: str) -> State:
        """Delete an object; `{"id", "object", "deleted": true}`."""
        state = self.ledger.get(kind, identity)
        if kind == "products":
            used = any(price["product"] == identity for price in self.ledger.current("prices").values())
            _only_if(not used, "This product cannot be deleted because it has one or more user-created prices.")
        if kind == "customers":
            self._cancel_all_of(identity)
        self.ledger.bury(kind, identity)
        self._tell(f"{EVENT_PREFIX[kind]}.deleted", state, None)
        return {"id": identity, "object": state["object"], "deleted": True}

    def happen(self, event_type: str, state: Params) -> None:
        """Tell of something that no resource of this fake stands for, such as `payment_intent.succeeded`."""
        self._tell(event_type, state, None)

    def _cancel_all_of(self, customer: str) -> None:
        for state in list(self.ledger.current("subscriptions").values()):
            if state["customer"] == customer and state["status"] != "canceled":
                self.cancel_subscription(state["id"])

    def _move(self, kind: str, source: Params, amount: int, fee: int) -> State:
        identity = self.ledger.new_id("txn")
        state = shape.balance_transaction(identity, self._second(), kind, source, amount, fee)
        self.ledger.put("balance_transactions", state)
        return state

    def _add(self, kind: str, state: State, *, word: str = "created") -> State:
        self.ledger.put(kind, state)
        self._tell(f"{EVENT_PREFIX[kind]}.{word}", state, None)
        return state

    def _tell(self, event_type: str, state: Params, previous: Params | None) -> None:
        if not self.is_quiet:
            created = self.ledger.now_seconds()
            self.ledger.tell(shape.event(self.ledger.new_id("evt"), created, event_type, state, previous))

    def _second(self) -> int:
        return self.created if self.created is not None else self.ledger.now_seconds()


def _need(params: Params, name: str) -> Any:
    if not params.get(name):
        raise ApiError(400, f"Missing required param: {name}.", code="parameter_missing", param=name)
    return params[name]


def _whole(params: Params, name: str) -> int:
    value = _need(params, name)
    try:
        return int(str(value))
    except ValueError:
        raise ApiError(400, f"Invalid integer: {value}", code="parameter_invalid_integer", param=name) from None


def _only_if(condition: bool, message: str, *, param: str = "") -> None:
    if not condition:
        raise ApiError(400, message, param=param)
