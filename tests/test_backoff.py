"""The waits between attempts: bounded, growing, and never shorter than the provider's own word."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.backoff import RETRY_AFTER_SECONDS_MAX, Backoff, obeyed_seconds

BACKOFF = Backoff(wait_initial=5.0, wait_max=900.0, wait_min=1.0)
chances = st.floats(min_value=0, max_value=1, exclude_max=True)


@given(attempt=st.integers(min_value=-3, max_value=10_000), random=chances)
def test_a_wait_stays_within_its_bounds(attempt, random):
    delay = BACKOFF.delay_seconds(attempt, random=random)
    assert 1.0 <= delay <= BACKOFF.ceiling_seconds(attempt) <= 900.0


@given(attempt=st.integers(min_value=1, max_value=200))
def test_the_ceiling_doubles_until_the_cap(attempt):
    ceiling, following = BACKOFF.ceiling_seconds(attempt), BACKOFF.ceiling_seconds(attempt + 1)
    assert following == min(900.0, 2 * ceiling)


@given(random=chances)
def test_jitter_is_full_it_reaches_from_the_floor_to_the_ceiling(random):
    assert BACKOFF.delay_seconds(3, random=random) == pytest.approx(1.0 + random * 19.0)


@given(attempt=st.integers(min_value=1, max_value=50), random=chances, asked=st.floats(min_value=0, max_value=80_000))
def test_the_provider_s_word_is_obeyed(attempt, random, asked):
    assert BACKOFF.delay_seconds(attempt, random=random, retry_after_seconds=asked) >= asked


@given(asked=st.floats())
def test_no_word_of_a_provider_silences_for_ever(asked):
    assert 0.0 <= obeyed_seconds(asked) <= RETRY_AFTER_SECONDS_MAX


@pytest.mark.parametrize("word", [None, math.nan, -math.inf, -1.0, 0.0])
def test_an_unusable_word_is_none(word):
    assert obeyed_seconds(word) == 0.0
