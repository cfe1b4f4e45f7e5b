"""Deliveries verified, durable and acked, and on to committed records; beside FastAPI + SQLAlchemy and verify-only."""

from __future__ import annotations

import sqlite3
import sys
import time
from pathlib import Path

from bench_process import HEADWATER, HERE, PYTHON, Row, output, printed, row, server, stripe

ROWS = ("accept", "accept_group", "accept_limit", "accept_tail", "settle")
SECRET = "whsec_bench"
SECONDS = "5"
PORT = 8798


def load(url: str, folder: Path, salt: str) -> dict:
    """Five seconds of signed deliveries over 64 connections; any answer but 2xx is an error of the measurement."""
    result = printed([PYTHON, str(HERE / "load.py"), url, SECRET, SECONDS, "--salt", salt], folder=folder)
    refused = [status for status in result["statuses"] if not status.startswith("2")]
    if refused:
        raise RuntimeError(f"{url} answered {result['statuses']}")
    return result


def uvicorn(app: str, folder: Path, database: str | None = None) -> dict:
    """The load on a peer, which keeps what it keeps in `database`, or in a file of its own."""
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(PORT), "--no-access-log", "--log-level", "warning",
               "--app-dir", str(HERE / "peers")]  # fmt: skip
    environment = {"SECRET": SECRET, "DATABASE": database or str(folder / "peer.db")}
    with server(command, port=PORT, folder=folder, environment=environment):
        return load(f"http://127.0.0.1:{PORT}/hook", folder, "p")


def pending(folder: Path) -> int:
    """Deliveries that wait, read from the store's own file."""
    (path,) = (folder / ".headwater").glob("*.db")
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        count: int = database.execute("select count(*) from deliveries where state = 'pending'").fetchone()[0]
    return count


def measure(folder: Path, _records: int) -> list[Row]:
    """All rows of this family."""
    verify = uvicorn("verify_only:app", folder)
    by_hand = uvicorn("fastapi_inbox:app", folder)
    group = uvicorn("group_inbox:app", folder, str(folder / "group.db"))
    accept, _ = ours(folder / "accept", paused=True)
    settled, seconds = ours(folder / "settle", paused=False)
    rate = settled["answered"] / seconds
    return [
        row("accept", "deliveries/s verified, durable (FULL) and acked, 64 connections ÷ FastAPI + SQLAlchemy + SQLite "
            "FULL", ours=accept["rate"], peer=by_hand["rate"], ratio=accept["rate"] / by_hand["rate"], floor=20),
        row("accept_group", "the same ÷ the prototype of an inbox with group commit", ours=accept["rate"],
            peer=group["rate"], ratio=accept["rate"] / group["rate"], floor=0.8),
        row("accept_limit", "the same ÷ a server that only verifies", ours=accept["rate"], limit=verify["rate"],
            ratio=accept["rate"] / verify["rate"], floor=0.6),
        row("accept_tail", "p99 of verify-only ÷ our p99 (seconds)", ours=accept["p99"], limit=verify["p99"],
            ratio=verify["p99"] / accept["p99"], floor=0.35),
        row("settle", "deliveries/s from request to committed records ÷ accept", ours=rate, limit=accept["rate"],
            ratio=rate / accept["rate"], floor=0.5),
    ]  # fmt: skip


def ours(folder: Path, *, paused: bool, database: str | None = None) -> tuple[dict, float]:
    """The load on `headwater serve`; the seconds until every delivery was done, when dispatch was on."""
    folder.mkdir()
    url = stripe(folder, provider_port=9, port=PORT, database=database)
    if paused:
        output([HEADWATER, "connections", "pause", "bench"], folder=folder)
    with server([HEADWATER, "serve"], port=PORT, folder=folder):
        result = load(url, folder, "q")
        started = time.monotonic()
        while not paused and pending(folder):
            time.sleep(0.02)
        seconds = result["answered"] / result["rate"] + time.monotonic() - started
    return result, seconds
