"""The streams: where each is listed, what its objects become, and which events tell that one of them changed."""

from collections.abc import Callable
from typing import Any, NamedTuple

from . import transform


class Resource(NamedTuple):
    """One stream of Stripe's objects."""

    stream: str
    canonical_type: str
    object: str  # the word in the `object` field
    path: str
    transform: Callable[[dict[str, Any]], dict[str, Any]]
    event_types: tuple[str, ...] = ()  # at most 20: what one `types[]` filter takes
    params: tuple[tuple[str, str], ...] = ()  # of its list, always

    @property
    def deletions(self) -> tuple[str, ...]:
        """Those of its event types that tell of an end."""
        return tuple(event_type for event_type in self.event_types if event_type in DELETIONS)

    def record_key(self, source_id: str) -> str:
        """The idempotency key that names the object itself."""
        return f"stripe:{self.canonical_type}:{source_id}"


def _types(prefix: str, words: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{word}" for word in words.split())


RESOURCES = (
    Resource(
        "customers", "customer", "customer", "/v1/customers", transform.customer,
        _types("customer", "created updated deleted"),
    ),
    Resource(
        "products", "product", "product", "/v1/products", transform.product,
        _types("product", "created updated deleted"),
    ),
    Resource(
        "prices", "price", "price", "/v1/prices", transform.price,
        _types("price", "created updated deleted"),
    ),
    Resource(
        "subscriptions", "subscription", "subscription", "/v1/subscriptions", transform.subscription,
        _types(
            "customer.subscription",
            "created updated deleted paused resumed pending_update_applied pending_update_expired trial_will_end",
        ),
        (("status", "all"),),  # without it, Stripe leaves out the canceled ones
    ),
    Resource(
        "invoices", "invoice", "invoice", "/v1/invoices", transform.invoice,
        _types(
            "invoice",
            "created updated deleted finalized finalization_failed marked_uncollectible overdue overpaid paid "
            "payment_action_required payment_failed payment_succeeded sent voided will_be_due",
        ),
    ),
    Resource(
        "charges", "payment", "charge", "/v1/charges", transform.charge,
        _types("charge", "succeeded updated captured refunded failed pending expired"),
    ),
    Resource(
        "refunds", "refund", "refund", "/v1/refunds", transform.refund,
        (*_types("refund", "created updated failed"), "charge.refund.updated", "charge.refunded"),
    ),
    Resource(
        "disputes", "dispute", "dispute", "/v1/disputes", transform.dispute,
        _types("charge.dispute", "created updated closed funds_withdrawn funds_reinstated"),
    ),
    Resource(
        "credit_notes", "credit_note", "credit_note", "/v1/credit_notes", transform.credit_note,
        _types("credit_note", "created updated voided"),
    ),
    Resource(
        "payouts", "payout", "payout", "/v1/payouts", transform.payout,
        _types("payout", "created updated paid failed canceled reconciliation_completed"),
    ),
    # No event tells of a balance transaction: see `poll.by_created`.
    Resource(
        "balance_transactions", "balance_transaction", "balance_transaction", "/v1/balance_transactions",
        transform.balance_transaction,
    ),
)  # fmt: skip
BY_STREAM = {resource.stream: resource for resource in RESOURCES}
BY_OBJECT = {resource.object: resource for resource in RESOURCES}

# `customer.subscription.deleted` is none of these: an ended subscription stays readable, with the status `canceled`.
DELETIONS = frozenset({"customer.deleted", "product.deleted", "price.deleted", "invoice.deleted"})
