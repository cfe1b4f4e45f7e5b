"""Commit pages (Invariant 4): records, versions, keys, quarantine, counters and checkpoint, all or nothing.

Whether a page may commit at all is asked of its run first (Invariant 9): the run is running, and its epoch is still
that of its stream or window; and the page is the next one, for a page that was lost takes its successors with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import apsw
import msgspec

from headwater.clock import to_micros
from headwater.errors import FencedError, HeadwaterError, MassDeleteError
from headwater.failpoint import failpoint
from headwater.intention import DELETE_BRAKE_MIN, REQUESTS_KEPT, CommitResult, PageCommit
from headwater.record import Counts
from headwater.run import RequestLog, RunRef
from headwater.stores.sqlite.database import execute, json_text, queries, savepoint, table
from headwater.stores.sqlite.ingest import Effects, Parcel, Plan
from headwater.stores.sqlite.parcels import commit_together

_sql = queries("pages.sql")


class Guard(msgspec.Struct, array_like=True):
    """A run as it stands in the transaction."""

    run_id: int
    state: str
    epoch: int
    epoch_now: int  # of its stream or window
    pages: int
    live_deleted: int
    requests: int


_REHEARSAL = Guard(run_id=0, state="running", epoch=0, epoch_now=0, pages=0, live_deleted=0, requests=0)


class _DryError(Exception):
    """Takes a dry page's writes back."""


def commit_pages(db: apsw.Connection, pages: Sequence[PageCommit]) -> Sequence[Any]:
    """A result or an exception for each page, in order."""
    results: list[Any] = []
    ahead: list[PageCommit] = []
    for page in pages:
        if page.dry:
            results += commit_together(db, ahead, _commit_many) if ahead else []
            ahead = []
            results.append(_rehearse(db, page))
        else:
            ahead.append(page)
    return [*results, *commit_together(db, ahead, _commit_many)] if ahead else results


def guards(db: apsw.Connection, run_ids: Sequence[int]) -> dict[int, Guard]:
    """The guards of runs, by run id."""
    found = table(db, _sql["guards"], run_ids=json_text(sorted(set(run_ids))))
    return {guard[0]: msgspec.convert(guard, Guard) for guard in found}


def check_lease(guard: Guard | None, ref: RunRef) -> Guard:
    """The guard of a run that may still commit; `FencedError` otherwise (Invariant 9)."""
    if guard is None:
        raise FencedError(f"Run {ref.run_id} is gone.")
    if guard.state != "running":
        raise FencedError(f"Run {ref.run_id} is {guard.state} and commits nothing more.")
    if guard.epoch != ref.epoch or guard.epoch_now != ref.epoch:
        raise FencedError(f"Run {ref.run_id} holds epoch {ref.epoch}; its stream has moved on to {guard.epoch_now}.")
    return guard


def add_requests(db: apsw.Connection, asked: Iterable[tuple[Guard, Sequence[RequestLog]]]) -> None:
    """Keep what runs asked of their providers, the newest `REQUESTS_KEPT` of each."""
    rows: list[tuple[Any, ...]] = []
    counted: dict[int, int] = {}
    for guard, requests in asked:
        rows += [_request_row(guard, number, request) for number, request in enumerate(requests, guard.requests + 1)]
        guard.requests += len(requests)
        counted[guard.run_id] = guard.requests
    if not rows:
        return
    execute(db, _sql["insert_requests"], rows=json_text(rows))
    execute(db, _sql["count_requests"], rows=json_text(list(counted.items())))
    for run_id, count in counted.items():
        if count > REQUESTS_KEPT:
            execute(db, _sql["forget_requests"], run_id=run_id, number=count - REQUESTS_KEPT)


def _request_row(guard: Guard, number: int, request: RequestLog) -> tuple[Any, ...]:
    return (
        guard.run_id, number, to_micros(request.at), request.method, request.url, request.status,
        request.milliseconds, request.retries, request.note,
    )  # fmt: skip


def _rehearse(db: apsw.Connection, page: PageCommit) -> Any:
    try:
        with savepoint(db):
            plan = Plan(db, [_parcel(page)])
            effects = plan.weigh(_parcel(page))
            # Nothing is written, so no lease is asked for: a rehearsal needs no run in the store.
            _brake(page, _REHEARSAL, plan, effects)
            raise _DryError
    except _DryError:
        return effects.result
    except HeadwaterError as error:
        return error


