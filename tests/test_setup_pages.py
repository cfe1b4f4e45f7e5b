"""Connecting an account and changing it by form: errors at their fields, no secret shown again, all audited."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from doors import connect_shop, csrf_in, send, served
from headwater.acts.act import command_line
from headwater.acts.setup import AddConnection, ChangeSettings, SetSecret
from headwater.catalog import Connection, Connector
from headwater.dashboard.schema_form import fields, read
from loopback import API_KEY, WEBHOOK_SECRET, loopback_shop, shop_project

NEW = "canary-api-key-new-1177"


@asynccontextmanager
async def before_a_shop(folder, role="operator"):
    shop_project(folder / "shop")
    with loopback_shop() as shop:
        async with served(folder) as house:
            yield house, await house.person(role), shop


def visit(folder, story, **choices):
    async def main():
        async with before_a_shop(folder, **choices) as (house, browser, shop):
            await story(house, browser, shop)

    asyncio.run(main())


def form(shop, **changes):
    words = {"connection-key": "acme", "api_key": API_KEY, "webhook_secret": WEBHOOK_SECRET, "api_base": shop.url}
    return words | changes


def test_an_account_is_connected_tested_and_told_its_webhook_url(tmp_path):
    async def story(house, browser, shop):
        assert 'href="/connect/shop"' in (await browser.get("/connect")).text
        page = (await browser.get("/connect/shop")).text
        assert 'type="password"' in page
        assert "Your name for it" in page
        done = await send(browser, "/connect/shop", "/connect/shop", **form(shop))
        assert done.headers.get("location") == "/connections/acme/settings", done.text
        settings = (await browser.get("/connections/acme/settings")).text
        stored = await house.store.connection("acme")
        assert f"/{stored.endpoint_id}" in settings
        assert API_KEY not in settings
        assert "It is set." in settings
        tested = await send(browser, "/connections/acme", "/acts/connections.test", connection="acme")
        assert "The connection works." in tested.text
        assert {one.stream for one in await house.store.streams(at=house.clock.now())} == {"customers", "events"}
        (entry,) = await house.store.audit_log(limit=1, which=await _which("connections.add"))
        assert (entry.actor, entry.target) == ("ann@example.com", "acme")
        assert API_KEY not in str(entry.detail)
        assert "--secret-file api_key=PATH" in entry.detail["command"]
        again = await send(browser, "/connect/shop", "/connect/shop", **form(shop))
        assert again.status_code == 422
        assert "The key `acme` is taken." in again.text

    async def _which(act):
        from headwater.intention import AuditFilter

        return AuditFilter(act=act)

    visit(tmp_path, story)


def test_what_is_wrong_is_told_at_its_field_and_no_secret_comes_back(tmp_path):
    async def story(house, browser, shop):
        wrong = await send(
            browser, "/connect/shop", "/connect/shop", **form(shop, api_base="ftp://x", **{"connection-key": "acme"})
        )
        assert wrong.status_code == 422
        assert 'value="ftp://x"' in wrong.text, "what was typed stays"
        assert 'id="api_base-help" class="wrong"' in wrong.text
        assert API_KEY not in wrong.text
        assert WEBHOOK_SECRET not in wrong.text
        missing = await send(browser, "/connect/shop", "/connect/shop", **form(shop, api_key=""))
        assert "`api_key` is missing" in missing.text
        strange = await send(browser, "/connect/shop", "/connect/shop", **form(shop, **{"connection-key": "a b/c"}))
        assert strange.status_code == 422
        assert await house.store.connections() == []
        assert (await browser.get("/connect/nothing")).status_code == 404
        without = await browser.post("/connect/shop", data=form(shop))
        assert without.status_code == 403, "a form of ours brings its token"

    visit(tmp_path, story)


def test_settings_are_changed_and_a_secret_rotated_with_overlap(tmp_path):
    async def story(house, browser, shop):
        await send(browser, "/connect/shop", "/connect/shop", **form(shop))
        at = "/connections/acme/settings"
        wrong = await send(browser, at, at, api_base="ftp://x")
        assert wrong.status_code == 422
        assert 'value="ftp://x"' in wrong.text
        changed = await send(browser, at, at, api_base="http://127.0.0.1:9")
        assert changed.headers["location"] == at
        assert (await house.store.connection("acme")).settings["api_base"] == "http://127.0.0.1:9"
        empty = await send(browser, at, "/connections/acme/secrets/api_key", value="")
        assert empty.status_code in (400, 422)
        rotated = await send(browser, at, "/connections/acme/secrets/api_key", value=NEW, overlap="24")
        assert rotated.headers.get("location") == at, rotated.text
        stored = await house.store.connection("acme")
        secrets = [one for one in await house.store.secrets(stored.id, at=house.clock.now()) if one.field == "api_key"]
        assert [one.expires_at is None for one in secrets] == [True, False]
        page = (await browser.get(at)).text
        assert "The one before is valid until" in page
        assert NEW not in page
        live = await house.platform.live.connections.by_key("acme")
        assert live.secrets["api_key"] == NEW
        unknown = await send(browser, at, "/connections/acme/secrets/nothing", value="x")
        assert unknown.status_code == 422
        odd = await send(browser, at, "/connections/acme/secrets/api_key", value="x", overlap="soon")
        assert odd.status_code == 422
        twin = (await browser.get(at + "?format=json")).json()
        assert twin["secrets"] == ["api_key", "webhook_secret"]
        log = str([entry.detail for entry in await house.store.audit_log()])
        assert NEW not in log
        assert API_KEY not in log

    visit(tmp_path, story)


def test_a_connection_is_removed_with_what_came_of_it(tmp_path):
    async def story(house, browser, _):
        await connect_shop(house)
        plan = (await browser.get("/acts/connections.remove?connection=acme")).text
        assert "acme goes, with 0 live records" in plan
        done = await send(browser, "/account", "/acts/connections.remove", connection="acme", expected="0")
        assert done.headers["location"] == "/"
        assert await house.store.connections() == []

    visit(tmp_path, story)


def test_a_viewer_sees_settings_and_no_form(tmp_path):
    async def story(house, browser, _):
        await connect_shop(house)
        page = (await browser.get("/connections/acme/settings")).text
        assert "api_base" in page or "127.0.0.1:9" in page
        assert 'action="/connections/acme/secrets' not in page
        token = csrf_in(await browser.get("/account"))
        for path in ("/connections/acme/settings", "/connections/acme/secrets/api_key", "/connect/shop"):
            assert (await browser.post(path, data={"csrf": token, "value": "x"})).status_code == 403
        assert (await browser.get("/connect")).status_code == 403

    visit(tmp_path, story, role="viewer")


SCHEMA = {
    "type": "object",
    "properties": {
        "region": {"enum": ["eu", "us"], "title": "Region"},
        "retries": {"type": "integer", "default": 3},
        "sandbox": {"type": "boolean", "default": True},
        "accounts": {"type": "array", "items": {"type": "string"}},
        "mapping": {"type": "object"},
        "token": {"type": "string", "x-secret": True},
    },
    "required": ["region", "token"],
}
CONNECTOR = Connector(key="x", name="X", version="1", streams=(), connection=Connection(settings=SCHEMA))


def test_each_kind_of_setting_has_its_field():
    shown = {one.name: one for one in fields(CONNECTOR, {"accounts": ["a", "b"], "mapping": {"a": 1}})}
    assert {name: (one.kind, one.value) for name, one in shown.items()} == {
        "region": ("select", ""), "retries": ("number", "3"), "sandbox": ("checkbox", "true"),
        "accounts": ("lines", "a\nb"), "mapping": ("json", '{"a":1}'), "token": ("password", ""),
    }  # fmt: skip
    assert shown["region"].choices == ["eu", "us"]
    assert [name for name, one in shown.items() if one.is_required] == ["region", "token"]
    kept = {one.name: one for one in fields(CONNECTOR, {}, stored_secrets={"token"}, typed={"token": "secret"})}
    assert (kept["token"].value, kept["token"].is_required, kept["token"].is_set) == ("", False, True)


def test_what_was_typed_becomes_values_of_its_type():
    typed = {
        "region": "eu", "retries": "5", "accounts": " a \n\nb", "mapping": '{"a": [1]}', "token": "t", "other": "x",
    }  # fmt: skip
    assert read(CONNECTOR, typed) == (
        {"region": "eu", "retries": 5, "sandbox": False, "accounts": ["a", "b"], "mapping": {"a": [1]}},
        {"token": "t"},
    )
    assert read(CONNECTOR, {"retries": "many", "mapping": "{"})[0] == {
        "retries": "many", "mapping": "{", "sandbox": False,
    }, "the schema says what is wrong"  # fmt: skip


@pytest.mark.parametrize(
    "act",
    [
        AddConnection(connector="x", key="acme", secrets={"token": NEW}),
        SetSecret(connection="acme", field="token", value=NEW, overlap_hours=2),
    ],
)
def test_an_act_never_says_its_secret(act):
    assert NEW not in repr(act)
    assert NEW not in command_line(act)


def test_settings_go_into_the_command():
    act = ChangeSettings(connection="acme", settings={"retries": 5, "region": "eu"})
    assert command_line(act) == "headwater connections set acme retries=5 region=eu"
