"""Ours beside its peers and its limits, in one run: writes bench/results.json and the table of docs/performance.md.

Usage: run.py [ROW …] [--records 200000]. Timings on a shared machine are noisy; only the ratios within a run say much.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import measures_cost  # noqa: E402  the folder comes first
import measures_fleet  # noqa: E402
import measures_ingest  # noqa: E402
import measures_webhooks  # noqa: E402
from bench_process import Row  # noqa: E402

RESULTS = HERE / "results.json"
TABLE = HERE.parent / "docs" / "performance.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def measure(wanted: set[str], records: int) -> list[Row]:
    """The rows asked for, or all; families that share a server or a load are measured together."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=HERE.parent, prefix=".bench-") as name:
        for family in (measures_cost, measures_ingest, measures_webhooks, measures_fleet):
            if not wanted or wanted & set(family.ROWS):
                folder = Path(name) / family.__name__
                folder.mkdir()
                rows += family.measure(folder, records)
                shutil.rmtree(folder)
    return [row for row in rows if not wanted or row["id"] in wanted]


def write(rows: list[Row]) -> None:
    """Keep the rows that were not measured now; put the table into the page."""
    known = {row["id"]: row for row in json.loads(RESULTS.read_text())["rows"]} if RESULTS.exists() else {}
    known |= {row["id"]: row for row in rows}
    RESULTS.write_text(json.dumps({"machine": machine(), "rows": list(known.values())}, indent=1) + "\n")
    lines = ["| row | what | ours | peer or limit | ratio | at least |", "|---|---|---|---|---|---|"]
    for row in known.values():
        other = row["peer"] if row["peer"] is not None else row["limit"]
        met = "" if row["ratio"] >= row["floor"] else " (missed)"
        lines.append(
            f"| `{row['id']}` | {row['what']} | {figure(row['ours'])} | {figure(other)} | {row['ratio']:.2f}{met} "
            f"| {row['floor']} |"
        )
    before, _, rest = TABLE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    TABLE.write_text(f"{before}{BEGIN}\n{machine()}\n\n" + "\n".join(lines) + f"\n{END}{after}")


def figure(value: float) -> str:
    """A figure as people read it."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine() -> str:
    """What it was measured on."""
    cores = subprocess.run(["nproc"], capture_output=True, text=True, check=True).stdout.strip()
    system = f"{platform.system()} {platform.machine()}"
    return f"Measured on {cores} shared cores, {system}, Python {platform.python_version()}."


def main() -> None:
    """See the module."""
    options = argparse.ArgumentParser()
    options.add_argument("rows", nargs="*")
    options.add_argument("--records", type=int, default=200_000)
    chosen = options.parse_args()
    rows = measure(set(chosen.rows), chosen.records)
    write(rows)
    for row in rows:
        print(f"{row['id']:14} ratio {row['ratio']:8.2f}  at least {row['floor']:5}  {row['what']}")


if __name__ == "__main__":
    main()
