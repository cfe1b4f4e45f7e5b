"""The shapes of the fake provider's objects, written from Stripe's API reference (https://docs.stripe.com/api) at
`API_VERSION`. Pure: values in, a state out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

API_VERSION = "2025-03-31.basil"

Params = Mapping[str, Any]


def customer(identity: str, created: int, params: Params) -> dict[str, Any]:
    """https://docs.stripe.com/api/customers/object"""
    return {
        "id": identity, "object": "customer", "address": params.get("address"), "balance": params.get("balance", 0),
        "created": created, "currency": params.get("currency"), "default_source": None, "delinquent": False,
        "description": params.get("description"), "discount": None, "email": params.get("email"),
        "invoice_prefix": identity[-8:].upper(),
        "invoice_settings": {
            "custom_fields": None, "default_payment_method": params.get("payment_method"), "footer": None,
            "rendering_options": None,
        },
        "livemode": False, "metadata": params.get("metadata", {}), "name": params.get("name"),
        "next_invoice_sequence": 1, "phone": params.get("phone"),
        "preferred_locales": params.get("preferred_locales", []), "shipping": params.get("shipping"),
        "tax_exempt": params.get("tax_exempt", "none"), "test_clock": None,
    }  # fmt: skip


def product(identity: str, created: int, params: Params) -> dict[str, Any]:
    """https://docs.stripe.com/api/products/object"""
    return {
        "id": identity, "object": "product", "active": params.get("active", True), "created": created,
        "default_price": params.get("default_price"), "description": params.get("description"),
        "images": params.get("images", []), "livemode": False, "marketing_features": [],
        "metadata": params.get("metadata", {}), "name": params.get("name"), "package_dimensions": None,
        "shippable": params.get("shippable"), "statement_descriptor": params.get("statement_descriptor"),
        "tax_code": params.get("tax_code"), "type": "service", "unit_label": params.get("unit_label"),
        "updated": created, "url": params.get("url"),
    }  # fmt: skip


def price(identity: str, created: int, params: Params) -> dict[str, Any]:
    """https://docs.stripe.com/api/prices/object"""
    recurring = params.get("recurring")
    return {
        "id": identity, "object": "price", "active": params.get("active", True), "billing_scheme": "per_unit",
        "created": created, "currency": params.get("currency", "usd"), "custom_unit_amount": None, "livemode": False,
        "lookup_key": params.get("lookup_key"), "metadata": params.get("metadata", {}),
        "nickname": params.get("nickname"), "product": params.get("product"),
        "recurring": recurring and {
            "interval": recurring.get("interval", "month"), "interval_count": int(recurring.get("interval_count", 1)),
            "meter": None, "trial_period_days": None, "usage_type": "licensed",
        },
        "tax_behavior": "unspecified", "tiers_mode": None, "transform_quantity": None,
        "type": "recurring" if recurring else "one_time", "unit_amount": params.get("unit_amount"),
        "unit_amount_decimal": params.get("unit_amount_decimal") or str(params.get("unit_amount")),
    }  # fmt: skip


def subscription_item(
    identity: str, created: int, of: str, price_state: Params, quantity: int, period: tuple[int, int]
) -> dict[str, Any]:
    """https://docs.stripe.com/api/subscription_items/object"""
    return {
        "id": identity, "object": "subscription_item", "billing_thresholds": None, "created": created,
        "current_period_end": period[1], "current_period_start": period[0], "discounts": [], "metadata": {},
        "price": price_state, "quantity": quantity, "subscription": of, "tax_rates": [],
    }  # fmt: skip


def subscription(identity: str, created: int, params: Params, items: Sequence[Params]) -> dict[str, Any]:
    """https://docs.stripe.com/api/subscriptions/object"""
    return {
        "id": identity, "object": "subscription", "application": None, "automatic_tax": {"enabled": False},
        "billing_cycle_anchor": created, "cancel_at": None, "cancel_at_period_end": False, "canceled_at": None,
        "collection_method": "charge_automatically", "created": created, "currency": items[0]["price"]["currency"],
        "customer": params["customer"], "days_until_due": None,
        "default_payment_method": params.get("default_payment_method"), "description": params.get("description"),
        "discounts": [], "ended_at": None,
        "items": item_list(items, f"/v1/subscription_items?subscription={identity}"),
        "latest_invoice": None, "livemode": False, "metadata": params.get("metadata", {}), "pause_collection": None,
        "schedule": None, "start_date": created, "status": "active", "test_clock": None, "trial_end": None,
        "trial_start": None,
    }  # fmt: skip


