"""How the command line speaks: colours for terminals, and logs as text or JSON."""

from __future__ import annotations

import io
import json
import logging

import pytest

from headwater.cli import logs, output
from headwater.redaction import Redactor
from loopback import API_KEY

pytestmark = pytest.mark.usefixtures("log_as_before")


def test_colours_are_for_terminals_and_for_those_who_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    output.print_table(("stream", "status"), [("customers", "failing")])
    assert "\x1b[31mfailing" in terminal.getvalue()
    terminal.truncate(0)
    monkeypatch.setenv("NO_COLOR", "1")
    output.print_table(("stream", "status"), [("customers", "failing")])
    assert "\x1b" not in terminal.getvalue()


def test_the_log_of_a_server_is_text_or_json_and_never_tells_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for log_format in ("text", "json"):
        told = io.StringIO()
        monkeypatch.setattr("sys.stderr", told)
        logs.configure("info", log_format, lambda: Redactor([API_KEY]))
        logging.getLogger("headwater.test").info("sent %s", API_KEY, extra={"headwater_connection": "acme"})
        try:
            raise ValueError(API_KEY)
        except ValueError:
            logging.getLogger("headwater.test").exception("it failed")
        lines = told.getvalue()
        assert API_KEY not in lines
        assert "ValueError" in lines
        if log_format == "json":
            first, second = (json.loads(line) for line in lines.splitlines())
            assert (first["level"], first["connection"], "traceback" in second) == ("info", "acme", True)
