"""What parcels come to, before anything is written: figures, live records, and what need not be written."""

from msgspec.structs import astuple

from headwater.jsonvalue import content_hash
from headwater.record import Counts, Emission, Outcome, Quarantined
from headwater.stores.outcome import Known
from headwater.stores.plan import HOUR_MICROSECONDS, Found, NewVersion, Parcel, Plan, wanted

HOME = (1, "customer")


def emitted(source_id, content="x", *, key=None, as_of=10, stream="customers", deleted=False):
    payload = b"{}" if deleted else f'{{"name":"{content}"}}'.encode()
    hashed = None if key is None else content_hash(key.encode())
    return Emission.of("customer", stream, source_id, payload, hashed, as_of, deleted)


def parcel(*emissions, quarantined=(), origin="poll", partition="", at=100):
    return Parcel(
        connection_id=1, partition=partition, emissions=emissions, quarantined=quarantined, origin=origin,
        connector_version="1", at=at,
    )  # fmt: skip


def set_aside(stream):
    return Quarantined(
        type="customer", stream=stream, source_id=None, idempotency_key="k", payload=b"{", reason="odd", as_of=1
    )


def stored(emission, *, sequence=3, by_object=0):
    return Known(
        emission.source_id, sequence, sequence, 1, emission.hash.hex(), emission.as_of, int(emission.deleted), by_object
    )


def planned(*, known=(), absent=(), live=0):
    records = {HOME: {one.source_id: one for one in known}} if known else {}
    lives = {HOME: live} if live else {}
    return Plan(Found(records=records, absent={HOME: set(absent)}, live=lives), first_sequence=7)


def told(plan):
    """The figures and the last instant of a plan's hours, by stream and hour."""
    streams = ["customers", "events"]
    hours = plan.hours(lambda stream, at: streams.index(stream[1]))
    return {(streams[one.stream_id], one.start): (one.figures, one.last_at) for one in hours}


def test_the_figures_of_a_parcel_are_those_of_each_of_its_streams():
    plan = planned(absent=("a", "b", "c"))
    brought = parcel(
        emitted("a", key="1"), emitted("b", key="2", stream="events"), emitted("a", key="1"),
        quarantined=[set_aside("events"), set_aside("events")], origin="webhook",
    )  # fmt: skip
    effects = plan.weigh(brought)
    assert effects.result.outcomes == [Outcome.CREATED, Outcome.CREATED, Outcome.DUPLICATE]
    assert effects.result.counts == Counts(created=2, duplicate=1, quarantined=2)
    of_customers, of_events = Counts(created=1, duplicate=1), Counts(created=1, quarantined=2)
    plan.merge(effects)
    assert told(plan) == {
        ("customers", 0): ((*astuple(of_customers), 0, 1), 100), ("events", 0): ((*astuple(of_events), 0, 1), 100)
    }  # fmt: skip


def test_the_figures_of_a_batch_are_summed_by_stream_and_hour():
    plan = planned(absent=("a", "b", "c", "d"))
    second = HOUR_MICROSECONDS + 5
    for at, one in (
        (10, emitted("a")),
        (second, emitted("b")),
        (30, emitted("c")),
        (20, emitted("d", stream="events")),
    ):
        plan.merge(plan.weigh(parcel(one, at=at)))
    assert told(plan) == {
        ("customers", 0): ((*astuple(Counts(created=2)), 2, 0), 30),
        ("customers", HOUR_MICROSECONDS): ((*astuple(Counts(created=1)), 1, 0), second),
        ("events", 0): ((*astuple(Counts(created=1)), 1, 0), 20),
    }


def test_partitions_that_share_a_row_are_counted_in_it():
    plan = planned(absent=("a", "b"))
    for partition, source_id in (("eu", "a"), ("us", "b")):
        plan.merge(plan.weigh(parcel(emitted(source_id), partition=partition)))
    (hour,) = plan.hours(lambda stream, at: 7)
    assert (hour.stream_id, hour.figures[0]) == (7, 2)


def test_what_a_poll_changed_and_what_was_pushed_are_told_apart():
    for origin, changes in (("poll", (1, 0)), ("webhook", (0, 1)), ("replay", (0, 1)), ("backfill", (0, 0))):
        plan = planned(absent=("a",))
        plan.merge(plan.weigh(parcel(emitted("a"), origin=origin)))
        (hour,) = plan.hours(lambda stream, at: 1)
        assert hour.figures[7:] == changes


def test_live_records_are_counted_over_the_parcels_of_a_batch():
    gone = emitted("b")
    plan = planned(known=(stored(gone),), absent=("a",), live=5)
    assert (plan.live(*HOME), plan.live(2, "customer"), plan.live(1, "invoice")) == (5, 0, 0)
    for one in (emitted("a"), emitted("b", deleted=True, as_of=11), emitted("b", "y", as_of=12)):
        plan.merge(plan.weigh(parcel(one)))
    assert plan.live(*HOME) == 6
    assert plan.births() == {HOME: 1}
    assert plan.size == 3


def test_new_records_of_one_parcel_are_numbered_one_after_the_other():
    plan = planned(absent=("a", "b", "c"))
    effects = plan.weigh(parcel(emitted("a"), emitted("b")))
    plan.merge(effects)
    plan.merge(plan.weigh(parcel(emitted("c"))))
    assert effects.result.outcomes == [Outcome.CREATED, Outcome.CREATED]
    assert list(effects.each_version()) == [
        NewVersion(emitted("a"), 7, 1, None, False), NewVersion(emitted("b"), 8, 1, None, False)
    ]  # fmt: skip
    assert {key[2]: (one.sequence, one.latest) for key, one in plan.records().items()} == {
        "a": (7, 7), "b": (8, 8), "c": (9, 9)
    }  # fmt: skip


def test_one_object_twice_in_a_parcel_is_one_record():
    effects = planned(absent=("a",)).weigh(parcel(emitted("a", "x"), emitted("a", "y", as_of=10)))
    assert effects.result.outcomes == [Outcome.CREATED, Outcome.UPDATED]
    assert [(one.number, one.previous) for one in effects.each_version()] == [(1, None), (2, 7)]
    assert effects.births == {"customer": 1}


def test_an_observation_is_written_only_where_it_is_later_and_has_a_key():
    known = stored(emitted("a", as_of=10))
    for as_of, key, observed in ((10, "k", []), (11, "k", [("customer", "a", 11)]), (11, None, [])):
        effects = planned(known=(known,)).weigh(parcel(emitted("a", as_of=as_of, key=key)))
        assert (effects.result.outcomes, effects.observed, effects.size) == ([Outcome.UNCHANGED], observed, 0)


def test_what_was_seen_to_hold_later_keeps_an_older_change_out_of_the_same_parcel():
    brought = parcel(emitted("a", as_of=12, key="k"), emitted("a", "y", as_of=11, key="l"))
    assert planned(known=(stored(emitted("a", as_of=10)),)).weigh(brought).result.outcomes == [
        Outcome.UNCHANGED, Outcome.STALE
    ]  # fmt: skip


def test_what_is_looked_up_is_each_thing_once_and_in_order():
    found = wanted([
        parcel(emitted("b", key="k"), emitted("a", stream="events"), emitted("b")),
        parcel(emitted("a"), quarantined=[set_aside("late")]),
    ])  # fmt: skip
    assert found.records == [(1, "customer", "a"), (1, "customer", "b")]
    assert found.keys == [(1, content_hash(b"k"))]
    assert (found.types, found.connector_versions) == (["customer"], ["1"])
    assert found.streams == [(1, "customers", ""), (1, "events", ""), (1, "late", "")]
