"""How many small changes of the platform's core are noticed, by the types or by the tests (mutmut).

What keeps the promises is mutated, one operator, constant, argument or statement at a time: ingest, the runtime, the
schedule, dispatch, and the commit paths of the stores. A change that neither the type checker nor a test notices has
survived; the score is the share of the others. What is only logged and what is only cast is left alone.

Usage: python tests/mutants/score.py [MODULE …] [--children 2] [--at-least 0.85]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))

from cluster_nodes import own_server

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
PROPERTY_EXAMPLES = 30  # of each property: a change is noticed soon, or not by these
SHARED_MEMORY = Path("/dev/shm")  # a database a test is much to write
NOTICED = ("killed", "timeout", "caught by type check", "suspicious", "segfault")


def mutmut(*words: str) -> str:
    """What mutmut answers."""
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [BIN / "mutmut", *words], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"mutmut {' '.join(words)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def module_of(mutant: str) -> str:
    """`headwater.stores.plan.xǁPlanǁweigh__mutmut_3` is of `headwater.stores.plan`."""
    return re.split(r"\.x(?:ǁ|_)", mutant, maxsplit=1)[0]


def main() -> int:
    """See the module."""
    options = argparse.ArgumentParser()
    options.add_argument("modules", nargs="*", help="such as headwater.dispatch (default: all that are configured)")
    options.add_argument("--children", type=int, default=2)
    options.add_argument("--at-least", type=float, default=0.85)
    chosen = options.parse_args()
    files = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]["only_mutate"]
    known = [name.removeprefix("src/").removesuffix(".py").replace("/", ".") for name in files]
    if unknown := set(chosen.modules) - set(known):
        options.error(f"{', '.join(sorted(unknown))} is not among {', '.join(known)}")
    started = time.monotonic()
    tempfile.tempdir = str(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else None
    with own_server() as server:  # one for all, where each would start its own
        os.environ |= {"HEADWATER_TEST_POSTGRES": server.get_uri(), "PROPERTY_EXAMPLES": str(PROPERTY_EXAMPLES)}
        mutmut("run", "--max-children", str(chosen.children), *(f"{module}.*" for module in chosen.modules))
    of_module: defaultdict[str, Counter[str]] = defaultdict(Counter)
    survivors = []
    for line in mutmut("results", "--all", "true").splitlines():
        mutant, _, became = line.strip().rpartition(": ")
        if not mutant or became == "not checked":
            continue
        of_module[module_of(mutant)][became] += 1
        if became not in NOTICED:
            survivors.append(mutant)
    counts = sum(of_module.values(), Counter())
    score = sum(counts[one] for one in NOTICED) / max(counts.total(), 1)
    told = {
        "mutants": counts.total(),
        "score": round(score, 4),
        "became": dict(sorted(counts.items())),
        "modules": {
            name: {"mutants": one.total(), "score": round(sum(one[became] for became in NOTICED) / one.total(), 3)}
            for name, one in sorted(of_module.items())
        },
        "survived": survivors,
        "seconds": round(time.monotonic() - started),
    }
    print(json.dumps(told, indent=1))
    return 0 if score >= chosen.at_least else 1


if __name__ == "__main__":
    sys.exit(main())
