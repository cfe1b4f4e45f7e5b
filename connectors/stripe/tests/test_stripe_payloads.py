"""What each recorded event comes to: written by hand after Stripe's API reference, whose address stands in each."""

import json
from pathlib import Path

import pytest

from headwater.testing.drive import deliver, loaded_project

FOLDER = Path(__file__).parent / "payloads"
PAYLOADS = sorted(FOLDER.glob("*.json"))


@pytest.mark.parametrize("path", PAYLOADS, ids=lambda path: path.stem)
def test_a_recorded_event_comes_to_what_stands_beside_it(path):
    recorded = json.loads(path.read_text())
    assert recorded["documentation"].startswith("https://docs.stripe.com/")
    result = deliver(__file__, json.dumps(recorded["event"]).encode(), secrets={"api_key": "sk_test_x"})
    found = [
        {"stream": emission.stream, "type": emission.type, "deleted": emission.deleted, "record": record}
        for emission, record in zip(result.emissions, result.records, strict=True)
    ]
    assert found == recorded["emissions"]


def test_every_resource_has_a_recorded_payload():
    recorded = {emission["stream"] for path in PAYLOADS for emission in json.loads(path.read_text())["emissions"]}
    streams = {stream.key for stream in loaded_project(__file__).connector.streams}
    assert recorded == streams - {"balance_transactions"}, "no event carries a balance transaction"
