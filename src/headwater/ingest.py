"""The one pipeline of every record: an emission is identified, validated and brought to canonical form here; it is
deduplicated, ordered and versioned where its page commits, in the store.

emit ──> type known? stream declared? ──> validate ──> identify ──> collected ──> page commit ──> outcome
                                             └──> quarantine (only `batch(continue_on_error=True)`)

`from headwater import ingest` gives authors this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from headwater.canonical.schema import CanonicalType
from headwater.clock import to_micros
from headwater.context import Invocation, current
from headwater.errors import EmissionError, InvalidPayloadError, near_miss
from headwater.jsonvalue import canonical_bytes, content_hash, decode
from headwater.record import SOURCE_ID_CHARACTERS_MAX, Emission, Quarantined

IDEMPOTENCY_KEY_CHARACTERS_MAX = 1024
PAYLOAD_BYTES_MAX = 4 * 1024 * 1024
PAGE_EMISSIONS_MAX = 50_000
TOMBSTONE = b"{}"
NO_ID = "(no id)"

Payload = Any  # a mapping, a `Canonical` struct, or the bytes of a JSON object


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What `batch` did: the emissions it made, in order, and the records it set aside."""

    emissions: list[Emission]
    quarantined: list[Quarantined]


def canonical(
    type: str,
    payload: Payload,
    *,
    stream: str,
    idempotency_key: str,
    source_id: str | None = None,
    as_of: datetime | None = None,
    deleted: bool = False,
) -> Emission:
    """Emit one record; it takes effect when the page (or delivery) of this invocation commits, and exactly once.

    `source_id` is the object's id at the provider, the payload's `id` by default. `as_of` is when the payload was true
    there: the start of this page's fetch by default. With `deleted=True` the payload may be empty, and `source_id` or
    its `id` names the record to bury.

    Raises `EmissionError` for an undeclared stream or an unknown type, and `InvalidPayloadError` for a payload that
    does not fit; uncaught, either fails the page, of which nothing is then committed.
    """
    invocation = current("ingest.canonical")
    kind = _checked_type(invocation, type, stream)
    try:
        emission = prepare(
            kind,
            payload,
            connector_key=invocation.connector.key,
            stream=stream,
            idempotency_key=idempotency_key,
            source_id=source_id,
            as_of=invocation.as_of if as_of is None else _as_of_micros(as_of),
            deleted=deleted,
        )
    except InvalidPayloadError as error:
        raise _named(error, type, source_id or _guess_id(payload), stream) from error
    _collect(invocation, (emission,))
    return emission


def batch(
    type: str,
    payloads: Iterable[Payload],
    *,
    stream: str,
    idempotency_key: Callable[[Payload], str] | None = None,
    source_id: Callable[[Payload], str] | None = None,
    as_of: datetime | Callable[[Payload], datetime] | None = None,
    continue_on_error: bool = False,
) -> Batch:
    """Emit many records of one type; the functions are given each payload.

    Without `idempotency_key`, each key names its object, as is right for a list of objects as they are now. With
    `continue_on_error`, a record that does not fit is quarantined with its reason, and the page goes on; without it,
    the first one raises `InvalidPayloadError`.
    """
    invocation = current("ingest.batch")
    kind = _checked_type(invocation, type, stream)
    prefix = f"{invocation.connector.key}:{type}:"
    fixed = invocation.as_of if as_of is None else 0 if callable(as_of) else _as_of_micros(as_of)
    emissions: list[Emission] = []
    quarantined: list[Quarantined] = []
    settle = kind.settle
    for payload in payloads:
        key = None if idempotency_key is None else idempotency_key(payload)
        instant = _as_of_micros(as_of(payload)) if callable(as_of) else fixed
        try:
            encoded, identity = settle(payload)
            if source_id is not None:
                identity = source_id(payload)
            emissions.append(_emission(type, stream, encoded, identity, key, prefix, instant))
        except InvalidPayloadError as error:
            identity = _guess_id(payload)
            if not continue_on_error:
                raise _named(error, type, identity, stream) from error
            reason = str(_named(error, type, identity, stream))
            quarantined.append(_set_aside(type, payload, stream, key, prefix, instant, reason))
    _collect(invocation, emissions)
    invocation.quarantined.extend(quarantined)
    return Batch(emissions=emissions, quarantined=quarantined)


