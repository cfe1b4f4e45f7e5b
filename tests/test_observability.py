"""What is shipped for Prometheus and Grafana speaks of figures that there are, and of states that streams have."""

import asyncio
import json
import re
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from headwater import metrics
from headwater.api.access import open_guard
from headwater.testing.clock import FakeClock
from headwater.verdict import Status
from stored import connect, deliver, dispatch, emit, ingest, open_store, webhook
from stream_states import NOON

DEPLOY = Path(__file__).parent.parent / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus-rules.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
EXPRESSIONS = [rule["expr"] for rule in RULES] + [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
]


@pytest.fixture(scope="module")
def scraped():
    """The samples of a store with a poll and a webhook stream that have worked: (name, labels)."""

    async def main():
        clock = FakeClock(NOON)
        async with open_store(clock=clock) as store:
            acme = await connect(store, clock, streams=["customers", webhook()])
            await ingest(store, clock, emit("c1", clock))
            for name in ("one", "two"):
                await deliver(store, clock, acme, name)
            await dispatch(store, clock, dead=True)
            await dispatch(store, clock, emit("c2", clock))
            app = Starlette(routes=metrics.routes(store=store, clock=clock, guard=open_guard(), version="1"))
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://h") as client:
                return (await client.get("/metrics")).text

    families = text_string_to_metric_families(asyncio.run(main()))
    return [(sample.name, sample.labels) for family in families for sample in family.samples]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_speaks_of_figures_and_labels_that_there_are(expression, scraped):
    names = set(re.findall(r"\bheadwater_\w+", expression))
    assert names or "up{" in expression
    for name in names:
        labels = [found for one, found in scraped if one == name]
        assert labels, f"{name} is not told"
        for selector in re.findall(re.escape(name) + r"\{([^}]*)\}", expression):
            for label, value in re.findall(r'(\w+)=~?"([^"]*)"', selector):
                assert label in labels[0]
                if label == "status":
                    assert set(value.split("|")) <= {one.value for one in Status}


def test_every_rule_says_what_it_is_about():
    assert len({rule["alert"] for rule in RULES}) == len(RULES) >= 8
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        summary = rule["annotations"]["summary"]
        for label in re.findall(r"\$labels\.(\w+)", summary):
            assert label in metrics.STREAM_LABELS


def test_the_panels_of_the_dashboard_do_not_overlap():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
