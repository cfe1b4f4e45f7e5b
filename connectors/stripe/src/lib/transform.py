"""Stripe's objects → canonical payloads. Pure, and the same for a poll, an event of the list, and a webhook.

Shapes are those of the pinned API version; where an older version said the same thing elsewhere, it is read there too,
because an event is written in the version that its account (or endpoint) had. What only one of the ways carries is left
out, so that equal objects have equal bytes. Amounts stay whole minor units.
"""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(seconds):
    """The instant of Stripe's seconds since 1970; None stays None."""
    return None if seconds is None else EPOCH + timedelta(seconds=seconds)


def identity(value):
    """The id of an expandable field: Stripe sends the id, or the object in its place."""
    return value.get("id") if isinstance(value, dict) else value


def test_mode(item):
    """Whether the object was made in test mode; objects that do not say so are left without an answer."""
    live = item.get("livemode")
    return None if live is None else not live


def customer(item):
    """https://docs.stripe.com/api/customers/object"""
    return {
        "id": item["id"],
        "name": item.get("name"),
        "email": item.get("email"),
        "phone": item.get("phone"),
        "description": item.get("description"),
        "address": _address(item.get("address")),
        "shipping": _shipping(item.get("shipping")),
        "currency": item.get("currency"),
        "balance": item.get("balance", item.get("account_balance")),
        "delinquent": item.get("delinquent"),
        "tax_exempt": item.get("tax_exempt"),
        "locales": item.get("preferred_locales"),
        "default_payment_method": identity((item.get("invoice_settings") or {}).get("default_payment_method")),
        "metadata": item.get("metadata"),
        "test": test_mode(item),
        "created_at": instant(item.get("created")),
    }


def product(item):
    """https://docs.stripe.com/api/products/object"""
    return {
        "id": item["id"],
        "name": item.get("name"),
        "description": item.get("description"),
        "active": item.get("active"),
        "kind": item.get("type"),
        "unit_label": item.get("unit_label"),
        "default_price": identity(item.get("default_price")),
        "tax_code": identity(item.get("tax_code")),
        "statement_descriptor": item.get("statement_descriptor"),
        "shippable": item.get("shippable"),
        "url": item.get("url"),
        "images": item.get("images"),
        "metadata": item.get("metadata"),
        "test": test_mode(item),
        "created_at": instant(item.get("created")),
        "updated_at": instant(item.get("updated")),
    }


def price(item):
    """https://docs.stripe.com/api/prices/object"""
    recurring = item.get("recurring") or {}
    return {
        "id": item["id"],
        "product": identity(item.get("product")),
        "currency": item.get("currency"),
        "unit_amount": item.get("unit_amount"),
        "unit_amount_decimal": item.get("unit_amount_decimal"),
        "active": item.get("active"),
        "kind": item.get("type"),
        "billing_scheme": item.get("billing_scheme"),
        "interval": recurring.get("interval"),
        "interval_count": recurring.get("interval_count"),
        "usage_type": recurring.get("usage_type"),
        "tax_behavior": item.get("tax_behavior"),
        "tiers_mode": item.get("tiers_mode"),
        "nickname": item.get("nickname"),
        "lookup_key": item.get("lookup_key"),
        "metadata": item.get("metadata"),
        "test": test_mode(item),
        "created_at": instant(item.get("created")),
    }


def subscription(item):
    """https://docs.stripe.com/api/subscriptions/object"""
    parts = (item.get("items") or {}).get("data") or []
    # Periods moved from the subscription to its items in 2025-03-31.basil.
    period = item if "current_period_start" in item else parts[0] if parts else {}
    return {
        "id": item["id"],
        "customer": identity(item.get("customer")),
        "status": item.get("status"),
        "currency": item.get("currency"),
        "items": [_subscription_item(part) for part in parts],
        "collection_method": item.get("collection_method"),
        "cancel_at_period_end": item.get("cancel_at_period_end"),
        "description": item.get("description"),
        "default_payment_method": identity(item.get("default_payment_method")),
        "latest_invoice": identity(item.get("latest_invoice")),
        "metadata": item.get("metadata"),
        "test": test_mode(item),
        "created_at": instant(item.get("created")),
        "started_at": instant(item.get("start_date")),
        "current_period_start_at": instant(period.get("current_period_start")),
        "current_period_end_at": instant(period.get("current_period_end")),
        "trial_start_at": instant(item.get("trial_start")),
        "trial_end_at": instant(item.get("trial_end")),
        "cancel_at": instant(item.get("cancel_at")),
        "canceled_at": instant(item.get("canceled_at")),
        "ended_at": instant(item.get("ended_at")),
    }


