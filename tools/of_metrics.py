"""The page of the metrics, made of what a scrape would answer."""

from prometheus_client.core import Metric

from headwater.metrics import StoreCollector

METRICS = """\
# Metrics

Made of the metrics themselves by `make docs`. `GET /metrics` answers in Prometheus' text form, reckoned from the store
at each scrape: every node of one store shows the same figures, and none is lost with a process. Alert rules and a
Grafana dashboard made for them are in `deploy/`.

| name | type | what | labels |
|---|---|---|---|
"""


def metrics() -> str:
    """The page of the metrics; those of the process are Prometheus' own."""
    collector = StoreCollector((), high_water=0, version="")
    return METRICS + "".join(sorted(_metric(one) for one in collector.collect()))


def _metric(one: Metric) -> str:
    labels = ", ".join(f"`{name}`" for name in getattr(one, "_labelnames", ()))
    name = f"{one.name}_info" if one.type == "info" else one.name
    return f"| `{name}` | {one.type} | {one.documentation} | {labels} |\n"
