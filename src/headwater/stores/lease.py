"""Who may commit: the leases of runs, the claims of deliveries, and the brake on mass deletion. Pure.

Invariant 9: a run is running, and its epoch is still that of its stream or window; and its page is the next one, for a
page that was lost takes its successors with it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from headwater.clock import to_micros
from headwater.delivery import ClaimedDelivery, DeliveryState
from headwater.errors import FencedError, MassDeleteError
from headwater.intention import DELETE_BRAKE_MIN, DeliveryCommit, PageCommit
from headwater.run import RunRef
from headwater.stores.plan import Effects, Parcel, Plan

CLAIM_BYTES_MAX = 64 * 1024 * 1024  # of all bodies of one claim, which are in memory together


class Guard(msgspec.Struct, kw_only=True):
    """A run as it stands in the transaction."""

    run_id: int
    state: str
    epoch: int
    epoch_now: int  # of its stream or window
    pages: int
    live_deleted: int
    requests: int


REHEARSAL = Guard(run_id=0, state="running", epoch=0, epoch_now=0, pages=0, live_deleted=0, requests=0)


def check_lease(guard: Guard | None, ref: RunRef) -> Guard:
    """The guard of a run that may still commit; `FencedError` otherwise."""
    if guard is None:
        raise FencedError(f"Run {ref.run_id} is gone.")
    if guard.state != "running":
        raise FencedError(f"Run {ref.run_id} is {guard.state} and commits nothing more.")
    if guard.epoch != ref.epoch or guard.epoch_now != ref.epoch:
        raise FencedError(f"Run {ref.run_id} holds epoch {ref.epoch}; its stream has moved on to {guard.epoch_now}.")
    return guard


def check_claim(claim: ClaimedDelivery, state: str, epoch: int) -> None:
    """`FencedError` unless the delivery is still pending under the epoch of this claim."""
    if state != DeliveryState.PENDING or epoch != claim.epoch:
        raise FencedError(f"The claim {claim.epoch} of delivery {claim.id} was retaken or the delivery is settled.")


def claim_of(found: Iterable[tuple[int, int]]) -> list[int]:
    """The first of some deliveries (id, size of the body) that fit into one claim; the very first always does."""
    ids: list[int] = []
    size = 0
    for delivery_id, body_bytes in found:
        size += body_bytes
        if ids and size > CLAIM_BYTES_MAX:
            break
        ids.append(delivery_id)
    return ids


def admit_page(page: PageCommit, parcel: Parcel, guard: Guard | None, plan: Plan) -> tuple[Effects, bool]:
    """A page's effects, and whether they are new; the guard moves on with it.

    Raises `FencedError` and `MassDeleteError` as `RunStore.commit_page` says.
    """
    guard = check_lease(guard, page.ref)
    effects = plan.weigh(parcel)
    if page.number <= guard.pages:
        return effects, False  # its answer was lost: it is committed, and counts once
    if page.number != guard.pages + 1:
        raise FencedError(
            f"Page {page.number} of run {page.ref.run_id} cannot commit before page {guard.pages + 1}.",
            hint="Start again from the checkpoint.",
        )
    brake(page, guard, plan, effects)
    guard.pages = page.number
    guard.live_deleted += sum(effects.buried.values())
    return effects, True


def brake(page: PageCommit, guard: Guard, plan: Plan, effects: Effects) -> None:
    """`MassDeleteError` when the run would delete more than its share."""
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


def parcel_of_page(page: PageCommit) -> Parcel:
    """What a page brings."""
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


def parcel_of_delivery(done: DeliveryCommit) -> Parcel:
    """What a dispatched delivery brings."""
    return Parcel(
        connection_id=done.claim.connection_id,
        partition="",
        emissions=done.emissions,
        quarantined=done.quarantined,
        origin=done.origin,
        connector_version=done.connector_version,
        at=to_micros(done.at),
        delivery_id=done.claim.id,
    )