def invoice(identity: str, created: int, params: Params, lines: Sequence[Params]) -> dict[str, Any]:
    """https://docs.stripe.com/api/invoices/object"""
    subtotal = sum(line["amount"] for line in lines)
    tax = subtotal // 10 if params.get("taxed") else 0
    of = params.get("subscription")
    taxes = [{"amount": tax, "tax_behavior": "exclusive", "taxable_amount": subtotal, "type": "tax_rate_details"}]
    return {
        "id": identity, "object": "invoice", "account_country": "US", "amount_due": subtotal + tax, "amount_paid": 0,
        "amount_remaining": subtotal + tax, "attempt_count": 0, "attempted": False, "auto_advance": True,
        "billing_reason": "subscription_create" if of else "manual", "collection_method": "charge_automatically",
        "created": created, "currency": params.get("currency", "usd"), "customer": params["customer"],
        "description": params.get("description"), "due_date": None, "effective_at": None, "ending_balance": None,
        "lines": item_list(lines, f"/v1/invoices/{identity}/lines"), "livemode": False,
        "metadata": params.get("metadata", {}), "number": None,
        "parent": of and {
            "quote_details": None, "subscription_details": {"metadata": {}, "subscription": of},
            "type": "subscription_details",
        },
        "period_end": created, "period_start": created, "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0, "starting_balance": 0, "status": "draft",
        "status_transitions": {
            "finalized_at": None, "marked_uncollectible_at": None, "paid_at": None, "voided_at": None,
        },
        "subtotal": subtotal, "total": subtotal + tax, "total_excluding_tax": subtotal,
        "total_taxes": taxes if tax else [],
    }  # fmt: skip


def invoice_line(identity: str, of: str, price_state: Params, quantity: int, period: tuple[int, int]) -> dict[str, Any]:
    """https://docs.stripe.com/api/invoice-line-item/object"""
    return {
        "id": identity, "object": "line_item", "amount": price_state["unit_amount"] * quantity,
        "currency": price_state["currency"], "description": f"{quantity} × {price_state['nickname'] or 'item'}",
        "invoice": of, "livemode": False, "metadata": {}, "period": {"end": period[1], "start": period[0]},
        "pricing": {
            "price_details": {"price": price_state["id"], "product": price_state["product"]},
            "type": "price_details", "unit_amount_decimal": price_state["unit_amount_decimal"],
        },
        "quantity": quantity, "taxes": [],
    }  # fmt: skip


def charge(identity: str, created: int, params: Params) -> dict[str, Any]:
    """https://docs.stripe.com/api/charges/object"""
    failed = bool(params.get("declined"))
    return {
        "id": identity, "object": "charge", "amount": params["amount"],
        "amount_captured": 0 if failed else params["amount"], "amount_refunded": 0, "application": None,
        "balance_transaction": None, "billing_details": {"address": None, "email": None, "name": None, "phone": None},
        "captured": not failed, "created": created, "currency": params.get("currency", "usd"),
        "customer": params.get("customer"), "description": params.get("description"), "disputed": False,
        "failure_code": "card_declined" if failed else None,
        "failure_message": "Your card was declined." if failed else None, "livemode": False,
        "metadata": params.get("metadata", {}), "on_behalf_of": None, "outcome": None, "paid": not failed,
        "payment_intent": params.get("payment_intent"), "payment_method": params.get("payment_method"),
        "payment_method_details": {"card": {"brand": "visa", "last4": "4242"}, "type": "card"},
        "receipt_email": params.get("receipt_email"), "refunded": False, "review": None, "shipping": None,
        "source": None, "statement_descriptor": params.get("statement_descriptor"),
        "status": "failed" if failed else "succeeded", "transfer_data": None,
    }  # fmt: skip


def refund(identity: str, created: int, params: Params, of: Params) -> dict[str, Any]:
    """https://docs.stripe.com/api/refunds/object"""
    return {
        "id": identity, "object": "refund", "amount": params["amount"], "balance_transaction": None,
        "charge": of["id"], "created": created, "currency": of["currency"],
        "destination_details": {"card": {"type": "refund"}, "type": "card"},
        "metadata": params.get("metadata", {}), "payment_intent": of["payment_intent"],
        "reason": params.get("reason"), "receipt_number": None, "source_transfer_reversal": None,
        "status": "succeeded", "transfer_reversal": None,
    }  # fmt: skip


