"""Each kind of error leads to its own next step, and none of its texts holds a secret."""

import builtins

import pytest

from headwater import errors
from headwater.failure import MESSAGE_CHARACTERS_MAX, TRACEBACK_CHARACTERS_MAX, Next, judge


def raised(error):
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "following", "code"),
    [
        (errors.ProviderError("503"), Next.RETRY, "retry.provider"),
        (errors.RateLimitedError(retry_after_seconds=3), Next.RETRY, "retry.rate_limited"),
        (errors.StoreUnavailableError(), Next.RETRY, "retry.store"),
        (TimeoutError(), Next.RETRY, "retry.provider"),
        (ConnectionResetError("peer"), Next.RETRY, "retry.provider"),
        (errors.CredentialsError(), Next.PAUSE, "operator.credentials"),
        (errors.SettingsError(), Next.PAUSE, "operator.settings"),
        (errors.MassDeleteError(), Next.PAUSE, "operator.mass_delete"),
        (errors.InvalidPayloadError("customer cus_1"), Next.STOP, "record.invalid"),
        (errors.CursorStuckError(), Next.STOP, "stop.cursor_stuck"),
        (errors.ResponseError(status=404), Next.STOP, "stop.response"),
        (errors.NotFoundError(), Next.STOP, "request.not_found"),
        (KeyError("id"), Next.STOP, "stop.handler"),
        (FileNotFoundError("x.json"), Next.STOP, "stop.handler"),
        (errors.BodyTooLargeError(), Next.STOP, "stop.handler"),
        (errors.FencedError(), Next.NOTHING, "ended.fenced"),
        (errors.RunCancelledError(), Next.NOTHING, "ended.cancelled"),
    ],
)
def test_what_happens_next_follows_from_the_kind_of_error(error, following, code):
    failure = judge(raised(error))
    assert (failure.next, failure.code) == (following, code)


def test_every_error_of_python_is_judged():
    kinds = [kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    kinds.remove(ExceptionGroup)
    for kind in kinds:
        error = kind.__new__(kind)
        assert judge(error).next in (Next.RETRY, Next.STOP), kind


def test_a_group_is_judged_by_its_gravest_error():
    passing, bug, refused = errors.ProviderError(), KeyError("id"), errors.CredentialsError()
    assert judge(ExceptionGroup("", [passing, TimeoutError()])).next is Next.RETRY
    assert judge(ExceptionGroup("", [passing, ExceptionGroup("", [bug])])).next is Next.STOP
    assert judge(ExceptionGroup("", [passing, bug, refused])).next is Next.PAUSE


def test_a_bug_is_told_with_its_place_and_kept_with_its_traceback():
    failure = judge(raised(KeyError("id")))
    assert failure.message.startswith("The handler raised KeyError: 'id' at ")
    assert "tests/test_failure.py:" in failure.message
    assert "in raised" in failure.traceback


def test_the_detail_of_an_error_goes_to_the_author_alone():
    failure = judge(raised(errors.ProviderError("The provider failed.", detail="body: upstream down")))
    assert "upstream" not in failure.message
    assert "body: upstream down" in failure.traceback


def test_no_text_holds_a_secret():
    failure = judge(raised(RuntimeError("token sk_live_abcdef123 refused")), secrets=["sk_live_abcdef123"])
    assert "sk_live" not in failure.message
    assert "sk_live" not in failure.traceback


def test_texts_are_bounded():
    failure = judge(raised(RuntimeError("x" * 10**6)))
    assert len(failure.message) == MESSAGE_CHARACTERS_MAX
    assert len(failure.traceback) == TRACEBACK_CHARACTERS_MAX


def test_a_rate_limit_carries_the_provider_s_word():
    failure = judge(errors.RateLimitedError(retry_after_seconds=17))
    assert (failure.is_rate_limit, failure.retry_after_seconds) == (True, 17)
