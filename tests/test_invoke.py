"""Live connections, and routes invoked on their behalf."""

import asyncio
import contextlib
import functools
import logging
import threading
from datetime import timedelta

import pytest

from builders import AT, make_catalog, make_project, open_memory_store
from headwater import context, http, ingest
from headwater import invoke as invoking
from headwater.catalog import Connection, Permissions, Webhooks
from headwater.client import HttpClients
from headwater.connection import KeyRing, encrypt_secrets, secret_aad
from headwater.errors import CredentialsError, NotFoundError, OutsideRouteError, ResponseError, SettingsError
from headwater.invoke import MISS_SECONDS, READ_AGAIN_SECONDS, THREADS_MAX, LiveConnections, invocation_for, invoke
from headwater.route import Response, SetupRequest
from headwater.run import Priority
from headwater.testing.clock import FakeClock
from http_fakes import API, SECRET, Script, answer

RING = KeyRing([bytes(32)])
SETTINGS = {
    "type": "object",
    "properties": {
        "api_key": {"type": "string", "x-secret": True},
        "webhook_secret": {"type": "string", "x-secret": True},
        "region": {"type": "string", "default": "eu"},
    },
}


def catalog(**overrides):
    return make_catalog(
        connection=Connection(settings=SETTINGS),
        permissions=Permissions(http=[f"{API}/*"]),
        webhooks=Webhooks(endpoint="/webhooks/fake", auth="hmac_sha256"),
        **overrides,
    )


class Scene:
    """A store with one connection of one project, and its live connections."""

    def __init__(self, store, clock, project, script):
        self.store, self.clock = store, clock
        self.counted = Counted(store)
        self.projects = {"fake": project}
        clients = HttpClients(clock, script)
        self.connections = LiveConnections(self.counted, self.projects, RING, clock, clients.client)

    async def add(self, key="acme", ring=RING, secrets=None, connector="fake"):
        secrets = {"api_key": SECRET} if secrets is None else secrets
        return await self.store.add_connection(
            key=key, connector=connector, tenant=None, endpoint_id=f"endpoint-{key}", settings={},
            secrets=encrypt_secrets(ring, key, secrets), at=self.clock.now(),
        )  # fmt: skip


class Counted:
    """A connection store that counts its reads; `during` is called inside of one."""

    def __init__(self, store):
        self.store = store
        self.reads = []
        self.during = None

    async def connections(self):
        self.reads.append("connections")
        found = await self.store.connections()
        if self.during:
            await self.during()
        return found

    async def secrets(self, connection_id, *, at):
        self.reads.append("secrets")
        return await self.store.secrets(connection_id, at=at)


def scene(body, *, project=None, script=None):
    """Run `body` with a scene; its result."""

    async def main():
        clock = FakeClock()
        async with open_memory_store(clock) as store:
            return await body(Scene(store, clock, project or make_project(connector=catalog()), script or Script()))

    return asyncio.run(main())


# live connections


def test_a_live_connection_has_its_code_its_settings_and_its_secrets():
    async def body(scene):
        stored = await scene.add(secrets={"api_key": SECRET, "webhook_secret": "whsec"})
        live = await scene.connections.get(stored.id)
        assert live.stored == stored
        assert live.project is scene.projects["fake"]
        assert live.settings == {"region": "eu"}
        assert live.secrets == {"api_key": SECRET, "webhook_secret": "whsec"}
        assert live.webhook_secrets() == ["whsec"]
        assert await scene.connections.by_key("acme") is live
        assert await scene.connections.by_endpoint("endpoint-acme") is live

    scene(body)


def test_nothing_shows_its_secrets():
    async def body(scene):
        live = await scene.connections.get((await scene.add()).id)
        invocation = invocation_for(live, stream="customers", as_of=AT)
        shown = [repr(live), repr(live.versions["api_key"]), repr(invocation), repr(live.http), repr(scene.connections)]
        assert not [text for text in shown if SECRET in text]

    scene(body)


def test_what_is_not_there_is_named():
    async def body(scene):
        await scene.add()
        with pytest.raises(NotFoundError, match="id 999"):
            await scene.connections.get(999)
        with pytest.raises(NotFoundError, match="Did you mean `acme`"):
            await scene.connections.by_key("acmee")
        assert await scene.connections.by_endpoint("endpoint-other") is None

    scene(body)


def test_a_connection_made_a_moment_ago_is_found_by_id_and_key():
    async def body(scene):
        await scene.connections.by_endpoint("endpoint-acme")
        stored = await scene.add()
        assert (await scene.connections.get(stored.id)).stored == stored
        other = await scene.add(key="other")
        assert (await scene.connections.by_key("other")).stored == other

    scene(body)


def test_a_connection_whose_connector_is_not_loaded_is_told_apart():
    async def body(scene):
        stored = await scene.add(key="other", connector="fakes")
        with pytest.raises(NotFoundError, match="`fakes` of the connection `other` is not loaded"):
            await scene.connections.get(stored.id)
        assert await scene.connections.by_endpoint("endpoint-other") is None

    scene(body)


def test_a_secret_under_a_lost_key_needs_the_operator():
    async def body(scene):
        stored = await scene.add(ring=KeyRing([bytes(range(32))]))
        with pytest.raises(SettingsError, match="cannot be decrypted"):
            await scene.connections.get(stored.id)

    scene(body)


def test_a_ciphertext_moved_to_another_connection_is_worth_nothing():
    async def body(scene):
        first = await scene.add()
        (secret,) = await scene.store.secrets(first.id, at=AT)
        second = await scene.add(key="thief", secrets={})
        await scene.store.put_secret(second.id, name="api_key", ciphertext=secret.ciphertext, keep_previous_until=None)
        with pytest.raises(SettingsError):
            await scene.connections.get(second.id)

    scene(body)


