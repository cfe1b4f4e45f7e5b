"""Spans: one for each run, its pages and each delivery, with what an operator asks for and nothing that was sent."""

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from doors import served
from headwater import trace
from headwater.errors import StartError
from headwater.run import LEASE_SECONDS
from loopback import API_KEY, WEBHOOK_SECRET, loopback_shop, shop_project


@pytest.fixture
def spans():
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.use(provider.get_tracer("test"))
    yield lambda: exporter.get_finished_spans()
    trace.use(None)


def by_name(found):
    return {name: [one for one in found if one.name == name] for name in sorted({one.name for one in found})}


async def run_once(house, stream="customers"):
    (state,) = await house.store.streams(at=house.clock.now(), connection="acme", stream=stream)
    run_id = await house.store.trigger_run(state.id, at=house.clock.now())
    ref = await house.store.admit_run(run_id, at=house.clock.now(), lease_seconds=LEASE_SECONDS)
    return await house.platform.live.runner.carry_out(ref)


def at_work(folder, story):
    async def main():
        shop_project(folder / "shop")
        with loopback_shop() as shop:
            async with served(folder) as house:
                values = {"api_key": API_KEY, "webhook_secret": WEBHOOK_SECRET, "api_base": shop.url}
                await house.platform.add_connection("shop", values, key="acme")
                await story(house, shop)

    asyncio.run(main())


def test_a_run_and_its_pages_are_told(tmp_path, spans):
    async def story(house, _):
        await run_once(house)
        found = by_name(spans())
        (run,) = found["headwater.run"]
        told = dict(run.attributes)
        assert {name: told[f"headwater.{name}"] for name in ("connection", "stream", "state", "pages", "records")} == {
            "connection": "acme", "stream": "customers", "state": "succeeded", "pages": 2, "records": 3,
        }  # fmt: skip
        pages = found["headwater.page"]
        assert [one.attributes["headwater.page"] for one in pages] == [1, 2]
        assert {one.parent.span_id for one in pages} == {run.context.span_id}
        assert run.status.status_code is otel.StatusCode.UNSET

    at_work(tmp_path, story)


def test_a_run_that_fails_says_why_by_its_code_alone(tmp_path, spans):
    async def story(house, shop):
        shop.refusals = [401]
        await run_once(house)
        (run,) = by_name(spans())["headwater.run"]
        assert (run.status.status_code, run.status.description) == (otel.StatusCode.ERROR, "operator.credentials")
        assert API_KEY not in run.to_json()
        assert run.events == (), "no message, no traceback"

    at_work(tmp_path, story)


def test_a_delivery_is_told(tmp_path, spans):
    async def story(house, _):
        from headwater.acts.events import SendEvent

        desk = house.application._desk("ada", tenant=None)
        await SendEvent(connection="acme", event_type="customer.updated").carry_out(desk)
        await SendEvent(connection="acme", event_type="nobody.wants").carry_out(desk)
        await house.application.dispatcher.dispatch_batch()
        told = [dict(one.attributes) for one in by_name(spans())["headwater.delivery"]]
        right, wrong = sorted(told, key=lambda one: one["headwater.delivery_id"])
        assert (right["headwater.event_type"], right["headwater.records"]) == ("customer.updated", 1)
        assert (wrong["headwater.event_type"], wrong["headwater.error"]) == ("nobody.wants", "stop.handler")
        assert {one["headwater.connection"] for one in told} == {"acme"}

    at_work(tmp_path, story)


def test_nobody_listens_and_nothing_is_made(tmp_path):
    assert trace.span("a", x=1) is trace.span("b")
    with trace.span("a") as span:
        span.tell(error="x")
    assert not trace.set_up({}, version="1")
    assert not trace.set_up({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, version="1")


def test_spans_are_exported_where_the_environment_says(monkeypatch):
    asked = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    try:
        assert trace.set_up({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, version="1.2.3")
        with trace.span("headwater.run", run_id=7):
            pass
        trace._tracer.span_processor.force_flush()
        ((path, body),) = asked
        assert path == "/v1/traces"
        assert b"headwater.run" in body
        assert b"1.2.3" in body
    finally:
        trace._tracer.span_processor.shutdown()
        trace.use(None)
        server.shutdown()
        server.server_close()


def test_traces_without_the_extra_are_a_clear_error(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(StartError, match="not installed"):
        trace.set_up({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, version="1")
