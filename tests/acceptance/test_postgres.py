"""The command line over PostgreSQL: every command as over a file, and what is said when the database is not usable."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from served import headwater

from cluster_nodes import PASSWORD
from headwater.app import open_platform
from headwater.clock import SystemClock
from headwater.config import Config, DatabaseUrl
from headwater.errors import ConfigError, StartError


def test_the_commands_work_as_over_a_file_and_the_password_is_nowhere(postgres_folder: Path) -> None:
    answers = [
        headwater(postgres_folder, *words)
        for words in (
            ("run", "acme", "customers"),
            ("trigger", "acme", "customer_updated", "--json"),
            ("connections", "list", "--json"),
            ("streams", "--json"),
            ("runs", "--json"),
            ("deliveries", "--json"),
            ("records", "--json"),
            ("checkpoints", "--json"),
            ("export", "customers.jsonl", "--type", "customer"),
            ("doctor",),
        )
    ]
    assert [answer.code for answer in answers] == [0] * len(answers), [answer.err for answer in answers]
    _, triggered, connections, streams, runs, deliveries, records, *_, doctor = answers
    assert triggered.json["delivery"]["state"] == "done"
    assert [one["key"] for one in connections.json] == ["acme"]
    assert {one["stream"]: one["status"] for one in streams.json} == {"customers": "fresh", "events": "fresh"}
    assert [one["state"] for one in runs.json] == ["succeeded"]
    assert len(deliveries.json) == 1
    assert len(records.json) >= 3
    assert "postgres version" in doctor.out
    assert (postgres_folder / ".headwater" / "headwater.key").is_file()
    assert len((postgres_folder / "customers.jsonl").read_text().splitlines()) == 3
    assert not [answer for answer in answers if PASSWORD in answer.out + answer.err]


def test_a_database_that_cannot_be_reached_is_said_without_the_password(tmp_path: Path) -> None:
    url = f"postgresql://hw:{PASSWORD}@/headwater?host={tmp_path}"
    for words in (("streams",), ("serve", "--port", "0"), ("doctor",)):
        answer = headwater(tmp_path, *words, "--database", url)
        assert (answer.code, answer.out) == (1, "")
        assert "The database cannot be reached" in answer.err
        assert PASSWORD not in answer.err
        assert "Traceback" not in answer.err


async def _open(url: str) -> None:
    async with open_platform(Config(database=DatabaseUrl(url)), SystemClock()):
        raise AssertionError("it was opened")


def test_options_that_postgres_does_not_know_are_refused_without_the_password() -> None:
    with pytest.raises(ConfigError, match="something that PostgreSQL does not know") as caught:
        asyncio.run(_open(f"postgresql://hw:{PASSWORD}@/headwater?pasword={PASSWORD}"))
    assert PASSWORD not in str(caught.value)


def test_without_the_driver_the_words_for_pip_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StartError, match=r"pip install 'headwater\[postgres\]'"):
        asyncio.run(_open("postgresql:///headwater"))