def _commit_many(db: apsw.Connection, pages: Sequence[PageCommit]) -> Sequence[Any]:
    known = guards(db, [page.ref.run_id for page in pages])
    parcels = [_parcel(page) for page in pages]
    plan = Plan(db, parcels)
    results: list[CommitResult | Exception] = []
    accepted: list[tuple[PageCommit, Effects]] = []
    for page, parcel in zip(pages, parcels, strict=True):
        try:
            effects, is_new = _admit(page, parcel, known, plan)
        except HeadwaterError as error:
            results.append(error)
            continue
        results.append(effects.result)
        if is_new:
            plan.merge(effects)
            accepted.append((page, effects))
    failpoint("page.before_records")
    plan.write()
    failpoint("page.before_checkpoint")
    if accepted:
        _advance(db, accepted, known)
    return results


def _admit(page: PageCommit, parcel: Parcel, known: dict[int, Guard], plan: Plan) -> tuple[Effects, bool]:
    guard = check_lease(known.get(page.ref.run_id), page.ref)
    effects = plan.weigh(parcel)
    if page.number <= guard.pages:
        return effects, False  # its answer was lost: it is committed, and counts once
    if page.number != guard.pages + 1:
        raise FencedError(
            f"Page {page.number} of run {page.ref.run_id} cannot commit before page {guard.pages + 1}.",
            hint="Start again from the checkpoint.",
        )
    _brake(page, guard, plan, effects)
    guard.pages = page.number
    guard.live_deleted += sum(effects.buried.values())
    return effects, True


def _brake(page: PageCommit, guard: Guard, plan: Plan, effects: Effects) -> None:
    if not effects.buried or page.ref.allow_deletes:
        return
    deletes = guard.live_deleted + sum(effects.buried.values())
    live = sum(plan.live(page.ref.connection_id, name) for name in effects.buried) + guard.live_deleted
    if deletes > DELETE_BRAKE_MIN and deletes > page.delete_share_max * live:
        raise MassDeleteError(
            f"Run {page.ref.run_id} of {page.ref.stream_key} would delete {deletes} of {live} records "
            f"({', '.join(sorted(effects.buried))}).",
            hint="If that is right, trigger the stream again with deletions allowed.",
        )


def _parcel(page: PageCommit) -> Parcel:
    return Parcel(
        connection_id=page.ref.connection_id,
        partition=page.ref.partition,
        emissions=page.emissions,
        quarantined=page.quarantined,
        origin=page.origin,
        connector_version=page.connector_version,
        at=to_micros(page.at),
        run_id=page.ref.run_id,
        page=page.number,
    )


def _advance(db: apsw.Connection, accepted: Sequence[tuple[PageCommit, Effects]], known: dict[int, Guard]) -> None:
    runs: dict[int, list[tuple[PageCommit, Effects]]] = {}
    for page, effects in accepted:
        runs.setdefault(page.ref.run_id, []).append((page, effects))
    execute(db, _sql["insert_pages"], rows=json_text([_page_row(*pair) for pair in accepted]))
    execute(db, _sql["advance_runs"], rows=json_text([_run_row(pairs) for pairs in runs.values()]))
    if streams := [row for pairs in runs.values() for row in _stream_rows(pairs)]:
        execute(db, _sql["advance_streams"], rows=json_text(streams))
    if windows := [_window_row(pairs) for pairs in runs.values() if pairs[0][0].ref.window_id is not None]:
        execute(db, _sql["advance_windows"], rows=json_text(windows))
    add_requests(db, ((known[page.ref.run_id], page.requests) for page, _ in accepted))


def _total(pairs: Sequence[tuple[PageCommit, Effects]]) -> tuple[int, ...]:
    total = Counts()
    for _, effects in pairs:
        total.add(effects.result.counts)
    return msgspec.structs.astuple(total)


def _page_row(page: PageCommit, effects: Effects) -> tuple[Any, ...]:
    counts = msgspec.structs.astuple(effects.result.counts)
    head = (page.ref.run_id, page.number, page.cursor, int(page.has_more))
    return (*head, *counts, to_micros(page.started_at), to_micros(page.at))


def _run_row(pairs: Sequence[tuple[PageCommit, Effects]]) -> tuple[Any, ...]:
    last = pairs[-1][0]
    lease_until = to_micros(last.at + timedelta(seconds=last.lease_seconds))
    buried = sum(sum(effects.buried.values()) for _, effects in pairs)
    head = (last.ref.run_id, last.number, last.cursor, int(last.has_more), lease_until, last.connector_version)
    return (*head, to_micros(pairs[0][0].started_at), buried, *_total(pairs))


def _stream_rows(pairs: Sequence[tuple[PageCommit, Effects]]) -> list[tuple[int, str | None, int]]:
    moving = [page for page, _ in pairs if page.advance and page.ref.window_id is None]
    return [(page.ref.stream_id, page.cursor, to_micros(page.at)) for page in moving[-1:]]


def _window_row(pairs: Sequence[tuple[PageCommit, Effects]]) -> tuple[Any, ...]:
    last = pairs[-1][0]
    return (last.ref.window_id, last.cursor, to_micros(last.at), len(pairs), *_total(pairs))
