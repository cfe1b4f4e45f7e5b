"""No secret leaves, in whatever form."""

import base64
import io
import json
import logging
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from headwater.log_line import LINES_NOTED_MAX
from headwater.redaction import MARK, RedactingFilter, Redactor, is_sensitive_name, one_line, redact
from headwater.route_log import RouteLog
from headwater.testing.clock import FakeClock

CANARY = 'sk_live_ab/+c é"\\&=%'

FORMS = {
    "plain": lambda s: s,
    "percent": lambda s: quote(s, safe=""),
    "percent with slashes": quote,
    "plus": quote_plus,
    "form": lambda s: urlencode({"key": s}),
    "lower percent": lambda s: quote(s, safe="").lower() if s.islower() else quote(s, safe=""),
    "json": json.dumps,
    "json, not ascii": lambda s: json.dumps(s, ensure_ascii=False),
    "repr": repr,
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "urlsafe base64": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "basic, user": lambda s: base64.b64encode(f"{s}:".encode()).decode(),
    "basic, password": lambda s: base64.b64encode(f"user:{s}".encode()).decode(),
    "basic, password 2": lambda s: base64.b64encode(f"user2:{s}".encode()).decode(),
    "hex": lambda s: s.encode().hex(),
}


def readings(text):
    """The text, and whatever base64 in it says."""
    yield text
    for word in text.split():
        for padding in ("", "=", "=="):
            try:
                yield base64.b64decode(word + padding, altchars=b"-_").decode("utf-8", "replace")
            except ValueError:
                continue


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    "secret", [CANARY, "hunter2hunter2", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "???>>>~~~???>>>~~~"]
)
def test_a_secret_is_found_in_every_form(secret, form):
    text = redact(f"before {form(secret)} after", [secret])
    assert MARK in text
    assert all(secret not in reading for reading in readings(text))
    assert text.startswith("before ")
    assert text.endswith(" after")


@given(secret=st.text(min_size=6, max_size=40), before=st.text(max_size=10), after=st.text(max_size=10))
@example(secret="aaaaaaa", before="a", after="a")
def test_no_text_keeps_a_secret(secret, before, after):
    assume(secret not in MARK)
    assert secret not in redact(f"{before}{secret}{after}", [secret])


@given(text=st.text())
def test_text_without_a_secret_is_left_alone(text):
    assume(CANARY not in text)
    assert redact(text, [CANARY]) == text
    assert redact(text, []) == text


def test_the_longer_of_two_secrets_wins():
    assert redact("abcdefgh and abcdef", ["abcdef", "abcdefgh"]) == "*** and ***"


def test_a_short_secret_does_not_eat_words():
    assert redact("pin 123 in 91234 and 123.", ["123"]) == "pin *** in 91234 and ***."


def test_empty_secrets_are_none():
    assert redact("text", [""]) == "text"


def test_a_url_loses_credentials_and_the_values_of_telling_parameters():
    redactor = Redactor(["cus_private_1"])
    url = (
        "https://me:pw@api.example/v1/cus_private_1?limit=3&access_token=abc&api_key=x&created[gte]=4&X-Amz-Signature=9"
    )
    assert redactor.url(url) == (
        "https://api.example/v1/***?limit=3&access_token=***&api_key=***&created[gte]=4&X-Amz-Signature=***"
    )


@pytest.mark.parametrize(
    "name",
    ["Authorization", "Cookie", "X-Api-Key", "X-Auth-Token", "access_token", "client_secret", "password", "sig",
     "X-Token", "apikey", "Stripe-Signature", "filter[token]", "accessToken"],
)  # fmt: skip
def test_telling_names_are_known(name):
    assert is_sensitive_name(name)


@pytest.mark.parametrize(
    "name", ["limit", "starting_after", "created[gte]", "monkey", "Content-Type", "design", "page"]
)
def test_other_names_are_not(name):
    assert not is_sensitive_name(name)


