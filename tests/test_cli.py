"""The command line, in process: words, exit codes, what goes to stdout and what to stderr."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headwater.cli import log_lines
from headwater.cli.main import CHECK_FAILED, COMMANDS, FAILED, PARTIAL, USAGE
from headwater.cli.session import Options
from headwater.log_line import LogFilter, NewLogLine
from headwater.testing.clock import FakeClock
from loopback import API_KEY, WEBHOOK_SECRET, Shop, loopback_shop, shop_project
from shell import Shell
from stored import connect, ingest, open_store

SECRETS = json.dumps({"api_key": API_KEY, "webhook_secret": WEBHOOK_SECRET})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shop() -> Iterator[Shop]:
    with loopback_shop() as running:
        yield running


@pytest.fixture
def connected(shell: Shell, folder: Path, shop: Shop) -> Shell:
    shop_project(folder / "shop")
    words = ("connections", "add", "shop", "--key", "acme", "--set", f"api_base={shop.url}", "--secrets-stdin")
    shell.ok(*words, stdin=SECRETS)
    return shell


def test_every_command_has_its_module_and_its_help(shell: Shell) -> None:
    for name in COMMANDS:
        answer = shell.ok(name, "--help")
        assert answer.out.startswith(f"Usage: headwater {name}")
    listed = shell.ok("--help").out
    assert all(name in listed for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("chek",), "There is no command `chek`. Did you mean `check`?"),
        (("runs", "lst"), "There is no command `lst`. Did you mean `list`?"),
        (("check", "--jsno"), "--json"),
        (("streams", "--status", "failng"), "Did you mean `failing`?"),
        (("runs", "--state", "done-ish"), "done-ish"),
        (("runs", "show", "many"), "many"),
        (("init",), "FOLDER"),
        (("backfill", "a", "b", "--from", "yesterday"), "`yesterday` is no date"),
        (("demo", "--json"), "--once"),
        (("deliveries", "replay"), "--state dead"),
        (("run", "a", "b", "c"), "unexpected extra argument"),
        (("export", "out.xls"), "does not name its format"),
    ],
)
def test_wrong_words_are_a_usage_error_that_helps(shell: Shell, words: tuple[str, ...], said: str) -> None:
    answer = shell(*words)
    assert answer.code == USAGE
    assert said in answer.err
    assert answer.out == ""


def test_a_wrong_setting_of_the_environment_is_a_usage_error(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_PROT", "1")
    answer = shell("streams")
    assert answer.code == USAGE
    assert "did you mean `HEADWATER_PORT`?" in answer.err


@pytest.mark.parametrize(
    "command",
    [
        "accounts",
        "backfill",
        "backfill list",
        "checkpoints",
        "connections",
        "deliveries",
        "deployments",
        "keys",
        "quarantine",
        "records",
        "runs",
        "streams",
    ],
)
def test_lists_are_json_even_when_they_are_empty(shell: Shell, command: str) -> None:
    assert shell.ok(*command.split(), "--json").json == []
    assert "No" in shell.ok(*command.split()).out


def test_a_new_project_passes_its_check(shell: Shell, folder: Path) -> None:
    assert "headwater check" in shell.ok("init", "shop").out
    assert "shop: shop 0.1.0+" in shell.ok("check", "shop").out
    assert shell.ok("check", "shop", "--json").json[0]["ok"] is True
    assert shell("init", "shop").code == USAGE


def test_a_broken_project_is_told_line_by_line_with_exit_code_3(shell: Shell, folder: Path) -> None:
    path = shop_project(folder / "shop") / "src/api/sync/customers.py"
    path.write_text(path.read_text().replace('"customer",', '"custmer",').replace('stream="customers"', 'stream="x"'))
    answer = shell("check", "shop")
    assert answer.code == CHECK_FAILED
    lines = answer.out.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith("shop/src/api/sync/customers.py:") for line in lines)
    assert "Did you mean `customer`?" in answer.out
    assert shell("check", "shop", "--json").json[0]["diagnostics"][0]["line"] > 1


def test_a_connection_is_added_shown_and_removed_without_telling_a_secret(connected: Shell) -> None:
    shown = connected.ok("connections", "show", "acme", "--json").json
    assert shown["secrets"] == ["api_key", "webhook_secret"]
    assert shown["webhook_url"].startswith("http://127.0.0.1:8700/webhooks/shop/")
    assert connected.ok("connections", "test", "shop").out == "acme: The connection works.\n"
    assert [one["key"] for one in connected.ok("connections", "--json").json] == ["acme"]
    connected.ok("connections", "pause", "acme", "--reason", "holiday")
    assert "holiday" in connected.ok("connections").out
    connected.ok("connections", "resume", "acme")
    assert connected("connections", "remove", "acme").code == USAGE
    connected.ok("connections", "remove", "acme", "--yes")
    assert connected.ok("connections", "--json").json == []
    assert API_KEY not in connected.said
    assert WEBHOOK_SECRET not in connected.said


def test_a_secret_as_an_argument_is_refused_and_not_repeated(shell: Shell, folder: Path) -> None:
    shop_project(folder / "shop")
    answer = shell("connections", "add", "shop", "--set", "api_key=canary")
    assert answer.code == USAGE
    assert "--secret-file api_key=PATH" in answer.err
    assert "canary" not in shell.said


def test_settings_that_do_not_fit_are_all_named(shell: Shell, folder: Path) -> None:
    shop_project(folder / "shop")
    answer = shell("connections", "add", "shop", "--set", "api_base=ftp://x")
    assert answer.code == FAILED
    assert "`api_key` is missing" in answer.err
    assert "`api_base`" in answer.err
    answer = shell("connections", "add", "shop", "--set", "api_bas=x")
    assert answer.code == USAGE
    assert "Did you mean `api_base`?" in answer.err


def test_a_secret_comes_from_a_file_or_from_stdin_and_rotates(connected: Shell, folder: Path, shop: Shop) -> None:
    connected.ok("connections", "set-secret", "acme", "api_key", stdin="another-key\n")
    assert connected("connections", "test", "acme").code == FAILED
    (folder / "key.txt").write_text(API_KEY + "\n")
    connected.ok("connections", "set-secret", "acme", "api_key", "--file", "key.txt")
    assert connected("connections", "test", "acme").code == 0
    rotated = connected.ok(
        "connections", "rotate-secret", "acme", "webhook_secret", "--json", stdin="whsec_bmV3ZXI="
    ).json
    assert rotated["previous_until"] is not None
    answer = connected("connections", "set-secret", "acme", "api_kee", stdin="x")
    assert (answer.code, "Did you mean `api_key`?" in answer.err) == (USAGE, True)


def test_a_run_is_dry_first_and_then_real_and_its_record_tells_where_it_came_from(connected: Shell) -> None:
    dry = connected.ok("run", "customers", "--dry-run", "--json").json
    assert [change["outcome"] for change in dry["changes"]] == ["created"] * 3
    assert connected.ok("records", "--json").json == []
    assert connected.ok("runs", "--json").json == []

    ran = connected.ok("run", "acme", "customers", "--json").json
    assert (ran["state"], ran["pages"], ran["counts"]["created"]) == ("succeeded", 2, 3)
    assert "Nothing would change" in connected.ok("run", "customers", "--dry-run").out

    shown = connected.ok("records", "show", "acme", "customer", "c_3", "--json").json
    assert shown["record"]["current"]["payload"]["email"] == "c3@example.com"
    assert [(one["run_id"], one["page"]) for one in shown["versions"]] == [(ran["id"], 2)]
    assert f"run {ran['id']} page 2" in connected.ok("records", "show", "acme", "customer", "c_3").out
    assert "c_2" in connected.ok("records", "--search", "c_2").out
    assert "/customers" in connected.ok("runs", "show", str(ran["id"])).out
    assert API_KEY not in connected.said


def test_what_a_route_logs_is_shown_dry_and_kept_when_it_is_real(connected: Shell, folder: Path) -> None:
    route = folder / "shop/src/api/sync/customers.py"
    text = route.read_text()
    body = "async def post(request: SyncRequest) -> Page:\n"
    assert body in text
    route.write_text(
        text.replace("from headwater import ", "from headwater import log, secrets, ", 1).replace(
            body, body + '    log.warning("asked with %s from %s", secrets["api_key"], request.cursor)\n'
        )
    )
    dry = connected.ok("run", "customers", "--dry-run", "--json").json
    assert [line["message"] for line in dry["log"]] == ["asked with *** from None", "asked with *** from c_2"]
    assert "warning  asked with *** from None" in connected.ok("run", "customers", "--dry-run").out
    assert connected.ok("logs").out == "No line matches.\n"

    run_id = connected.ok("run", "acme", "customers", "--json").json["id"]
    shown = connected.ok("logs", "acme", "--level", "warning", "--json").json
    assert [(line["run_id"], line["message"]) for line in shown] == [
        (run_id, "asked with *** from None"),
        (run_id, "asked with *** from c_2"),
    ]
    assert f"WARNING acme customers run {run_id}  asked with *** from c_2" in connected.ok("logs", "--limit", "1").out
    assert connected.ok("logs", "--run", "999", "--json").json == []
    assert "asked with ***" in connected.ok("runs", "show", str(run_id)).out
    assert len(connected.ok("runs", "show", str(run_id), "--json").json["log"]) == 2
    assert connected("logs", "--follow", "--after", "3").code == USAGE


def test_the_log_is_followed_as_it_grows(capsys: pytest.CaptureFixture[str]) -> None:
    class Clock(FakeClock):
        looks = 0

        async def sleep(self, seconds: float) -> None:
            self.looks += 1
            if self.looks == 3:
                raise asyncio.CancelledError
            await ingest(store, self, log=[NewLogLine(at=self.now(), level="info", message=f"look {self.looks}")])

    async def main() -> None:
        nonlocal store
        clock = Clock()
        async with open_store(clock=clock) as store:
            await connect(store, clock)
            await ingest(store, clock, log=[NewLogLine(at=clock.now(), level="info", message="before")])
            platform = SimpleNamespace(store=store, clock=clock)
            options = Options(config_file=None, database=None, json=True)
            with pytest.raises(asyncio.CancelledError):
                await log_lines.follow_lines(platform, options, LogFilter(), newest=1)

    store: Any = None
    asyncio.run(main())
    said = [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()]
    assert said == ["look 1", "look 2"]


def test_unknown_names_are_told_with_their_near_miss(connected: Shell) -> None:
    connected.ok("run", "customers")
    for words, said in (
        (("run", "custmers"), "Did you mean `customers`?"),
        (("run", "acmee", "customers"), "Did you mean `acme`?"),
        (("records", "show", "acme", "custmer", "c_1"), "Did you mean `customer`?"),
        (("records", "show", "acme", "customer", "c_99"), "acme has no customer `c_99`."),
        (("runs", "show", "99"), "There is no run 99."),
        (("deliveries", "show", "99"), "There is no delivery 99."),
        (("connections", "add", "shp"), "Did you mean `shop`?"),
        (("backfill", "show", "9"), "There is no backfill 9."),
        (("quarantine", "release", "9"), "No quarantined record 9 waits."),
    ):
        answer = connected(*words)
        assert (answer.code, answer.out) == (USAGE, ""), words
        assert said in answer.err, words


def test_a_recorded_run_is_replayed_without_its_provider(connected: Shell, folder: Path, shop: Shop) -> None:
    connected.ok("run", "customers", "--record", "tape.json")
    assert API_KEY not in (folder / "tape.json").read_text()
    shop.refusals = [500] * 100
    connected.ok("checkpoints", "reset", "acme", "customers", "--yes")
    replayed = connected.ok("run", "customers", "--replay", "tape.json", "--json").json
    assert (replayed["state"], replayed["counts"]["created"]) == ("succeeded", 0)


def test_a_run_that_the_provider_refuses_fails_and_pauses_the_connection(connected: Shell, shop: Shop) -> None:
    shop.refusals = [403]
    answer = connected("run", "customers")
    assert answer.code == FAILED
    assert "operator.credentials" in answer.err
    assert "needs attention" in connected.ok("streams").out
    assert connected.ok("streams", "--json").json[0]["status"] == "needs attention"
    assert connected("connections", "list").out.count("needs attention") == 1
    assert API_KEY not in connected.said


def test_records_that_do_not_fit_are_partial_and_can_be_released(connected: Shell, folder: Path, shop: Shop) -> None:
    shop.customers[1]["name"] = ["not", "a", "name"]
    answer = connected("run", "customers")
    assert answer.code == PARTIAL
    waiting = connected.ok("quarantine", "--json").json
    assert [(one["type"], one["source_id"]) for one in waiting] == [("customer", "c_2")]
    number = str(waiting[0]["id"])
    assert connected("quarantine", "release", number).code == FAILED
    (folder / "repaired.json").write_text('{"id": "c_2", "name": "Repaired"}')
    connected.ok("quarantine", "release", number, "--payload", "repaired.json")
    shown = connected.ok("records", "show", "acme", "customer", "c_2", "--json").json
    assert shown["record"]["current"]["payload"]["name"] == "Repaired"
    assert connected.ok("quarantine", "--json").json == []


def test_a_checkpoint_is_shown_set_and_reset(connected: Shell) -> None:
    assert connected("checkpoints", "set", "acme", "customers", "c_2").code == USAGE
    connected.ok("checkpoints", "set", "acme", "customers", "c_2", "--yes")
    assert [one["cursor"] for one in connected.ok("checkpoints", "--json").json] == ["c_2"]
    ran = connected.ok("run", "customers", "--json").json
    assert (ran["cursor_before"], ran["counts"]["created"]) == ("c_2", 1)
    connected.ok("checkpoints", "reset", "acme", "customers", "--yes")
    assert connected.ok("run", "customers", "--json").json["counts"]["created"] == 2


def test_a_triggered_event_is_signed_received_dispatched_and_replayed(connected: Shell, folder: Path) -> None:
    sent = connected.ok("trigger", "acme", "customer_updated", "--json").json
    assert (sent["status"], sent["delivery"]["state"]) == (200, "done")
    assert [(one["type"], one["delivery_id"]) for one in sent["versions"]] == [("customer", sent["delivery"]["id"])]
    number = str(sent["delivery"]["id"])
    shown = connected.ok("deliveries", "show", number)
    assert "customer.updated" in shown.out
    assert "webhook-signature" not in shown.out
    assert "1 delivery waits" in connected.ok("deliveries", "replay", number).out
    answer = connected("deliveries", "replay", "--event-type", "customer.updated")
    assert answer.code == USAGE
    assert "1 deliveries match" in answer.err

    (folder / "bad.json").write_text('{"id": "e_9", "type": "customer.updated", "at": "soon"}')
    dead = connected("trigger", "acme", "customer.updated", "--data", "bad.json", "--json")
    assert (dead.code, dead.json["delivery"]["state"]) == (FAILED, "dead")
    assert [one["state"] for one in connected.ok("deliveries", "--state", "dead", "--json").json] == ["dead"]


def test_a_backfill_is_carried_out_here_when_nothing_serves(connected: Shell) -> None:
    words = ("backfill", "acme", "customers", "--from", "2026-01-01", "--to", "2026-01-29")
    ended = connected.ok(*words, "--window", "7", "--wait", "--json")
    assert ended.json["backfill"]["state"] == "succeeded"
    assert [one["state"] for one in ended.json["windows"]] == ["done"] * 4
    assert "100%" in ended.err
    assert "████" in connected.ok("backfill", "show", "1").out

    begun = connected.ok(*words, "--json").json
    number = str(begun["id"])
    connected.ok("backfill", "pause", number)
    assert connected("backfill", "pause", number).code == USAGE
    connected.ok("backfill", "resume", number)
    connected.ok("backfill", "cancel", number, "--yes")
    assert [one["state"] for one in connected.ok("backfill", "list", "--json").json] == ["cancelled", "succeeded"]
    connected.ok("backfill", "retry-window", "1", "2")
    assert connected.ok("backfill", "show", "1", "--json").json["windows"][1]["state"] == "todo"


def test_streams_are_paused_and_resumed(connected: Shell) -> None:
    connected.ok("streams", "pause", "acme", "customers")
    assert "Paused: an operator paused this stream" in connected.ok("streams").out
    connected.ok("streams", "resume", "acme", "customers")
    assert "Paused" not in connected.ok("streams").out


def test_an_export_has_every_record_and_resumes_nothing_twice(connected: Shell, folder: Path) -> None:
    connected.ok("run", "customers")
    connected.ok("export", "out.jsonl")
    assert len((folder / "out.jsonl").read_text().splitlines()) == 3
    exported = connected.ok("export", "out.csv", "--type", "customer", "--json").json
    assert exported["export"]["rows"] == 3
    assert "c1@example.com" in (folder / "out.csv").read_text()


def test_a_new_master_key_leaves_every_secret_readable(connected: Shell, folder: Path) -> None:
    before = (folder / ".headwater/headwater.key").read_text()
    assert connected.ok("keys", "rotate", "--yes", "--json").json == {"changed": 2, "unreadable": []}
    assert (folder / ".headwater/headwater.key").read_text().endswith(before)
    assert connected.ok("connections", "test", "acme").code == 0


def test_the_doctor_finds_nothing_wrong_and_then_what_is(connected: Shell, folder: Path) -> None:
    assert all(one["ok"] for one in connected.ok("doctor", "--json").json)
    (folder / ".headwater/headwater.key").chmod(0o644)
    (folder / "shop/src/api/sync/customers.py").unlink()
    answer = connected("doctor")
    assert answer.code == FAILED
    assert "chmod 600" in answer.out
    assert "headwater check" in answer.out


def test_lost_keys_are_not_hidden_by_a_new_one(connected: Shell, folder: Path) -> None:
    (folder / ".headwater/headwater.key").unlink()
    answer = connected("run", "customers")
    assert answer.code == USAGE
    assert "There is no key file" in answer.err
    assert not (folder / ".headwater/headwater.key").exists()


def test_two_connections_of_one_connector_must_be_named(connected: Shell, shop: Shop) -> None:
    words = ("connections", "add", "shop", "--key", "second", "--set", f"api_base={shop.url}", "--secrets-stdin")
    connected.ok(*words, stdin=SECRETS)
    answer = connected("run", "customers")
    assert (answer.code, "Say which: acme, second." in answer.err) == (USAGE, True)
    answer = connected("connections", "show", "shop")
    assert (answer.code, "Name one: acme, second." in answer.err) == (USAGE, True)
    assert connected(*words, stdin=SECRETS).code == USAGE


def test_control_characters_of_a_provider_do_not_reach_the_terminal(connected: Shell, shop: Shop) -> None:
    shop.customers[0]["id"] = "c_\x1b[2J"
    connected("run", "customers")
    assert "\x1b" not in connected.ok("records").out
    assert "\x1b" not in connected.said
