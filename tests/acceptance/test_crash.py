"""A short form of the programme of kills: `make crash` runs the long one."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "crash"))

import cycles
import pytest


@pytest.mark.parametrize("store", sorted(cycles.NAMES))
def test_killed_at_every_failpoint_nothing_is_lost_and_nothing_happens_twice(tmp_path, store):
    names = cycles.NAMES[store]
    figures = asyncio.run(cycles.programme(tmp_path, store=store, cycles=len(names), seed=7))
    assert figures.problems == []
    assert sum(figures.kills.values()) >= 0.7 * len(names), figures.kills
    assert figures.acked > 0
