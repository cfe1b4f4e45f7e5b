"""Let the system calls of the real `headwater serve` fail, at each moment of its life, and look what it said and kept.

    ready ──> at a moment: a drawn call fails ──> it goes on, or says why and ends ──> started again: whole? all acked?

libfiu stands between the process and its C library (Debian: `fiu-utils`): fsync, write, open, truncate, unlink and read
fail with an error of the kernel, or write less than they were asked to. The call is drawn anew in each trial.

Usage: python tests/io/faults.py [--times 6] [--jobs 2] [--only WORD]
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import errno
import json
import random
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from shutil import copytree, rmtree

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "acceptance"))

from served import environment, headwater

from headwater.testing.signer import signed
from loopback import API_KEY, WEBHOOK_SECRET, Shop, customer, loopback_shop, shop_project

LIBRARIES = Path("/usr/lib/fiu")
PRELOAD = " ".join(str(LIBRARIES / name) for name in ("fiu_run_preload.so", "fiu_posix_preload.so"))
LIMIT_SECONDS = 30.0
POSTS = 24  # in a trial
BODY_BYTES = (60, 3_000, 60_000)
CUSTOMERS = 40
SHARES = (0.02, 0.1, 0.4, 1.0)  # of the calls, until one has failed
SAYS_WHY = r"Stopping: |^Error: "
ENDS_SECONDS = 20.0  # after the first 5xx: runs under way try to write their end
ERR_SHOWN = 3_000  # characters of what it said last
FULL_BYTES = 1_500_000  # of a full disk: no file grows beyond
# Imports first, so that a fault is the platform's; then waits until it is told to go on.
PROGRAM = """
import sys
from headwater.cli.main import main
import headwater.cli.serve, headwater.app, headwater.application, headwater.server, uvicorn
from headwater.stores.sqlite import database, store
database.WAL_PAGES = int(sys.argv.pop(1))
print("ready", flush=True)
sys.stdin.readline()
main()
"""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What fails, and how."""

    name: str
    call: str  # in libfiu's words
    number: int  # of the error
    repeated: bool = False  # again and again, not once
    harmless: bool = False  # the platform goes on as if nothing had been


FAULTS = (
    Fault(name="fsync: EIO", call="posix/io/sync/*", number=errno.EIO),
    Fault(name="fsync: EIO again and again", call="posix/io/sync/*", number=errno.EIO, repeated=True),
    Fault(name="write: EIO", call="posix/io/rw/pwrite", number=errno.EIO),
    Fault(name="write: ENOSPC", call="posix/io/rw/pwrite", number=errno.ENOSPC),
    Fault(name="write: ENOSPC again and again", call="posix/io/rw/pwrite", number=errno.ENOSPC, repeated=True),
    Fault(name="write: less than asked", call="posix/io/rw/pwrite/reduce", number=0, repeated=True, harmless=True),
    Fault(name="read: EIO", call="posix/io/rw/pread", number=errno.EIO),
    Fault(name="open: EMFILE", call="posix/io/oc/open", number=errno.EMFILE),
    Fault(name="open: EIO", call="posix/io/oc/open", number=errno.EIO),
    Fault(name="truncate: EIO", call="posix/io/rw/ftruncate", number=errno.EIO),
    Fault(name="unlink: EIO", call="posix/io/dir/unlink", number=errno.EIO),
)
MOMENTS = ("migration", "start after a kill", "receive", "poll", "log into the file", "end")


@dataclass
class Trial:
    """What one came to."""

    moment: str
    fault: str
    seed: int
    answers: Counter[int] = field(default_factory=Counter)  # 0: none
    came: str = ""  # went on · ended, having said why
    said: str = ""
    problems: list[str] = field(default_factory=list)
    err: str = ""


