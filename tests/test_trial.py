"""`headwater test`: a good connector holds every promise, and each wrong one breaks its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from feed_provider import SECRETS, SYNC, WEBHOOK, Feed, feed_project, provider
from headwater.cassette import Recorder
from headwater.cli.main import root
from headwater.errors import NotFoundError
from headwater.redaction import Redactor
from headwater.testing.answering import Provider
from headwater.testing.trial import TRIALS, Bench, in_peace, trials
from loopback import shop_project
from project_builder import replaced

CALL = 'answer = await changed(after=request.cursor or "100")'
EMIT = """\
    for customer in page["data"]:
"""
RETURN = 'return Page(cursor=page["last"] or request.cursor, has_more=page["more"])'
# A place in a list is no name for what stands there: something before it goes away, and the next one is skipped.
BY_PLACE = replaced(
    SYNC,
    (CALL, 'answer = await changed(offset=request.cursor or "0")'),
    (RETURN, 'return Page(cursor=str(int(request.cursor or 0) + len(page["data"])), has_more=page["more"])'),
)
# Kept in memory until the list is read: the checkpoint moves on without what it stands for.
BUFFERED = replaced(
    SYNC,
    ("@route", "KEPT = []\n\n\n@route"),
    (
        EMIT,
        '    KEPT.extend(page["data"])\n    for customer in [] if page["more"] else [KEPT.pop() for _ in KEPT[:]]:\n',
    ),
)
# An error is taken for an empty page, and the one after it is asked for.
PASSED_OVER = """\
try:
        answer = await changed(after=request.cursor or "100")
    except errors.HeadwaterError:
        return Page(cursor=str(int(request.cursor or "100") + 3), has_more=False)"""
SWALLOWED = replaced(SYNC, (CALL, PASSED_OVER))
# What the provider refuses is nothing new.
TOLD = 'raise errors.StopError("The provider forgot the cursor.", hint="Reset the checkpoint.")'
FORGOTTEN = replaced(SYNC, (TOLD, "return Page(cursor=request.cursor, has_more=False)"))
# True when it arrives, not when it happened.
UNDATED = replaced(WEBHOOK, ('        as_of=instant(event["at"]),\n', ""))
# What changes with each reading is news each time.
NEWS = 'customer_record(customer) | {"description": str(request.started_at)}'
DATED = replaced(SYNC, ("customer_record(customer)", NEWS))


def bench(folder: Path) -> Bench:
    return Bench(path=folder, factory=provider, seeds=(1, 2), kills_max=1)


def test_a_good_connector_holds_every_promise(tmp_path: Path) -> None:
    verdicts = list(trials(bench(feed_project(tmp_path))))
    assert [verdict.name for verdict in verdicts] == list(TRIALS)
    assert [(verdict.name, verdict.broken) for verdict in verdicts if not verdict.ok] == []
    assert [verdict.name for verdict in verdicts if verdict.skipped] == []


def test_a_plain_route_is_tried_in_turn_with_its_thread_and_one_seed_is_one_history(tmp_path: Path) -> None:
    plain = feed_project(tmp_path, sync=replaced(SYNC, ("async def", "def"), ("await changed", "changed")))
    library = (plain / "src/lib/shop.py").read_text()
    (plain / "src/lib/shop.py").write_text(
        library + library[library.index("async def") : library.index("def customer_record")]
        .replace("async def changed", "def changed")
        .replace("await http.get", "http.blocking.get")
    )  # fmt: skip
    verdicts = list(trials(bench(plain), ["peace", "kills", "wire", "shift"]))
    assert [(verdict.name, verdict.broken) for verdict in verdicts if not verdict.ok] == []
    histories = [bench(plain).play(in_peace, seed=7) for _ in range(2)]
    assert histories[0].pages > 2
    assert histories[0].hash == histories[1].hash != bench(plain).play(in_peace, seed=8).hash


@pytest.mark.parametrize(
    ("files", "trial", "words"),
    [
        ({"sync": BY_PLACE}, "shift", "missing"),
        ({"sync": BUFFERED}, "kills", "missing"),
        ({"sync": SWALLOWED}, "wire", "missing"),
        ({"sync": FORGOTTEN}, "expiry", "nobody is told"),
        ({"sync": DATED}, "again", "differs"),
        ({"webhook": UNDATED}, "disorder", "as_of"),
    ],
    ids=["by place", "buffered", "swallowed", "forgotten", "dated", "undated"],
)
def test_a_wrong_connector_breaks_its_own_promise(
    files: dict[str, str], trial: str, words: str, tmp_path: Path
) -> None:
    found = {one.name: one for one in trials(bench(feed_project(tmp_path, **files)), ["peace", "again", trial])}
    assert [name for name, one in found.items() if not one.ok] == [trial]
    assert words in found[trial].broken[0]


def test_the_command_says_what_is_broken_and_how_to_see_it_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    folder = feed_project(tmp_path, sync=FORGOTTEN)
    ran = CliRunner().invoke(root, ["test", str(folder), "--trial", "expiry", "--seed", "2"], standalone_mode=False)
    assert ran.return_value == 1
    assert "BROKEN   expiry" in ran.output
    assert f"again: headwater test {folder} --trial expiry --seed 2" in ran.output
    told = CliRunner().invoke(root, ["test", str(folder), "--trial", "expiry", "--json"], standalone_mode=False)
    assert [(one["trial"], one["ok"], one["seed"]) for one in json.loads(told.output)] == [("expiry", False, 1)]


def test_a_new_project_is_tested_by_the_provider_of_its_tests(tmp_path: Path) -> None:
    folder = shop_project(tmp_path / "shop")
    ran = CliRunner().invoke(root, ["test", str(folder), "--trial", "again"], standalone_mode=False)
    assert (ran.return_value, "1 of 1 promises held" in ran.output) == (0, True)


def test_a_project_that_fails_its_check_is_not_tried(tmp_path: Path) -> None:
    folder = shop_project(tmp_path / "shop")
    (folder / "src/api/sync/customers.py").unlink()
    assert CliRunner().invoke(root, ["test", str(folder)], standalone_mode=False).return_value == 3


def test_a_project_without_a_provider_is_told_where_to_write_one(tmp_path: Path) -> None:
    folder = shop_project(tmp_path / "shop")
    for file in (folder / "tests").glob("*.py"):
        file.unlink()
    ran = CliRunner().invoke(root, ["test", str(folder)], standalone_mode=False)
    assert isinstance(ran.exception, NotFoundError)
    assert "tests/provider.py" in ran.exception.hint


def test_a_cassette_takes_the_place_of_a_provider(tmp_path: Path) -> None:
    folder, tape = feed_project(tmp_path / "feed"), tmp_path / "feed.json"
    recorder = Recorder(tape)
    transport = recorder.through(Feed(), Redactor(SECRETS.values()))
    recorded = Bench(path=folder, factory=lambda: Provider(transport=transport, secrets=SECRETS))
    assert recorded.play(in_peace).problems == []
    recorder.save()
    arguments = ["test", str(folder), "--cassette", str(tape), "--trial", "again", "--trial", "wire", "--seeds", "1"]
    ran = CliRunner().invoke(root, arguments, standalone_mode=False)
    assert (ran.return_value, "2 of 2 promises held" in ran.output) == (0, True), ran.output
    told = CliRunner().invoke(root, [*arguments, "--set", "no value"], standalone_mode=False)
    assert "is no NAME=VALUE" in str(told.exception)
