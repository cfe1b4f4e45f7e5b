"""A PostgreSQL server that is stopped and started under `headwater serve`: nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

from served import Server, headwater, serving, until

from cluster_nodes import as_url, own_server
from headwater.testing.signer import signed
from loopback import API_KEY, WEBHOOK_SECRET, loopback_shop, shop_project

SECRETS = json.dumps({"api_key": API_KEY, "webhook_secret": WEBHOOK_SECRET})
OUTAGE_SECONDS = 5.0
ANSWER_SECONDS_MAX = 12.0  # of the first answer in an outage; those after it come after a second
RECOVERY_SECONDS_MAX = 10.0
CPU_SHARE_MAX = 0.5  # of a core, in an outage: what a loop without a pause would exceed at once
LINES_A_SECOND_MAX = 40


class Sender:
    """A provider that sends deliveries, and remembers which were acknowledged."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.acknowledged: set[str] = set()
        self._sent = 0

    def send(self) -> tuple[int, str | None, float]:
        """The status, its `Retry-After`, and the seconds that the answer took."""
        self._sent += 1
        body = json.dumps({"id": f"e_{self._sent}", "type": "x", "at": 1767398460, "data": {}}).encode()
        name = f"msg_{self._sent}"
        headers = signed("standard_webhooks", body, WEBHOOK_SECRET, at=datetime.now(UTC), provider_id=name)
        begun = time.monotonic()
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url, body, headers), timeout=60) as answer:
                status, retry_after = answer.status, None
        except urllib.error.HTTPError as error:
            with error:
                status, retry_after = error.code, error.headers["Retry-After"]
        if status == 200:
            self.acknowledged.add(name)
        return status, retry_after, time.monotonic() - begun


def cpu_seconds(server: Server) -> float:
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sender(folder: Path, server: Server) -> Sender:
    shown = headwater(folder, "connections", "show", "acme", "--json").json
    return Sender(server.url + shown["webhook_url"].removeprefix("http://127.0.0.1:8700"))


def refuse_for_a_while(server: Server, provider: Sender) -> None:
    """The database is away: each delivery is answered 503 in time, and the process neither spins nor ends."""
    begun, cpu, lines = time.monotonic(), cpu_seconds(server), server.err.count("\n")
    answers = []
    while time.monotonic() - begun < OUTAGE_SECONDS or len(answers) < 2:
        answers.append(provider.send())
    assert {(status, retry_after) for status, retry_after, _ in answers} == {(503, "5")}, server.err
    assert answers[0][2] < ANSWER_SECONDS_MAX
    assert max(seconds for *_, seconds in answers[1:]) < ANSWER_SECONDS_MAX / 3
    lasted = time.monotonic() - begun
    assert cpu_seconds(server) - cpu < CPU_SHARE_MAX * lasted
    assert server.err.count("\n") - lines < LINES_A_SECOND_MAX * lasted
    assert server.process.poll() is None


def test_a_database_that_is_stopped_and_started_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    shop_project(tmp_path / "shop")
    with own_server() as database, loopback_shop() as shop:
        (tmp_path / "headwater.toml").write_text(f'database = "{as_url(database.get_uri())}"\n')
        words = ("connections", "add", "shop", "--key", "acme", "--set", f"api_base={shop.url}", "--secrets-stdin")
        assert headwater(tmp_path, *words, stdin=SECRETS).code == 0
        shop.free.clear()  # a run is under way when the database goes
        with serving(tmp_path) as server:
            provider = sender(tmp_path, server)
            assert shop.asked.wait(60)
            assert [provider.send()[0] for _ in range(5)] == [200] * 5
            # One that is claimed when the database goes waits for its claim to lapse: too long for this test.
            until(lambda: all(one["state"] == "done" for one in listed(tmp_path, "deliveries")))
            database.stop()
            shop.free.set()
            refuse_for_a_while(server, provider)
            database.start()
            back = time.monotonic()
            until(lambda: provider.send()[0] == 200)
            assert time.monotonic() - back < RECOVERY_SECONDS_MAX
            until(lambda: all(one["state"] == "done" for one in listed(tmp_path, "deliveries")))
            assert {one["provider_id"] for one in listed(tmp_path, "deliveries")} >= provider.acknowledged
            until(lambda: [one["state"] for one in listed(tmp_path, "runs")][:1] == ["succeeded"])
            assert sum(one["type"] == "customer" for one in listed(tmp_path, "records")) == 3
            server.process.send_signal(signal.SIGTERM)
            assert server.ended() == 0


def listed(folder: Path, what: str) -> list[dict[str, str]]:
    return headwater(folder, what, "--json", "--limit", "1000").json
