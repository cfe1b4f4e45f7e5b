"""A failpoint is inert until it is armed, and every name stands somewhere in the code."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headwater import failpoint

SOURCE = Path(failpoint.__file__).parent


def test_an_armed_place_acts_until_it_is_disarmed():
    passed = []
    failpoint.arm("run.started", lambda: passed.append(1))
    failpoint.failpoint("run.started")
    failpoint.failpoint("page.fetched")
    failpoint.disarm("run.started")
    failpoint.failpoint("run.started")
    assert passed == [1]


def test_a_name_that_does_not_exist_is_our_mistake():
    with pytest.raises(AssertionError, match="no failpoint"):
        failpoint.arm("run.startled", lambda: None)


def test_every_name_stands_in_the_code_and_no_other_does():
    used = set()
    for path in SOURCE.rglob("*.py"):
        if path.name != "failpoint.py":
            text = path.read_text()
            used |= set(re.findall(r'failpoint\("([a-z._]+)"\)', text))
            used |= set(re.findall(r'(?:before|after)_commit="([a-z._]+)"', text))
    assert used == failpoint.NAMES


def test_the_environment_kills_at_the_nth_passing():
    code = (
        "from headwater.failpoint import failpoint\nfor n in range(5): print(n, flush=True); failpoint('run.started')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"HEADWATER_FAILPOINT": "run.started:3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == ["0", "1", "2"]
