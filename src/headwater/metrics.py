"""`/metrics` in Prometheus' text form, reckoned from the store at each scrape, and the two health probes.

Nothing is counted in this process: every process on one store shows the same figures, and none is lost with it. What
the store keeps for 24 h is a gauge that says so in its name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from headwater import health
from headwater.api.access import Guard
from headwater.api.problem import from_error
from headwater.clock import Clock
from headwater.errors import HeadwaterError
from headwater.health import StreamReport
from headwater.record import COUNT_NAMES
from headwater.store import Store
from headwater.verdict import Status

STREAM_LABELS = ("connection", "connector", "stream", "partition")
READY_CONSUMER = "readyz"

Probe = Callable[[], Awaitable[str | None]]  # None: ready; else why not


class StoreCollector(Collector):
    """The figures of one instant as metric families; never a label per record."""

    def __init__(self, reports: Sequence[StreamReport], *, high_water: int, version: str) -> None:
        self._reports = reports
        self._high_water = high_water
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        yield InfoMetricFamily("headwater_build", "The version that runs.", value={"version": self._version})
        feed = GaugeMetricFamily("headwater_feed_high_water_sequence", "Newest sequence of the change feed.")
        feed.add_metric([], self._high_water)
        yield feed
        yield from self._instants()
        yield self._status()
        yield from self._figures()
        yield self._records()

    def _instants(self) -> Iterator[Metric]:
        for name, what, value in _INSTANTS:
            found = ((one, value(one)) for one in self._reports)
            yield _family(
                f"headwater_stream_{name}_timestamp_seconds",
                what,
                ((one, instant.timestamp()) for one, instant in found if instant is not None),
            )

    def _status(self) -> Metric:
        family = GaugeMetricFamily(
            "headwater_stream_status",
            "1 for the status that a stream has, 0 for the others.",
            labels=(*STREAM_LABELS, "status"),
        )
        for one in self._reports:
            for status in Status:
                family.add_metric([*_labels(one), status.value], float(one.status is status))
        return family

    def _figures(self) -> Iterator[Metric]:
        for name, what, value in _FIGURES:
            found = ((one, value(one)) for one in self._reports)
            yield _family(name, what, ((one, figure) for one, figure in found if figure is not None))

    def _records(self) -> Metric:
        family = GaugeMetricFamily(
            "headwater_stream_emissions_24h",
            "Emissions of the last 24 h by what they came to.",
            labels=(*STREAM_LABELS, "outcome"),
        )
        for one in self._reports:
            for name in COUNT_NAMES:
                family.add_metric([*_labels(one), name], getattr(one.counts_24h, name))
        return family


def routes(*, store: Store, clock: Clock, guard: Guard, version: str, probes: Sequence[Probe] = ()) -> list[BaseRoute]:
    """`/metrics` behind the guard; `/livez` and `/readyz` open, telling nothing but whether.

    `probes` are further conditions for being ready, beside a store that answers.
    """
    process = ProcessCollector(registry=None)

    async def metrics(request: Request) -> Response:
        try:
            caller = await guard(request)
            caller.require("read")
        except HeadwaterError as error:
            return from_error(error)
        at = clock.now()
        states = await store.streams(at=at, tenant=caller.tenant)
        feed = await store.changes(after=0, limit=1)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(process)
        registry.register(StoreCollector(health.reports(states, at), high_water=feed.high_water, version=version))
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        try:
            await store.position(READY_CONSUMER)
            reasons = [reason for probe in probes if (reason := await probe())]
        except HeadwaterError as error:
            reasons = [error.message]
        if reasons:
            return PlainTextResponse("\n".join(reasons) + "\n", status_code=503, headers={"Retry-After": "5"})
        return PlainTextResponse("ok\n")

    return [Route("/metrics", metrics), Route("/livez", livez), Route("/readyz", readyz)]


def _family(name: str, what: str, samples: Iterable[tuple[StreamReport, float]]) -> Metric:
    family = GaugeMetricFamily(name, what, labels=STREAM_LABELS)
    for one, value in samples:
        family.add_metric(_labels(one), value)
    return family


def _labels(one: StreamReport) -> list[str]:
    return [one.connection, one.connector, one.stream, one.partition]


_INSTANTS: tuple[tuple[str, str, Callable[[StreamReport], datetime | None]], ...] = (
    ("last_success", "When the stream last succeeded, or last received a delivery.", lambda one: one.complete_at),
    ("last_attempt", "When the stream was last tried.", lambda one: one.last_attempt_at),
    ("last_record", "When the stream last brought a record.", lambda one: one.last_record_at),
    ("expected_next", "When the next success is expected; in the past when overdue.", lambda one: one.expected_at),
)
_FIGURES: tuple[tuple[str, str, Callable[[StreamReport], float | None]], ...] = (
    ("headwater_stream_age_seconds", "Since the stream was last known complete.", lambda one: one.age_seconds),
    ("headwater_stream_lag_seconds", "Past the expected success; 0 in time.", lambda one: one.lag_seconds),
    ("headwater_stream_grace_seconds", "Past the expected success, before it is late.", lambda one: one.grace_seconds),
    ("headwater_stream_missed_ticks", "Expected ticks without a success since.", lambda one: one.missed),
    ("headwater_stream_consecutive_failures", "Failures since the last success.", lambda one: one.consecutive_failures),
    ("headwater_stream_skipped_ticks", "Ticks that found the run before going.", lambda one: one.skipped_ticks),
    ("headwater_stream_runs_24h", "Runs of the last 24 h.", lambda one: one.runs_24h),
    ("headwater_stream_failed_runs_24h", "Failed runs of the last 24 h.", lambda one: one.failed_24h),
    ("headwater_stream_drift_ratio", "Share of 24 h changes that webhooks had missed.", lambda one: one.drift),
    ("headwater_deliveries_pending", "Deliveries that wait.", lambda one: _webhook(one, one.pending)),
    ("headwater_deliveries_dead", "Dead letters.", lambda one: _webhook(one, one.dead)),
    ("headwater_deliveries_24h", "Deliveries of the last 24 h.", lambda one: _webhook(one, one.deliveries_24h)),
    ("headwater_deliveries_rejected_24h", "Refused in 24 h.", lambda one: _webhook(one, one.rejected_24h)),
)


def _webhook(one: StreamReport, value: int) -> int | None:
    return value if one.mode == "webhook" else None
