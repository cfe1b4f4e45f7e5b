"""What handlers ask of a provider, and what becomes of it; the provider is a function behind a transport."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from email.utils import format_datetime

import msgspec
import pytest

from headwater.client import ATTEMPTS_MAX, REDIRECTS_MAX, REQUESTS_NOTED_MAX
from headwater.context import invoking
from headwater.errors import (
    CredentialsError,
    ForbiddenHostError,
    HandlerError,
    ProviderError,
    RateLimitedError,
    ResponseError,
)
from headwater.quota import Quota
from headwater.testing.clock import FakeClock
from headwater.transport import Headers
from http_fakes import API, SECRET, Script, answer, make_client, make_invocation, passing


def ask(transport, method="GET", url=f"{API}/v1", *, clock=None, invocation=None, **options):
    """The response to one request, made with the given provider; time passes as it is needed."""
    clock = clock or FakeClock()
    client = make_client(transport, clock=clock)

    async def main():
        bound = invocation or make_invocation(client)
        with invoking(bound):
            return await passing(clock, client.request(method, url, **options))

    return asyncio.run(main())


def noted(transport, *, clock=None, fails=None, **options):
    """What is noted of one request."""
    clock = clock or FakeClock()
    client = make_client(transport, clock=clock)
    invocation = make_invocation(client)
    if fails is None:
        ask(transport, clock=clock, invocation=invocation, **options)
    else:
        with pytest.raises(fails):
            ask(transport, clock=clock, invocation=invocation, **options)
    assert len(invocation.requests) == 1
    return invocation.requests[0]


# what is sent


def test_params_are_added_to_the_query_that_is_there():
    script = Script()
    ask(script, url=f"{API}/v1?a=1", params={"created": {"gte": 5}, "none": None})
    assert script.urls == [f"{API}/v1?a=1&created%5Bgte%5D=5"]


@pytest.mark.parametrize(
    ("options", "body", "content_type"),
    [
        ({"json": {"amount": Decimal("10.50")}}, b'{"amount":10.50}', "application/json"),
        ({"data": {"amount": 5, "items": [{"price": "p"}]}}, b"amount=5&items%5B0%5D%5Bprice%5D=p",
         "application/x-www-form-urlencoded"),
        ({"content": "<a/>"}, b"<a/>", "text/plain; charset=utf-8"),
        ({"content": b"\x00", "headers": {"content-type": "application/x"}}, b"\x00", "application/x"),
        ({"json": [], "headers": {"CONTENT-TYPE": "application/vnd.x+json"}}, b"[]", "application/vnd.x+json"),
    ],
)  # fmt: skip
def test_a_body_is_encoded_as_asked(options, body, content_type):
    script = Script()
    ask(script, "POST", **options)
    headers = {name.lower(): value for name, value in script.requests[0].headers.items()}
    assert script.requests[0].body == body
    assert headers["content-type"] == content_type


def test_two_bodies_are_a_mistake():
    with pytest.raises(TypeError, match="one body"):
        ask(Script(), "POST", json={}, data={})


def test_an_unknown_option_is_a_mistake():
    with pytest.raises(TypeError, match="'timeout'"):
        ask(Script(), timeout=3)


@pytest.mark.parametrize("headers", [{"X": f"{SECRET}\n"}, {"X": f"{SECRET}\r\nY: z"}, {"X\n": SECRET}, {"X": 4}])
def test_a_header_that_would_break_the_request_is_refused_without_its_value(headers):
    script = Script()
    with pytest.raises(HandlerError) as caught:
        ask(script, headers=headers)
    assert SECRET not in str(caught.value)
    assert script.requests == []


# permissions


def test_a_host_that_is_not_permitted_is_never_called():
    script = Script()
    with pytest.raises(ForbiddenHostError, match="may not call"):
        ask(script, url="https://other.example/")
    assert script.requests == []


def test_the_reach_goes_with_the_request():
    async def main():
        script = Script()
        await make_client(script, private=True).request("GET", API)
        await make_client(script).request("GET", API)
        return [request.reach for request in script.requests]

    assert asyncio.run(main()) == ["private", "public"]


# answers


def test_json_keeps_every_digit():
    body = b'{"amount": 10.10, "big": 123456789012345678901234567890, "small": 0.1000000000000000000001}'
    value = ask(Script(answer(body=body))).json()
    assert value == {
        "amount": Decimal("10.10"),
        "big": 123456789012345678901234567890,
        "small": Decimal("0.1000000000000000000001"),
    }
    assert str(value["amount"]) == "10.10"


class Amount(msgspec.Struct):
    amount: Decimal
    extra: object = None


def test_json_is_decoded_into_a_type_exactly():
    response = ask(Script(answer(body=b'{"amount": 0.10000000000000000000001, "extra": {"rate": 1.10}}')))
    assert response.json(Amount) == Amount(amount=Decimal("0.10000000000000000000001"), extra={"rate": Decimal("1.10")})
    assert ask(Script(answer(body=b"[1, 2]"))).json(list[int]) == [1, 2]


def test_a_page_that_is_no_json_is_the_providers_fault_and_another_shape_is_ours():
    for body in (b"<html>down for maintenance</html>", b"", b"\xff\xfe", b"[" * 100_000):
        with pytest.raises(ProviderError):
            ask(Script(answer(body=body))).json()
    with pytest.raises(ProviderError):
        ask(Script(answer(body=b"<html>"))).json(Amount)
    with pytest.raises(ResponseError, match="another shape"):
        ask(Script(answer(body=b'{"amount": []}'))).json(Amount)


def test_headers_are_found_in_any_case():
    response = ask(Script(answer(Link="<next>")))
    assert response.headers["LINK"] == response.headers["link"] == "<next>"
    assert "lInK" in response.headers
    assert dict(Headers([("A", "1"), ("a", "2")])) == {"a": "1, 2"}


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, ResponseError), (401, CredentialsError), (403, CredentialsError), (404, ResponseError), (304, ResponseError),
     (408, ProviderError), (422, ResponseError), (429, RateLimitedError), (500, ProviderError), (503, ProviderError)],
)  # fmt: skip
def test_each_status_becomes_the_error_of_what_happens_next(status, error):
    with pytest.raises(error) as caught:
        ask(Script(answer(status, {"error": {"message": f"no: {SECRET}\nforged"}})))
    assert type(caught.value) is error
    assert str(caught.value).startswith(f"GET {API}/v1 answered {status}: no: ***\\nforged")
    assert SECRET not in caught.value.detail
    if error is ResponseError:
        assert caught.value.status == status


@pytest.mark.parametrize(
    ("body", "said"),
    [({"message": "m"}, ": m."), ({"error": "E!"}, ": E!"), ({"error": "e", "error_description": "d."}, ": d."),
     ({"detail": ["x"]}, "."), ([], "."), (b"<html>", "."), (b"", "."), ({"error": {"code": 4}}, ".")],
)  # fmt: skip
def test_an_error_repeats_the_providers_sentence_where_there_is_one(body, said):
    with pytest.raises(ResponseError) as caught:
        ask(Script(answer(404, body)))
    assert str(caught.value) == f"GET {API}/v1 answered 404{said}"


def test_a_status_in_ok_is_an_answer():
    assert ask(Script(answer(404)), ok=[404]).status == 404
    assert ask(Script(answer(503)), ok=range(500, 600)).status == 503
    assert ask(Script(answer(302, Location="/x")), ok=(302,)).status == 302


def test_a_403_that_means_429_is_one():
    for headers in ({"Retry-After": 60}, {"X-RateLimit-Remaining": 0, "X-RateLimit-Reset": 60}):
        with pytest.raises(RateLimitedError) as caught:
            ask(Script(answer(403, **headers)))
        assert caught.value.retry_after_seconds == 60


# attempts


@pytest.mark.parametrize("trouble", [answer(500), answer(503), answer(429), answer(408), ProviderError("hung up")])
def test_a_passing_fault_is_tried_again(trouble):
    script = Script(trouble, trouble, answer(body=b"[1]"))
    assert ask(script).body == b"[1]"
    assert len(script.requests) == 3


@pytest.mark.parametrize("trouble", [answer(500), answer(429), ProviderError("hung up")])
def test_attempts_end(trouble):
    script = Script(trouble)
    with pytest.raises((ProviderError, RateLimitedError)):
        ask(script)
    assert len(script.requests) == ATTEMPTS_MAX


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_lasting_fault_is_not_tried_again(status):
    script = Script(answer(status))
    with pytest.raises((ResponseError, CredentialsError)):
        ask(script)
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("method", "options", "attempts"),
    [
        ("GET", {}, ATTEMPTS_MAX), ("head", {}, ATTEMPTS_MAX), ("PUT", {}, ATTEMPTS_MAX), ("DELETE", {}, ATTEMPTS_MAX),
        ("POST", {}, 1), ("PATCH", {}, 1), ("POST", {"idempotent": True}, ATTEMPTS_MAX),
        ("POST", {"headers": {"idempotency-KEY": "k"}}, ATTEMPTS_MAX), ("GET", {"idempotent": True}, ATTEMPTS_MAX),
    ],
)  # fmt: skip
def test_only_what_may_be_sent_twice_is(method, options, attempts):
    script = Script(ProviderError("hung up"))
    with pytest.raises(ProviderError):
        ask(script, method, **options)
    assert len(script.requests) == attempts


def test_retry_after_is_obeyed():
    clock = FakeClock()
    times = []

    def at(given):
        def step(request):
            times.append(clock.monotonic())
            return given

        return step

    ask(Script(at(answer(429, Retry_After="7")), at(answer())), clock=clock)
    assert 7 <= times[1] - times[0] < 8


def test_retry_after_may_be_a_date():
    clock = FakeClock()
    date = format_datetime(clock.now() + timedelta(seconds=9), usegmt=True)
    note = noted(Script(answer(503, Retry_After=date), answer()), clock=clock)
    assert note.note == "waited 9.0 s for Retry-After"
    assert note.retries == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_long_wait_is_left_to_the_run(status):
    script = Script(answer(status, Retry_After="120"))
    with pytest.raises((RateLimitedError, ProviderError)) as caught:
        ask(script)
    assert caught.value.retry_after_seconds == 120
    assert len(script.requests) == 1


def test_after_a_refusal_the_connections_other_requests_keep_silence_too():
    async def main():
        clock = FakeClock()
        script = Script(answer(429, Retry_After="300"))
        client = make_client(script, clock=clock)
        for _ in range(3):
            with pytest.raises(RateLimitedError):
                await client.request("GET", API)
        return len(script.requests)

    assert asyncio.run(main()) == 1


def test_what_a_transport_cannot_mend_is_not_tried_again():
    script = Script(ForbiddenHostError("private"))
    with pytest.raises(ForbiddenHostError):
        ask(script)
    assert len(script.requests) == 1


def test_a_slot_is_given_back_however_a_request_ends():
    async def main():
        clock = FakeClock()
        quota = Quota(clock)
        for step in (answer(), answer(404), ForbiddenHostError("private"), RuntimeError("a bug")):
            with suppress(ResponseError, ForbiddenHostError, RuntimeError):
                await make_client(Script(step), clock=clock, quota=quota).request("GET", API)
        return quota.in_flight

    assert asyncio.run(main()) == 0


# redirects


def redirected(*steps, url=f"{API}/v1", method="GET", allowed=(f"{API}/*", "https://files.example/*"), **options):
    script = Script(*steps)
    client = make_client(script, allowed=allowed)
    response = asyncio.run(client.request(method, url, **options))
    return script, response


def test_a_redirect_is_followed():
    script, response = redirected(answer(302, Location="/v2?x=1"), answer(body=b"there"))
    assert script.urls == [f"{API}/v1", f"{API}/v2?x=1"]
    assert (response.body, response.url) == (b"there", f"{API}/v2?x=1")


@pytest.mark.parametrize(
    "location",
    ["https://evil.example/", "http://api.example/v1", "//evil.example/x", "https://api.example:8443/", "http://169.254.169.254/"],
)  # fmt: skip
def test_each_hop_is_judged(location):
    script = Script(answer(302, Location=location), answer())
    with pytest.raises(ForbiddenHostError):
        asyncio.run(make_client(script).request("GET", f"{API}/v1"))
    assert len(script.requests) == 1


@pytest.mark.parametrize("location", ["file:///etc/passwd", "https://user:pw@api.example/", "ftp://api.example/"])
def test_a_redirect_to_something_else_than_a_plain_url_is_refused(location):
    with pytest.raises(HandlerError):
        redirected(answer(302, Location=location), answer())


def test_redirects_end():
    script = Script(answer(302, Location="/again"))
    with pytest.raises(ResponseError, match="redirects"):
        asyncio.run(make_client(script).request("GET", f"{API}/v1"))
    assert len(script.requests) == REDIRECTS_MAX + 1


def test_credentials_stay_with_their_host():
    headers = {
        "Authorization": "Bearer x", "Cookie": "c", "X-Api-Key": "k", "X-Custom": f"v {SECRET}", "Accept": "text/csv",
    }  # fmt: skip
    script, _ = redirected(answer(302, Location="https://files.example/f"), answer(), headers=headers)
    sent = {name.lower() for name in script.requests[1].headers}
    assert "accept" in sent
    assert not sent & {"authorization", "cookie", "x-api-key", "x-custom"}
    same, _ = redirected(answer(302, Location="/f"), answer(), headers=headers)
    assert same.requests[1].headers["Authorization"] == "Bearer x"


def test_a_body_with_a_secret_is_not_carried_to_another_host():
    with pytest.raises(ResponseError, match="carry a secret"):
        redirected(answer(307, Location="https://files.example/f"), answer(), method="POST", data={"key": SECRET})


@pytest.mark.parametrize(
    ("status", "method", "then", "keeps_body"),
    [(303, "POST", "GET", False), (302, "POST", "GET", False), (301, "POST", "GET", False), (307, "POST", "POST", True),
     (308, "PUT", "PUT", True), (303, "PUT", "GET", False), (302, "HEAD", "HEAD", True)],
)  # fmt: skip
def test_a_redirect_keeps_or_changes_the_method_as_http_says(status, method, then, keeps_body):
    script, _ = redirected(answer(status, Location="/x"), answer(), method=method, content=b"body")
    assert script.requests[1].method == then
    assert script.requests[1].body == (b"body" if keeps_body else b"")


# notes


def test_a_request_is_noted_without_its_secrets():
    note = noted(Script(answer(body=b"{}")), params={"limit": 3, "access_token": "abc", "q": SECRET})
    assert note.url == f"{API}/v1?limit=3&access_token=***&q=***"
    assert (note.method, note.status, note.retries, note.note) == ("GET", 200, 0, "")


def test_a_failure_is_noted_too():
    assert noted(Script(answer(404)), fails=ResponseError).status == 404
    note = noted(Script(ProviderError("hung up")), fails=ProviderError)
    assert (note.status, note.retries) == (None, ATTEMPTS_MAX - 1)
    assert note.note.count("ProviderError") == ATTEMPTS_MAX - 1


def test_notes_are_bounded_and_keep_the_newest():
    async def main():
        client = make_client(Script())
        invocation = make_invocation(client)
        with invoking(invocation):
            for number in range(REQUESTS_NOTED_MAX + 2):
                await client.request("GET", f"{API}/{number}")
        return invocation.requests

    requests = asyncio.run(main())
    assert len(requests) == REQUESTS_NOTED_MAX
    assert requests[-1].url == f"{API}/{REQUESTS_NOTED_MAX + 1}"


def test_no_error_and_no_value_shows_a_secret():
    async def main():
        transport = Script(answer(400, {"message": SECRET}))
        client = make_client(transport)
        invocation = make_invocation(client)
        with invoking(invocation), pytest.raises(ResponseError) as caught:
            await client.request("GET", f"{API}/{SECRET}", headers={"Authorization": SECRET}, params={"t": SECRET})
        shown = [str(caught.value), repr(caught.value), caught.value.detail, repr(transport.requests[0]),
                 repr(invocation), repr(invocation.requests), repr(client)]  # fmt: skip
        response = await make_client(Script(answer(body=SECRET.encode()))).request("GET", f"{API}/{SECRET}")
        return [*shown, repr(response)]

    assert not [text for text in asyncio.run(main()) if SECRET in text]