def prepare(
    kind: CanonicalType,
    payload: Payload,
    *,
    connector_key: str,
    stream: str,
    idempotency_key: str,
    source_id: str | None,
    as_of: int,
    deleted: bool = False,
) -> Emission:
    """The emission of a payload, outside any route: for a quarantined record that is released."""
    if deleted:
        encoded, identity = TOMBSTONE, None if source_id else _named_id(payload)
    else:
        encoded, identity = kind.settle(payload)
    prefix = f"{connector_key}:{kind.name}:"
    return _emission(kind.name, stream, encoded, source_id or identity, idempotency_key, prefix, as_of, deleted)


def _emission(
    type: str,
    stream: str,
    encoded: bytes,
    source_id: Any,
    idempotency_key: str | None,
    prefix: str,
    as_of: int,
    deleted: bool = False,
) -> Emission:
    if len(encoded) > PAYLOAD_BYTES_MAX:
        raise InvalidPayloadError(f"The payload is {len(encoded)} bytes, more than {PAYLOAD_BYTES_MAX}.")
    if not isinstance(source_id, str):
        source_id = _as_text(source_id)
    if not 0 < len(source_id) <= SOURCE_ID_CHARACTERS_MAX:
        raise InvalidPayloadError(f"The source id must have 1 to {SOURCE_ID_CHARACTERS_MAX} characters.")
    key = None
    # A key that names the object says no more than the record's own row does: none is stored beside it.
    if idempotency_key is not None and idempotency_key != prefix + source_id:
        if not 0 < len(idempotency_key) <= IDEMPOTENCY_KEY_CHARACTERS_MAX:
            raise InvalidPayloadError(
                f"The idempotency key must have 1 to {IDEMPOTENCY_KEY_CHARACTERS_MAX} characters."
            )
        key = content_hash(idempotency_key.encode())
    return Emission.of(type, stream, source_id, encoded, key, as_of, deleted)


def _as_text(identity: Any) -> str:
    if isinstance(identity, int) and not isinstance(identity, bool):
        return str(identity)
    raise InvalidPayloadError("The payload has no `id`; give `source_id`.")


def _named(error: InvalidPayloadError, type: str, identity: str, stream: str) -> InvalidPayloadError:
    return InvalidPayloadError(f"{type} {identity} of stream {stream}: {error.message}")


def _checked_type(invocation: Invocation, type: str, stream: str) -> CanonicalType:
    kind = invocation.types.get(type)
    if kind is None:
        raise EmissionError(f"There is no canonical type `{type}`.", hint=near_miss(type, invocation.types))
    if stream not in invocation.streams:
        raise EmissionError(
            f"The connector {invocation.connector.key} declares no stream `{stream}`.",
            hint=near_miss(stream, invocation.streams),
        )
    return kind


def _collect(invocation: Invocation, emissions: Sequence[Emission]) -> None:
    invocation.emissions.extend(emissions)
    if len(invocation.emissions) > PAGE_EMISSIONS_MAX:
        raise EmissionError(
            f"One page emitted more than {PAGE_EMISSIONS_MAX} records.",
            hint="Return a Page with has_more=True and emit the rest in the next one.",
        )


def _named_id(payload: Payload) -> Any:
    if isinstance(payload, (bytes, msgspec.Raw)):
        payload = decode(bytes(payload))
    return payload.get("id") if isinstance(payload, Mapping) else getattr(payload, "id", None)


def _guess_id(payload: Payload) -> str:
    try:
        return _as_text(found) if not isinstance(found := _named_id(payload), str) else found
    except InvalidPayloadError:
        return NO_ID


def _set_aside(
    type: str, payload: Payload, stream: str, key: str | None, prefix: str, as_of: int, reason: str
) -> Quarantined:
    try:
        raw = bytes(payload) if isinstance(payload, (bytes, msgspec.Raw)) else canonical_bytes(payload)
    except (TypeError, ValueError, RecursionError):
        raw = canonical_bytes({"repr": ascii(payload)[:PAYLOAD_BYTES_MAX]})
    identity = _guess_id(payload)
    is_known = identity != NO_ID
    return Quarantined(
        type=type,
        stream=stream,
        source_id=identity if is_known else None,
        idempotency_key=key or prefix + (identity if is_known else content_hash(raw).hex()),
        payload=raw,
        reason=reason,
        as_of=as_of,
    )


@lru_cache(maxsize=1024)
def _as_of_micros(as_of: datetime) -> int:
    if as_of.tzinfo is None:
        raise EmissionError("`as_of` must be an aware datetime.", hint="Use datetime.fromtimestamp(seconds, UTC).")
    return to_micros(as_of.astimezone(UTC))
