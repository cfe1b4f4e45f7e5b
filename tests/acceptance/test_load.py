"""A short form of the load that is verified: `make nightly-load` runs the long one."""

import asyncio
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "load"))

import verified

from cluster_nodes import as_url

SECONDS, RATE, BURST = 2, 50, 150


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_every_event_of_a_load_is_found_again(tmp_path, kind, request):
    database = "load.db" if kind == "sqlite" else as_url(request.getfixturevalue("postgres_url"))
    words = {"seconds": SECONDS, "rate": RATE, "burst": BURST}
    figures, compared = asyncio.run(verified.programme(tmp_path, database=database, **words))
    assert figures.problems == []
    assert (figures.events, figures.answers[200]) == (SECONDS * RATE + BURST, SECONDS * RATE + BURST)
    assert compared == RATE * verified.SECONDS_APART


def test_what_a_load_would_miss_is_told():
    figures = verified.Figures(memory=[100] * 120 + [120] * 60)
    assert figures.growth() == 1.2
    assert verified.Figures(memory=[1, 2]).growth() is None
