"""Instants go to the store and come back; a test's clock moves only when told."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.clock import SharedClock, from_micros, to_micros
from headwater.testing.clock import FakeClock

instants = st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC))


@given(instants)
def test_an_instant_survives_the_store(instant):
    assert from_micros(to_micros(instant)) == instant


def test_zones_do_not_matter():
    east = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert to_micros(east) == to_micros(datetime(2026, 1, 1, tzinfo=UTC))


def test_a_naive_instant_is_our_mistake():
    with pytest.raises(AssertionError, match="aware"):
        to_micros(datetime(2026, 1, 1))


def test_sleepers_wake_each_at_their_own_instant():
    async def main():
        clock, woken = FakeClock(), []

        async def sleeper(seconds):
            await clock.sleep(seconds)
            woken.append((seconds, clock.monotonic()))

        tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (3, 1, 2)]
        await clock.advance(0)
        await clock.advance(2.5)
        assert woken == [(1, 1), (2, 2)]
        await clock.advance(10)
        await asyncio.gather(*tasks)
        assert woken[-1] == (3, 3)

    asyncio.run(main())


class SteppedClock(FakeClock):
    """One that is put back by its machine, which leaves the steady clock as it is."""

    stepped = timedelta(0)

    def now(self):
        return super().now() + self.stepped


def test_a_shared_clock_goes_on_when_that_of_its_machine_is_put_right():
    own = SteppedClock()
    shared = SharedClock(own)
    shared.set_right(7200.0)
    before = shared.now()
    own.stepped = timedelta(hours=-2)
    assert shared.now() == before
    shared.set_right(0.0)
    assert shared.now() == before == own.now()


def test_a_shared_clock_is_right_on_a_machine_that_is_wrong():
    own = FakeClock()
    shared = SharedClock(own)
    assert shared.now() == own.now()
    shared.set_right(90.0)
    assert (own.now() - shared.now()).total_seconds() == 90.0
    shared.set_right(90.1)  # the way there and back
    assert (own.now() - shared.now()).total_seconds() == 90.0
    shared.set_right(-3.0)
    assert (own.now() - shared.now()).total_seconds() == -3.0
    assert shared.monotonic() == own.monotonic()
