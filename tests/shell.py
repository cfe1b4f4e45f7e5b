"""Command lines of Headwater, run in this process, and what they answered."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import pytest

from headwater.cli import main


@dataclass(frozen=True)
class Answer:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shell:
    """Runs command lines in one folder and keeps all that they ever said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.said = ""

    def __call__(self, *words: str, stdin: str = "") -> Answer:
        self._monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        self._capsys.readouterr()
        code = main.run(list(words))
        captured = self._capsys.readouterr()
        self.said += captured.out + captured.err
        return Answer(code, captured.out, captured.err)

    def ok(self, *words: str, stdin: str = "") -> Answer:
        answer = self(*words, stdin=stdin)
        assert answer.code == 0, answer
        return answer
