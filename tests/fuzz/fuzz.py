"""Every parser of `parsers.py` driven by coverage (atheris), each in a process of its own for so many seconds.

A fault prints the input and the command that gives it to the parser again.

Usage: python tests/fuzz/fuzz.py [PARSER …] [--seconds 600] | PARSER --input BASE64
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

INPUT_BYTES_MAX = 4096
MEMORY_MEGABYTES_MAX = 2048
SECONDS_OF_ONE_MAX = 10  # an input that takes longer is a fault
AGAIN = "make nightly-fuzz PARSERS={name} ARGS='--input {text}'"


def drive(name: str, seconds: int, folder: Path) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["headwater", "parsers", "cronsim", "yarl"]):
        from parsers import PARSERS
    parser, seeds = PARSERS[name]

    def noted(data: bytes) -> None:
        try:
            parser(data)
        except BaseException:
            (folder / "found-input").write_bytes(data)
            raise

    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = [
        f"-max_total_time={seconds}", f"-max_len={INPUT_BYTES_MAX}", f"-timeout={SECONDS_OF_ONE_MAX}",
        f"-rss_limit_mb={MEMORY_MEGABYTES_MAX}", f"-artifact_prefix={folder}/found-", "-print_final_stats=1",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *words, str(corpus)], noted)
    atheris.Fuzz()


def fuzzed(name: str, seconds: int) -> dict[str, Any]:
    """What came of one parser."""
    with tempfile.TemporaryDirectory(prefix="headwater-fuzz-") as folder:
        command = [sys.executable, __file__, name, "--seconds", str(seconds), "--drive", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = sorted(Path(folder).glob("found-*"))
        inputs = sorted({base64.b64encode(path.read_bytes()).decode() for path in found})
    runs = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    reached = re.findall(r"cov: (\d+)", done.stderr)
    told: dict[str, Any] = {"inputs": int(runs[1]) if runs else 0, "reached": int(reached[-1]) if reached else 0}
    if done.returncode or found or not runs:
        told["problem"] = done.stdout[-2000:] + done.stderr[-2000:]
        told["again"] = [AGAIN.format(name=name, text=text) for text in inputs]
    return told


def main() -> int:
    """See the module."""
    options = argparse.ArgumentParser()
    options.add_argument("parsers", nargs="*")
    options.add_argument("--seconds", type=int, default=600, help="of each parser")
    options.add_argument("--input", help="one input, in base64, instead of all that are found")
    options.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.drive:
        drive(chosen.parsers[0], chosen.seconds, chosen.drive)
    from parsers import PARSERS

    names = chosen.parsers or list(PARSERS)
    if unknown := set(names) - set(PARSERS):
        options.error(f"no parser {', '.join(sorted(unknown))}; there are {', '.join(PARSERS)}")
    if chosen.input:
        for name in names:
            PARSERS[name][0](base64.b64decode(chosen.input))
        return 0
    started, told = time.monotonic(), {}
    for name in names:
        told[name] = fuzzed(name, chosen.seconds)
        print(f"{name}: {told[name]['inputs']} inputs", file=sys.stderr)
    problems = [name for name, one in told.items() if "problem" in one]
    print(json.dumps({"parsers": told, "problems": problems, "seconds": round(time.monotonic() - started)}, indent=1))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
