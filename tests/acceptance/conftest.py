"""What tests of real processes over PostgreSQL begin with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import headwater

from cluster_nodes import as_url
from loopback import API_KEY, WEBHOOK_SECRET, Shop, loopback_shop, shop_project

SECRETS = json.dumps({"api_key": API_KEY, "webhook_secret": WEBHOOK_SECRET})


@pytest.fixture
def postgres_shop() -> Iterator[Shop]:
    with loopback_shop() as running:
        yield running


@pytest.fixture
def postgres_folder(tmp_path: Path, postgres_shop: Shop, postgres_url: str) -> Path:
    """A folder whose `headwater.toml` names a PostgreSQL database, with one connection."""
    shop_project(tmp_path / "shop")
    (tmp_path / "headwater.toml").write_text(f'database = "{as_url(postgres_url)}"\n')
    words = ("connections", "add", "shop", "--key", "acme", "--set", f"api_base={postgres_shop.url}", "--secrets-stdin")
    added = headwater(tmp_path, *words, stdin=SECRETS)
    assert added.code == 0, added.err
    return tmp_path
