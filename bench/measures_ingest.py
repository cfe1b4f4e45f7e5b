"""From HTTP to committed versions: customers as they are, beside a script by hand, raw SQLite and dlt; and mapped."""

from __future__ import annotations

import json
import subprocess
import time
from datetime import datetime
from pathlib import Path

from bench_process import HEADWATER, HERE, PYTHON, Row, neutral, output, printed, resident_bytes, row, server, stripe

ROWS = ("ingest_first", "ingest_mapped", "ingest_again", "ingest_limit", "ingest_dlt", "ingest_memory")
PROVIDER_PORT = 9900
ROUNDS = 3
DLT_RECORDS = 50_000
MEMORY_RECORDS = 1_000_000
MEMORY_BYTES = 200e6


def provider(folder: Path, records: int):
    """The neutral provider with so many customers."""
    command = [PYTHON, str(HERE / "provider.py"), "--records", str(records), "--port", str(PROVIDER_PORT)]
    return server(command, port=PROVIDER_PORT, folder=folder)


def run_seconds(folder: Path) -> float:
    """Seconds of a run in the foreground, from its start to its end as the store noted them."""
    output([HEADWATER, "run", "bench", "customers"], folder=folder)
    (run,) = json.loads(output([HEADWATER, "runs", "list", "--limit", "1", "--json"], folder=folder))
    return (instant(run["finished_at"]) - instant(run["started_at"])).total_seconds()


def instant(text: str) -> datetime:
    """An RFC 3339 instant."""
    return datetime.fromisoformat(text)


def ours(folder: Path, records: int, database: str | None = None) -> tuple[float, float]:
    """Records per second of the first load and of the same data again."""
    folder.mkdir()
    neutral(folder, provider_port=PROVIDER_PORT, database=database)
    first = run_seconds(folder)
    output([HEADWATER, "checkpoints", "reset", "bench", "customers", "--yes"], folder=folder)
    again = run_seconds(folder)
    return records / first, records / again


def mapped(folder: Path, records: int) -> float:
    """Records per second of a first load by the Stripe connector, which maps every field to the canonical customer."""
    folder.mkdir()
    stripe(folder, provider_port=PROVIDER_PORT)
    return records / run_seconds(folder)


def by_hand(folder: Path, records: int, database: str | None = None) -> tuple[float, float]:
    """The same of the script by hand."""
    folder.mkdir()
    command = [PYTHON, str(HERE / "peers" / "by_hand.py"), database or "hand.db", "--port", str(PROVIDER_PORT)]
    first, again = (printed(command, folder=folder)["seconds"] for _ in range(2))
    return records / first, records / again


def raw(folder: Path, records: int) -> float:
    """Records per second straight into SQLite."""
    folder.mkdir()
    command = [PYTHON, str(HERE / "peers" / "raw_sqlite.py"), "raw.db", str(records)]
    return records / printed(command, folder=folder)["seconds"]


def median(values: list[float]) -> float:
    """The middle one of an odd number."""
    return sorted(values)[len(values) // 2]


def measure(folder: Path, records: int) -> list[Row]:
    """All rows of this family, the contestants in turn, so that a drift of the machine meets all of them."""
    with provider(folder, records):
        rounds = [
            (
                *ours(folder / f"ours-{index}", records),
                *by_hand(folder / f"hand-{index}", records),
                raw(folder / f"raw-{index}", records),
                mapped(folder / f"mapped-{index}", records),
            )
            for index in range(ROUNDS)
        ]
    columns = [median(list(column)) for column in zip(*rounds, strict=True)]
    first, again, hand_first, hand_again, limit, with_mapping = columns
    with provider(folder, DLT_RECORDS):
        command = [PYTHON, str(HERE / "peers" / "with_dlt.py"), "dlt", "--port", str(PROVIDER_PORT)]
        dlt = DLT_RECORDS / printed(command, folder=folder)["seconds"]
    return [
        row("ingest_first", "records/s from HTTP to committed versions, first load, SQLite FULL ÷ aiohttp + sqlite3 "
            "upserts by hand", ours=first, peer=hand_first, ratio=first / hand_first, floor=2.5),
        row("ingest_mapped", "the same load by the Stripe connector, every field mapped ÷ the script, none mapped",
            ours=with_mapping, peer=hand_first, ratio=with_mapping / hand_first, floor=1),
        row("ingest_again", "the same data again ÷ the script's second load", ours=again, peer=hand_again,
            ratio=again / hand_again, floor=2.5),
        row("ingest_limit", "first load ÷ raw apsw doing the same writes, 10,000 a transaction", ours=first,
            limit=limit, ratio=first / limit, floor=0.6),
        row("ingest_dlt", "first load ÷ dlt appending into SQLite", ours=first, peer=dlt, ratio=first / dlt, floor=10),
        memory(folder / "memory"),
    ]  # fmt: skip


def memory(folder: Path) -> Row:
    """Peak memory of a backfill of a million records in one window."""
    folder.mkdir()
    neutral(folder, provider_port=PROVIDER_PORT)
    command = [HEADWATER, "backfill", "bench", "customers", "--from", "2022-01-01", "--to", "2024-01-01"]
    peak = 0
    with provider(folder, MEMORY_RECORDS):
        process = subprocess.Popen([*command, "--window", "800", "--wait"], cwd=folder, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)  # fmt: skip
        while process.poll() is None:
            peak = max(peak, resident_bytes(process.pid))
            time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"the backfill ended with {process.returncode}")
    what = "200 MB ÷ peak resident bytes of a backfill of a million records"
    return row("ingest_memory", what, ours=peak, limit=MEMORY_BYTES, ratio=MEMORY_BYTES / peak, floor=1)
