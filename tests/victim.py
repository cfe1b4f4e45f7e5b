"""A process that commits page after page, and is killed at a failpoint.

Usage: python tests/victim.py PATH-OR-URL; it says the number of each page that was committed.
"""

import asyncio
import os
import signal
import subprocess
import sys

from headwater.testing.conformance.world import emission
from worlds import opened


def killed_at(name, where):
    """What it said before it was killed at a failpoint, `name` or `name:pass`."""
    environment = {**os.environ, "HEADWATER_FAILPOINT": name}
    victim = subprocess.run(
        [sys.executable, __file__, str(where)], env=environment, capture_output=True, text=True, check=False
    )
    assert victim.returncode == -signal.SIGKILL, victim.stderr
    return victim.stdout.split()


async def main():
    """See the module."""
    async with opened(sys.argv[1]) as world:
        await world.connect()
        ref = await world.admit()
        for number in range(9):
            await world.commit(ref, emission(f"r{number}", "x"), cursor=str(number), has_more=True)
            print(number, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
