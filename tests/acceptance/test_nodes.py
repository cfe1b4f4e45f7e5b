"""Several `headwater serve` processes on one PostgreSQL, each with its roles."""

from __future__ import annotations

import html
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
from served import Server, headwater, serving, until

from headwater.testing.signer import signed
from loopback import WEBHOOK_SECRET, Shop


def ask(url: str, *, body: bytes | None = None, headers: dict[str, str] | None = None) -> int:
    request = urllib.request.Request(url, data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def endpoint_path(folder: Path) -> str:
    shown = headwater(folder, "connections", "show", "acme", "--json").json
    return shown["webhook_url"].removeprefix("http://127.0.0.1:8700")


def post(folder: Path, server: Server, number: int, *, secret: str = WEBHOOK_SECRET) -> int:
    return send(server.url + endpoint_path(folder), number, secret=secret)


def send(url: str, number: int, *, secret: str = WEBHOOK_SECRET) -> int:
    body = json.dumps({"id": f"e_{number}", "type": "report.ready", "at": 1767398460, "data": {}}).encode()
    headers = signed("standard_webhooks", body, secret, at=datetime.now(UTC), provider_id=f"msg_{number}")
    return ask(url, body=body, headers=headers)


def listed(folder: Path, *words: str) -> list[dict[str, Any]]:
    return headwater(folder, *words, "--json").json


def types(folder: Path) -> list[str]:
    return sorted({one["type"] for one in listed(folder, "records")})


def test_split_roles_receive_start_and_carry_out_together(postgres_folder: Path) -> None:
    folder = postgres_folder
    with (
        serving(folder, "--role", "ingress", "--role", "dashboard") as front,
        serving(folder, "--role", "ticker") as ticker,
    ):
        assert post(folder, front, 1) == 200
        assert (ask(ticker.url + "/livez"), ask(ticker.url + "/api/v1/streams")) == (200, 404)
        assert ask(front.url + "/api/v1/streams") == 200
        assert post(folder, ticker, 2) == 404
        assert [one["state"] for one in listed(folder, "deliveries")] == ["pending"]
        assert [one["state"] for one in listed(folder, "runs")] in ([], ["scheduled"])
        with serving(folder, "--role", "worker") as worker:
            until(lambda: types(folder) == ["customer", "event"])
            assert [(one["state"], one["attempt"]) for one in listed(folder, "runs")] == [("succeeded", 1)]
            found = headwater(folder, "doctor")
            assert found.code == 0, found.out
            for words in ("dashboard ingress", ", ticker,", ", worker,", "held", "clock +0.", front.url):
                assert words in found.out.replace("clock -0.", "clock +0."), found.out
            assert listed(folder, "trigger", "acme", "customer_updated")["delivery"]["state"] == "done"
            worker.process.send_signal(signal.SIGTERM)
            assert worker.ended() == 0
        for one in (front, ticker):
            one.process.send_signal(signal.SIGTERM)
            assert one.ended() == 0
    assert "node " not in headwater(folder, "doctor").out


def test_what_is_changed_on_one_node_reaches_the_others(postgres_folder: Path) -> None:
    folder = postgres_folder
    with serving(folder, "--role", "ingress") as front, serving(folder, "--role", "worker", "--role", "ticker") as back:
        until(lambda: types(folder) == ["customer"])
        assert headwater(folder, "connections", "pause", "acme").code == 0
        assert post(folder, front, 1) == 200
        assert headwater(folder, "connections", "resume", "acme").code == 0
        until(lambda: types(folder) == ["customer", "event"])
        turned = "whsec_" + "bmV3IHNlY3JldA=="
        assert headwater(folder, "connections", "set-secret", "acme", "webhook_secret", stdin=turned).code == 0
        until(lambda: post(folder, front, 2, secret=turned) == 200)
        until(lambda: [one["state"] for one in listed(folder, "deliveries")] == ["done", "done"])
        assert back.process.poll() is None


def test_a_node_with_a_wrong_clock_is_named_on_the_dashboard_and_does_no_harm(
    postgres_folder: Path, postgres_url: str
) -> None:
    folder = postgres_folder
    with serving(folder) as server, psycopg.connect(postgres_url, autocommit=True) as db:
        assert post(folder, server, 1) == 200
        until(lambda: types(folder) == ["customer", "event"])
        page = httpx.get(server.url)
        assert "is wrong" not in page.text
        # A node of another machine, seen just now, whose clock is nine seconds ahead.
        db.execute(
            "INSERT INTO nodes (id, host, pid, url, roles, slots, runs, started_at, seen_at, clock_offset) "
            "SELECT 'late', 'elsewhere', 1, 'http://127.0.0.1:1', '[]', 0, 0, seen_at, seen_at, 9000000 FROM nodes"
        )
        words = "The clock of elsewhere is wrong: the database's decides, but its log is dated wrongly. Does NTP run?"
        assert words in html.unescape(httpx.get(server.url).text)
        assert httpx.get(server.url, params={"format": "json"}).json()["warnings"] == [words]
        assert post(folder, server, 2) == 200


AHEAD = """
from datetime import timedelta
from headwater import clock
clock.SystemClock.now = lambda self, now=clock.SystemClock.now: now(self) + timedelta(hours=2)
from headwater.cli.main import main
main()
"""


def test_a_node_that_is_hours_ahead_works_by_the_time_of_the_database(postgres_folder: Path) -> None:
    folder = postgres_folder
    with serving(folder, program=[sys.executable, "-c", AHEAD]) as server:
        # Two hours is beyond the tolerance of the signature, if it were asked of the machine's own clock.
        assert post(folder, server, 1) == 200
        until(lambda: types(folder) == ["customer", "event"])
        until(lambda: [one["state"] for one in listed(folder, "deliveries")] == ["done"])
        now = datetime.now(UTC)
        (run,), (delivery,) = listed(folder, "runs"), listed(folder, "deliveries")
        told = [run[name] for name in ("scheduled_at", "started_at", "finished_at")]
        told += [delivery["received_at"], delivery["finished_at"]]
        assert max(abs((datetime.fromisoformat(one) - now).total_seconds()) for one in told) < 600
        found = headwater(folder, "doctor")
        assert "clock +7200." in found.out.replace("+7199.", "+7200.")


def test_a_killed_worker_is_followed_by_another_and_named_until_it_is_forgotten(
    postgres_folder: Path, postgres_shop: Shop, postgres_url: str
) -> None:
    folder = postgres_folder
    postgres_shop.free.clear()
    with serving(folder, "--role", "worker") as first, serving(folder, "--role", "ticker"):
        assert postgres_shop.asked.wait(60)
        os.kill(first.process.pid, signal.SIGKILL)
        first.ended()
        postgres_shop.free.set()
        with psycopg.connect(postgres_url, autocommit=True) as db:
            # The lease of a minute and the silence of a node are cut short here: both are read from these columns.
            db.execute("UPDATE runs SET lease_until = 0 WHERE state = 'running'")
            db.execute("UPDATE nodes SET seen_at = 1, clock_offset = 9000000 WHERE pid = %s", [first.process.pid])
        found = headwater(folder, "doctor")
        assert found.code == 1
        assert "silent for" in found.out
        assert "clock +9.000 s" in found.out
        assert "is wrong: the database" in found.out
        with serving(folder, "--role", "worker"):
            until(lambda: types(folder) == ["customer"])
            (run,) = listed(folder, "runs")
            assert (run["state"], run["attempt"]) == ("succeeded", 2)
            assert f"process {first.process.pid}" not in headwater(folder, "doctor").out


def test_roles_over_a_file_are_refused_with_the_reason(tmp_path: Path) -> None:
    refused = headwater(tmp_path, "serve", "--port", "0", "--role", "worker")
    assert refused.code == 2
    assert "a SQLite file is served by one process" in refused.err
