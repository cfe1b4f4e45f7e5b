"""Pages come to an end, each way not to has its own error; a windowed poll keeps its window."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.clock import EPOCH
from headwater.errors import CursorStuckError, HandlerError, PageLimitError, RepeatedPageError, StopError
from headwater.pagination import PAGES_REMEMBERED_MAX, Guard, checked_page, windowed_cursor
from headwater.record import Emission
from headwater.run import CURSOR_BYTES_MAX, Page, Window

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


def emission(source_id, payload=b"{}"):
    return Emission.of(type="customer", stream="customers", source_id=source_id, payload=payload, key=None, as_of=0)


def follow(guard, pages):
    asked = None
    for cursor, has_more, ids in pages:
        guard.before_page()
        guard.after_page(asked, Page(cursor=cursor, has_more=has_more), [emission(one) for one in ids])
        asked = cursor


def test_pages_that_go_forward_pass():
    follow(Guard(pages_max=10), [("a", True, ["1"]), ("b", True, ["2"]), ("b", False, ["3"])])


def test_empty_pages_that_go_forward_are_no_repetition():
    follow(Guard(pages_max=10), [("a", True, []), ("b", True, []), ("c", True, []), (None, False, [])])


@pytest.mark.parametrize("pages", [[(None, True, [])], [("a", True, ["1"]), ("a", True, ["2"])]])
def test_a_cursor_that_does_not_advance_ends_the_run(pages):
    with pytest.raises(CursorStuckError):
        follow(Guard(pages_max=10), pages)


def test_a_cursor_that_leads_back_ends_the_run():
    with pytest.raises(RepeatedPageError, match="leads back to `a`"):
        follow(Guard(pages_max=10), [("a", True, ["1"]), ("b", True, ["2"]), ("a", True, ["3"])])


def test_the_cursor_that_a_run_began_with_counts_as_seen():
    guard = Guard(pages_max=10)
    guard.after_page("a", Page(cursor="b", has_more=True), [])
    with pytest.raises(RepeatedPageError, match="leads back to `a`"):
        guard.after_page("b", Page(cursor="a", has_more=True), [])


def test_the_same_records_under_another_cursor_end_the_run():
    with pytest.raises(RepeatedPageError, match="the same 2 records"):
        follow(Guard(pages_max=10), [("2", True, ["x", "y"]), ("3", True, ["x", "y"])])


def test_two_deletions_are_not_the_same_page():
    follow(Guard(pages_max=10), [("2", True, ["x"]), ("3", True, ["y"])])


def test_the_page_limit_counts_the_pages_of_earlier_attempts():
    guard = Guard(pages_max=3, pages_before=2)
    guard.before_page()
    guard.after_page(None, Page(cursor="a", has_more=True), [])
    with pytest.raises(PageLimitError, match="3 pages"):
        guard.before_page()


def test_the_memory_of_pages_is_bounded():
    guard = Guard(pages_max=10**9)
    for number in range(PAGES_REMEMBERED_MAX + 50):
        guard.after_page(str(number), Page(cursor=str(number + 1), has_more=True), [emission(str(number))])
    assert len(guard._cursors) == len(guard._fingerprints) == PAGES_REMEMBERED_MAX


@pytest.mark.parametrize(
    ("returned", "part"),
    [
        (None, "returned None, not a Page"),
        ({"cursor": "a"}, "a value of type `dict`, not a Page"),
        (Page(cursor=3), "a value of type `int`, not text"),
        (Page(cursor="a", has_more=1), "`has_more` of the returned Page is a value of type `int`"),
        (Page(cursor="ä" * CURSOR_BYTES_MAX), "longer than"),
    ],
)
def test_what_is_no_page_is_named(returned, part):
    with pytest.raises(HandlerError, match=part):
        checked_page(returned)


def test_the_first_window_reaches_back_to_the_beginning():
    assert windowed_cursor(None, at=NOW, lookback_seconds=60).window == Window(EPOCH, NOW)


def test_a_finished_window_leaves_its_end_and_the_next_one_overlaps_it():
    first = windowed_cursor(None, at=NOW, lookback_seconds=60)
    saved = first.saved(Page(cursor="ignored", has_more=False))
    assert saved == "2026-05-01T12:00:00Z"
    later = NOW + timedelta(hours=1)
    second = windowed_cursor(saved, at=later, lookback_seconds=60)
    assert (second.window, second.cursor) == (Window(NOW - timedelta(seconds=60), later), None)


def test_an_unfinished_window_goes_on_after_a_crash():
    first = windowed_cursor("2026-05-01T11:00:00Z", at=NOW, lookback_seconds=0)
    saved = first.saved(Page(cursor="p2", has_more=True))
    assert json.loads(saved) == {"from": "2026-05-01T11:00:00Z", "to": "2026-05-01T12:00:00Z", "cursor": "p2"}
    resumed = windowed_cursor(saved, at=NOW + timedelta(days=1), lookback_seconds=0)
    assert (resumed.window, resumed.cursor) == (first.window, "p2")


def test_a_clock_that_was_set_back_does_not_move_the_checkpoint_back():
    resumed = windowed_cursor("2026-05-01T12:00:00Z", at=NOW - timedelta(days=1), lookback_seconds=60)
    assert resumed.window == Window(NOW - timedelta(seconds=60), NOW)


@pytest.mark.parametrize(
    "text", ["cus_123", "2026-05-01", "2026-05-01T12:00:00", "{", '{"from": 3}', "0001-01-01T00:00:00Z"]
)
def test_a_checkpoint_of_another_kind_is_named(text):
    with pytest.raises(StopError, match="is none of a windowed stream"):
        windowed_cursor(text, at=NOW, lookback_seconds=60)


@given(ends=st.lists(st.integers(1, 10**6), min_size=1, max_size=20), lookback=st.integers(0, 10_000))
def test_successive_windows_leave_no_gap(ends, lookback):
    at, checkpoint, covered = NOW, None, EPOCH
    for seconds in ends:
        at += timedelta(seconds=seconds)
        cursor = windowed_cursor(checkpoint, at=at, lookback_seconds=lookback)
        assert cursor.window.start <= covered
        covered, checkpoint = cursor.window.end, cursor.saved(Page())
    assert covered == at
