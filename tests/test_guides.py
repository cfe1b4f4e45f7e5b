"""Guides that are transcripts: their commands are given in turn, and answer what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

from acceptance.served import LIMIT_SECONDS, environment, until
from crash.cycles import free_port

GUIDES = Path(__file__).parent.parent / "docs" / "guides"
LATER = ("headwater streams", "headwater deliveries show")  # they show what comes about beside them


def steps(text):
    """The commands of the `console` blocks, each with the lines that it answers."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif line.startswith("> "):
                command, _ = found.pop()
                found.append((f"{command}\n{line[2:]}", []))
            else:
                found[-1][1].append(line)
    return found


def tells(answer, expected):
    """Every expected line is there, in this order; `…` stands for anything."""
    lines = iter(answer.splitlines())
    patterns = [".*".join(map(re.escape, line.split("…"))) for line in expected]
    return all(any(re.fullmatch(pattern, line.rstrip()) for line in lines) for pattern in patterns)


class Terminal:
    """A shell in a folder, whose own commands come first on the path."""

    def __init__(self, folder, **variables):
        self.folder = folder
        self.beside = []
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.variables = environment(**variables, PATH=path)

    def run(self, command):
        """What a command answers; with `&`, it runs beside from now on."""
        words = ["/bin/bash", "-c", command.removesuffix("&").strip()]
        if command.endswith("&"):
            with (self.folder / f"beside-{len(self.beside)}.log").open("w") as log:
                words[-1] = f"exec {words[-1]}"
                self.beside.append(
                    subprocess.Popen(
                        words, cwd=self.folder, env=self.variables, stdout=log, stderr=log, stdin=subprocess.DEVNULL
                    )
                )
            return ""
        done = subprocess.run(
            words, cwd=self.folder, env=self.variables, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=LIMIT_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def close(self):
        """End what runs beside."""
        for process in self.beside:
            process.kill()
            process.wait(LIMIT_SECONDS)


def listens(port):
    """Whether somebody takes connections there."""
    return (
        subprocess.run(["/bin/bash", "-c", f"</dev/tcp/127.0.0.1/{port}"], capture_output=True, check=False).returncode
        == 0
    )


def test_the_guide_to_start_with(tmp_path):
    ports = {given: str(free_port()) for given in ("8099", "8700")}
    text = (GUIDES / "start.md").read_text()
    for given, free in ports.items():
        text = text.replace(given, free)
    waiting = list(ports.values())  # in the order in which they are taken
    terminal = Terminal(tmp_path, HEADWATER_PORT=ports["8700"])
    try:
        for command, expected in steps(text):
            answer = terminal.run(command)
            if command.endswith("&"):
                port = waiting.pop(0)
                until(lambda port=port: listens(port))
            elif command.startswith(LATER):
                until(lambda command=command, expected=expected: tells(terminal.run(command), expected))
            else:
                assert tells(answer, expected), (command, answer)
    finally:
        terminal.close()
    assert waiting == []


def test_the_guide_to_tests(tmp_path):
    text, terminal = (GUIDES / "test.md").read_text(), Terminal(tmp_path)
    for command, expected in steps(text):
        answer = terminal.run(command)
        assert tells(answer, expected), (command, answer)
    module, suite = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert suite in (tmp_path / "crm" / "tests" / "test_crm.py").read_text()
    (tmp_path / "crm" / "tests" / "test_guide.py").write_text(module)
    assert tells(terminal.run("python -m pytest -q crm/tests/test_guide.py"), ["2 passed in …"])


def test_a_transcript_that_is_wrong_is_found():
    answer = "a  1\nb  2\nc  3\n"
    assert tells(answer, ["a  1", "c  …"])
    assert not tells(answer, ["a  2"])
    assert not tells(answer, ["c  3", "a  1"])
    assert steps("```console\n$ cat > x <<'END'\n> one\n> END\n$ next\nsaid\n```\n") == [
        ("cat > x <<'END'\none\nEND", []),
        ("next", ["said"]),
    ]
