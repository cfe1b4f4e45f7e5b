"""The canonical types that Headwater ships, by name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from headwater.canonical import accounting, code, commerce, event
from headwater.canonical.schema import Canonical, CanonicalType, from_struct

STRUCTS: tuple[type[Canonical], ...] = (*commerce.SHIPPED, *accounting.SHIPPED, *event.SHIPPED, *code.SHIPPED)


@cache
def shipped() -> Mapping[str, CanonicalType]:
    """Every shipped canonical type by its name; the same mapping each time."""
    kinds = [from_struct(struct) for struct in STRUCTS]
    return MappingProxyType({kind.name: kind for kind in kinds})
