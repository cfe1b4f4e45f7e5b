"""From one process on a file to nodes on PostgreSQL: what ran goes on from where it was, and nothing happens twice."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from served import headwater, serving, until
from test_nodes import listed, post

from cluster_nodes import as_url
from loopback import API_KEY, WEBHOOK_SECRET, customer, loopback_shop, shop_project

SECRETS = json.dumps({"api_key": API_KEY, "webhook_secret": WEBHOOK_SECRET})


def versions(folder: Path) -> dict[str, int]:
    """How many versions each record has."""
    return {f"{one['type']} {one['source_id']}": one["version"] for one in listed(folder, "records")}


def test_a_served_file_is_copied_and_its_work_goes_on_on_two_nodes(tmp_path: Path, postgres_url: str) -> None:
    shop_project(tmp_path / "shop")
    with loopback_shop() as shop:
        words = ("connections", "add", "shop", "--key", "acme", "--set", f"api_base={shop.url}", "--secrets-stdin")
        assert headwater(tmp_path, *words, stdin=SECRETS).code == 0
        with serving(tmp_path) as embedded:
            assert post(tmp_path, embedded, 1) == 200
            until(lambda: len(versions(tmp_path)) == 4)
            until(lambda: [one["state"] for one in listed(tmp_path, "deliveries")] == ["done"])
            refused = headwater(tmp_path, "db", "copy", "--to", as_url(postgres_url))
            assert refused.code == 1
            assert "Stop it: nothing may change now." in refused.err
            embedded.process.send_signal(signal.SIGTERM)
            assert embedded.ended() == 0
        before = versions(tmp_path)
        checkpoints = headwater(tmp_path, "checkpoints", "--json").json
        copied = headwater(tmp_path, "db", "copy", "--to", as_url(postgres_url))
        assert copied.code == 0, copied.err
        assert "copied and verified" in copied.out

        (tmp_path / "headwater.toml").write_text(f'database = "{as_url(postgres_url)}"\n')
        assert versions(tmp_path) == before
        assert headwater(tmp_path, "checkpoints", "--json").json == checkpoints
        with (
            serving(tmp_path, "--role", "ingress", "--role", "dashboard") as front,
            serving(tmp_path, "--role", "worker", "--role", "ticker"),
        ):
            # The event of before, by the same URL and secret, is a duplicate; the next one is not.
            assert [post(tmp_path, front, number) for number in (1, 2)] == [200, 200]
            until(lambda: len(versions(tmp_path)) == 5)
            duplicates = [one["duplicates"] for one in listed(tmp_path, "deliveries")]
            assert sorted(duplicates) == [0, 1]
            shop.customers.append(customer(4))
            assert headwater(tmp_path, "run", "acme", "customers").code == 0
            until(lambda: "customer c_4" in versions(tmp_path))
        after = versions(tmp_path)
    assert {key: after[key] for key in before} == before, "what was there before has no version more"
    assert len(after) == len(before) + 2
