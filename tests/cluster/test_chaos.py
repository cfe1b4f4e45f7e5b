"""A short form of the programme against the nodes: `make test-cluster ACTS=100` runs a long one."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import chaos


def test_nodes_killed_stopped_and_woken_lose_nothing_and_do_nothing_twice(tmp_path):
    figures = asyncio.run(chaos.programme(tmp_path, acts=8, seed=3))
    assert figures.problems == [], (tmp_path / "child.log").read_text()[-4000:]
    assert figures.kills["stopped and woken"] > 0
    assert figures.acked > 0
