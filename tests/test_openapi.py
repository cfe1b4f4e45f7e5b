"""The OpenAPI document: true to the code, and the API true to it, whatever is asked."""

import asyncio
import json
import os
import re

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
from headwater.acts.registry import ACTS
from headwater.api.access import open_guard
from headwater.api.endpoint import Endpoint
from headwater.api.routes import routes as api_routes
from headwater.testing.clock import FakeClock
from live_server import LiveServer
from loopback import shop_project
from stored import open_store

EXAMPLES = int(os.environ.get("EXAMPLES", "12"))  # of each operation
KNOWN = {"key": "acme", "stream": "customers", "connection": "acme", "type": "customer"}
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    shop_project(folder / "shop")
    running = LiveServer(folder).begin()
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
