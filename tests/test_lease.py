"""Who may still commit, and how much may be deleted: what each refusal says."""

from collections import Counter
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from builders import AT, make_ref
from headwater.errors import FencedError, MassDeleteError
from headwater.intention import DELETE_BRAKE_MIN, PageCommit
from headwater.stores.lease import (
    CLAIM_BYTES_MAX,
    REHEARSAL,
    admit_page,
    brake,
    check_claim,
    check_lease,
    claim_of,
    parcel_of_page,
)
from headwater.stores.plan import Found, Plan

REF = make_ref(run_id=7, epoch=2)
GUARD = replace(REHEARSAL, run_id=7, epoch=2, epoch_now=2, pages=1)


def a_page(number=2, ref=REF, **given):
    return PageCommit(
        ref=ref, number=number, emissions=(), quarantined=(), cursor=None, has_more=False, origin="poll",
        connector_version="1", started_at=AT, at=AT, lease_seconds=60.0, **given,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("guard", "says"),
    [
        (None, "Run 7 is gone."),
        (replace(GUARD, state="cancelled"), "Run 7 is cancelled and commits nothing more."),
        (replace(GUARD, epoch=3), "Run 7 holds epoch 2; its stream has moved on to 2."),
        (replace(GUARD, epoch_now=5), "Run 7 holds epoch 2; its stream has moved on to 5."),
    ],
)
def test_who_lost_its_lease_is_told_how(guard, says):
    with pytest.raises(FencedError) as caught:
        check_lease(guard, REF)
    assert str(caught.value) == says


def test_who_holds_its_lease_goes_on():
    assert check_lease(GUARD, REF) is GUARD


@pytest.mark.parametrize(("state", "epoch"), [("done", 4), ("dead", 4), ("pending", 5)])
def test_a_claim_that_was_lost_is_told(state, epoch):
    claim = SimpleNamespace(id=9, epoch=4)
    check_claim(claim, "pending", 4)
    with pytest.raises(FencedError) as caught:
        check_claim(claim, state, epoch)
    assert str(caught.value) == "The claim 4 of delivery 9 was retaken or the delivery is settled."


def test_a_claim_holds_what_fits_and_never_nothing():
    third = CLAIM_BYTES_MAX // 3
    assert claim_of([]) == []
    assert claim_of((number, third) for number in range(1, 9)) == [1, 2, 3]
    assert claim_of([(1, third), (2, CLAIM_BYTES_MAX), (3, 1)]) == [1]
    assert claim_of([(1, 2 * CLAIM_BYTES_MAX), (2, 0)]) == [1]


def test_a_page_comes_after_the_one_before_it():
    page, plan = a_page(number=3), Plan(Found(), first_sequence=1)
    with pytest.raises(FencedError) as caught:
        admit_page(page, parcel_of_page(page), replace(GUARD), plan)
    assert caught.value.message == "Page 3 of run 7 cannot commit before page 2."
    assert caught.value.hint == "Start again from the checkpoint."


def test_what_a_run_deletes_is_summed_over_its_pages():
    effects = SimpleNamespace(buried=Counter(customer=2, invoice=1))
    plan = SimpleNamespace(weigh=lambda parcel: effects, live=lambda connection_id, name: 5)
    guard = replace(GUARD, live_deleted=4)
    page = a_page()
    assert admit_page(page, parcel_of_page(page), guard, plan) == (effects, True)
    assert (guard.pages, guard.live_deleted) == (2, 7)
    assert admit_page(page, parcel_of_page(page), guard, plan) == (effects, False)
    assert (guard.pages, guard.live_deleted) == (2, 7)


@pytest.mark.parametrize(
    ("before", "buried", "live", "holds"),
    [
        (0, DELETE_BRAKE_MIN, DELETE_BRAKE_MIN, False),
        (0, DELETE_BRAKE_MIN + 1, DELETE_BRAKE_MIN + 1, True),
        (0, 20, 40, False),
        (0, 21, 40, True),
        (15, 5, 25, False),
        (15, 6, 25, True),
    ],
)
def test_the_brake_holds_what_is_more_than_a_few_and_more_than_the_share(before, buried, live, holds):
    page, guard = a_page(delete_share_max=0.5), replace(GUARD, live_deleted=before)
    effects = SimpleNamespace(buried=Counter(invoice=1, customer=buried - 1))
    plan = SimpleNamespace(live=lambda connection_id, name: {"customer": live - 1, "invoice": 1}[name])
    if not holds:
        brake(page, guard, plan, effects)
        return
    with pytest.raises(MassDeleteError) as caught:
        brake(page, guard, plan, effects)
    deletes, records = before + buried, live + before
    says = f"Run 7 of customers would delete {deletes} of {records} records (customer, invoice)."
    assert caught.value.message == says
    assert caught.value.hint == "If that is right, trigger the stream again with deletions allowed."
    released = a_page(delete_share_max=0.5, ref=make_ref(run_id=7, epoch=2, allow_deletes=True))
    brake(released, guard, plan, effects)
