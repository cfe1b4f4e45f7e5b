"""The verdicts: each status at its boundary, and the sentence that an operator reads."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from headwater.health import connection_summary, report, reports, standing, status_counts, worst_first
from headwater.record import Counts
from headwater.run import RunState
from headwater.verdict import Status, duration, verdict
from stream_states import at, make_state, make_webhook

SUCCESS = at(13, 45, 3)


def polled(**overrides):
    return make_state(**({"last_success_at": SUCCESS, "next_tick_at": at(14)} | overrides))


@pytest.mark.parametrize(
    ("instant", "status"),
    [
        (at(13, 59, 59), Status.FRESH),
        (at(14, 0, 0), Status.FRESH),
        (at(14, 0, 1), Status.ON_TRACK),
        (at(14, 3, 45), Status.ON_TRACK),
        (at(14, 3, 46), Status.LATE),
        (at(14, 18, 45), Status.LATE),
        (at(14, 18, 46), Status.FAILING),
    ],
)
def test_a_poll_stream_ages_from_fresh_over_on_track_and_late_to_failing(instant, status):
    assert verdict(polled(), instant).status is status


def test_a_late_stream_says_what_was_expected_and_when_it_is_tried_again():
    state = polled(next_tick_at=at(14, 15))
    late = verdict(state, at(14, 14, 20))
    assert late.sentence == "Late: expected 14:00, last success 13:45 (1 missed). Next try in 40 s."
    assert (late.expected_at, late.grace_seconds, late.missed) == (at(14), 225.0, 1)
    assert late.lag_seconds == 860.0
    assert late.next_at == at(14, 15)


def test_a_fresh_stream_says_when_it_succeeded_and_when_it_is_due_next_expected():
    assert verdict(polled(), at(13, 50)).sentence == "Fresh: last success 13:45, next 14:00."


def test_the_grace_is_never_under_two_minutes():
    state = polled(schedule="* * * * *", last_success_at=at(13, 45, 3))
    assert verdict(state, at(13, 48)).status is Status.ON_TRACK
    assert verdict(state, at(13, 48, 1)).status is Status.LATE
    assert verdict(state, at(13, 49, 1)).status is Status.FAILING


def test_an_expectation_of_its_own_replaces_the_grace():
    state = polled(expect_within_seconds=3600)
    assert verdict(state, at(14, 40)).status is Status.ON_TRACK
    late = verdict(state, at(14, 46))
    assert late.status is Status.LATE
    assert late.grace_seconds == 3600 - (at(14) - SUCCESS).total_seconds()
    assert verdict(state, at(15, 46)).status is Status.FAILING


def test_the_night_before_a_working_day_is_no_interval():
    friday_evening = at(17, 0, 5, day=13)
    state = polled(schedule="0 9-17 * * 1-5", last_success_at=friday_evening)
    assert verdict(state, at(12, day=14)).status is Status.FRESH
    assert verdict(state, at(9, 14, day=16)).status is Status.ON_TRACK
    assert verdict(state, at(9, 16, day=16)).status is Status.LATE
    assert verdict(state, at(10, 16, day=16)).status is Status.FAILING


def test_a_pending_retry_is_on_track_and_names_the_error():
    state = polled(
        running_state=RunState.RETRYING,
        running_run_id=7,
        retry_at=at(14, 1, 40),
        last_error="The provider answered 503\nfor the third time",
    )
    found = verdict(state, at(14, 1))
    assert found.status is Status.ON_TRACK
    assert found.sentence == (
        "On track: expected 14:00, last success 13:45. The provider answered 503. Next try in 40 s."
    )


def test_a_retry_that_is_pending_over_two_intervals_is_failing():
    state = polled(running_state=RunState.RETRYING, retry_at=at(14, 40))
    assert verdict(state, at(14, 30)).status is Status.FAILING


def test_exhausted_retries_are_failing_at_once():
    state = polled(consecutive_failures=2, last_error="The handler raised KeyError: 'id'.", next_tick_at=at(14))
    found = verdict(state, at(13, 50))
    assert found.status is Status.FAILING
    assert found.sentence == (
        "Failing: last success 13:45; 2 failures in a row. The handler raised KeyError: 'id'. Next try in 10 min."
    )


def test_silence_that_the_provider_asked_for_is_named():
    state = polled(consecutive_failures=1, next_tick_at=at(14), blocked_until=at(14, 20))
    found = verdict(state, at(13, 50))
    assert found.next_at == at(14, 20)
    assert found.sentence.endswith("Next try in 30 min (the provider asked for silence).")


def test_a_stream_that_never_ran_says_since_when_it_should_have():
    state = make_state(registered_at=at(13, 50))
    assert verdict(state, at(13, 55)).sentence == "Never ran: expected 14:00."
    overdue = verdict(state, at(15))
    assert overdue.status is Status.NEVER_RAN
    assert overdue.sentence == "Never ran: expected 14:00 (4 missed)."
    assert overdue.age_seconds is None


def test_a_first_run_may_take_longer_than_an_interval():
    state = make_state(last_attempt_at=at(10), running_state=RunState.RUNNING, registered_at=at(9, 59))
    found = verdict(state, at(12))
    assert (found.status, found.sentence) == (Status.NEVER_RAN, "Never ran: the first run is under way.")


def test_a_stream_without_any_success_is_never_fresh():
    cancelled = make_state(last_attempt_at=at(14, 1), registered_at=at(14))
    found = verdict(cancelled, at(14, 2))
    assert (found.status, found.sentence) == (Status.NEVER_RAN, "Never ran: no success yet, expected 14:15.")
    assert verdict(cancelled, at(14, 20)).status is Status.LATE
    assert verdict(replace(cancelled, mode="backfill", schedule=None), at(14, 2)).status is Status.NEVER_RAN


def test_very_many_missed_ticks_are_not_counted_out():
    found = verdict(polled(schedule="* * * * *"), at(13, 45, day=14))
    assert found.missed == 100
    assert "(over 99 missed)" in found.sentence
    assert "last success 10 Mar 13:45" in found.sentence


def test_a_stream_of_another_zone_speaks_its_own_time():
    state = polled(schedule="30 2 * * *", timezone="Europe/Berlin", last_success_at=at(1, 30, 9))
    assert verdict(state, at(2)).sentence == "Fresh: last success 02:30 CET, next 11 Mar 02:30 CET."


def test_needs_attention_comes_before_everything_and_gives_its_reason():
    state = polled(
        connection_needs_attention=True,
        connection_paused_reason="The provider refuses the credentials of this connection.",
        paused_at=at(13),
        consecutive_failures=9,
    )
    found = verdict(state, at(20))
    assert found.status is Status.NEEDS_ATTENTION
    assert found.sentence == (
        "Needs attention: The provider refuses the credentials of this connection. Mend it, then resume."
    )
    assert found.next_at is None


def test_a_paused_stream_is_paused_however_late():
    assert verdict(polled(paused_at=at(14)), at(20)).sentence == "Paused: an operator paused this stream at 14:00."
    state = polled(connection_paused_reason="maintenance", pending=2)
    assert verdict(state, at(20)).sentence == "Paused: maintenance. 2 deliveries wait."
    assert verdict(state, at(20)).status is Status.PAUSED


def test_a_webhook_stream_without_an_expectation_is_fresh_however_silent():
    found = verdict(make_webhook(last_delivery_at=at(1, day=1)), at(12))
    assert found.status is Status.FRESH
    assert found.sentence == "Fresh: last delivery 1 Mar 01:00."
    assert found.expected_at is None


def test_a_webhook_stream_with_an_expectation_gets_late_and_then_fails():
    state = make_webhook(last_delivery_at=at(12), expect_within_seconds=3600)
    assert verdict(state, at(13)).status is Status.FRESH
    late = verdict(state, at(13, 30))
    assert late.sentence == "Late: expected by 13:00, last delivery 12:00."
    assert late.age_ratio == 1.5
    assert verdict(state, at(14, 1)).status is Status.FAILING


def test_a_webhook_stream_never_ran_before_its_first_delivery():
    assert verdict(make_webhook(), at(12)).sentence == "Never ran: no delivery yet."
    refused = make_webhook(rejected_24h=3)
    assert verdict(refused, at(12)).sentence == (
        "Never ran: no delivery yet, 3 rejected in 24 h. Check the signing secret."
    )


def test_a_dead_letter_is_failing_until_it_is_replayed():
    state = make_webhook(last_delivery_at=at(12), dead=1, last_error="KeyError: 'object'")
    found = verdict(state, at(12, 1))
    assert found.status is Status.FAILING
    assert found.sentence == "Failing: last delivery 12:00, 1 dead letter to replay. KeyError: 'object'."


@pytest.mark.parametrize(("minutes", "status"), [(0.5, Status.FRESH), (5, Status.ON_TRACK), (16, Status.LATE)])
def test_deliveries_that_wait_too_long_are_told(minutes, status):
    state = make_webhook(last_delivery_at=at(12), pending=4)
    found = verdict(state, at(12) + timedelta(minutes=minutes))
    assert found.status is status
    assert "4 pending" in found.sentence


def test_drift_worth_a_word_is_in_the_sentence():
    state = make_webhook(last_delivery_at=at(12), drift=0.25)
    assert verdict(state, at(12)).sentence.endswith("Polls found 25% of changes that no webhook had told.")


def test_a_backfill_stream_is_only_judged_by_its_last_run():
    state = make_state(mode="backfill", schedule=None)
    assert verdict(state, at(12)).status is Status.NEVER_RAN
    assert verdict(replace(state, last_success_at=at(1, day=1)), at(12)).status is Status.FRESH
    failed = replace(state, last_attempt_at=at(11), consecutive_failures=1, last_error="HTTP 400")
    assert verdict(failed, at(12)).sentence == "Failing: never succeeded. HTTP 400."


def test_a_report_carries_the_stream_with_its_verdict_and_cadence():
    one = report(polled(partition="eu", counts_24h=Counts(created=4)), at(14, 5))
    assert (one.name, one.cadence, one.status) == ("customers[eu]", "every 15 minutes", Status.LATE)
    assert one.counts_24h.created == 4
    assert report(make_webhook(expect_within_seconds=7200), at(12)).cadence == "on each event, within 2 h"


def test_the_worst_comes_first_and_the_longest_overdue_before_the_rest():
    streams = reports(
        [
            polled(stream="fresh", last_success_at=at(14)),
            polled(stream="late", last_success_at=at(13, 45)),
            polled(stream="failing", last_success_at=at(10)),
            polled(stream="failing_longer", last_success_at=at(9)),
            polled(stream="attention", connection_needs_attention=True),
            make_state(stream="never"),
            polled(stream="paused", paused_at=at(12)),
        ],
        at(14, 5),
    )
    assert [one.stream for one in streams] == [
        "attention", "failing_longer", "failing", "late", "never", "paused", "fresh",
    ]  # fmt: skip


def test_a_connection_is_summed_up_in_one_sentence():
    states = [polled(stream=f"s{n}", last_success_at=at(14)) for n in range(10)]
    states += [polled(stream="late"), polled(stream="failing", last_success_at=at(9))]
    streams = reports(states, at(14, 5))
    assert connection_summary("Stripe", "acme", streams) == (
        "Stripe (acme) ingests 12 streams: 10 fresh, 1 late, 1 failing."
    )
    assert connection_summary("Stripe", "acme", streams[-1:]) == "Stripe (acme) ingests 1 stream: 1 fresh."
    assert status_counts(streams) == {Status.FAILING: 1, Status.LATE: 1, Status.FRESH: 10}


@given(
    age=st.integers(0, 4 * 86400),
    later=st.integers(0, 4 * 86400),
    line=st.sampled_from(["* * * * *", "*/15 * * * *", "0 6 * * *", "0 9-17 * * 1-5", "7 3 1 * *"]),
)
def test_time_alone_never_makes_a_stream_look_better(age, later, line):
    state = polled(schedule=line)
    rank = list(Status).index
    early = verdict(state, SUCCESS + timedelta(seconds=age))
    late = verdict(state, SUCCESS + timedelta(seconds=age + later))
    assert rank(late.status) <= rank(early.status)
    assert late.missed >= early.missed


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (5400, "2 h"), (172_800, "2 days")],
)
def test_a_duration_takes_one_unit(seconds, words):
    assert duration(seconds) == words


def test_worst_first_is_stable_by_name():
    streams = [report(polled(stream=name, last_success_at=at(14)), at(14, 5)) for name in ("b", "a")]
    assert [one.stream for one in worst_first(streams)] == ["a", "b"]


instants = st.none() | st.datetimes(datetime(2026, 3, 8), datetime(2026, 3, 11), timezones=st.just(UTC))


@given(
    st.sampled_from(["poll", "webhook", "backfill"]),
    st.sampled_from(["*/15 * * * *", "0 9 * * 1-5", None]),
    st.fixed_dictionaries(
        dict.fromkeys(("last_success_at", "last_attempt_at", "last_delivery_at", "paused_at", "next_tick_at"), instants)
        | {
            "expect_within_seconds": st.none() | st.integers(60, 90_000),
            "consecutive_failures": st.integers(0, 2),
            "running_state": st.none() | st.sampled_from([RunState.RUNNING, RunState.RETRYING]),
            "dead": st.integers(0, 1),
            "pending": st.integers(0, 2),
            "connection_paused_reason": st.sampled_from([None, None, "The key was revoked."]),
            "connection_needs_attention": st.booleans(),
        }
    ),
)
def test_a_standing_is_what_the_verdict_says(mode, schedule, fields):
    state = make_state(mode=mode, schedule=schedule, timezone="Europe/Berlin", **fields)
    found, brief = verdict(state, at(12)), standing(state, at(12))
    assert (brief.status, brief.lag_seconds) == (found.status, found.lag_seconds)
    assert (brief.id, brief.name, brief.mode, brief.tenant) == (state.id, state.stream, mode, state.tenant)
