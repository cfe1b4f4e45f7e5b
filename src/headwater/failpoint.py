"""Named failpoints: places where a test may crash, delay or fail the platform. Inert unless armed.

`HEADWATER_FAILPOINT=name` kills the process with SIGKILL the first time that `name` is passed,
`name:3` the third time. Tests in one process arm a callable instead.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

NAMES = frozenset(
    {
        "delivery.received",
        "delivery.before_commit",
        "delivery.after_commit",
        "delivery.acked",
        "dispatch.claimed",
        "dispatch.before_commit",
        "dispatch.after_commit",
        "dispatch.before_retry",
        "run.started",
        "page.fetched",
        "page.before_records",
        "page.before_checkpoint",
        "page.before_commit",
        "page.after_commit",
        "run.before_finish",
        "run.before_retry",
        "tick.before_commit",
        "tick.after_commit",
        "migration.before_commit",
        "replay.before_commit",
        "deploy.received",
        "deploy.before_commit",
        "deploy.after_commit",
        "oauth.before_store",
        "oauth.stored",
        "copy.begun",
        "copy.before_batch_commit",
        "copy.after_batch_commit",
        "copy.numbered",
        "copy.before_end_commit",
        "copy.after_end_commit",
    }
)

_armed: dict[str, Callable[[], None]] = {}


def arm(name: str, action: Callable[[], None]) -> None:
    """Call `action` whenever `name` is passed, until `disarm`."""
    assert name in NAMES, f"no failpoint {name}"
    _armed[name] = action


def disarm(name: str | None = None) -> None:
    """Forget the action of `name`, or of all."""
    if name is None:
        _armed.clear()
    else:
        _armed.pop(name, None)


def failpoint(name: str) -> None:
    """Pass the place `name`: nothing happens unless it is armed."""
    if _armed and (action := _armed.get(name)):
        action()


def _arm_from_environment() -> None:
    name, _, nth = os.environ.get("HEADWATER_FAILPOINT", "").partition(":")
    if not name:
        return
    remaining = int(nth or 1)

    def kill() -> None:
        nonlocal remaining
        remaining -= 1
        if remaining == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    arm(name, kill)


_arm_from_environment()