class Served:
    """A `headwater serve` under libfiu."""

    def __init__(self, folder: Path, *, log_pages: int = 16_000, full: bool = False) -> None:
        def limited() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_BYTES, FULL_BYTES))

        self._pipes = str(folder / "fiu")
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(log_pages), "serve", "--port", "0", "--json"], cwd=folder, text=True,
            env=environment(LD_PRELOAD=PRELOAD, FIU_CTRL_FIFO=self._pipes), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=limited if full else None,
        )  # fmt: skip
        self._err: list[str] = []
        self._reader = threading.Thread(target=lambda: self._err.extend(iter(self.process.stderr.readline, "")))
        self._reader.start()
        assert self.process.stdout.readline() == "ready\n", "".join(self._err)
        self.url = ""

    @property
    def err(self) -> str:
        return "".join(self._err)

    def go_on(self) -> bool:
        """Let it start; whether it serves."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        self.url = json.loads(line)["url"] if line else ""
        if self.url:  # it takes signals once it answers
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/livez", timeout=LIMIT_SECONDS):
                pass
        return bool(line)

    def tell(self, command: str) -> None:
        """A command of libfiu's remote control."""
        with contextlib.suppress(OSError):
            with Path(f"{self._pipes}-{self.process.pid}.in").open("w") as ask:
                ask.write(command + "\n")
            with Path(f"{self._pipes}-{self.process.pid}.out").open() as answer:
                answer.readline()

    def fail(self, fault: Fault, share: float) -> None:
        """From now on, fail that share of the calls."""
        once = "" if fault.repeated else ",onetime"
        self.tell(f"enable_random name={fault.call},probability={share},failnum=1,failinfo={fault.number}{once}")

    def heal(self, fault: Fault) -> None:
        """Let every call succeed."""
        self.tell(f"disable name={fault.call}")

    def ended(self, seconds: float = LIMIT_SECONDS) -> int | None:
        """Its exit code, or None where it lives on."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(seconds)
        return None

    def close(self, number: int = signal.SIGKILL) -> int | None:
        """End it by a signal; its exit code."""
        self.process.send_signal(number)
        code = self.ended()
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        return code


class Deliveries:
    """What is posted, by number, and how it was answered."""

    def __init__(self, chance: random.Random, endpoint: str) -> None:
        self._chance, self._endpoint = chance, endpoint
        self.bodies: dict[int, bytes] = {}
        self.acked: set[int] = set()

    def more(self, count: int) -> list[int]:
        """Numbers of new ones."""
        first = len(self.bodies) + 1
        for number in range(first, first + count):
            text = self._chance.randbytes(self._chance.choice(BODY_BYTES)).hex()
            event = {"id": f"e_{number}", "type": "report.ready", "at": 1767398460, "data": {"text": text}}
            self.bodies[number] = json.dumps(event).encode()
        return list(range(first, first + count))

    def post(self, url: str, number: int) -> int:
        """The status; 0 where nobody answered."""
        body = self.bodies[number]
        headers = signed("standard_webhooks", body, WEBHOOK_SECRET, at=datetime.now(UTC), provider_id=f"msg_{number}")
        request = urllib.request.Request(url + self._endpoint, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=LIMIT_SECONDS) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            with error:
                status = error.code
        except (urllib.error.URLError, OSError):
            return 0
        if 200 <= status < 300:
            self.acked.add(number)
        return status


def prepared(folder: Path, shop: Shop) -> str:
    """An installation with one connection; the path of its endpoint."""
    folder.mkdir()
    shop_project(folder / "shop")
    (folder / "headwater.toml").write_text('projects = ["shop"]\n')
    words = ("connections", "add", "shop", "--key", "acme", "--set", f"api_base={shop.url}", "--secrets-stdin")
    added = headwater(folder, *words, stdin=json.dumps({"api_key": API_KEY, "webhook_secret": WEBHOOK_SECRET}))
    assert added.code == 0, added.err
    shown = headwater(folder, "connections", "show", "acme", "--json").json
    return re.sub(r"^http://[^/]*", "", shown["webhook_url"])


def database(folder: Path) -> Path:
    """The file of an installation."""
    return folder / ".headwater" / "headwater.db"


def trial(moment: str, fault: Fault, seed: int, *, template: Path, endpoint: str) -> Trial:
    """One fault at one moment; the installation is thrown away afterwards."""
    told = Trial(moment, fault.name, seed)
    chance = random.Random(f"{moment} {fault.name} {seed}")
    share = chance.choice(SHARES)
    deliveries = Deliveries(chance, endpoint)
    with tempfile.TemporaryDirectory(prefix="headwater-io-") as name:
        folder = Path(name) / "installation"
        copytree(template, folder)
        if moment == "migration":
            rmtree(database(folder).parent)
        elif moment == "start after a kill":
            killed = Served(folder)
            assert killed.go_on(), killed.err
            for number in deliveries.more(6):
                deliveries.post(killed.url, number)
            killed.close()
        elif moment == "poll":
            with contextlib.closing(sqlite3.connect(database(folder))) as db, db:
                db.execute("UPDATE streams SET next_tick_at = 0 WHERE mode = 'poll'")
        _suffer(told, folder, fault, share, deliveries)
        _recover(told, folder, deliveries)
    return told


def _suffer(told: Trial, folder: Path, fault: Fault, share: float, deliveries: Deliveries) -> None:
    served = Served(folder, log_pages=4 if told.moment == "log into the file" else 16_000)
    at_start = told.moment in ("migration", "start after a kill", "poll")
    if at_start:
        served.fail(fault, share)
    if served.go_on():
        if not at_start and told.moment != "end":
            served.fail(fault, share)
        if told.moment != "migration":
            _post(told, served, deliveries)
        if told.moment == "end":
            served.fail(fault, share)
    went_on = served.ended(0.2) is None
    if went_on and told.moment != "end":
        served.heal(fault)
        if told.moment != "migration":
            (last,) = deliveries.more(1)
            status = deliveries.post(served.url, last)
            went_on = served.ended(0.0 if status == 200 else ENDS_SECONDS) is None
            if went_on and status != 200:
                told.problems.append(f"it goes on, and answers {status} though nothing fails any more")
    code = served.close(signal.SIGTERM)
    went_on = went_on and (code == 0 or told.moment != "end")
    told.err, said = served.err, served.err.strip().splitlines()
    told.said = next((line for line in reversed(said) if re.search(SAYS_WHY, line)), "")
    told.came = "went on" if went_on else "ended, having said why"
    if went_on and code != 0:
        told.problems.append(f"SIGTERM ended it with {code}")
    if not went_on and (code not in (1, 2) or not told.said):
        told.problems.append(f"it ended with {code}, saying {told.said!r}")
    if fault.harmless and not went_on:
        told.problems.append("it ended, though every write was carried out in the end")


def _post(told: Trial, served: Served, deliveries: Deliveries) -> None:
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        statuses = [*pool.map(lambda number: deliveries.post(served.url, number), deliveries.more(POSTS))]
    told.answers.update(statuses)
    odd = {status for status in statuses if status and status != 200 and status < 500}
    if odd:
        told.problems.append(f"deliveries were answered {sorted(odd)}")


def _recover(told: Trial, folder: Path, deliveries: Deliveries) -> None:
    """Start it again where nothing fails: what was acked is there, and what was not is taken again."""
    served = Served(folder)
    try:
        if not served.go_on():
            told.problems.append(f"it does not start again: {served.err}")
            return
        if told.moment != "migration":
            refused = [number for number in deliveries.bodies if deliveries.post(served.url, number) != 200]
            if refused:
                told.problems.append(f"afterwards deliveries {refused[:3]} are refused")
    finally:
        code = served.close(signal.SIGTERM)
    if code != 0:
        told.problems.append(f"afterwards SIGTERM ended it with {code}: {served.err}")
    with contextlib.closing(sqlite3.connect(database(folder))) as db:
        if (whole := db.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
            told.problems.append(f"the file is not whole: {whole[:2]}")
        stored = Counter(one for (one,) in db.execute("SELECT provider_id FROM deliveries"))
        twice = [one for one, count in stored.items() if count > 1]
        lost = [number for number in deliveries.bodies if f"msg_{number}" not in stored]
        records = Counter(db.execute("SELECT source_id, type_id FROM records").fetchall())
        versions = db.execute("SELECT count(*) FROM versions v WHERE version > 1").fetchone()[0]
    if lost or twice:
        told.problems.append(f"deliveries {lost[:3]} are lost, {twice[:3]} are there twice")
    if versions or any(count > 1 for count in records.values()):
        told.problems.append("records took effect twice")


def main() -> int:
    """See the module."""
    options = argparse.ArgumentParser()
    options.add_argument("--times", type=int, default=6)
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--only", default="")
    chosen = options.parse_args()
    if not (LIBRARIES / "fiu_posix_preload.so").exists():
        print("libfiu is not installed: apt-get install fiu-utils libfiu0", file=sys.stderr)
        return 2
    started = time.monotonic()
    with loopback_shop() as shop, tempfile.TemporaryDirectory(prefix="headwater-io-") as name:
        shop.customers = [customer(number) for number in range(1, CUSTOMERS + 1)]
        template = Path(name) / "template"
        endpoint = prepared(template, shop)
        cells = [(moment, fault) for moment in MOMENTS for fault in FAULTS if chosen.only in f"{moment}: {fault.name}"]
        with concurrent.futures.ThreadPoolExecutor(chosen.jobs) as pool:
            told = [
                one
                for one in pool.map(
                    lambda cell: trial(*cell[0], cell[1], template=template, endpoint=endpoint),
                    [(cell, seed) for cell in cells for seed in range(chosen.times)],
                )
                if show(one)
            ]
    summary(told, time.monotonic() - started)
    return 1 if any(one.problems for one in told) else 0


def show(told: Trial) -> bool:
    """Print a trial as it ends."""
    print(f"{told.moment:20} {told.fault:30} {told.came:24} {dict(told.answers)} {told.said[:110]}", flush=True)
    for problem in told.problems:
        print(f"    PROBLEM {problem}\n{told.err[-ERR_SHOWN:]}", flush=True)
    return True


def summary(told: list[Trial], seconds: float) -> None:
    """The table of `docs/reliability.md`."""
    print("\n| moment | fault | trials | it ended | answers 2xx, 5xx, none | problems |\n|---|---|---|---|---|---|")
    for moment in MOMENTS:
        for fault in FAULTS:
            own = [one for one in told if (one.moment, one.fault) == (moment, fault.name)]
            if not own:
                continue
            answers = sum((one.answers for one in own), Counter[int]())
            fine, none = answers[200], answers[0]
            print(
                f"| {moment} | {fault.name} | {len(own)} | {sum(one.came != 'went on' for one in own)} "
                f"| {fine}, {answers.total() - fine - none}, {none} | {sum(bool(one.problems) for one in own)} |"
            )
    by_moment = {}
    for moment in MOMENTS:
        own = [one for one in told if one.moment == moment]
        answers = sum((one.answers for one in own), Counter[int]())
        by_moment[moment] = {
            "trials": len(own), "ended": sum(one.came != "went on" for one in own), "acked": answers[200],
            "refused": sum(count for status, count in answers.items() if status >= 500),
        }  # fmt: skip
    problems = [f"{one.moment}: {one.fault}: {one.problems[0]}" for one in told if one.problems]
    totals = {"trials": len(told), "acked": sum(one.answers[200] for one in told), "faults": len(FAULTS)}
    print(json.dumps(totals | {"by_moment": by_moment, "seconds": round(seconds), "problems": problems}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
