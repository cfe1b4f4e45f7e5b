"""The OpenAPI document: true to the code, and the API true to it, whatever is asked."""

import asyncio
import json
import os
import re
import threading
from dataclasses import replace

import httpx
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from every_route import filled
from headwater import config, server
from headwater.acts.registry import ACTS
from headwater.api.access import api_key_hash, new_api_key, open_guard
from headwater.api.endpoint import Endpoint
from headwater.api.routes import routes as api_routes
from headwater.app import open_platform
from headwater.application import Application
from headwater.clock import SystemClock
from headwater.record import Quarantined
from headwater.run import Window
from headwater.testing.clock import FakeClock
from loopback import API_KEY, WEBHOOK_SECRET, shop_project
from stored import deliver, dispatch, emit, ingest, open_store

EXAMPLES = int(os.environ.get("EXAMPLES", "12"))  # of each operation
SCOPES = ("read", "payloads", "operate", "deploy", "admin")
KNOWN = {"key": "acme", "stream": "customers", "connection": "acme", "type": "customer"}
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


async def _fill(platform):
    """Something of everything, so that answers are not empty."""
    store, clock = platform.store, platform.clock
    values = {"api_key": API_KEY, "webhook_secret": WEBHOOK_SECRET, "api_base": "http://127.0.0.1:9"}
    stored = await platform.add_connection("shop", values, key="acme", tenant="one")
    broken = Quarantined(
        type="customer", stream="customers", source_id="q", idempotency_key="customer:q", payload=b"{}",
        reason="name is missing", as_of=0,
    )  # fmt: skip
    await ingest(store, clock, emit("c1", clock, name="Ann"), emit("c2", clock), quarantined=[broken])
    await ingest(store, clock, emit("c1", clock, name="Bob"), emit("c2", clock, deleted=True))
    for name in ("one", "two"):
        await deliver(store, clock, stored, name)
        await dispatch(store, clock, dead=name == "two")
    await store.reject_delivery(stored.id, reason="bad signature", at=clock.now(), sample="{}")
    (state,) = await store.streams(at=clock.now(), connection="acme", stream="customers")
    span = Window(clock.now().replace(year=2025), clock.now())
    await store.add_backfill(state.id, span=span, windows=[span], at=clock.now())


class _Server(threading.Thread):
    """An installation behind the real HTTP server, on a loopback port, with a loop of its own."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self._folder = folder
        self._ready = threading.Event()
        self._loop = None
        self._end = None
        self.url = ""
        self.key = new_api_key()
        self.key_id = 0

    def run(self):
        asyncio.run(self._serve())

    async def _serve(self):
        chosen = replace(config.load({}, directory=self._folder), host="127.0.0.1")
        listener = server.bind("127.0.0.1", 0)
        async with open_platform(chosen, SystemClock(), with_projects=True) as platform:
            await _fill(platform)
            made = await platform.store.add_api_key(
                name="fuzz", hash=api_key_hash(self.key), scopes=SCOPES, tenant=None, at=platform.clock.now(),
                expires_at=None,
            )  # fmt: skip
            self.key_id = made.id
            application = Application(platform, version="test")
            running = server._uvicorn(application)
            task = asyncio.create_task(running.serve(sockets=[listener]))
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
            self._ready.set()
            await self._end.wait()
            running.should_exit = running.force_exit = True
            await task

    def begin(self):
        self.start()
        assert self._ready.wait(30)
        return self

    def end(self):
        self._loop.call_soon_threadsafe(self._end.set)
        self.join(30)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    shop_project(folder / "shop")
    running = _Server(folder).begin()
    yield running
    running.end()


@pytest.fixture(scope="module")
def api(served):
    loaded = schemathesis.openapi.from_url(
        f"{served.url}/api/v1/openapi.json", headers={"Authorization": f"Bearer {served.key}"}
    )

    @loaded.hook
    def map_query(context, query):
        """Nobody waits for news here."""
        return {**query, "wait": 0} if query and "wait" in query else query

    return loaded


def test_whatever_is_asked_no_answer_breaks_the_document(api, served):
    asked, broken = 0, []

    def ask_all(operation):
        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case):
            nonlocal asked
            assume(operation.label != "DELETE /keys/{key}" or case.path_parameters["key"] != served.key_id)
            asked += 1
            case.call_and_validate(headers={"Authorization": f"Bearer {served.key}"}, checks=CHECKS, timeout=20)

        try:
            ask()
        except BaseException as error:
            if not isinstance(error, Exception | BaseExceptionGroup):
                raise
            broken.append(f"{operation.label}: {error}")

    for found in api.get_all_operations():
        ask_all(found.ok())
    assert not broken, "\n\n".join(broken)
    assert asked > 300


def test_every_route_is_described_and_takes_the_parameters_that_it_says(served):
    async def main():
        headers = {"Authorization": f"Bearer {served.key}"}
        async with httpx.AsyncClient(base_url=f"{served.url}/api/v1", headers=headers, timeout=20) as client:
            described = (await client.get("/openapi.json")).json()
            for path, methods in described["paths"].items():
                for method, operation in methods.items():
                    if "requestBody" in operation:
                        continue  # the body is looked at first, or nothing but it
                    told = {one["name"] for one in operation["parameters"] if one["in"] == "query"}
                    answer = await client.request(method, filled(path, **KNOWN) + "?zzz=1")
                    if method == "delete":
                        continue
                    assert answer.status_code == 400, (path, answer.text)
                    known = re.search(r"known are (.*)\.", answer.json()["detail"])
                    assert known, answer.text
                    assert told == set(known[1].split(", ")) - {"none"}, path

    asyncio.run(main())


def test_the_document_holds_together(served):
    described = httpx.get(f"{served.url}/api/v1/openapi.json", headers={"Authorization": f"Bearer {served.key}"}).json()
    operations = [one for methods in described["paths"].values() for one in methods.values()]
    names = [one["operationId"] for one in operations]
    assert len(set(names)) == len(names) > 60
    assert all(one["summary"] for one in operations)
    assert {f"/acts/{name}" for name in ACTS} <= set(described["paths"])
    components = described["components"]["schemas"]
    for schema in components.values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    text = json.dumps(described)
    for name in re.findall(r'"#/components/schemas/([^"]+)"', text):
        assert name in components
    assert "headwater.testing" not in text


def test_no_route_of_the_api_goes_undescribed():
    async def main():
        async with open_store() as store:
            clock = FakeClock()
            (mount,) = api_routes(
                store=store, clock=clock, guard=open_guard(), one_page=lambda: None, deployer=object()
            )
            described = [one for one in mount.app.routes if isinstance(one, Endpoint)]
            assert len(described) == len(mount.app.routes)
            for one in described:
                assert one.operation.answer is not None or one.operation.status == 204 or "openapi" in one.path, (
                    one.path
                )

    asyncio.run(main())
