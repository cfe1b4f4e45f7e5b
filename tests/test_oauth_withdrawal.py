"""Disconnecting and removing: the authorisation is withdrawn at the provider, and forgotten here all the same."""

import asyncio
import threading
from dataclasses import replace

import msgspec
import pytest

from doors import send
from headwater import client
from headwater.acts.setup import Disconnect, RemoveConnection
from headwater.backoff import Backoff
from headwater.errors import CredentialsError
from oauth_cloud import (
    SETTINGS,
    at_the_cloud,
    authorise,
    held_renewal,
    sealed,
    tokens_of,
)


def test_a_connection_is_disconnected(tmp_path):
    async def story(house, browser, _):
        await authorise(browser)
        plan = (await browser.get("/acts/connections.disconnect?connection=acme")).text
        assert "is forgotten" in plan
        assert "stands until it is withdrawn there" in plan
        done = await send(browser, SETTINGS, "/acts/connections.disconnect", connection="acme")
        assert done.headers["location"] == SETTINGS
        assert await sealed(house) == []
        assert (await house.store.connection("acme")).needs_attention
        with pytest.raises(CredentialsError, match="not authorised yet"):
            await (await tokens_of(house)).access_token()

    at_the_cloud(tmp_path, story)


async def disconnect(house, act=None):
    """Disconnect, or do another act that withdraws; what was done.

    A provider that is away is asked again at once: it answers in its own time, and a clock moved beside it would be the
    end of our patience.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "RETRY_WAIT", Backoff(wait_initial=0.0, wait_max=0.0))
        return await house.platform.perform(act or Disconnect(connection="acme"))


def test_disconnecting_withdraws_the_authorisation_at_the_provider(tmp_path):
    async def story(house, browser, provider):
        await authorise(browser)
        assert "asked to withdraw it" in (await browser.get("/acts/connections.disconnect?connection=acme")).text
        done = await send(browser, SETTINGS, "/acts/connections.disconnect", connection="acme")
        assert done.headers["location"] == SETTINGS
        assert (await sealed(house), provider.good) == ([], [])
        assert provider.withdrawn == ["refresh_token", "access_token"]
        noted = (await house.store.audit_log())[0]
        assert (noted.act, noted.detail["revoked"]) == ("connections.disconnect", True)
        assert "the provider has withdrawn the authorisation" in noted.detail["did"]
        assert "canary" not in str(noted)

    at_the_cloud(tmp_path, story, revokes=True)


@pytest.mark.parametrize(
    ("refusal", "asked", "says"),
    [
        ((503, {"error": "temporarily_unavailable"}), 4, "answered 503"),
        ((400, {"error": "unsupported_token_type"}), 1, "answered: unsupported_token_type."),
        ((400, "no JSON"), 1, "no JSON"),
        ((401, {"error": "invalid_client"}), 1, "answered 401"),
    ],
)
def test_what_the_provider_does_not_withdraw_is_told_and_forgotten_here_all_the_same(tmp_path, refusal, asked, says):
    async def story(house, browser, provider):
        await authorise(browser)
        provider.revoke_refusal = refusal
        done = await disconnect(house)
        assert not done.ok
        assert done.sentence.startswith("acme is disconnected, but not at the provider: ")
        assert says in done.sentence
        assert provider.withdrawn == ["refresh_token"] * asked
        assert await sealed(house) == []
        assert (await house.store.connection("acme")).needs_attention
        noted = (await house.store.audit_log())[0]
        assert (noted.act, noted.detail["revoked"]) == ("connections.disconnect", False)
        assert says in noted.detail["problem"]
        assert "canary" not in str(noted)

    at_the_cloud(tmp_path, story, revokes=True)


def test_a_page_tells_what_the_provider_did_not_withdraw(tmp_path):
    async def story(_, browser, provider):
        await authorise(browser)
        provider.revoke_refusal = (400, {"error": "unsupported_token_type"})
        done = await send(browser, SETTINGS, "/acts/connections.disconnect", connection="acme")
        assert done.status_code == 200
        assert "but not at the provider" in done.text

    at_the_cloud(tmp_path, story, revokes=True)


def test_a_connection_that_is_removed_is_disconnected_with_it(tmp_path):
    async def story(house, browser, provider):
        await authorise(browser)
        plan = (await browser.get("/acts/connections.remove?connection=acme")).text
        assert "authorisation is forgotten. The provider is asked to withdraw it" in plan
        done = await send(browser, "/account", "/acts/connections.remove", connection="acme", expected="0")
        assert done.headers["location"] == "/"
        assert provider.good == []
        assert provider.withdrawn == ["refresh_token", "access_token"]
        assert await house.store.connections() == []
        noted = (await house.store.audit_log())[0]
        assert (noted.act, noted.detail["revoked"]) == ("connections.remove", True)
        assert "canary" not in str(noted)

    at_the_cloud(tmp_path, story, revokes=True)


def test_a_connection_is_removed_though_the_provider_withdraws_nothing_and_that_is_told(tmp_path):
    async def story(house, browser, provider):
        await authorise(browser)
        provider.revoke_refusal = (400, {"error": "unsupported_token_type"})
        done = await disconnect(house, RemoveConnection(connection="acme"))
        assert not done.ok
        assert done.sentence.startswith("acme is removed, but not at the provider: The provider answered: unsupported")
        assert await house.store.connections() == []
        assert (await house.store.audit_log())[0].detail["revoked"] is False

    at_the_cloud(tmp_path, story, revokes=True)


def test_a_connection_whose_connector_is_gone_is_removed_and_nobody_is_asked(tmp_path):
    async def story(house, browser, provider):
        await authorise(browser)
        house.platform.live.connections.projects.clear()
        house.platform.live.connections.forget((await house.store.connection("acme")).id)
        done = await disconnect(house, RemoveConnection(connection="acme"))
        assert (done.sentence, done.ok) == ("acme is removed.", True)
        assert (await house.store.connections(), provider.withdrawn) == ([], [])

    at_the_cloud(tmp_path, story, revokes=True)


def test_a_token_that_has_ended_at_the_provider_is_withdrawn(tmp_path):
    async def story(house, browser, provider):
        await authorise(browser)
        provider.revoke_refusal = (400, {"error": "invalid_token"})
        assert (await disconnect(house)).value == {"revoked": True, "problem": None}

    at_the_cloud(tmp_path, story, revokes=True)


def test_a_provider_that_says_nothing_is_waited_for_only_so_long(tmp_path):
    async def story(house, browser, provider):
        await authorise(browser)
        provider.revoke_held = threading.Event()
        doing = asyncio.create_task(house.platform.perform(Disconnect(connection="acme")))
        while not doing.done():
            await house.clock.advance(0.25)
        done = doing.result()
        assert "no answer within 20 s" in done.sentence
        assert await sealed(house) == []

    at_the_cloud(tmp_path, story, revokes=True)


def test_a_token_is_withdrawn_only_where_the_connector_may_call(tmp_path):
    async def story(house, browser, provider):
        await authorise(browser)
        tokens = await tokens_of(house)
        for elsewhere in ("http://127.0.0.1:9/revoke", "https://evil.example/revoke", "{settings.client_id}/revoke"):
            declared = msgspec.structs.replace(tokens.oauth, revoke_url=elsewhere)
            came = await replace(tokens, oauth=declared).revoke(tokens.kept)
            assert came.is_revoked is False
            assert "permi" in came.problem or "holds no address" in came.problem, came.problem
        assert provider.withdrawn == []

    at_the_cloud(tmp_path, story, revokes=True)


def test_what_a_renewal_brings_after_its_connection_was_disconnected_is_withdrawn_too(tmp_path):
    async def story(house, browser, provider):
        asking = await held_renewal(house, browser, provider)
        assert (await disconnect(house)).ok
        for one in provider.tokens:
            one.revoked = False  # as at a provider where the renewal was further than the withdrawal
        provider.held.set()
        with pytest.raises(CredentialsError, match="not authorised yet"):
            await asking
        assert provider.withdrawn == ["refresh_token", "access_token"] * 2
        assert provider.good == []
        assert await sealed(house) == []

    at_the_cloud(tmp_path, story, revokes=True)
