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


@dataclass
class Totals:
    """What many histories came to together."""

    first_seed: int
    last_seed: int = 0
    figures: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def note(self, told: Told) -> None:
        """One more; it is printed if it broke a promise."""
        self.last_seed = told.seed
        self.kills += told.kills
        self.figures += Counter(
            histories=1, acked=told.acked, records=told.records, virtual_seconds=round(told.virtual_seconds)
        )
        if told.violations:
            print(told, flush=True)
            self.problems.append(f"seed {told.seed}: {told.violations[0]}")

    def add(self, later: Totals) -> None:
        """The seeds that follow."""
        self.last_seed = later.last_seed
        self.figures += later.figures
        self.kills += later.kills
        self.problems += later.problems

    def published(self, seconds: float) -> dict[str, object]:
        """The figures as they are published."""
        counts = {name: self.figures[name] for name in ("histories", "acked", "records", "virtual_seconds")}
        return {
            "first_seed": self.first_seed, "last_seed": self.last_seed, **counts, "seconds": round(seconds),
            "killed_at_failpoint": dict(sorted(self.kills.items())), "problems": self.problems,
        }  # fmt: skip


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
