"""What it costs to start, to check, to tick, and to do nothing."""

from __future__ import annotations

import time
from pathlib import Path

from bench_process import HEADWATER, HERE, PYTHON, Row, cpu_seconds, output, printed, process_cpu, row, server

ROWS = ("tick", "idle", "start", "check", "pages")
IDLE_SECONDS = 20.0
PORT = 8797


def measure(folder: Path, _records: int) -> list[Row]:
    """All rows of this family."""
    tick = printed([PYTHON, str(HERE / "cost_tick.py"), "tick.db"], folder=folder)["seconds"]
    check = printed([PYTHON, str(HERE / "cost_check.py"), "project"], folder=folder)["seconds"]
    pages = printed([PYTHON, str(HERE / "cost_pages.py"), "pages.db"], folder=folder)
    start = cpu_seconds([HEADWATER, "--version"], folder=folder)
    imports = cpu_seconds([PYTHON, "-c", "import click, msgspec"], folder=folder)
    idle = idle_share(folder / "idle")
    return [
        row("tick", "100 ms ÷ a tick that admits 2,000 due of 100,000 poll streams (seconds)", ours=tick, limit=0.1,
            ratio=0.1 / tick, floor=1),
        row("idle", "1 % of a core ÷ CPU of `serve` with 1,000 quiet streams", ours=idle, limit=0.01,
            ratio=0.01 / idle, floor=1),
        row("start", 'CPU of `python -c "import click, msgspec"` ÷ `headwater --version` (seconds)', ours=start,
            limit=imports, ratio=imports / start, floor=0.5),
        row("check", "300 ms ÷ CPU of checking a 50-stream project, imports apart (seconds)", ours=check, limit=0.3,
            ratio=0.3 / check, floor=1),
        row("pages", f"100 ms ÷ the slowest page at 1,000 streams and a million records: `{pages['slowest']}` (s)",
            ours=pages["seconds"], limit=0.1, ratio=0.1 / pages["seconds"], floor=1),
    ]  # fmt: skip


def idle_share(folder: Path) -> float:
    """The share of a core that a server with 1,000 streams, none of them due, uses."""
    folder.mkdir()
    output([PYTHON, str(HERE / "cost_check.py"), "project", "--streams", "1000", "--write-only"], folder=folder)
    (folder / "headwater.toml").write_text(f'projects = ["project"]\nport = {PORT}\n')
    output([HEADWATER, "connections", "add", "quiet", "--paused", "--secrets-stdin"], folder=folder, given="{}")
    with server([HEADWATER, "serve"], port=PORT, folder=folder) as process:
        time.sleep(3)
        before = process_cpu(process.pid)
        time.sleep(IDLE_SECONDS)
        return max(process_cpu(process.pid) - before, 1e-4) / IDLE_SECONDS
