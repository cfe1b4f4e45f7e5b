"""Routes that are invoked on behalf of a live connection, and the test of one."""

import asyncio
import contextlib
import functools
import logging
import threading

import pytest

from builders import AT, make_project
from headwater import context, http, ingest
from headwater import invoke as invoking
from headwater.errors import CredentialsError, OutsideRouteError, ResponseError
from headwater.invoke import THREADS_MAX, invocation_for, invoke
from headwater.route import Response, SetupRequest
from headwater.run import Priority
from http_fakes import API, SECRET, Script, answer
from live_connections import catalog, with_live

# invoking


def invoked(route, request=None, *, script=None, stream="customers", **options):
    """What a route returned, and the invocation that it was given."""

    async def body(made, live):
        invocation = invocation_for(live, stream=stream, as_of=AT, **options)
        return await invoke(route, request, invocation), invocation

    return with_live(body, script=script)


def test_an_invocation_carries_what_the_route_may_touch():
    _, invocation = invoked(len, (), cursor="c", partition="p", checkpoint_at=AT, run_id=7)
    assert (invocation.connection, invocation.stream, invocation.cursor) == ("acme", "customers", "c")
    assert (invocation.partition, invocation.checkpoint_at) == ("p", AT)
    assert invocation.streams == {"customers", "events"}
    assert invocation.as_of == 1_767_225_600_000_000


def test_an_invocation_is_told_without_its_secrets():
    _, invocation = invoked(lambda _: None)
    assert invocation.secrets["api_key"] == SECRET
    assert SECRET not in repr(invocation)


def test_its_requests_come_after_those_of_deliveries():
    assert invoked(len, ())[1].priority == Priority.POLL
    assert invoked(len, (), stream=None)[1].priority == 0
    assert invoked(len, (), priority=Priority.BACKFILL)[1].priority == Priority.BACKFILL


async def emitting(request):
    await asyncio.sleep(0)
    key = context.secrets["api_key"]
    ingest.canonical("customer", {"id": request}, stream="customers", idempotency_key="k")
    return key, context.settings["region"], (await http.get(f"{API}/x")).json()


def plain(request):
    key = context.secrets["api_key"]
    ingest.canonical("customer", {"id": request}, stream="customers", idempotency_key="k")
    return key, context.settings["region"], http.blocking.get(f"{API}/x").json()


def disguised(request):
    return emitting(request)


@pytest.mark.parametrize("route", [emitting, plain, disguised, functools.partial(emitting)])
def test_a_route_is_bound_whatever_kind_of_function_it_is(route):
    result, invocation = invoked(route, "cus_1", script=Script(answer(body=b"[1]")))
    assert result == (SECRET, "eu", [1])
    assert [emission.source_id for emission in invocation.emissions] == ["cus_1"]
    assert [noted.url for noted in invocation.requests] == [f"{API}/x"]


def test_a_plain_route_does_not_run_on_the_loop():
    name = invoked(lambda _: threading.current_thread().name)[0]
    assert name.startswith("headwater-route")


def test_nothing_is_bound_once_the_route_has_ended():
    invoked(lambda _: None)
    with pytest.raises(OutsideRouteError):
        context.current("settings")


@pytest.mark.parametrize("error", [ResponseError(status=400), ValueError("bug"), StopIteration("next"), KeyError("x")])
def test_what_a_route_raises_is_raised(error):
    def raising(_):
        raise error

    with pytest.raises(RuntimeError if isinstance(error, StopIteration) else type(error)):
        invoked(raising)


def test_two_invocations_at_once_do_not_see_each_other():
    async def body(made, live):
        async def echo(_):
            await asyncio.sleep(0)
            return context.checkpoint.cursor

        def echo_in_thread(_):
            return context.checkpoint.cursor

        return await asyncio.gather(
            *(
                invoke(route, None, invocation_for(live, stream="customers", as_of=AT, cursor=str(number)))
                for number in range(10)
                for route in (echo, echo_in_thread)
            )
        )

    assert with_live(body) == [str(number) for number in range(10) for _ in range(2)]


def test_plain_routes_that_all_wait_for_http_do_not_stop_the_platform():
    async def body(made, live):
        def route(_):
            return http.blocking.get(f"{API}/x").status

        invocations = [invocation_for(live, stream="customers", as_of=AT) for _ in range(THREADS_MAX * 2)]
        return await asyncio.gather(*(invoke(route, None, one) for one in invocations))

    assert with_live(body) == [200] * THREADS_MAX * 2


def test_a_cancelled_route_ends_where_it_waits():
    async def body(made, live):
        started, ended = asyncio.Event(), []

        async def route(_):
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        task = asyncio.ensure_future(invoke(route, None, invocation_for(live, stream="customers", as_of=AT)))
        await started.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return ended

    assert with_live(body) == [True]


def test_the_log_of_a_route_knows_its_run_and_hides_its_secrets(caplog):
    def route(_):
        context.log.info("key is %s", context.secrets["api_key"])

    with caplog.at_level(logging.INFO):
        invoked(route, run_id=7)
    assert "[connection=acme stream=customers run=7] key is ***" in caplog.text
    assert SECRET not in caplog.text


# trying a connection


def tried(test_route, *, script=None):
    async def body(made, live):
        return await invoking.test_connection(live)

    return with_live(body, project=make_project(connector=catalog(), test_route=test_route), script=script)


def test_a_connection_that_works():
    async def route(request):
        assert isinstance(request, SetupRequest)
        assert request.settings == {"region": "eu"}
        return Response(body={"account": (await http.get(f"{API}/account")).json()["id"]})

    outcome = tried(route, script=Script(answer(body={"id": "acct_1"})))
    assert (outcome.ok, outcome.tested, outcome.message) == (True, True, "The connection works.")


@pytest.mark.parametrize(
    ("response", "ok", "message"),
    [
        (Response(body={"message": f"Hello {SECRET}"}), True, "Hello ***"), (None, True, "The connection works."),
        (Response(status=400, body="wrong region"), False, "wrong region"),
        (Response(status=503), False, "The test answered 503."), ("what?", True, "The connection works."),
    ],
)  # fmt: skip
def test_what_the_route_answers_is_told(response, ok, message):
    outcome = tried(lambda _: response)
    assert (outcome.ok, outcome.message) == (ok, message)


def test_refused_credentials_are_told_without_them():
    async def route(_):
        await http.get(f"{API}/{context.secrets['api_key']}")

    outcome = tried(route, script=Script(answer(401, {"error": {"message": f"No such key: {SECRET}"}})))
    assert (outcome.ok, outcome.code) == (False, CredentialsError.code)
    assert "answered 401: No such key: ***" in outcome.message
    assert SECRET not in repr(outcome)


def test_a_test_that_fails_itself_is_told_apart():
    def route(_):
        raise KeyError(f"{SECRET}\nforged")

    outcome = tried(route)
    assert (outcome.ok, outcome.code) == (False, "stop.handler")
    assert outcome.message.startswith("The test itself failed: KeyError")
    assert SECRET not in outcome.message


def test_a_connector_without_a_test_says_so():
    outcome = tried(None)
    assert (outcome.ok, outcome.tested) == (True, False)
