"""How much a connection takes of its provider: what it learns, and who goes first."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import RateLimitedError
from headwater.quota import (
    BLOCK_SECONDS,
    CONCURRENCY_MAX,
    WAIT_SECONDS_MAX,
    Allowance,
    Quota,
    RateHint,
    rate_hint,
    retry_after_seconds,
)
from headwater.run import Priority
from headwater.testing.clock import FakeClock
from headwater.transport import Headers

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def headers(**pairs):
    return Headers((name.replace("_", "-"), str(value)) for name, value in pairs.items())


# what an answer says


@pytest.mark.parametrize(
    ("given_headers", "seconds"),
    [
        ({"Retry_After": "7"}, 7.0), ({"Retry_After": "2.5"}, 2.5), ({"Retry_After": "0"}, 0.0),
        ({"Retry_After": "-4"}, 0.0),
        ({"Retry_After": format_datetime(NOW + timedelta(seconds=90), usegmt=True)}, 90.0),
        ({"Retry_After": "Thu, 01 Jan 2026 00:01:00"}, 60.0), ({"Retry_After": "Thu, 01 Jan 2020 00:00:00 GMT"}, 0.0),
        ({"Retry_After": "soon"}, None), ({"Retry_After": "nan"}, None), ({"Retry_After": ""}, None), ({}, None),
        ({"Retry_After": "1e300"}, 86400.0), ({"Retry_After": "inf"}, None),
        ({"X_RateLimit_Remaining": 0, "X_RateLimit_Reset": 30}, 30.0),
        ({"X_RateLimit_Remaining": 0, "X_RateLimit_Reset": int(NOW.timestamp()) + 45}, 45.0),
        ({"X_RateLimit_Remaining": 0, "X_RateLimit_Reset": (int(NOW.timestamp()) + 45) * 1000}, 45.0),
        ({"RateLimit_Remaining": 0, "RateLimit_Reset": 30}, 30.0),
        ({"RateLimit_Remaining": 5, "RateLimit_Reset": 30}, None),
        ({"Retry_After": "soon", "X_RateLimit_Remaining": 0, "X_RateLimit_Reset": 30}, 30.0),
    ],
)  # fmt: skip
def test_the_wait_that_a_provider_asks_for_is_understood(given_headers, seconds):
    assert retry_after_seconds(headers(**given_headers), now=NOW) == seconds


@given(value=st.text(max_size=30))
def test_no_header_is_so_strange_that_it_breaks_anything(value):
    strange = Headers([("Retry-After", value), ("X-RateLimit-Remaining", value), ("X-RateLimit-Reset", value)])
    seconds = retry_after_seconds(strange, now=NOW)
    assert seconds is None or 0 <= seconds <= 86400


def test_a_hint_needs_what_is_left_and_until_when():
    assert rate_hint(headers(X_RateLimit_Remaining=9, X_RateLimit_Limit=100), now=NOW) is None
    hint = rate_hint(headers(X_RateLimit_Remaining=9, X_RateLimit_Limit=100, X_RateLimit_Reset=60), now=NOW)
    assert hint == RateHint(remaining=9, reset_seconds=60, limit=100)
    assert rate_hint(headers(X_Rate_Limit_Remaining=9, X_Rate_Limit_Reset=60), now=NOW).limit is None


# what is learned


def test_a_refusal_halves_the_concurrency_and_opens_a_silence():
    after = Allowance().refused(at=10, begun_at=9, retry_after_seconds=5)
    assert after.concurrency == CONCURRENCY_MAX / 2
    assert after.delay_seconds(at=10, last_at=9) == 5
    assert after.delay_seconds(at=15, last_at=9) == 0
    assert Allowance().refused(at=10, begun_at=9, retry_after_seconds=None).blocked_until == 10 + BLOCK_SECONDS


def test_the_refusals_of_one_burst_halve_once():
    allowance = Allowance()
    for at in (10.0, 10.1, 10.2):
        allowance = allowance.refused(at=at, begun_at=9, retry_after_seconds=None)
    assert allowance.concurrency == CONCURRENCY_MAX / 2
    assert allowance.refused(at=20, begun_at=19, retry_after_seconds=None).concurrency == CONCURRENCY_MAX / 4


def test_concurrency_never_falls_below_one_and_recovers_step_by_step():
    allowance = Allowance()
    for at in range(1, 30):
        allowance = allowance.refused(at=float(at), begun_at=at - 0.5, retry_after_seconds=0)
    assert allowance.concurrency == 1
    allowance = allowance.accepted(None, at=40)
    assert allowance.concurrency == 2
    for _ in range(2):
        allowance = allowance.accepted(None, at=40)
    assert 2.5 < allowance.concurrency < 3
    for _ in range(2000):
        allowance = allowance.accepted(None, at=40)
    assert allowance.concurrency == CONCURRENCY_MAX


def test_a_shorter_wait_does_not_end_a_longer_silence():
    allowance = Allowance().refused(at=0, begun_at=0, retry_after_seconds=60)
    assert allowance.refused(at=1, begun_at=0, retry_after_seconds=1).blocked_until == 60


def test_what_is_left_is_spread_when_it_runs_low():
    low = Allowance().accepted(RateHint(remaining=5, reset_seconds=50, limit=100), at=0)
    assert low.delay_seconds(at=0, last_at=0) == 10
    assert low.delay_seconds(at=12, last_at=0) == 0
    assert low.delay_seconds(at=50, last_at=49) == 0
    assert low.accepted(RateHint(remaining=99, reset_seconds=60, limit=100), at=1).delay_seconds(at=1, last_at=1) == 0


def test_plenty_left_costs_nothing_and_none_left_is_a_silence():
    assert (
        Allowance().accepted(RateHint(remaining=50, reset_seconds=50, limit=100), at=0).delay_seconds(at=0, last_at=0)
        == 0
    )
    assert (
        Allowance().accepted(RateHint(remaining=0, reset_seconds=9, limit=100), at=0).delay_seconds(at=0, last_at=0)
        == 9
    )
    assert Allowance().accepted(RateHint(remaining=9, reset_seconds=50, limit=None), at=0).interval_seconds == 0
    assert Allowance().accepted(RateHint(remaining=2, reset_seconds=50, limit=None), at=0).interval_seconds == 25


# the gate


class Gate:
    """A quota whose users are started and finished by hand, and which writes down who got in."""

    def __init__(self, *, concurrency_max=CONCURRENCY_MAX):
        self.clock = FakeClock()
        self.quota = Quota(self.clock, concurrency_max=concurrency_max)
        self.entered = []
        self.tasks = {}

    def ask(self, name, priority=0):
        async def user():
            try:
                await self.quota.take(priority)
                self.entered.append(name)
            except RateLimitedError as error:
                self.entered.append((name, error.retry_after_seconds))

        self.tasks[name] = asyncio.ensure_future(user())

    async def settled(self):
        await self.clock.advance(0)
        return self.entered


def test_without_a_limit_nobody_waits():
    async def main():
        quota = Quota(FakeClock())
        waits = []
        for _ in range(CONCURRENCY_MAX):
            coroutine = quota.take()
            with pytest.raises(StopIteration):
                coroutine.send(None)
            waits.append(coroutine)
        return quota.in_flight

    assert asyncio.run(main()) == CONCURRENCY_MAX


def test_no_more_than_the_concurrency_get_in():
    async def main():
        gate = Gate(concurrency_max=2)
        for name in "abcd":
            gate.ask(name)
        assert await gate.settled() == ["a", "b"]
        gate.quota.give_back()
        assert await gate.settled() == ["a", "b", "c"]
        gate.quota.give_back()
        gate.quota.give_back()
        return await gate.settled(), gate.quota.in_flight

    assert asyncio.run(main()) == (["a", "b", "c", "d"], 1)


def test_who_comes_late_does_not_overtake_who_was_called():
    async def main():
        gate = Gate(concurrency_max=1)
        gate.ask("a")
        gate.ask("b")
        await gate.settled()
        gate.quota.give_back()
        gate.ask("late")
        late = gate.quota.take()
        assert late.send(None) is not None
        late.close()
        return await gate.settled()

    assert asyncio.run(main()) == ["a", "b"]


def test_webhooks_go_before_polls_before_backfills_and_equals_in_order():
    async def main():
        gate = Gate(concurrency_max=1)
        gate.ask("first", Priority.BACKFILL)
        await gate.settled()
        for name, priority in [
            ("backfill", Priority.BACKFILL), ("poll 1", Priority.POLL), ("poll 2", Priority.POLL), ("webhook", 0),
            ("operator", Priority.OPERATOR),
        ]:  # fmt: skip
            gate.ask(name, priority)
        for _ in range(5):
            await gate.settled()
            gate.quota.give_back()
        return await gate.settled()

    assert asyncio.run(main()) == ["first", "webhook", "operator", "poll 1", "poll 2", "backfill"]


def test_after_a_silence_the_most_urgent_goes_first():
    async def main():
        gate = Gate(concurrency_max=1)
        gate.quota.refused(begun_at=0, retry_after_seconds=10)
        gate.ask("poll", Priority.POLL)
        await gate.clock.advance(5)
        gate.ask("webhook", 0)
        assert await gate.settled() == []
        await gate.clock.advance(4.9)
        assert gate.entered == []
        await gate.clock.advance(0.2)
        assert gate.entered == ["webhook"]
        gate.quota.give_back()
        return await gate.settled()

    assert asyncio.run(main()) == ["webhook", "poll"]


def test_who_gives_up_holds_nobody_back():
    async def main():
        gate = Gate(concurrency_max=1)
        for name in "abcd":
            gate.ask(name)
        await gate.settled()
        gate.tasks["b"].cancel()
        gate.tasks["d"].cancel()
        await gate.settled()
        gate.quota.give_back()
        assert await gate.settled() == ["a", "c"]
        gate.quota.give_back()
        gate.ask("e")
        return await gate.settled(), gate.quota.in_flight

    assert asyncio.run(main()) == (["a", "c", "e"], 1)


def test_one_who_gives_up_while_sleeping_leaves_the_others_to_go_on():
    async def main():
        gate = Gate()
        gate.quota.refused(begun_at=0, retry_after_seconds=10)
        gate.ask("head")
        gate.ask("next")
        await gate.clock.advance(5)
        gate.tasks["head"].cancel()
        await gate.clock.advance(6)
        return gate.entered

    assert asyncio.run(main()) == ["next"]


def test_a_wait_that_is_too_long_is_an_error_for_all_who_wait():
    async def main():
        gate = Gate(concurrency_max=1)
        gate.ask("a")
        await gate.settled()
        gate.ask("b")
        await gate.settled()
        gate.quota.refused(begun_at=0, retry_after_seconds=WAIT_SECONDS_MAX + 60)
        gate.ask("c")
        await gate.settled()
        gate.quota.give_back()
        return await gate.settled(), gate.quota.in_flight

    entered, in_flight = asyncio.run(main())
    assert entered[0] == "a"
    assert sorted(entered[1:]) == [("b", WAIT_SECONDS_MAX + 60), ("c", WAIT_SECONDS_MAX + 60)]
    assert in_flight == 0


def test_what_is_left_is_asked_for_evenly():
    async def main():
        gate = Gate()
        gate.quota.accepted(headers(X_RateLimit_Remaining=2, X_RateLimit_Reset=20, X_RateLimit_Limit=100))
        times = []
        for name in range(3):
            gate.ask(name)
        for _ in range(40):
            await gate.clock.advance(1)
            times.append(len(gate.entered))
        return times

    times = asyncio.run(main())
    assert times[0] == 1
    assert times.index(2) + 1 == pytest.approx(10, abs=1)
    assert times.index(3) + 1 == pytest.approx(20, abs=1)


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("ask"), st.sampled_from([0, 10, 20, 30])),
            st.tuples(st.just("finish"), st.just(0)),
            st.tuples(st.just("cancel"), st.integers(0, 30)),
            st.tuples(st.just("refuse"), st.sampled_from([0, 1, 5, 20])),
            st.tuples(st.just("advance"), st.sampled_from([0, 1, 7])),
        ),
        max_size=40,
    )
)
def test_whatever_happens_slots_are_neither_lost_nor_made(steps):
    async def main():
        gate = Gate(concurrency_max=3)
        running = 0
        for number, (act, value) in enumerate(steps):
            entered_before = len(gate.entered)
            if act == "ask":
                gate.ask(number, value)
            elif act == "finish" and gate.quota.in_flight:
                gate.quota.give_back()
                running -= 1
            elif act == "cancel" and value in gate.tasks:
                gate.tasks[value].cancel()
            elif act == "refuse":
                gate.quota.refused(begun_at=gate.clock.monotonic(), retry_after_seconds=value)
            await gate.clock.advance(value if act == "advance" else 0)
            running += len(gate.entered) - entered_before
            assert gate.quota.in_flight == running <= 3
        # Once everybody finishes, everybody who still waits gets in.
        for _ in range(len(steps) + 1):
            await gate.clock.advance(30)
            while gate.quota.in_flight:
                gate.quota.give_back()
        await gate.clock.advance(30)
        waiting = [task for task in gate.tasks.values() if not task.done()]
        assert not waiting

    asyncio.run(main())