def test_headers_keep_their_names():
    redactor = Redactor(["hunter2hunter2"])
    headers = {"Authorization": "Bearer x", "Link": "<https://a.example/?k=hunter2hunter2>", "X-Page": "2"}
    assert redactor.headers(headers) == {"Authorization": MARK, "Link": "<https://a.example/?k=***>", "X-Page": "2"}


@given(st.text())
def test_one_line_is_one_line(text):
    assert len(one_line(text).splitlines()) <= 1
    assert "\x1b" not in one_line(text)


def test_a_redactor_shows_nothing_of_itself():
    assert CANARY not in repr(Redactor([CANARY]))


def captured(logger_name, *, filtered_by=None):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    if filtered_by is not None:
        handler.addFilter(filtered_by)
    logger = logging.Logger(logger_name)
    logger.addHandler(handler)
    return logger, stream


def test_the_filter_cleans_messages_arguments_and_tracebacks():
    logger, stream = captured("x", filtered_by=RedactingFilter(lambda: Redactor([CANARY])))
    logger.info("key %s", CANARY)
    try:
        raise ValueError(f"refused {CANARY}")
    except ValueError:
        logger.exception("failed for %s", CANARY)
    logger.info("words %d", "do not fit " + CANARY)
    logger.info("two\nlines\x1b[31m")
    written = stream.getvalue()
    assert CANARY not in written
    assert "ValueError: refused ***" in written
    assert "words %d" in written
    assert "INFO two\\nlines\\x1b[31m\n" in written


def route_log(facts, redactor, logger, lines=None):
    return RouteLog(facts, redactor, clock=FakeClock(), lines=[] if lines is None else lines, logger=logger)


def test_the_lines_of_a_route_are_kept_from_info_on_whatever_the_process_logs():
    logger, stream = captured("x")
    logger.setLevel(logging.ERROR)
    lines = []
    log = route_log({}, Redactor([CANARY]), logger, lines)
    log.debug("for the author")
    log.info("calling with %s", CANARY)
    log.warning("half a character \ud800 and\ntwo lines")
    log.log(35, "between two levels")
    assert [(one.level, one.message) for one in lines] == [
        ("info", "calling with ***"),
        ("warning", "half a character \\ud800 and\\ntwo lines"),
        ("warning", "between two levels"),
    ]
    assert lines[0].at == FakeClock().now()
    assert stream.getvalue() == ""
    talkative, _ = captured("y")
    talkative.setLevel(logging.DEBUG)
    route_log({}, Redactor(()), talkative, lines).debug("for the author")
    assert (lines[-1].level, lines[-1].message) == ("debug", "for the author")


def test_the_newest_lines_of_an_invocation_are_kept():
    logger, _ = captured("x")
    lines = []
    log = route_log({}, Redactor(()), logger, lines)
    for number in range(LINES_NOTED_MAX + 3):
        log.info(number)
    assert [one.message for one in lines] == [str(number) for number in range(3, LINES_NOTED_MAX + 3)]


def test_a_route_log_knows_its_facts_and_hides_the_secrets():
    logger, stream = captured("x")
    log = route_log({"connection": "acme", "stream": "customers", "run": 12}, Redactor([CANARY]), logger)
    log.info("calling with %s", CANARY)
    log.warning("100% sure")
    log.info("words %d", "that do not fit")
    log.info("injected\nERROR forged line")
    try:
        raise ValueError(CANARY)
    except ValueError:
        log.exception("failed")
    log.debug("nothing")
    written = stream.getvalue()
    assert CANARY not in written
    assert "INFO [connection=acme stream=customers run=12] calling with ***\n" in written
    assert "[connection=acme stream=customers run=12] 100% sure" in written
    assert "\nERROR forged" not in written
    assert "ValueError: ***" in written


def test_a_route_log_gives_its_facts_to_structured_handlers():
    records = []
    logger = logging.Logger("x")
    handler = logging.Handler()
    handler.emit = records.append
    logger.addHandler(handler)
    log = route_log({"connection": "acme", "run": None}, Redactor(()), logger)
    log.info("hello", extra={"shop": 7})
    assert records[0].headwater_connection == "acme"
    assert records[0].shop == 7
    assert not hasattr(records[0], "headwater_run")
