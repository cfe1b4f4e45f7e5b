"""A real `headwater serve` in its own process, and the command line beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shell import Answer

LIMIT_SECONDS = 60
HEADWATER = [sys.executable, "-c", "from headwater.cli.main import main; main()"]


def environment(**more: str) -> dict[str, str]:
    """The environment without settings of ours, save those given."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")} | more


def headwater(folder: Path, *words: str, stdin: str = "", **variables: str) -> Answer:
    """Run one command line in a folder."""
    done = subprocess.run(
        [*HEADWATER, *words],
        cwd=folder,
        env=environment(**variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


class Server:
    """A server under way."""

    def __init__(self, process: subprocess.Popen[str], announced: dict[str, Any], err: list[str]) -> None:
        self.process = process
        self.url: str = announced["url"]
        self.first_admin: str | None = announced.get("first_admin")
        self._err = err

    @property
    def err(self) -> str:
        """What it has said on stderr."""
        return "".join(self._err)

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(LIMIT_SECONDS)

    def says(self, words: str) -> None:
        """Wait until it has said so on stderr."""
        until(lambda: words in self.err)


@contextmanager
def serving(
    folder: Path,
    *words: str,
    before: Callable[[], None] | None = None,
    program: Sequence[str] = HEADWATER,
    **variables: str,
) -> Iterator[Server]:
    """Serve from a folder on a free port; killed at the end if it is still there."""
    process = subprocess.Popen(
        [*program, "serve", "--port", "0", "--json", *words],
        cwd=folder,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
    )
    err: list[str] = []
    reader = threading.Thread(target=lambda: err.extend(iter(process.stderr.readline, "")))
    reader.start()
    try:
        line = process.stdout.readline()
        assert line, f"serve did not start: {process.wait(LIMIT_SECONDS)} {''.join(err)}"
        yield Server(process, json.loads(line), err)
    finally:
        process.kill()
        process.wait(LIMIT_SECONDS)
        reader.join()
        process.stdout.close()
        process.stderr.close()


def until(holds: Callable[[], bool]) -> None:
    """Return once it holds."""
    limit = time.monotonic() + LIMIT_SECONDS
    while not holds():
        assert time.monotonic() < limit, "it never came to hold"
        time.sleep(0.02)