def dispute(identity: str, created: int, of: Params, transaction: Params) -> dict[str, Any]:
    """https://docs.stripe.com/api/disputes/object"""
    return {
        "id": identity, "object": "dispute", "amount": of["amount"], "balance_transactions": [transaction],
        "charge": of["id"], "created": created, "currency": of["currency"], "evidence": {},
        "evidence_details": {
            "due_by": created + 9 * 86_400, "has_evidence": False, "past_due": False, "submission_count": 0,
        },
        "is_charge_refundable": False, "livemode": False, "metadata": {}, "payment_intent": of["payment_intent"],
        "reason": "fraudulent", "status": "needs_response",
    }  # fmt: skip


def credit_note(identity: str, created: int, params: Params, of: Params) -> dict[str, Any]:
    """https://docs.stripe.com/api/credit_notes/object"""
    amount = params["amount"]
    line = {
        "id": identity.replace("cn_", "cnli_"), "object": "credit_note_line_item", "amount": amount,
        "description": params.get("memo") or "Credit", "livemode": False, "quantity": 1, "type": "custom_line_item",
    }  # fmt: skip
    return {
        "id": identity, "object": "credit_note", "amount": amount, "amount_shipping": 0, "created": created,
        "currency": of["currency"], "customer": of["customer"], "customer_balance_transaction": None,
        "discount_amount": 0, "effective_at": created, "invoice": of["id"],
        "lines": item_list([line], f"/v1/credit_notes/{identity}/lines"), "livemode": False,
        "memo": params.get("memo"), "metadata": params.get("metadata", {}), "number": f"{of['number']}-CN-01",
        "out_of_band_amount": amount, "post_payment_amount": amount, "pre_payment_amount": 0,
        "reason": params.get("reason"), "refunds": [], "status": "issued", "subtotal": amount, "total": amount,
        "total_taxes": [], "type": "post_payment", "voided_at": None,
    }  # fmt: skip


def payout(identity: str, created: int, params: Params) -> dict[str, Any]:
    """https://docs.stripe.com/api/payouts/object"""
    return {
        "id": identity, "object": "payout", "amount": params["amount"], "arrival_date": created + 2 * 86_400,
        "automatic": False, "balance_transaction": None, "created": created,
        "currency": params.get("currency", "usd"), "description": params.get("description") or "STRIPE PAYOUT",
        "destination": "ba_" + identity[-24:], "failure_balance_transaction": None, "failure_code": None,
        "failure_message": None, "livemode": False, "metadata": params.get("metadata", {}), "method": "standard",
        "original_payout": None, "reconciliation_status": "not_applicable", "reversed_by": None,
        "source_type": "card", "statement_descriptor": params.get("statement_descriptor"), "status": "pending",
        "type": "bank_account",
    }  # fmt: skip


def balance_transaction(
    identity: str, created: int, kind: str, source: Params, amount: int, fee: int
) -> dict[str, Any]:
    """https://docs.stripe.com/api/balance_transactions/object"""
    fees = [{"amount": fee, "application": None, "currency": source["currency"],
             "description": "Stripe processing fees", "type": "stripe_fee"}]  # fmt: skip
    return {
        "id": identity, "object": "balance_transaction", "amount": amount, "available_on": created + 2 * 86_400,
        "created": created, "currency": source["currency"], "description": source.get("description"),
        "exchange_rate": None, "fee": fee, "fee_details": fees if fee else [], "net": amount - fee,
        "reporting_category": kind, "source": source["id"], "status": "pending", "type": kind,
    }  # fmt: skip


def event(identity: str, created: int, kind: str, state: Params, previous: Params | None) -> dict[str, Any]:
    """https://docs.stripe.com/api/events/object"""
    data: dict[str, Any] = {"object": state}
    if previous:
        data["previous_attributes"] = previous
    return {
        "id": identity, "object": "event", "api_version": API_VERSION, "created": created, "data": data,
        "livemode": False, "pending_webhooks": 0, "request": {"id": None, "idempotency_key": None}, "type": kind,
    }  # fmt: skip


def item_list(items: Sequence[Params], url: str) -> dict[str, Any]:
    """A list inside an object."""
    return {"object": "list", "data": list(items), "has_more": False, "total_count": len(items), "url": url}