def test_the_store_is_read_once_in_a_few_seconds():
    async def body(scene):
        stored = await scene.add()
        first = await scene.connections.get(stored.id)
        for _ in range(10):
            assert await scene.connections.by_endpoint("endpoint-acme") is first
        assert scene.counted.reads == ["connections", "secrets"]
        await scene.clock.advance(READ_AGAIN_SECONDS)
        assert await scene.connections.get(stored.id) is first
        assert scene.counted.reads == ["connections", "secrets"] * 2

    scene(body)


def test_many_who_ask_at_once_read_the_store_once():
    async def body(scene):
        await scene.add()
        await asyncio.gather(*(scene.connections.by_key("acme") for _ in range(20)))
        assert scene.counted.reads.count("connections") == 1

    scene(body)


def test_a_change_made_elsewhere_is_seen_after_a_few_seconds():
    async def body(scene):
        stored = await scene.add()
        await scene.connections.get(stored.id)
        ciphertext = RING.encrypt("sk_new", aad=secret_aad("acme", "api_key"))
        await scene.store.put_secret(stored.id, name="api_key", ciphertext=ciphertext, keep_previous_until=None)
        assert (await scene.connections.get(stored.id)).secrets["api_key"] == SECRET
        await scene.clock.advance(READ_AGAIN_SECONDS)
        assert (await scene.connections.get(stored.id)).secrets["api_key"] == "sk_new"
        await scene.store.update_settings(stored.id, {"region": "us"})
        await scene.clock.advance(READ_AGAIN_SECONDS)
        assert (await scene.connections.get(stored.id)).settings["region"] == "us"
        await scene.store.remove_connection(stored.id)
        await scene.clock.advance(READ_AGAIN_SECONDS)
        with pytest.raises(NotFoundError):
            await scene.connections.get(stored.id)

    scene(body)


def test_what_is_forgotten_is_read_at_once():
    async def body(scene):
        stored = await scene.add()
        await scene.connections.get(stored.id)
        await scene.store.pause_connection(stored.id, reason="later", needs_attention=False, at=AT)
        assert (await scene.connections.get(stored.id)).stored.paused_at is None
        scene.connections.forget(stored.id)
        assert (await scene.connections.get(stored.id)).stored.paused_reason == "later"
        await scene.store.resume_connection(stored.id, at=AT)
        scene.connections.forget()
        assert (await scene.connections.get(stored.id)).stored.paused_at is None

    scene(body)


def test_what_is_forgotten_while_it_is_read_is_read_again():
    async def body(scene):
        stored = await scene.add()

        async def change_behind_the_read():
            scene.counted.during = None
            await scene.store.pause_connection(stored.id, reason="later", needs_attention=False, at=AT)
            scene.connections.forget(stored.id)

        scene.counted.during = change_behind_the_read
        assert (await scene.connections.get(stored.id)).stored.paused_reason == "later"

    scene(body)


def test_a_new_connection_is_found_soon_and_a_guess_costs_one_read_a_second():
    async def body(scene):
        assert await scene.connections.by_endpoint("endpoint-acme") is None
        await scene.add()
        for _ in range(50):
            assert await scene.connections.by_endpoint("endpoint-acme") is None
        assert scene.counted.reads == ["connections"]
        await scene.clock.advance(MISS_SECONDS)
        assert await scene.connections.by_endpoint("endpoint-acme") is not None

    scene(body)


def test_a_project_that_is_replaced_is_used_from_the_next_look_on():
    async def body(scene):
        stored = await scene.add()
        await scene.connections.get(stored.id)
        scene.projects["fake"] = newer = make_project(connector=catalog(version="0.2.0"))
        assert (await scene.connections.get(stored.id)).project is newer

    scene(body)


def test_while_a_secret_rotates_both_are_valid_and_the_newest_comes_first():
    async def body(scene):
        stored = await scene.add(secrets={"webhook_secret": "old"})
        ciphertext = RING.encrypt("new", aad=secret_aad("acme", "webhook_secret"))
        until = scene.clock.now() + timedelta(seconds=READ_AGAIN_SECONDS / 2)
        await scene.store.put_secret(stored.id, name="webhook_secret", ciphertext=ciphertext, keep_previous_until=until)
        live = await scene.connections.get(stored.id)
        assert live.webhook_secrets() == ["new", "old"]
        assert live.secrets["webhook_secret"] == "new"
        await scene.clock.advance(READ_AGAIN_SECONDS / 2)
        assert live.webhook_secrets() == ["new"]

    scene(body)


def test_without_webhooks_or_without_a_secret_there_are_none():
    async def body(scene):
        stored = await scene.add()
        assert (await scene.connections.get(stored.id)).webhook_secrets() == []
        scene.projects["fake"] = make_project(connector=make_catalog(webhooks=None))
        assert (await scene.connections.get(stored.id)).webhook_secrets() == ()

    scene(body)


def test_the_processs_redactor_knows_every_live_secret():
    async def body(scene):
        await scene.connections.get((await scene.add()).id)
        await scene.connections.get((await scene.add(key="other", secrets={"api_key": "sk_other_account"})).id)
        assert scene.connections.redactor().text(f"{SECRET} sk_other_account") == "*** ***"

    scene(body)


# invoking


def with_live(body, *, project=None, script=None, secrets=None):
    async def inside(made):
        stored = await made.add(secrets=secrets)
        return await body(made, await made.connections.get(stored.id))

    return scene(inside, project=project, script=script)


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