def invoice(item):
    """https://docs.stripe.com/api/invoices/object"""
    times = item.get("status_transitions") or {}
    origin = (item.get("parent") or {}).get("subscription_details") or {}
    lines = item.get("lines") or {}
    return {
        "id": item["id"],
        "number": item.get("number"),
        "customer": identity(item.get("customer")),
        "subscription": identity(origin.get("subscription") or item.get("subscription")),
        "status": item.get("status"),
        "currency": item.get("currency"),
        "subtotal": item.get("subtotal"),
        "tax": _tax(item),
        "total": item.get("total"),
        "amount_due": item.get("amount_due"),
        "amount_paid": item.get("amount_paid"),
        "amount_remaining": item.get("amount_remaining"),
        "attempt_count": item.get("attempt_count"),
        "billing_reason": item.get("billing_reason"),
        "collection_method": item.get("collection_method"),
        "description": item.get("description"),
        "lines": [_line(line) for line in lines.get("data") or []],
        "lines_complete": not lines.get("has_more", False),
        "metadata": item.get("metadata"),
        "test": test_mode(item),
        "created_at": instant(item.get("created", item.get("date"))),
        "due_at": instant(item.get("due_date")),
        "finalized_at": instant(times.get("finalized_at")),
        "paid_at": instant(times.get("paid_at")),
        "voided_at": instant(times.get("voided_at")),
        "period_start_at": instant(item.get("period_start")),
        "period_end_at": instant(item.get("period_end")),
    }


def charge(item):
    """https://docs.stripe.com/api/charges/object"""
    return {
        "id": item["id"],
        "amount": item.get("amount"),
        "currency": item.get("currency"),
        "status": item.get("status"),
        "customer": identity(item.get("customer")),
        "payment_intent": identity(item.get("payment_intent")),
        "method": identity(item.get("payment_method")),
        "method_kind": (item.get("payment_method_details") or {}).get("type"),
        "amount_captured": item.get("amount_captured"),
        "amount_refunded": item.get("amount_refunded"),
        "paid": item.get("paid"),
        "captured": item.get("captured"),
        "refunded": item.get("refunded"),
        "disputed": item.get("disputed"),
        "description": item.get("description"),
        "statement_descriptor": item.get("statement_descriptor"),
        "receipt_email": item.get("receipt_email"),
        "failure_code": item.get("failure_code"),
        "failure_message": item.get("failure_message"),
        "balance_transaction": identity(item.get("balance_transaction")),
        "metadata": item.get("metadata"),
        "test": test_mode(item),
        "created_at": instant(item.get("created")),
    }


def refund(item):
    """https://docs.stripe.com/api/refunds/object"""
    return {
        "id": item["id"],
        "amount": item.get("amount"),
        "currency": item.get("currency"),
        "status": item.get("status"),
        "payment": identity(item.get("charge")),
        "payment_intent": identity(item.get("payment_intent")),
        "reason": item.get("reason"),
        "description": item.get("description"),
        "failure_reason": item.get("failure_reason"),
        "balance_transaction": identity(item.get("balance_transaction")),
        "metadata": item.get("metadata"),
        "created_at": instant(item.get("created")),
    }


def dispute(item):
    """https://docs.stripe.com/api/disputes/object"""
    evidence = item.get("evidence_details") or {}
    return {
        "id": item["id"],
        "amount": item.get("amount"),
        "currency": item.get("currency"),
        "status": item.get("status"),
        "reason": item.get("reason"),
        "payment": identity(item.get("charge")),
        "payment_intent": identity(item.get("payment_intent")),
        "refundable": item.get("is_charge_refundable"),
        "evidence_due_at": instant(evidence.get("due_by")),
        "evidence_submissions": evidence.get("submission_count"),
        "balance_transactions": [identity(part) for part in item.get("balance_transactions") or []],
        "metadata": item.get("metadata"),
        "test": test_mode(item),
        "created_at": instant(item.get("created")),
    }


def credit_note(item):
    """https://docs.stripe.com/api/credit_notes/object"""
    lines = item.get("lines") or {}
    refunds = item.get("refunds") or ([item["refund"]] if item.get("refund") else [])
    return {
        "id": item["id"],
        "number": item.get("number"),
        "customer": identity(item.get("customer")),
        "invoice": identity(item.get("invoice")),
        "status": item.get("status"),
        "kind": item.get("type"),
        "reason": item.get("reason"),
        "memo": item.get("memo"),
        "currency": item.get("currency"),
        "subtotal": item.get("subtotal"),
        "tax": _tax(item),
        "total": item.get("total"),
        "out_of_band_amount": item.get("out_of_band_amount"),
        "lines": [_line(line) for line in lines.get("data") or []],
        "lines_complete": not lines.get("has_more", False),
        "refunds": [_note_refund(part) for part in refunds],
        "metadata": item.get("metadata"),
        "test": test_mode(item),
        "created_at": instant(item.get("created")),
        "effective_at": instant(item.get("effective_at")),
        "voided_at": instant(item.get("voided_at")),
    }


