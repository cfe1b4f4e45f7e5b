"""Deployed by the command line to a real `headwater serve` that has nothing on its disk, and rolled back."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Answer, headwater, serving, until

from deploying import CUSTOMERS, LIB_BROKEN, ORDERS, SECOND, version
from loopback import API_KEY, WEBHOOK_SECRET, Shop, loopback_shop

SECRETS = json.dumps({"api_key": API_KEY, "webhook_secret": WEBHOOK_SECRET})


@pytest.fixture
def shop() -> Iterator[Shop]:
    with loopback_shop() as running:
        yield running


def key_in(folder: Path, *scopes: str) -> str:
    words = [word for scope in scopes for word in ("--scope", scope)]
    made = headwater(folder, "keys", "create", "ci", *words, "--json")
    return str(made.json["key"])


def customer_versions(folder: Path) -> list[str]:
    shown = headwater(folder, "records", "show", "acme", "customer", "c_1", "--json")
    return [] if shown.code else [one["connector_version"] for one in shown.json["versions"]]


def test_a_version_is_deployed_runs_is_replaced_and_returned_to(tmp_path: Path, shop: Shop) -> None:
    node, author = tmp_path / "node", tmp_path / "author"
    node.mkdir()
    version(author / "one")
    version(author / "more", ORDERS, SECOND)
    version(author / "broken", files=LIB_BROKEN)
    key = key_in(node, "read", "deploy")
    with serving(node) as server:

        def ask(*words: str, **variables: str) -> Answer:
            return headwater(author, *words, "--to", server.url, **({"HEADWATER_API_KEY": key} | variables))

        assert ask("deploy", "one", "--plan", "--json").json["deployment"] is None
        first = ask("deploy", "one", "--json")
        assert first.code == 0, first.err
        bundle = first.json["deployment"]["bundle"]
        words = ("connections", "add", "shop", "--key", "acme", "--set", f"api_base={shop.url}", "--secrets-stdin")
        added = headwater(node, *words, stdin=SECRETS)
        assert added.code == 0, added.err
        until(lambda: customer_versions(node) == [f"0.1.0+{bundle[:8]}"])

        refused = ask("deploy", "broken")
        assert (refused.code, "src/lib/extra.py:1: HW102" in refused.out) == (3, True)
        shown = headwater(author, "deploy", "more", "--to", server.url, "--key-stdin", stdin=key + "\n")
        assert shown.code == 0, shown.err
        assert "+ stream     orders" in shown.out
        assert "shop: 0.1.0 → 0.2.0" in shown.out
        less = ask("deploy", "one")
        assert (less.code, "--allow-destructive" in less.err, "DESTRUCTIVE" in less.out) == (1, True, True)
        streams = {one["stream"] for one in headwater(node, "streams", "--json").json}
        assert streams == {"customers", "events", "orders"}

        back = ask("rollback", "shop", "--json")
        assert (back.code, back.json["deployment"]["bundle"]) == (0, bundle)
        streams = {one["stream"] for one in headwater(node, "streams", "--json").json}
        assert streams == {"customers", "events"}
        history = ask("deployments", "--json").json
        assert [(one["act"], one["active"]) for one in history] == [
            ("rollback", True),
            ("deploy", False),
            ("deploy", False),
        ]
        assert "rollback" in ask("deployments", "shop").out
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == 0
    assert key not in server.err + shown.out + shown.err
    assert "shop runs 0.2.0+" in server.err
    with serving(node) as server:
        doctor = headwater(node, "doctor")
        assert f"bundle {bundle}" in doctor.out


def test_a_local_deploy_is_taken_up_by_the_server_beside_it(tmp_path: Path) -> None:
    version(tmp_path / "shop")
    version(tmp_path / "elsewhere" / "shop", SECOND)
    with serving(tmp_path) as server:
        done = headwater(tmp_path, "deploy", "elsewhere/shop")
        assert done.code == 0, done.err
        server.says("shop runs 0.2.0+")
    with serving(tmp_path) as server:
        server.says("shop runs from bundle")


def test_what_cannot_be_is_told_with_its_exit_code(tmp_path: Path) -> None:
    version(tmp_path / "author" / "one")
    key = key_in(tmp_path, "read", "operate")
    with serving(tmp_path) as server:
        to = ("--to", server.url)
        assert headwater(tmp_path / "author", "deploy", "one", *to).code == 2
        refused = headwater(tmp_path / "author", "deploy", "one", *to, HEADWATER_API_KEY=key)
        assert (refused.code, "has no `deploy` scope" in refused.err) == (1, True)
        unknown = headwater(tmp_path / "author", "rollback", "shop", *to, HEADWATER_API_KEY=key_in(tmp_path, "deploy"))
        assert (unknown.code, "nothing to return to" in unknown.err) == (2, True)
        clear = headwater(tmp_path, "deployments", "--to", "http://headwater.example.com", HEADWATER_API_KEY=key)
        assert (clear.code, "in the clear" in clear.err) == (2, True)
        gone = headwater(tmp_path, "deployments", "--to", "http://127.0.0.1:9", HEADWATER_API_KEY=key)
        assert (gone.code, "could not be reached" in gone.err) == (1, True)
        assert headwater(tmp_path, "deploy", "nowhere").code == 3


def test_what_passes_here_and_not_on_the_server_is_refused_with_the_servers_lines(tmp_path: Path) -> None:
    needs = 'import os\n\nassert "ALLOWED" in os.environ\n'
    folder = version(tmp_path / "author" / "one", files={"src/lib/extra.py": needs})
    customers = folder / CUSTOMERS
    customers.write_text(
        customers.read_text().replace("from ...lib.shop", "from ...lib import extra\nfrom ...lib.shop")
    )
    key = key_in(tmp_path, "deploy")
    with serving(tmp_path) as server:
        words = ("deploy", "one", "--to", server.url, "--json")
        refused = headwater(tmp_path / "author", *words, HEADWATER_API_KEY=key, ALLOWED="1")
        assert refused.code == 3, refused
        assert refused.json["ok"] is False
        assert any(line.startswith("src/lib/extra.py:3: HW103") for line in refused.json["lines"]), refused.json
        assert "did not pass its check" in refused.err
    assert headwater(tmp_path, "deployments", "--json").json == []
