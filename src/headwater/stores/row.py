"""What a row says, as the values that the contract speaks of: the same columns in every dialect.

Instants are microseconds, flags are numbers or truth values, sums may be missing. No store's own ways are known here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from headwater.account import Account, Invitation, Session
from headwater.clock import from_micros, to_micros
from headwater.delivery import ClaimedDelivery, Delivery, DeliveryState, Rejection
from headwater.deployment import Deployment, StoredBundle
from headwater.errors import UsageError
from headwater.intention import ApiKey, AuditEntry, StoredConnection, StoredSecret
from headwater.record import COUNT_NAMES, Counts, QuarantinedRecord, Record, Version
from headwater.run import (
    Backfill,
    BackfillWindow,
    PageRow,
    RequestLog,
    Run,
    RunState,
    StreamState,
    TickRun,
    Window,
)

Row = Mapping[str, Any]

_headers = msgspec.json.Decoder(dict[str, str]).decode


def instant(micros: int | None) -> datetime | None:
    """The instant that a column holds, or None."""
    return None if micros is None else from_micros(micros)


def micros(at: datetime | None) -> int | None:
    """What a column holds for an instant, or for None."""
    return None if at is None else to_micros(at)


def counts(row: Row) -> Counts:
    """The seven counters of a row."""
    return Counts(**{name: row[name] or 0 for name in COUNT_NAMES})


def window(row: Row) -> Window | None:
    """The window of a row, if it has one."""
    if row["window_start"] is None:
        return None
    return Window(from_micros(row["window_start"]), from_micros(row["window_end"]))


def window_micros(window: Window | None) -> dict[str, Any]:
    """The two columns of a window."""
    return {
        "window_start": None if window is None else to_micros(window.start),
        "window_end": None if window is None else to_micros(window.end),
    }


def seen_record(after: str | None) -> tuple[str, str, str] | None:
    """The (connection, type, source id) that a `record_cursor` names; `UsageError` for any other text."""
    if after is None:
        return None
    try:
        return msgspec.json.decode(after, type=tuple[str, str, str])
    except msgspec.DecodeError as error:
        raise UsageError("This is no cursor of a list of records.", hint="Give the one of the last page.") from error


def end_of_prefix(search: str | None) -> str | None:
    """The first text after all that begin with `search`; None where there is none."""
    if not search or search[-1] == chr(0x10FFFF):
        return None
    following = ord(search[-1]) + 1
    # Surrogates are no characters; the next one after them is.
    return search[:-1] + chr(0xE000 if 0xD800 <= following <= 0xDFFF else following)


def as_secret(found: Row) -> StoredSecret:
    """One encrypted secret."""
    return StoredSecret(field=found["field"], ciphertext=found["ciphertext"], expires_at=instant(found["expires_at"]))


def as_connection(found: Row) -> StoredConnection:
    """A connection, secrets apart."""
    return StoredConnection(
        id=found["id"],
        key=found["key"],
        connector=found["connector"],
        tenant=found["tenant"],
        endpoint_id=found["endpoint_id"],
        settings=json.loads(found["settings"]),
        paused_at=instant(found["paused_at"]),
        paused_reason=found["paused_reason"],
        needs_attention=bool(found["needs_attention"]),
        created_at=from_micros(found["created_at"]),
    )


def as_stream_state(found: Row) -> StreamState:
    """A stream with its figures; those of deliveries are told of webhook streams alone."""
    receives = found["mode"] == "webhook"
    retries = found["run_state"] == RunState.RETRYING
    return StreamState(
        id=found["id"],
        connection_id=found["connection_id"],
        connection=found["connection_key"],
        connector=found["connector"],
        tenant=found["tenant"],
        stream=found["key"],
        partition=found["partition"],
        mode=found["mode"],
        schedule=found["schedule"],
        timezone=found["timezone"],
        expect_within_seconds=found["expect_within_seconds"],
        paused_at=instant(found["paused_at"]),
        connection_paused_reason=None if found["connection_paused_at"] is None else found["paused_reason"],
        connection_needs_attention=bool(found["needs_attention"]),
        next_tick_at=instant(found["next_tick_at"]),
        blocked_until=instant(found["blocked_until"]),
        cursor=found["cursor"],
        checkpoint_at=instant(found["checkpoint_at"]),
        running_run_id=found["run_id"],
        running_state=None if found["run_state"] is None else RunState(found["run_state"]),
        retry_at=instant(found["run_due_at"]) if retries else None,
        registered_at=from_micros(found["registered_at"]),
        last_attempt_at=instant(found["last_attempt_at"]),
        last_success_at=instant(found["last_success_at"]),
        last_record_at=instant(found["last_record_at"]),
        last_error=found["last_error"],
        last_error_code=found["last_error_code"],
        consecutive_failures=found["consecutive_failures"],
        skipped_ticks=found["skipped_ticks"],
        runs_24h=found["runs_24h"] or 0,
        failed_24h=found["failed_24h"] or 0,
        counts_24h=counts(found),
        last_delivery_at=instant(found["last_delivery_at"]) if receives else None,
        rejected_24h=(found["rejected"] or 0) if receives else 0,
        deliveries_24h=(found["deliveries"] or 0) if receives else 0,
        pending=(found["pending"] or 0) if receives else 0,
        dead=(found["dead"] or 0) if receives else 0,
        drift=_drift(found),
    )


def as_run(found: Row) -> Run:
    """A run."""
    return Run(
        id=found["id"],
        connection=found["connection_key"],
        connector=found["connector"],
        stream=found["stream_key"],
        partition=found["partition"],
        trigger=found["trigger"],
        state=RunState(found["state"]),
        attempt=found["attempt"],
        scheduled_at=from_micros(found["scheduled_at"]),
        due_at=from_micros(found["due_at"]),
        started_at=instant(found["started_at"]),
        finished_at=instant(found["finished_at"]),
        pages=found["pages"],
        counts=counts(found),
        cursor_before=found["cursor_before"],
        cursor_after=found["cursor_after"],
        window=window(found),
        backfill_id=found["backfill_id"],
        connector_version=found["connector_version"],
        error_code=found["error_code"],
        error=found["error"],
        traceback=found["traceback"],
    )


def as_backfill(found: Row) -> Backfill:
    """A backfill with what its windows came to."""
    return Backfill(
        id=found["id"],
        connection=found["connection_key"],
        stream=found["stream_key"],
        partition=found["partition"],
        span=Window(from_micros(found["span_start"]), from_micros(found["span_end"])),
        state=found["state"],
        created_at=from_micros(found["created_at"]),
        finished_at=instant(found["finished_at"]),
        windows={
            "todo": found["todo"] or 0,
            "running": found["running"] or 0,
            "done": found["done"] or 0,
            "failed": found["failed"] or 0,
            "cancelled": found["cancelled"] or 0,
        },
        counts=counts(found),
        pages=found["pages"] or 0,
    )


def as_window(found: Row) -> BackfillWindow:
    """A window of a backfill."""
    return BackfillWindow(
        id=found["id"],
        backfill_id=found["backfill_id"],
        window=Window(from_micros(found["window_start"]), from_micros(found["window_end"])),
        state=found["state"],
        run_id=found["run_id"],
        cursor=found["cursor"],
        pages=found["pages"],
        counts=counts(found),
        started_at=instant(found["started_at"]),
        finished_at=instant(found["finished_at"]),
        error=found["error"],
        attempts=found["attempts"],
    )


def as_delivery(found: Row, body: Row | None = None) -> Delivery:
    """A delivery; with headers and body where `body` has them."""
    return Delivery(
        id=found["id"],
        connection=found["connection_key"],
        connector=found["connector"],
        provider_id=found["provider_id"],
        event_type=found["event_type"],
        state=DeliveryState(found["state"]),
        ignored=bool(found["ignored"]),
        received_at=from_micros(found["received_at"]),
        due_at=instant(found["due_at"]),
        finished_at=instant(found["finished_at"]),
        attempts=found["attempts"],
        duplicates=found["duplicates"],
        last_duplicate_at=instant(found["last_duplicate_at"]),
        body_bytes=found["body_bytes"],
        counts=counts(found),
        error_code=found["error_code"],
        error=found["error"],
        traceback=found["traceback"],
        replayed_at=instant(found["replayed_at"]),
        headers=_headers(body["headers"]) if body else {},
        body=body["body"] if body else None,
    )


def as_record(found: Row) -> Record:
    """A record, from the row of its current version."""
    current = as_version(found)
    return Record(
        connection=current.connection,
        type=current.type,
        source_id=current.source_id,
        deleted=current.operation == "delete",
        version=current.version,
        current=current,
    )


def as_version(found: Row) -> Version:
    """A version with where it came from."""
    return Version(
        sequence=found["sequence"],
        connection=found["connection"],
        type=found["type"],
        source_id=found["source_id"],
        version=found["version"],
        operation="delete" if found["deleted"] else "upsert",
        stale=bool(found["stale"]),
        payload=msgspec.Raw(found["payload"]),
        hash=found["hash"],
        as_of=from_micros(found["as_of"]),
        observed_at=from_micros(found["observed_at"]),
        stream=found["stream"],
        origin=found["origin"],
        run_id=found["run_id"],
        page=found["page"],
        delivery_id=found["delivery_id"],
        connector_version=found["connector_version"],
    )


def as_quarantined(found: Row) -> QuarantinedRecord:
    """A quarantined record; bytes that are no UTF-8 are shown as such."""
    return QuarantinedRecord(
        id=found["id"],
        connection=found["connection_key"],
        stream=found["stream_key"],
        type=found["type"],
        source_id=found["source_id"],
        idempotency_key=found["idempotency_key"],
        reason=found["reason"],
        payload=found["payload"].decode("utf-8", "replace"),
        as_of=from_micros(found["as_of"]),
        created_at=from_micros(found["created_at"]),
        run_id=found["run_id"],
        delivery_id=found["delivery_id"],
        state=found["state"],
    )


def as_api_key(found: Row) -> ApiKey:
    """A key of the HTTP API."""
    return ApiKey(
        id=found["id"],
        name=found["name"],
        scopes=json.loads(found["scopes"]),
        tenant=found["tenant"],
        created_at=from_micros(found["created_at"]),
        expires_at=instant(found["expires_at"]),
        last_used_at=instant(found["last_used_at"]),
    )


def as_account(found: Row) -> Account:
    """A person who signs in."""
    return Account(
        id=found["id"],
        email=found["email"],
        name=found["name"],
        role=found["role"],
        password=found["password"],
        created_at=from_micros(found["created_at"]),
        disabled_at=instant(found["disabled_at"]),
        last_login_at=instant(found["last_login_at"]),
        factor=found["factor"],
        factor_at=instant(found["factor_at"]),
    )


def as_session(found: Row) -> Session:
    """A browser in which somebody signed in."""
    return Session(
        id=found["id"],
        account_id=found["account_id"],
        created_at=from_micros(found["created_at"]),
        seen_at=from_micros(found["seen_at"]),
        address=found["address"],
        agent=found["agent"],
    )


def as_session_with_account(found: Row) -> tuple[Session, Account]:
    """The two of a row that holds both."""
    of_session = {**found, "id": found["session_id"], "created_at": found["began_at"]}
    return as_session(of_session), as_account(found)


def as_invitation(found: Row) -> Invitation:
    """A link that was not used yet."""
    return Invitation(account_id=found["account_id"], expires_at=from_micros(found["expires_at"]))


_RUN_STATES = {state.value: state for state in RunState}


def as_tick_runs(found: Iterable[Row]) -> dict[int, list[TickRun]]:
    """Runs by stream, in the order of their rows."""
    by_stream: dict[int, list[TickRun]] = {}
    for one in found:
        by_stream.setdefault(one["stream_id"], []).append(
            TickRun(
                id=one["id"],
                state=_RUN_STATES[one["state"]],
                attempt=one["attempt"],
                scheduled_at=one["scheduled_at"],
                finished_at=one["finished_at"],
                changed=one["changed"],
            )
        )
    return by_stream


def as_page(found: Row) -> PageRow:
    """A committed page."""
    return PageRow(
        run_id=found["run_id"],
        number=found["number"],
        cursor=found["cursor"],
        has_more=bool(found["has_more"]),
        counts=counts(found),
        started_at=from_micros(found["started_at"]),
        committed_at=from_micros(found["committed_at"]),
    )


def as_request(found: Row) -> RequestLog:
    """A request that a run made of its provider."""
    return RequestLog(
        at=from_micros(found["at"]),
        method=found["method"],
        url=found["url"],
        status=found["status"],
        milliseconds=found["milliseconds"],
        retries=found["retries"],
        note=found["note"],
    )


def as_rejection(found: Row) -> Rejection:
    """Refused requests of one hour."""
    return Rejection(
        connection=found["connection_key"],
        reason=found["reason"],
        hour=from_micros(found["hour"]),
        count=found["count"],
        last_at=from_micros(found["last_at"]),
        sample=found["sample"],
    )


def as_claim(found: Row) -> ClaimedDelivery:
    """A delivery handed to one attempt."""
    headers: Mapping[str, str] = _headers(found["headers"])
    return ClaimedDelivery(
        id=found["id"],
        connection_id=found["connection_id"],
        provider_id=found["provider_id"],
        event_type=found["event_type"],
        received_at=from_micros(found["received_at"]),
        headers=headers,
        body=found["body"],
        attempt=found["attempts"],
        epoch=found["epoch"],
    )


def as_audit_entry(found: Row) -> AuditEntry:
    """One act of an operator."""
    return AuditEntry(
        id=found["id"],
        at=from_micros(found["at"]),
        actor=found["actor"],
        act=found["act"],
        target=found["target"],
        detail=json.loads(found["detail"]),
    )


def as_bundle(found: Row) -> StoredBundle:
    """A bundle; its archive where it was asked for."""
    return StoredBundle(
        hash=found["hash"],
        connector=found["connector"],
        version=found["version"],
        outline=found["outline"],
        archive=bytes(found.get("archive") or b""),
        archive_bytes=found["archive_bytes"],
        created_at=from_micros(found["created_at"]),
        actor=found["actor"],
    )


def as_deployment(found: Row) -> Deployment:
    """One activation of a bundle."""
    return Deployment(
        id=found["id"],
        connector=found["connector"],
        bundle=found["bundle"],
        version=found["version"],
        previous=found["previous"],
        act=found["act"],
        activated_at=from_micros(found["activated_at"]),
        actor=found["actor"],
        plan=json.loads(found["plan"]),
    )


def _drift(found: Row) -> float | None:
    polled, pushed = found["poll_changes"] or 0, found["webhook_changes"] or 0
    return polled / (polled + pushed) if pushed else None