def payout(item):
    """https://docs.stripe.com/api/payouts/object"""
    return {
        "id": item["id"],
        "amount": item.get("amount"),
        "currency": item.get("currency"),
        "status": item.get("status"),
        "kind": item.get("type"),
        "method": item.get("method"),
        "automatic": item.get("automatic"),
        "account": identity(item.get("destination")),
        "balance_transaction": identity(item.get("balance_transaction")),
        "reconciliation_status": item.get("reconciliation_status"),
        "description": item.get("description"),
        "statement_descriptor": item.get("statement_descriptor"),
        "failure_code": item.get("failure_code"),
        "failure_message": item.get("failure_message"),
        "metadata": item.get("metadata"),
        "test": test_mode(item),
        "created_at": instant(item.get("created")),
        "arrives_at": instant(item.get("arrival_date")),
    }


def balance_transaction(item):
    """https://docs.stripe.com/api/balance_transactions/object"""
    return {
        "id": item["id"],
        "kind": item.get("type"),
        "category": item.get("reporting_category"),
        "status": item.get("status"),
        "amount": item.get("amount"),
        "fee": item.get("fee"),
        "net": item.get("net"),
        "currency": item.get("currency"),
        "exchange_rate": item.get("exchange_rate"),
        "fees": [
            {
                "amount": fee.get("amount"),
                "currency": fee.get("currency"),
                "kind": fee.get("type"),
                "description": fee.get("description"),
            }
            for fee in item.get("fee_details") or []
        ],
        "source": identity(item.get("source")),
        "description": item.get("description"),
        "created_at": instant(item.get("created")),
        "available_at": instant(item.get("available_on")),
    }


def event(item):
    """https://docs.stripe.com/api/events/object, and thin events: https://docs.stripe.com/api/v2/core/events/object"""
    data = item.get("data") or {}
    thing = data.get("object") if isinstance(data.get("object"), dict) else item.get("related_object") or {}
    request = item.get("request") or item.get("reason")
    created = item.get("created")
    return {
        "id": item["id"],
        "kind": item.get("type"),
        "object_type": thing.get("object", thing.get("type")),
        "object_id": thing.get("id"),
        "account": item.get("account", item.get("context")),
        "api_version": item.get("api_version"),
        "request": identity(request.get("request", request) if isinstance(request, dict) else request),
        "data": data or ({"related_object": thing} if thing else None),
        "test": test_mode(item),
        "created_at": instant(created) if isinstance(created, int) else created,
    }


def _address(value):
    parts = ("line1", "line2", "city", "state", "postal_code", "country")
    return value and {part: value.get(part) for part in parts}


def _shipping(value):
    return value and {
        "name": value.get("name"),
        "phone": value.get("phone"),
        "address": _address(value.get("address")),
    }


def _subscription_item(part):
    of = part.get("price") or part.get("plan") or {}
    return {
        "id": part.get("id"),
        "price": identity(of),
        "product": identity(of.get("product")) if isinstance(of, dict) else None,
        "quantity": part.get("quantity"),
    }


def _line(line):
    # The price of a line moved into `pricing` in 2025-03-31.basil.
    details = (line.get("pricing") or {}).get("price_details") or {}
    older = line.get("price") or line.get("plan") or {}
    older = older if isinstance(older, dict) else {"id": older}
    period = line.get("period") or {}
    return {
        "id": line.get("id"),
        "description": line.get("description"),
        "amount": line.get("amount"),
        "quantity": line.get("quantity"),
        "price": identity(details.get("price") or older.get("id")),
        "product": identity(details.get("product") or older.get("product")),
        "period_start_at": instant(period.get("start")),
        "period_end_at": instant(period.get("end")),
    }


def _note_refund(part):
    # A string in older versions; since 2024-09 an entry that names the refund.
    return identity(part.get("refund", part)) if isinstance(part, dict) else part


def _tax(item):
    taxes = item.get("total_taxes", item.get("total_tax_amounts"))
    return item.get("tax") if taxes is None else sum(tax["amount"] for tax in taxes)
