"""The provider's customer as a typed record: every field is checked, none is renamed."""

import msgspec

from headwater import Canonical


class Address(msgspec.Struct, omit_defaults=True):
    """A postal address."""

    city: str | None
    country: str | None
    line1: str | None
    line2: str | None
    postal_code: str | None
    state: str | None


class NeutralCustomer(Canonical, forbid_unknown_fields=False):
    """A customer."""

    id: str
    object: str
    address: Address | None
    balance: int
    created: int
    currency: str | None
    delinquent: bool
    description: str | None
    email: str | None
    invoice_prefix: str
    invoice_settings: dict[str, str | None]
    livemode: bool
    metadata: dict[str, str]
    name: str | None
    next_invoice_sequence: int
    phone: str | None
    preferred_locales: list[str]
    tax_exempt: str
    shipping: dict[str, Address | str | None] | None = None
