"""On PostgreSQL: the engine beside Procrastinate alone, starts, idleness, admission, the inbox, and pages."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import measures_ingest
import measures_webhooks
import psycopg
from bench_process import HEADWATER, HERE, PYTHON, Row, output, printed, process_cpu, row, server
from postgres import serving

ROWS = (
    "fleet_runs", "fleet_start", "fleet_idle", "fleet_quiet", "fleet_admission", "fleet_accept", "fleet_accept_limit",
    "fleet_first", "fleet_again",
)  # fmt: skip
ROUNDS = 3
ACCEPT_ROUNDS = 5  # they differ by a third
RUN_ROUNDS = 7  # each is short
PORT = 8796
START_SECONDS = 5.0
IDLE_SECONDS = 20.0  # of the clock: idleness has no other length
QUIET_STREAMS = 1000


def measure(folder: Path, records: int) -> list[Row]:
    """All rows of this family."""
    with serving() as fresh:
        return [
            _runs(folder, fresh),
            _start(folder, fresh),
            *_idle(folder / "idle", fresh()),
            _admission(folder, fresh),
            *_accept(folder),
            *_pages(folder, fresh, records),
        ]


def _runs(folder: Path, fresh: Callable[[], str]) -> Row:
    found = [
        printed([PYTHON, str(HERE / "cost_engine.py"), fresh(), fresh()], folder=folder) for _ in range(RUN_ROUNDS)
    ]
    ours, peer = (measures_ingest.median([one[name] for one in found]) for name in ("ours", "peer"))
    what = "runs/s through the engine with an empty handler ÷ Procrastinate's own jobs with an empty task"
    return row("fleet_runs", what, ours=ours, peer=peer, ratio=ours / peer, floor=0.8)


def _start(folder: Path, fresh: Callable[[], str]) -> Row:
    p99 = printed([PYTHON, str(HERE / "cost_start.py"), fresh()], folder=folder)["p99"]
    what = "50 ms ÷ p99 from a run that is asked for to its handler, when nothing else is under way (seconds)"
    return row("fleet_start", what, ours=p99, limit=0.05, ratio=0.05 / p99, floor=1)


def _idle(folder: Path, url: str) -> list[Row]:
    """What a node with all roles costs, and asks of its database, when nothing is due."""
    folder.mkdir()
    streams = ["--streams", str(QUIET_STREAMS), "--write-only"]
    output([PYTHON, str(HERE / "cost_check.py"), "project", *streams], folder=folder)
    (folder / "headwater.toml").write_text(f'projects = ["project"]\nport = {PORT}\ndatabase = "{url}"\n')
    output([HEADWATER, "connections", "add", "quiet", "--paused", "--secrets-stdin"], folder=folder, given="{}")
    with server([HEADWATER, "serve"], port=PORT, folder=folder) as process, psycopg.connect(url, autocommit=True) as db:
        time.sleep(START_SECONDS)  # what a start costs is not what it costs to be idle
        cpu, asked = process_cpu(process.pid), _transactions(db)
        time.sleep(IDLE_SECONDS)
        share = max(process_cpu(process.pid) - cpu, 1e-4) / IDLE_SECONDS
        rate = max(_transactions(db) - asked, 1) / IDLE_SECONDS
    return [
        row("fleet_idle", "1 % of a core ÷ CPU of a node with 1,000 quiet streams", ours=share, limit=0.01,
            ratio=0.01 / share, floor=1),
        row("fleet_quiet", "5 ÷ transactions/s that this node asks of its database", ours=rate, limit=5,
            ratio=5 / rate, floor=1),
    ]  # fmt: skip


def _transactions(db: psycopg.Connection) -> int:
    """Of all sessions of this database; what looks is one of them, and is left out."""
    db.execute("SELECT pg_stat_force_next_flush()")
    found = db.execute(
        "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    ).fetchone()
    return int(found[0]) if found else 0


def _admission(folder: Path, fresh: Callable[[], str]) -> Row:
    found = printed([PYTHON, str(HERE / "cost_tick.py"), fresh(), "--postgres"], folder=folder)
    if found["least"] != found["most"]:
        raise RuntimeError(f"connections were given from {found['least']} to {found['most']} runs")
    what = "10 ms ÷ the choice of 2,000 runs, two of each connection, of 100,000 poll streams (seconds)"
    return row("fleet_admission", what, ours=found["choice"], limit=0.01, ratio=0.01 / found["choice"], floor=1)


def _accept(folder: Path) -> list[Row]:
    # A server of its own: what it does after the rows before, of 100,000 streams, is no part of these.
    with serving() as fresh:
        rounds = [
            (
                measures_webhooks.ours(folder / f"accept-{index}", paused=True, database=fresh())[0]["rate"],
                measures_webhooks.uvicorn("group_inbox:app", folder, str(folder / f"inbox-{index}.db"))["rate"],
                measures_webhooks.uvicorn("group_inbox:app", folder, fresh())["rate"],
            )
            for index in range(ACCEPT_ROUNDS)
        ]
    ours, peer, limit = (measures_ingest.median(list(column)) for column in zip(*rounds, strict=True))
    return [
        row("fleet_accept", "deliveries/s verified, durable and acked, 64 connections ÷ the prototype of an inbox with "
            "group commit, on SQLite", ours=ours, peer=peer, ratio=ours / peer, floor=0.8),
        row("fleet_accept_limit", "the same ÷ the prototype with one insert into PostgreSQL", ours=ours, limit=limit,
            ratio=ours / limit, floor=0.8),
    ]  # fmt: skip


def _pages(folder: Path, fresh: Callable[[], str], records: int) -> list[Row]:
    with measures_ingest.provider(folder, records):
        rounds = [
            (
                *measures_ingest.ours(folder / f"ours-{index}", records, fresh()),
                *measures_ingest.by_hand(folder / f"hand-{index}", records, fresh()),
            )
            for index in range(ROUNDS)
        ]
    first, again, hand_first, hand_again = (
        measures_ingest.median(list(column)) for column in zip(*rounds, strict=True)
    )
    return [
        row("fleet_first", "records/s from HTTP to committed versions, first load ÷ aiohttp + psycopg upserts by hand",
            ours=first, peer=hand_first, ratio=first / hand_first, floor=1),
        row("fleet_again", "the same data again ÷ the script's second load", ours=again, peer=hand_again,
            ratio=again / hand_again, floor=2),
    ]  # fmt: skip
