"""What a shop knows: customers, what they are offered, what they owe, what they paid, and what went back.

Amounts are whole minor units of `currency` (cents, yen), a lower-case ISO 4217 code. Ids are those of the provider; a
field that names another object holds that object's id. `status` keeps the provider's own word.
"""

from __future__ import annotations

from decimal import Decimal

from headwater.canonical.schema import Canonical, Instant, Part


class Address(Part):
    """A postal address."""

    line1: str | None = None
    line2: str | None = None
    city: str | None = None
    state: str | None = None
    postal_code: str | None = None
    country: str | None = None  # ISO 3166-1 alpha-2


class Shipping(Part):
    """Where goods go, and to whom."""

    name: str | None = None
    phone: str | None = None
    address: Address | None = None


class Customer(Canonical):
    """Somebody who buys."""

    id: str
    name: str | None = None
    email: str | None = None
    phone: str | None = None
    description: str | None = None
    address: Address | None = None
    shipping: Shipping | None = None
    currency: str | None = None
    balance: int | None = None  # negative: the customer is in credit
    delinquent: bool | None = None
    tax_exempt: str | None = None
    locales: tuple[str, ...] | None = None  # preferred first
    default_payment_method: str | None = None
    metadata: dict[str, str] | None = None
    test: bool | None = None  # made in the provider's test mode
    created_at: Instant | None = None
    updated_at: Instant | None = None


class Product(Canonical):
    """Something that is sold."""

    id: str
    name: str | None = None
    description: str | None = None
    active: bool | None = None
    kind: str | None = None  # good or service, or the provider's own word
    unit_label: str | None = None
    default_price: str | None = None
    tax_code: str | None = None
    statement_descriptor: str | None = None
    shippable: bool | None = None
    url: str | None = None
    images: tuple[str, ...] | None = None
    metadata: dict[str, str] | None = None
    test: bool | None = None
    created_at: Instant | None = None
    updated_at: Instant | None = None


class Price(Canonical):
    """What a product costs, once or for each interval."""

    id: str
    product: str | None = None
    currency: str | None = None
    unit_amount: int | None = None  # None where it is tiered, or finer than a minor unit
    unit_amount_decimal: Decimal | None = None  # minor units with fractions
    active: bool | None = None
    kind: str | None = None  # one_time or recurring
    billing_scheme: str | None = None
    interval: str | None = None  # day, week, month, year
    interval_count: int | None = None
    usage_type: str | None = None
    tax_behavior: str | None = None
    tiers_mode: str | None = None
    nickname: str | None = None
    lookup_key: str | None = None
    metadata: dict[str, str] | None = None
    test: bool | None = None
    created_at: Instant | None = None


class SubscriptionItem(Part):
    """One price of a subscription."""

    id: str | None = None
    price: str | None = None
    product: str | None = None
    quantity: int | None = None


class Subscription(Canonical):
    """A customer's standing order."""

    id: str
    customer: str | None = None
    status: str | None = None
    currency: str | None = None
    items: tuple[SubscriptionItem, ...] | None = None
    collection_method: str | None = None
    cancel_at_period_end: bool | None = None
    description: str | None = None
    default_payment_method: str | None = None
    latest_invoice: str | None = None
    metadata: dict[str, str] | None = None
    test: bool | None = None
    created_at: Instant | None = None
    started_at: Instant | None = None
    current_period_start_at: Instant | None = None
    current_period_end_at: Instant | None = None
    trial_start_at: Instant | None = None
    trial_end_at: Instant | None = None
    cancel_at: Instant | None = None
    canceled_at: Instant | None = None
    ended_at: Instant | None = None


class InvoiceLine(Part):
    """One line of an invoice or a credit note."""

    id: str | None = None
    description: str | None = None
    amount: int | None = None
    quantity: int | None = None
    price: str | None = None
    product: str | None = None
    period_start_at: Instant | None = None
    period_end_at: Instant | None = None


class Invoice(Canonical):
    """What a customer is asked to pay."""

    id: str
    number: str | None = None
    customer: str | None = None
    subscription: str | None = None
    status: str | None = None
    currency: str | None = None
    subtotal: int | None = None
    tax: int | None = None
    total: int | None = None
    amount_due: int | None = None
    amount_paid: int | None = None
    amount_remaining: int | None = None
    attempt_count: int | None = None
    billing_reason: str | None = None
    collection_method: str | None = None
    description: str | None = None
    lines: tuple[InvoiceLine, ...] | None = None
    lines_complete: bool | None = None  # False where the provider sent the first lines only
    metadata: dict[str, str] | None = None
    test: bool | None = None
    created_at: Instant | None = None
    due_at: Instant | None = None
    finalized_at: Instant | None = None
    paid_at: Instant | None = None
    voided_at: Instant | None = None
    period_start_at: Instant | None = None
    period_end_at: Instant | None = None
    updated_at: Instant | None = None


class Payment(Canonical):
    """Money taken from a customer, or the attempt to."""

    id: str
    amount: int | None = None
    currency: str | None = None
    status: str | None = None
    customer: str | None = None
    invoice: str | None = None
    payment_intent: str | None = None
    method: str | None = None  # id of the payment method
    method_kind: str | None = None  # card, sepa_debit …
    amount_captured: int | None = None
    amount_refunded: int | None = None
    paid: bool | None = None
    captured: bool | None = None
    refunded: bool | None = None  # in full
    disputed: bool | None = None
    description: str | None = None
    statement_descriptor: str | None = None
    receipt_email: str | None = None
    failure_code: str | None = None
    failure_message: str | None = None
    balance_transaction: str | None = None
    metadata: dict[str, str] | None = None
    test: bool | None = None
    created_at: Instant | None = None
    updated_at: Instant | None = None


class Refund(Canonical):
    """Money given back."""

    id: str
    amount: int | None = None
    currency: str | None = None
    status: str | None = None
    payment: str | None = None  # what it gives back
    payment_intent: str | None = None
    reason: str | None = None
    description: str | None = None
    failure_reason: str | None = None
    balance_transaction: str | None = None
    metadata: dict[str, str] | None = None
    test: bool | None = None
    created_at: Instant | None = None


class Dispute(Canonical):
    """A payment that the customer's bank questions."""

    id: str
    amount: int | None = None
    currency: str | None = None
    status: str | None = None
    reason: str | None = None
    payment: str | None = None
    payment_intent: str | None = None
    refundable: bool | None = None
    evidence_due_at: Instant | None = None
    evidence_submissions: int | None = None
    balance_transactions: tuple[str, ...] | None = None
    metadata: dict[str, str] | None = None
    test: bool | None = None
    created_at: Instant | None = None


class CreditNote(Canonical):
    """What an invoice is lessened by, after it was made final."""

    id: str
    number: str | None = None
    customer: str | None = None
    invoice: str | None = None
    status: str | None = None
    kind: str | None = None
    reason: str | None = None
    memo: str | None = None
    currency: str | None = None
    subtotal: int | None = None
    tax: int | None = None
    total: int | None = None
    out_of_band_amount: int | None = None
    lines: tuple[InvoiceLine, ...] | None = None
    lines_complete: bool | None = None
    refunds: tuple[str, ...] | None = None
    metadata: dict[str, str] | None = None
    test: bool | None = None
    created_at: Instant | None = None
    effective_at: Instant | None = None
    voided_at: Instant | None = None


SHIPPED = (Customer, Product, Price, Subscription, Invoice, Payment, Refund, Dispute, CreditNote)
