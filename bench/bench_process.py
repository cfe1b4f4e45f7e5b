"""Processes of a measurement: started, timed by the operating system's own accounting, stopped."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

HERE = Path(__file__).parent
ROOT = HERE.parent
PYTHON = sys.executable
HEADWATER = str(Path(PYTHON).parent / "headwater")
READY_SECONDS_MAX = 120.0


class Row(TypedDict):
    """One figure of ours beside another's."""

    id: str
    what: str
    ours: float
    peer: float | None
    limit: float | None
    ratio: float
    floor: float


def row(name: str, what: str, *, ours: float, ratio: float, floor: float, peer: float | None = None,
        limit: float | None = None) -> Row:  # fmt: skip
    """A row of the table."""
    return {"id": name, "what": what, "ours": ours, "peer": peer, "limit": limit, "ratio": ratio, "floor": floor}


def output(command: Sequence[str], *, folder: Path, given: str | None = None) -> str:
    """What a command prints; an error with its words when it fails."""
    done = subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def printed(command: Sequence[str], *, folder: Path) -> dict:
    """The last line of what a command prints, as JSON."""
    value: dict = json.loads(output(command, folder=folder).strip().splitlines()[-1])
    return value


def cpu_seconds(command: Sequence[str], *, folder: Path, runs: int = 7) -> float:
    """The least CPU time of a command over some runs: the least disturbed one."""
    best = float("inf")
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=folder, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best


@contextmanager
def server(command: Sequence[str], *, port: int, folder: Path, environment: Mapping[str, str] | None = None
           ) -> Iterator[subprocess.Popen[bytes]]:  # fmt: skip
    """A server on loopback from the moment it accepts until the end of the block."""
    log = (folder / f"server-{port}.log").open("wb")
    process = subprocess.Popen(command, cwd=folder, env=os.environ | dict(environment or {}), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + READY_SECONDS_MAX
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    words = (folder / f"server-{port}.log").read_text()[-2000:]
                    raise RuntimeError(f"{' '.join(command)} does not answer on {port}:\n{words}") from None
                time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def process_cpu(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Memory that a process holds now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def neutral(folder: Path, *, provider_port: int, database: str | None = None) -> None:
    """An installation with one connection `bench` that ingests the neutral customers as they are; `database` is a
    PostgreSQL URL, without it the installation is embedded.
    """
    (folder / "headwater.toml").write_text(f'projects = ["{HERE}/connector"]\n{_database(database)}')
    output(
        [HEADWATER, "connections", "add", "neutral", "--key", "bench", "--set", f"port={provider_port}"], folder=folder
    )


def stripe(folder: Path, *, provider_port: int, port: int = 8799, database: str | None = None) -> str:
    """The same with the Stripe connector, which maps every field; its webhook URL."""
    # More than a load of some seconds brings: that it is shed at a limit is not what is measured.
    chosen = f'projects = ["{ROOT}/connectors/stripe"]\nport = {port}\npending_max = 1000000\n{_database(database)}'
    (folder / "headwater.toml").write_text(chosen)
    secrets = json.dumps({"api_key": "sk_test_bench", "webhook_secret": "whsec_bench"})
    settings = ["--set", f"api_base=http://127.0.0.1:{provider_port}"]
    add = [HEADWATER, "connections", "add", "stripe", "--key", "bench", "--secrets-stdin", *settings]
    output(add, folder=folder, given=secrets)
    shown = json.loads(output([HEADWATER, "connections", "show", "bench", "--json"], folder=folder))
    url: str = shown["webhook_url"]
    return url


def _database(url: str | None) -> str:
    return f'database = "{url}"\n' if url else ""
