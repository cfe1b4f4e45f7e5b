"""An unsafe request of a session brings the session's token; forms are read within bounds."""

import asyncio
from urllib.parse import urlencode

import pytest
from starlette.requests import Request

from headwater.api.access import Caller
from headwater.api.csrf import FORM_FIELDS_MAX, asking, csrf_field, form_of, require_csrf
from headwater.api.problem import ProblemError
from headwater.api.query import BODY_BYTES_MAX
from headwater.dashboard.page import Pages

CALLER = Caller(name="anna", scopes=frozenset({"operate"}), csrf='t"ken')
FORM = "application/x-www-form-urlencoded"


def request(method="POST", body=b"", **headers):
    given = {"content_type": FORM, "content_length": str(len(body))} | headers
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items() if value is not None]

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    return Request({"type": "http", "method": method, "path": "/", "headers": raw, "query_string": b""}, receive)


def refused(given, caller=CALLER):
    with pytest.raises(ProblemError) as error:
        asyncio.run(require_csrf(given, caller))
    return error.value.status, error.value.problem_code


def form(**fields):
    return urlencode(fields).encode()


def test_a_form_of_the_session_passes_and_is_still_readable():
    async def main():
        given = request(body=form(csrf='t"ken', act="run"))
        await require_csrf(given, CALLER)
        assert await form_of(given) == {"csrf": 't"ken', "act": "run"}
        assert b"".join([chunk async for chunk in given.stream()]) == form(csrf='t"ken', act="run")

    asyncio.run(main())


def test_a_script_sends_the_token_as_a_header():
    asyncio.run(require_csrf(request(x_csrf_token='t"ken', content_type="application/json"), CALLER))


def test_what_changes_nothing_needs_no_token():
    for method in ("GET", "HEAD", "OPTIONS"):
        asyncio.run(require_csrf(request(method), CALLER))


@pytest.mark.parametrize("body", [b"", form(act="run"), form(csrf=""), form(csrf="else"), form(csrf='t"ken ')])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_without_the_sessions_token_nothing_is_done(method, body):
    assert refused(request(method, body)) == (403, "request.csrf")


def test_a_session_without_a_token_is_let_through_by_nobody():
    nobody = Caller(name="anna", scopes=frozenset())
    assert refused(request(body=form(csrf="")), nobody) == (403, "request.csrf")


def test_a_form_has_bounds():
    assert refused(request(content_length=None)) == (411, "request.length_required")
    assert refused(request(content_length=str(BODY_BYTES_MAX + 1)))[0] == 413
    many = "&".join(f"f{number}=x" for number in range(FORM_FIELDS_MAX + 1)).encode()
    for body in (many, b"csrf=%ff", b"\xff", b"csrf=%00"):
        assert refused(request(body=body)) == (400, "request.body")


def test_of_a_name_given_twice_the_last_one_counts_and_blanks_are_kept():
    assert asyncio.run(form_of(request(body=b"a=1&b=&a=2"))) == {"a": "2", "b": ""}
    assert asyncio.run(form_of(request(body=b"{}", content_type="application/json"))) == {}


def test_each_template_is_given_the_field_of_whoever_asks():
    pages = Pages()
    template = pages._environment.from_string("{{ csrf() }}{{ csrf_field }}")
    assert template.render(csrf_field=csrf_field()) == ""
    before = asking.set(CALLER)
    try:
        field = '<input type="hidden" name="csrf" value="t&#34;ken">'
        assert template.render(csrf_field=csrf_field()) == field * 2
        asking.set(Caller(name="local", scopes=frozenset()))
        assert template.render(csrf_field=csrf_field()) == ""
    finally:
        asking.reset(before)
