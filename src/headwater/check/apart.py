"""A bundle checked in a process of its own: whatever it does when it is imported, it does not do here.

    archive ──> stdin of the process ──> check ──> verdict on its stdout

The process is given none of our settings, a limit of time, and a limit of what it may answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import dataclass
from pathlib import Path

import msgspec

from headwater.outline import Outline

SECONDS_MAX = 60.0
ANSWER_BYTES_MAX = 4 * 1024 * 1024

_READ_BYTES = 64 * 1024
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "TZ")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a check in another process came to."""

    lines: tuple[str, ...]  # its diagnostics
    outline: Outline | None  # None: an error stands in the way


async def check_apart(archive: bytes, content_hash: str) -> Verdict:
    """The verdict on a bundle; a process that ends without one, or takes too long, is a verdict too."""
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    words = (sys.executable, "-P", "-m", "headwater.check.apart", content_hash)
    process = await asyncio.create_subprocess_exec(
        *words, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment, start_new_session=True
    )
    try:
        async with asyncio.timeout(SECONDS_MAX):
            answer = await _exchange(process, archive)
    except TimeoutError:
        return _refused(f"The check took longer than {SECONDS_MAX:g} s.")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and whatever it has started
        await process.wait()
    if answer is None:
        return _refused(f"The check answered more than {ANSWER_BYTES_MAX} bytes.")
    try:
        return msgspec.json.decode(answer, type=Verdict)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _refused("Its code ended the process that imported it.")


async def _exchange(process: Process, archive: bytes) -> bytes | None:
    assert process.stdin is not None, "both ends are pipes"
    assert process.stdout is not None, "both ends are pipes"
    with contextlib.suppress(ConnectionError):  # it need not read to the end
        process.stdin.write(archive)
        await process.stdin.drain()
        process.stdin.close()
    answer = bytearray()
    while part := await process.stdout.read(_READ_BYTES):
        answer += part
        if len(answer) > ANSWER_BYTES_MAX:
            return None
    return bytes(answer)


def _refused(line: str) -> Verdict:
    return Verdict(lines=(line,), outline=None)


def main() -> None:
    """The other process: read an archive, check it, write the verdict."""
    from headwater.archive import unpack
    from headwater.check.check import check_bundle
    from headwater.outline import outline

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the bundle prints is no answer
    bundle = unpack(sys.stdin.buffer.read(), content_hash=sys.argv[1])
    report = check_bundle(bundle, Path())
    made = outline(report.project) if report.project is not None else None
    with answers:
        answers.write(msgspec.json.encode(Verdict(lines=tuple(report.lines()), outline=made)))
        answers.flush()
    os._exit(0)  # threads that the bundle started are not waited for


if __name__ == "__main__":
    main()
