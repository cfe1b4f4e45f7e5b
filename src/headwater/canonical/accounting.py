"""What a bookkeeper reconciles: accounts, the movements of a balance, and what is paid out of it.

Amounts are whole minor units of `currency`, a lower-case ISO 4217 code.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from headwater.canonical.schema import Canonical, Instant, Part


class Account(Canonical):
    """Where money is kept or booked: a bank account, a provider's balance, a ledger account."""

    id: str
    name: str | None = None
    number: str | None = None  # masked where the provider masks it
    kind: str | None = None
    status: str | None = None
    currency: str | None = None
    balance: int | None = None
    available: int | None = None  # what may be spent now
    country: str | None = None
    email: str | None = None
    parent: str | None = None
    metadata: dict[str, str] | None = None
    test: bool | None = None
    created_at: Instant | None = None
    updated_at: Instant | None = None


class Fee(Part):
    """One part of what a movement cost."""

    amount: int | None = None
    currency: str | None = None
    kind: str | None = None
    description: str | None = None


class BalanceTransaction(Canonical):
    """One movement of a balance."""

    id: str
    account: str | None = None
    kind: str | None = None  # charge, refund, payout …
    category: str | None = None  # the provider's grouping of kinds for reports
    status: str | None = None  # pending until it is available
    amount: int | None = None  # gross; negative takes from the balance
    fee: int | None = None
    net: int | None = None
    currency: str | None = None
    exchange_rate: Decimal | None = None
    fees: tuple[Fee, ...] | None = None
    source: str | None = None  # the object that moved it
    payout: str | None = None
    description: str | None = None
    test: bool | None = None
    created_at: Instant | None = None
    available_at: Instant | None = None
    booked_on: date | None = None


class Payout(Canonical):
    """Money sent from a balance to a bank account."""

    id: str
    amount: int | None = None
    currency: str | None = None
    status: str | None = None
    kind: str | None = None  # of the destination: bank_account, card
    method: str | None = None  # standard, instant
    automatic: bool | None = None
    account: str | None = None  # where it goes
    balance_transaction: str | None = None
    reconciliation_status: str | None = None
    description: str | None = None
    statement_descriptor: str | None = None
    failure_code: str | None = None
    failure_message: str | None = None
    metadata: dict[str, str] | None = None
    test: bool | None = None
    created_at: Instant | None = None
    arrives_at: Instant | None = None


SHIPPED = (Account, BalanceTransaction, Payout)
