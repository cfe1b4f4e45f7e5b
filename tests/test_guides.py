"""Guides that are transcripts: their commands are given in turn, and answer what they say."""

import io
import logging
import os
import re
import shlex
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pytest

from acceptance.served import LIMIT_SECONDS, environment, until
from crash.cycles import free_port
from headwater.cli import main

GUIDES = Path(__file__).parent.parent / "docs" / "guides"
COURSES = [["demo"], ["start", "alerts", "deploy", "access"], ["poll", "backfill", "webhook", "operate"], ["oauth"]]
ENDED = ' || echo "exit code $?"'
PLAIN = re.compile(r"headwater [^|&;<>$`*\n]*")
LATER = ("headwater streams", "headwater deliveries show")  # they show what comes about beside them


def steps(text):
    """The commands of the `console` blocks, each with the lines that it answers; a block's title is a file to write."""
    found = []
    for language, path, block in re.findall(
        r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', text, re.MULTILINE | re.DOTALL
    ):
        if path:
            found.append((f"mkdir -p {Path(path).parent}\ncat > {path} <<'END'\n{block}END", []))
        for line in block.splitlines() if language == "console" else ():
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
    """A shell in a folder, whose own commands come first on the path; those that need no shell are carried out here,
    in a fifth of the time.
    """

    def __init__(self, folder, **variables):
        self.folder = folder
        self.beside = []
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.variables = environment(**variables, PATH=path)

    def run(self, command):
        """What a command answers; with `&`, it runs beside from now on."""
        if PLAIN.fullmatch(plain := command.removesuffix(ENDED)):
            code, said = self.carry_out(shlex.split(plain)[1:])
            assert (code == 0) is (plain == command), (command, said)
            return said if code == 0 else f"{said}exit code {code}\n"
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
            words, cwd=self.folder, env=self.variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=LIMIT_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout)
        return done.stdout

    def carry_out(self, words):
        """The exit code of a command of ours, and what it answers on both streams."""
        said, log, handlers = io.StringIO(), logging.getLogger(), logging.getLogger().handlers[:]
        with (
            chdir(self.folder), patch.dict(os.environ, self.variables, clear=True), patch("sys.stdin", io.StringIO()),
            redirect_stdout(said), redirect_stderr(said),
        ):  # fmt: skip
            code = main.run(words)
        log.handlers[:] = handlers
        return code, said.getvalue()

    def close(self):
        """End what runs beside."""
        for process in self.beside:
            process.kill()
            process.wait(LIMIT_SECONDS)


def comes_about(terminal, command, expected, *, alike=str):
    """What a command shows comes about beside it; two lines are the same where `alike` says the same of both."""
    answers = [""]

    def holds():
        answers.append(terminal.run(command))
        return tells("\n".join(map(alike, answers[-1].splitlines())), list(map(alike, expected)))

    try:
        until(holds)
    except AssertionError:
        raise AssertionError(f"{command}\n{answers[-1]}") from None


def listens(port):
    """Whether somebody takes connections there."""
    return (
        subprocess.run(["/bin/bash", "-c", f"</dev/tcp/127.0.0.1/{port}"], capture_output=True, check=False).returncode
        == 0
    )


@pytest.mark.parametrize("guides", COURSES, ids=" ".join)
def test_the_guides_with_a_provider_and_a_server(tmp_path, guides):
    """One after the other: each goes on with what the one before has made."""
    ports = {given: str(free_port()) for given in ("8099", "8700")}
    terminal = Terminal(tmp_path, HEADWATER_PORT=ports["8700"])
    names = ports | {"https://headwater.example.com": f"http://127.0.0.1:{ports['8700']}"}
    try:
        for guide in guides:
            text = (GUIDES / f"{guide}.md").read_text()
            for given, free in names.items():
                text = text.replace(given, free)
            for command, expected in steps(text):
                answer = terminal.run(command)
                if command.endswith("&"):
                    port = re.search(r"--port (\d+)", command)
                    until(lambda port=port[1] if port else ports["8700"]: listens(port))
                elif command.startswith(LATER):
                    comes_about(terminal, command, expected)
                else:
                    assert tells(answer, expected), f"{guide}.md: {command}\n{answer}"
    finally:
        terminal.close()


def test_every_guide_and_every_block_of_it_is_run():
    """`test.md` is run below, `production.md` by tests/test_production_guide.py, block by block."""
    names = [name for course in COURSES for name in course]
    assert {path.stem for path in GUIDES.glob("*.md")} == {*names, "test", "production"}
    for name in names:
        text = (GUIDES / f"{name}.md").read_text()
        assert set(re.findall(r"^```(\w+)$", text, re.MULTILINE)) <= {"console", "toml", "text"}, name


def test_the_readmes_first_steps(tmp_path):
    """All of its commands but `make test`, which this is a part of; times and counts that they tell are examples."""
    text, ports = (GUIDES.parent.parent / "README.md").read_text(), {"demo": free_port(), "dev": free_port()}
    assert "\t@$(BIN)/headwater demo $(ARGS)" in (GUIDES.parent.parent / "Makefile").read_text()
    terminal = Terminal(tmp_path, HEADWATER_PORT=str(ports["dev"]))
    text = text.replace(".venv/bin/", "").replace("$ make demo", f"$ headwater demo --port {ports['demo']} &")
    given = [(command.partition("  #")[0].strip(), expected) for command, expected in steps(text)]
    assert [command.split()[1] for command, _ in given] == ["demo", "test", "init", "check", "dev", "streams"]
    try:
        for command, expected in given:
            if command.endswith("&"):
                terminal.run(command)
            elif command.startswith("headwater dev"):
                terminal.run(f"{command} &")
                said = [line.replace("8700", str(ports["dev"])) for line in expected]
                comes_about(terminal, "cat beside-1.log", said)
            elif command.startswith("headwater streams"):
                comes_about(terminal, command, expected, alike=as_example)
            elif command != "make test":
                assert tells(answer := terminal.run(command), expected), (command, answer)
    finally:
        terminal.close()


def as_example(line):
    """A line whose numbers, times and widths may be others; close to midnight a time has its day before it."""
    line = re.sub(r"\b\d+ [A-Z][a-z]{2} (?=\d+:\d+)", "", line)
    return re.sub(r"\d+", "1", re.sub(r"\b(s|min|h)\b", "s", " ".join(line.split())))


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
