"""What authors call: each verb, from async code and from threads, and the clients that a process keeps."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

from builders import make_catalog
from headwater import http
from headwater.catalog import Permissions
from headwater.client import HttpClients
from headwater.context import invoking
from headwater.errors import (
    ForbiddenHostError,
    OutsideRouteError,
    ProviderError,
    RateLimitedError,
    ResponseError,
)
from headwater.redaction import Redactor
from headwater.testing.clock import FakeClock
from http_fakes import API, Script, answer, make_client, make_invocation


@asynccontextmanager
async def route(*steps):
    script = Script(*steps)
    with invoking(make_invocation(make_client(script))):
        yield script


@pytest.mark.parametrize("verb", ["get", "post", "put", "patch", "delete"])
def test_each_verb_asks_on_behalf_of_the_connection(verb):
    async def main():
        async with route() as script:
            await getattr(http, verb)(f"{API}/x", headers={"A": "b"})
            return script.requests[0]

    request = asyncio.run(main())
    assert (request.method, request.headers["A"]) == (verb.upper(), "b")


def test_outside_a_route_there_is_no_http():
    with pytest.raises(OutsideRouteError, match="`http`"):
        asyncio.run(http.get(API))
    with pytest.raises(OutsideRouteError, match=r"`http\.blocking`"):
        http.blocking.get(API)


def test_blocking_in_an_async_route_says_what_to_write():
    async def main():
        async with route():
            http.serve_blocking(asyncio.get_running_loop())
            http.blocking.post(API)

    with pytest.raises(OutsideRouteError, match=r"await http\.post"):
        asyncio.run(main())


@pytest.mark.parametrize("verb", ["get", "post", "put", "patch", "delete"])
def test_blocking_works_on_the_platforms_loop(verb):
    async def main():
        async with route(answer(body=b"[7]")) as script:
            http.serve_blocking(asyncio.get_running_loop())
            response = await asyncio.to_thread(getattr(http.blocking, verb), f"{API}/x")
            return response.json(), script.requests[0].method

    assert asyncio.run(main()) == ([7], verb.upper())


def test_blocking_raises_what_the_request_raises():
    async def main():
        async with route(answer(404)):
            http.serve_blocking(asyncio.get_running_loop())
            await asyncio.to_thread(http.blocking.get, API)

    with pytest.raises(ResponseError):
        asyncio.run(main())


def test_blocking_after_the_loop_has_ended_is_an_error():
    loop = asyncio.new_event_loop()
    loop.close()
    caught = []

    def work():
        with invoking(make_invocation(make_client(Script()))):
            http.serve_blocking(loop)
            try:
                http.blocking.get(API)
            except ProviderError as error:
                caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "stopping" in str(caught[0])


# the clients of a process


def test_the_clients_of_a_connection_share_its_quota_and_others_do_not():
    async def main():
        clock = FakeClock()
        script = Script(answer(429, Retry_After="300"))
        clients = HttpClients(clock, script)
        catalog = make_catalog(permissions=Permissions(http=[f"{API}/*"]))
        made = [
            clients.client(connection_id=number, connector=catalog, settings={}, redactor=Redactor(()))
            for number in (1, 1, 2)
        ]
        for client in made:
            with pytest.raises(RateLimitedError):
                await client.request("GET", API)
        return len(script.requests)

    assert asyncio.run(main()) == 2


def test_a_setting_completes_the_permissions():
    async def main():
        clock, script = FakeClock(), Script()
        catalog = make_catalog(permissions=Permissions(http=["{settings.api_base}/*"]))
        clients = HttpClients(clock, script)
        client = clients.client(
            connection_id=1, connector=catalog, settings={"api_base": "http://127.0.0.1:12111"}, redactor=Redactor(())
        )
        await client.request("GET", "http://127.0.0.1:12111/v1")
        with pytest.raises(ForbiddenHostError):
            await client.request("GET", "http://127.0.0.1:9999/v1")
        return script.requests[0].reach

    assert asyncio.run(main()) == "loopback"
