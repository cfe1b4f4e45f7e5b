"""Histories of an installation, one for each seed: how one is run, and what it came to."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from headwater.testing import provider_webhook
from headwater.testing.simulation import Simulation
from headwater.testing.virtual import EndlessError, VirtualLoop, run_virtual

SHARED_MEMORY = Path("/dev/shm")


@dataclass
class Told:
    """What one history came to."""

    seed: int
    replay: str  # the command that does it again
    hash: str = ""
    violations: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    acked: int = 0
    records: int = 0
    lines: int = 0
    virtual_seconds: float = 0.0
    seconds: float = 0.0
    last_lines: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join([f"seed {self.seed} broke {len(self.violations)} promises:", *self.violations, self.replay])


def tell(
    told: Told,
    history: Callable[[Simulation], Awaitable[None]],
    *,
    made: Callable[[VirtualLoop, Path], Simulation],
    retry_seconds: tuple[float, ...],
    on_line: Callable[[str], object] | None,
    whole: bool,
) -> Told:
    """Run the history of `told.seed` on what `made` makes of a loop and a folder, its providers' webhooks tried again
    after `retry_seconds`; unless it is wanted `whole`, it stops where the first promise is broken.
    """
    started = time.perf_counter()
    parent = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None

    async def main(loop: VirtualLoop) -> None:
        simulation = made(loop, Path(folder))
        if on_line:
            simulation.history.on_line = on_line
        broken = asyncio.Event()
        if not whole:
            simulation.history.on_violation = broken.set
        tasks = [asyncio.ensure_future(history(simulation)), asyncio.create_task(broken.wait())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
        finally:
            told.hash, told.lines = simulation.history.hash, simulation.history.count
            told.violations, told.last_lines = simulation.history.violations, list(simulation.history.lines)
            told.kills, told.virtual_seconds = Counter(simulation.kills), loop.time()
            told.acked = simulation.auditor.acked if simulation.auditor else 0
            simulation.release()

    try:
        with (
            patch.object(provider_webhook, "RETRY_SECONDS", retry_seconds),
            tempfile.TemporaryDirectory(prefix="headwater-simulation-", dir=parent) as folder,
        ):
            run_virtual(main, chance=random.Random(f"loop {told.seed}"), shuffled=told.seed % 2 == 0)
    except EndlessError as error:
        told.violations.append(f"{told.virtual_seconds:.3f} s: 7: the history does not end: {error}")
    told.seconds = time.perf_counter() - started
    return told
