"""Deploying over HTTP: who may, what is refused and how, and what is written down."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from deploying import LIB_BROKEN, ORDERS, SECOND, Api, config_in, opened, packed, version
from headwater.api import deployments
from headwater.app import Platform
from headwater.application import Application
from headwater.archive import ARCHIVE_BYTES_MAX

HASH = "0" * 32
BUNDLE = {"content_type": "application/octet-stream"}


def with_api(folder: Path, story: Callable[[Api, Platform], Awaitable[None]]) -> None:
    async def act(platform: Platform) -> None:
        api = Api(Application(platform, version="test"))
        await api.make_key()
        await story(api, platform)

    opened(config_in(folder, projects=(folder / "none",)), act)


def test_a_bundle_is_brought_planned_activated_and_listed(tmp_path: Path) -> None:
    async def story(api: Api, platform: Platform) -> None:
        folder = version(tmp_path / "one")
        read, archive = packed(folder)
        content_hash = read.content_hash
        path = f"/bundles?hash={content_hash}&plan=true"
        rehearsed = await api.ask("POST", path, expect=200, body=archive, **BUNDLE)
        assert (await platform.store.bundles(), await platform.store.audit_log()) == ([], [])
        brought = await api.bring(folder)
        assert (brought["hash"], brought["connector"], brought["version"]) == (content_hash, "shop", "0.1.0")
        assert (brought["actor"], brought["warnings"], "archive" in brought) == ("ci", [], False)
        assert (await api.bring(folder, expect=200))["hash"] == content_hash
        dry = await api.wanted(bundle=content_hash, dry_run=True, expect=200)
        assert (dry["deployment"], dry["plan"]) == (None, rehearsed["plan"])
        assert await platform.store.active_bundles() == {}
        done = await api.wanted(bundle=content_hash, expected=None)
        assert done["plan"] == dry["plan"]
        assert (await api.wanted(bundle=content_hash))["deployment"] == done["deployment"]
        listed = await api.ask("GET", "/deployments?connector=shop", expect=200)
        assert (len(listed["data"]), listed["active"]) == (1, {"shop": content_hash})
        assert (await api.ask("GET", "/deployments?connector=other", expect=200))["data"] == []
        (bundle,) = (await api.ask("GET", "/bundles", expect=200))["data"]
        assert (bundle["hash"], "outline" in bundle) == (content_hash, False)
        deployed, added = await platform.store.audit_log()
        assert (deployed.act, deployed.actor, deployed.target) == ("deploy", "ci", "shop")
        assert deployed.detail["bundle"] == content_hash
        assert deployed.detail["plan"][0]["name"] == "customers"
        assert (added.act, added.detail["bundle"]) == ("bundles.add", content_hash)

    with_api(tmp_path, story)


def test_only_a_key_with_the_deploy_scope_and_no_tenant_may(tmp_path: Path) -> None:
    async def story(api: Api, platform: Platform) -> None:
        await api.make_key("read", "operate", key="hw_operate")
        await api.make_key("read", "deploy", key="hw_tenant", tenant="t")
        for method, path in (("POST", f"/bundles?hash={HASH}"), ("POST", "/deployments")):
            # Without a key, too: on loopback everything else is open, and this would be code that runs here.
            for key in ("hw_operate", "hw_tenant", ""):
                refused = await api.ask(method, path, expect=403, key=key)
                assert refused["code"] == "request.scope"
            await api.ask(method, path, expect=401, key="hw_unknown")
        await api.ask("GET", "/deployments", expect=403, key="hw_tenant")
        await api.ask("GET", "/bundles", expect=200, key="hw_operate")
        await api.ask("GET", "/streams", expect=200, key="")
        assert await platform.store.audit_log() == []

    with_api(tmp_path, story)


def test_a_bad_bundle_is_refused_with_its_lines_and_what_runs_is_untouched(tmp_path: Path) -> None:
    async def story(api: Api, platform: Platform) -> None:
        await api.deploy(version(tmp_path / "one"))
        running = platform.project("shop")
        bad = await api.bring(version(tmp_path / "bad", SECOND, files=LIB_BROKEN), expect=422)
        assert (bad["code"], bad["detail"]) == ("start.check", "The bundle did not pass its check.")
        assert bad["errors"][0].startswith("src/lib/extra.py:1: HW102 ")
        read, archive = packed(version(tmp_path / "two", SECOND))
        path = f"/bundles?hash={read.content_hash}"
        assert "not complete" in (await api.ask("POST", path, expect=422, body=archive[:-9], **BUNDLE))["detail"]
        assert (
            "said to be"
            in (await api.ask("POST", f"/bundles?hash={HASH}", expect=422, body=archive, **BUNDLE))["detail"]
        )
        assert "no bundle" in (await api.ask("POST", path, expect=422, body=b"PK\3\4", **BUNDLE))["detail"]
        await api.wanted(bundle=read.content_hash, expect=404)
        assert platform.project("shop") is running
        assert len(await platform.store.bundles()) == 1

    with_api(tmp_path, story)


def test_what_is_too_large_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(api: Api, platform: Platform) -> None:
        path = f"/bundles?hash={HASH}"
        headers = BUNDLE | {"content_length": str(ARCHIVE_BYTES_MAX + 1)}
        await api.ask("POST", path, expect=413, **headers)
        monkeypatch.setattr(deployments, "ARCHIVE_BYTES_MAX", 10)
        # A body that does not tell its length is refused once it is too long.
        await api.ask("POST", path, expect=413, body=b"x" * 11, **BUNDLE, content_length="0")

    with_api(tmp_path, story)


def test_words_that_are_wrong_are_told(tmp_path: Path) -> None:
    async def story(api: Api, platform: Platform) -> None:
        await api.ask("POST", f"/bundles?hash={HASH}", expect=415, body=b"x")
        for query in ("", "?hash=abc", f"?hash={HASH}&x=1", "?hash=" + "/" * 32):
            await api.ask("POST", f"/bundles{query}", expect=400, body=b"x", **BUNDLE)
        for words in ({}, {"rollback": True}, {"bundel": HASH}, {"bundle": 1}):
            await api.wanted(expect=400, **words)
        await api.wanted(connector="shop", rollback=True, expect=404)

    with_api(tmp_path, story)


def test_a_deploy_that_expected_something_else_or_takes_something_away_is_told(tmp_path: Path) -> None:
    async def story(api: Api, platform: Platform) -> None:
        await api.deploy(version(tmp_path / "more", ORDERS))
        less = (await api.bring(version(tmp_path / "less", SECOND)))["hash"]
        for expected in (None, HASH):
            refused = await api.wanted(bundle=less, expected=expected, allow_destructive=True, expect=409)
            assert refused["code"] == "request.conflict"
        refused = await api.wanted(bundle=less, expect=409)
        assert refused["code"] == "request.conflict.destructive"
        assert "stream orders (removed)" in refused["detail"]
        assert platform.project("shop").connector.version == "0.1.0"
        await api.wanted(bundle=less, allow_destructive=True)
        assert platform.project("shop").connector.version == "0.2.0"
        back = await api.wanted(connector="shop", rollback=True)
        assert (back["deployment"]["act"], back["deployment"]["previous"]) == ("rollback", less)
        assert platform.project("shop").connector.version == "0.1.0"

    with_api(tmp_path, story)


def test_a_new_endpoint_is_served_as_soon_as_it_is_deployed(tmp_path: Path) -> None:
    async def story(api: Api, platform: Platform) -> None:
        assert api.application._endpoints == ()
        await api.deploy(version(tmp_path / "one"))
        assert api.application._endpoints == ("/webhooks/shop/",)

    with_api(tmp_path, story)
