"""Whether the simulator finds what it is for: a handful of deliberate bugs; `make bugs` plants all of them."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "simulation"))

import bugs

DOCS = Path(__file__).parent.parent / "docs"
RELIABILITY = (DOCS / "reliability.md").read_text()
FIGURES = json.loads((DOCS / "figures" / "bugs.json").read_text())
HANDFUL = {
    "a 2xx before the commit",
    "the checkpoint before its records",
    "records without their checkpoint",
    "an older state replaces a newer one",
    "a delivery is done before its emissions",
    "dead letters vanish",
    "signatures are not compared",
    "connections are mixed up",
    "Retry-After is not kept",
    "commits do not wait for the disk",
}
BRIEFLY = {"a 2xx although the commit failed", "no epoch is checked", "leases are taken before they end"}


@pytest.mark.parametrize("bug", [bug for bug in bugs.BUGS if bug.name in HANDFUL], ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught_as_the_promise_that_it_breaks(bug):
    found = bugs.caught(bug)
    assert found is not None
    assert found.by == bug.breaks or f" s: {bug.breaks}" in found.said


@pytest.mark.parametrize("bug", [bug for bug in bugs.BUGS if bug.name in BRIEFLY], ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught_by_brief_histories(bug):
    found = bugs.caught(bug, bugs.brief, bugs.BRIEF_SEEDS)
    assert found is not None
    assert f" s: {bug.breaks}" in found.said


def test_the_bugs_are_those_that_the_documentation_lists():
    assert {bug.name for bug in bugs.BUGS} >= HANDFUL
    assert len(bugs.BUGS) >= 20
    for bug in bugs.BUGS:
        assert f"| {bug.name} | " in RELIABILITY, bug.name
    assert set(FIGURES["caught"]) == {bug.name for bug in bugs.BUGS}
