"""`headwater serve` as its own process: received, polled, drained, stopped, refused."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from served import HEADWATER, Server, environment, headwater, serving, until

from headwater.testing.signer import signed
from loopback import API_KEY, WEBHOOK_SECRET, Shop, loopback_shop, shop_project

SECRETS = json.dumps({"api_key": API_KEY, "webhook_secret": WEBHOOK_SECRET})
FILE_BYTES_MAX = 1_200_000  # beyond it, the kernel refuses to let a file grow: a full disk


@pytest.fixture
def shop() -> Iterator[Shop]:
    with loopback_shop() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, shop: Shop) -> Path:
    shop_project(tmp_path / "shop")
    words = ("connections", "add", "shop", "--key", "acme", "--set", f"api_base={shop.url}", "--secrets-stdin")
    added = headwater(tmp_path, *words, stdin=SECRETS)
    assert added.code == 0, added.err
    return tmp_path


def endpoint(folder: Path, server: Server) -> str:
    shown = headwater(folder, "connections", "show", "acme", "--json").json
    return server.url + shown["webhook_url"].removeprefix("http://127.0.0.1:8700")


def post(url: str, body: bytes, *, secret: str = WEBHOOK_SECRET, number: int = 1) -> int:
    headers = signed("standard_webhooks", body, secret, at=datetime.now(UTC), provider_id=f"msg_{number}")
    return ask(url, body=body, headers=headers)


def ask(url: str, *, body: bytes | None = None, headers: dict[str, str] | None = None) -> int:
    request = urllib.request.Request(url, data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def event(number: int, kind: str = "report.ready") -> bytes:
    return json.dumps({"id": f"e_{number}", "type": kind, "at": 1767398460, "data": {"n": number}}).encode()


def populations(folder: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in headwater(folder, "records", "--json", "--limit", "1000").json:
        found[one["type"]] = found.get(one["type"], 0) + 1
    return found


def test_a_delivery_over_loopback_and_a_poll_become_records(folder: Path) -> None:
    with serving(folder) as server:
        url = endpoint(folder, server)
        assert post(url, event(1)) == 200
        assert post(url, event(1)) == 200
        assert post(url, event(2), secret="whsec_c29tZWJvZHkgZWxzZQ==") == 401
        assert post(url.rpartition("/")[0] + "/unknown", event(2)) == 404
        until(lambda: populations(folder) == {"customer": 3, "event": 1})
        (delivery,) = headwater(folder, "deliveries", "--json").json
        assert (delivery["state"], delivery["duplicates"]) == ("done", 1)
        assert headwater(folder, "deliveries", "--rejected", "--json").json[0]["count"] == 1
        streams = headwater(folder, "streams", "--json").json
        assert {one["stream"]: one["status"] for one in streams} == {"customers": "fresh", "events": "fresh"}
        triggered = headwater(folder, "trigger", "acme", "customer_updated", "--json")
        assert triggered.json["delivery"]["state"] == "done", triggered
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == 0
    assert API_KEY not in server.err
    assert WEBHOOK_SECRET not in server.err


def test_the_first_signal_lets_a_page_finish_and_refuses_what_is_new(folder: Path, shop: Shop) -> None:
    shop.free.clear()
    with serving(folder) as server:
        url = endpoint(folder, server)
        assert shop.asked.wait(60)
        server.process.send_signal(signal.SIGTERM)
        server.says("Draining")
        assert post(url, event(1)) == 503
        assert server.process.poll() is None
        shop.free.set()
        assert server.ended() == 0
    assert populations(folder)["customer"] == 2
    (run,) = headwater(folder, "runs", "--json").json
    assert (run["pages"], run["state"]) == (1, "retrying")

    with serving(folder) as server:
        until(lambda: populations(folder) == {"customer": 3})
        server.process.send_signal(signal.SIGINT)
        assert server.ended() == 0


def test_the_second_signal_stops_at_once_and_the_next_start_takes_up_the_work(folder: Path, shop: Shop) -> None:
    shop.free.clear()
    with serving(folder) as server:
        assert shop.asked.wait(60)
        server.process.send_signal(signal.SIGTERM)
        server.says("Draining")
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == 1
    assert "Stopped at once" in server.err
    assert populations(folder) == {}
    shop.free.set()
    with serving(folder) as server:
        until(lambda: populations(folder) == {"customer": 3})
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == 0


def test_a_signal_at_the_moment_of_the_announcement_is_an_end_in_order(folder: Path) -> None:
    with serving(folder) as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == 0


def test_a_second_server_on_the_same_database_is_refused(folder: Path) -> None:
    with serving(folder) as server:
        second = headwater(folder, "serve", "--port", "0")
        assert second.code == 1
        assert f"Process {server.process.pid} serves" in second.err
        assert server.url in second.err
        taken = headwater(folder, "serve", "--port", server.url.rpartition(":")[2], "--database", "other.db")
        assert (taken.code, "Cannot listen" in taken.err) == (1, True)


def test_a_malformed_project_is_refused_and_the_others_keep_running(folder: Path) -> None:
    broken = shop_project(folder / "broken")
    (broken / "src/lib/shop.py").write_text("def (:\n")
    with serving(folder) as server:
        until(lambda: populations(folder) == {"customer": 3})
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == 0
    assert f"{broken}/src/lib/shop.py:1:" in server.err


def test_a_full_disk_is_said_nothing_is_acknowledged_and_the_process_ends(folder: Path) -> None:
    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, FILE_BYTES_MAX))

    acknowledged = []
    with serving(folder, before=full) as server:
        url = endpoint(folder, server)
        padding = "x" * 200_000
        for number in range(1, 40):
            body = json.dumps({"id": f"e_{number}", "type": "x", "at": 1, "data": {"text": padding}}).encode()
            try:
                status = post(url, body, number=number)
            except (urllib.error.URLError, ConnectionError):
                break
            assert status in (200, 503)
            if status == 503:
                break
            acknowledged.append(f"msg_{number}")
        assert server.ended() == 1
    assert "The store cannot write any more" in server.err
    stored = {one["provider_id"] for one in headwater(folder, "deliveries", "--json", "--limit", "1000").json}
    assert set(acknowledged) <= stored
    assert headwater(folder, "doctor").code == 0


def test_beyond_loopback_pages_need_a_key_and_endpoints_do_not(folder: Path) -> None:
    key = headwater(folder, "keys", "create", "ci", "--json").json["key"]
    with serving(folder, "--host", "0.0.0.0") as server:
        assert server.url.startswith("http://127.0.0.1:")
        for path in ("/?format=json", "/api/v1/streams", "/metrics"):
            assert ask(server.url + path) == 401
            assert ask(server.url + path, headers={"Authorization": f"Bearer {key}"}) == 200
        assert ask(server.url + "/livez") == 200
        assert post(endpoint(folder, server), event(1)) == 200


def test_the_printed_link_makes_the_first_admin_and_closes_the_door(folder: Path) -> None:
    with serving(folder) as server:
        assert server.first_admin.startswith(f"{server.url}/setup?token=")
        assert ask(server.url + "/api/v1/streams") == 200
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        form = {"email": "ann@example.com", "password": "correct horse battery", "again": "correct horse battery"}
        form["token"] = server.first_admin.partition("token=")[2]
        with browser.open(server.url + "/setup", urllib.parse.urlencode(form).encode(), timeout=30) as answer:
            assert (answer.status, answer.url) == (200, server.url + "/")
            assert "ann@example.com" in answer.read().decode()
        assert ask(server.url + "/api/v1/streams") == 401
    with serving(folder) as server:
        assert server.first_admin is None
        with browser.open(f"{server.url}/account", timeout=30) as answer:  # the session outlives the process
            assert answer.url.endswith("/account")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("serv",), "Did you mean `serve`?"),
        (("serve", "--prot", "1"), "--port"),
        (("connections", "lst"), "Did you mean `list`?"),
        (("run", "acme", "custmers"), "Did you mean `customers`?"),
    ],
)
def test_wrong_words_exit_with_2_and_the_near_miss(folder: Path, words: tuple[str, ...], said: str) -> None:
    answer = headwater(folder, *words)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert "Traceback" not in answer.err


def test_a_reader_that_goes_away_is_met_without_noise(folder: Path) -> None:
    headwater(folder, "run", "customers")
    pipe = subprocess.Popen(
        [*HEADWATER, "records", "--json"], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert pipe.stdout is not None
    pipe.stdout.close()
    _, err = pipe.communicate(timeout=60)
    assert (pipe.returncode, err) == (1, b"")
