"""A customer as the shop tells of it, in a list and in an event alike."""

from datetime import datetime
from typing import Any

from headwater import ingest


def emit(customer: dict[str, Any], key: str) -> None:
    """Emit a customer, true since its last change; one that left is buried."""
    ingest.canonical(
        "customer",
        {} if customer["gone"] else {"id": customer["id"], "email": customer["email"]},
        stream="customers",
        idempotency_key=key,
        source_id=customer["id"],
        as_of=datetime.fromisoformat(customer["changed_at"]),
        deleted=customer["gone"],
    )
