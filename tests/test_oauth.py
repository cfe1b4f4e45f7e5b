"""OAuth against an authorization server of authlib: authorise, renew, disconnect; one renewal however many ask."""

import asyncio
import threading
from urllib.parse import parse_qsl, urlsplit

import pytest

from doors import csrf_in
from headwater import failpoint
from headwater.errors import CredentialsError, ProviderError
from headwater.grant import Token, completed, oauth_of
from oauth_cloud import (
    CALLBACK,
    SETTINGS,
    at_the_cloud,
    authorise,
    come_back,
    held_renewal,
    leave,
    run_once,
    sealed,
    tokens_of,
)
from oauth_server import CLIENT_ID, CLIENT_SECRET


def test_v10_1_1_tokens_stay_here_while_an_account_authorises_us_and_its_stream_runs(tmp_path):
    async def story(house, browser, provider):
        assert "is not authorised yet" in (await browser.get("/connections/acme")).text
        page = (await browser.get(SETTINGS)).text
        assert CALLBACK in page
        url = await leave(browser)
        asked = dict(parse_qsl(urlsplit(url).query))
        assert (asked["response_type"], asked["client_id"], asked["scope"]) == ("code", CLIENT_ID, "customers")
        assert asked["code_challenge_method"] == "S256"
        back = await browser.get(await come_back(url))
        assert back.headers.get("location") == SETTINGS, back.text
        page = (await browser.get(SETTINGS)).text
        assert "The account has authorised us" in page
        assert (await house.store.connection("acme")).paused_at is None
        ended = await run_once(house)
        assert (ended.state, ended.counts.created) == ("succeeded", 2), ended.error
        everything = (
            page + str(await house.store.audit_log()) + str(await sealed(house)) + (await browser.get("/runs/1")).text
        )
        for secret in ("access-canary", "refresh-canary", CLIENT_SECRET):
            assert secret not in everything
        assert ("connections.authorize", "ann@example.com", "acme") in await house.acts()

    at_the_cloud(tmp_path, story)


def test_a_token_is_renewed_once_however_many_ask_and_stored_before_it_is_used(tmp_path):
    async def story(house, browser, provider):
        provider.lasts = 100
        await authorise(browser)
        tokens = await tokens_of(house)
        first = await tokens.access_token()
        await house.clock.advance(90)
        before = await sealed(house)
        found = await asyncio.gather(*[(await tokens_of(house)).access_token() for _ in range(20)])
        assert len(set(found)) == 1
        assert found[0] != first
        assert provider.asked == ["authorization_code", "refresh_token"]
        assert await sealed(house) != before
        assert await (await tokens_of(house)).access_token() == found[0]
        ended = await run_once(house)
        assert ended.state == "succeeded"

    at_the_cloud(tmp_path, story)


def test_two_nodes_renew_one_token_once(tmp_path):
    async def story(house, browser, provider):
        provider.lasts = 100
        await authorise(browser)
        mine = await tokens_of(house)
        other = house.platform.live.connections.__class__(
            house.store, house.platform.projects, house.platform.live.key_ring, house.clock,
            house.platform.live.clients.client,
        )  # fmt: skip
        theirs = (await other.by_key("acme")).tokens
        await house.clock.advance(90)
        provider.held = threading.Event()
        both = [asyncio.create_task(one.access_token()) for one in (mine, theirs)]
        while len(provider.asked) < 2:
            await asyncio.sleep(0)
        provider.held.set()
        while not any(one.done() for one in both):
            await asyncio.sleep(0)  # the provider answers in its own time, for which no lease and no token may end here
        while not all(one.done() for one in both):
            await house.clock.advance(0.25)
        assert both[0].result() == both[1].result()
        assert provider.asked.count("refresh_token") == 1

    at_the_cloud(tmp_path, story)


def test_a_refresh_token_that_was_rotated_is_not_lost_with_the_run_that_asked(tmp_path):
    async def story(house, browser, provider):
        asking = await held_renewal(house, browser, provider)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        provider.held.set()
        again = await (await tokens_of(house)).access_token()
        assert again in provider.good
        assert provider.asked.count("refresh_token") == 1

    at_the_cloud(tmp_path, story)


def test_what_the_provider_takes_back_needs_the_operator(tmp_path):
    async def story(house, browser, provider):
        provider.lasts = 100
        await authorise(browser)
        await house.clock.advance(90)
        for one in provider.tokens:
            one.revoked = True
        ended = await run_once(house)
        assert (ended.state, ended.error_code) == ("failed", "operator.credentials")
        assert "invalid_grant" in ended.error
        stored = await house.store.connection("acme")
        assert stored.needs_attention
        page = (await browser.get("/connections/acme")).text
        assert "Needs attention" in page
        await authorise(browser)
        assert (await house.store.connection("acme")).paused_at is None
        assert (await run_once(house)).state == "succeeded"

    at_the_cloud(tmp_path, story)


def test_a_provider_that_is_away_is_tried_again_with_the_same_refresh_token(tmp_path):
    async def story(house, browser, provider):
        provider.lasts = 100
        await authorise(browser)
        await house.clock.advance(90)
        provider.refusal = 400
        with pytest.raises(ProviderError, match="temporarily_unavailable"):
            await (await tokens_of(house)).access_token()
        provider.refusal = None
        assert await (await tokens_of(house)).access_token() in provider.good

    at_the_cloud(tmp_path, story)


def test_v10_1_2_a_callback_is_good_once_in_time_and_in_the_browser_that_left(tmp_path):
    async def story(house, browser, provider):
        path = await come_back(await leave(browser))
        stranger = await house.person("operator", email="eve@example.com")
        for other in (stranger, house.browser()):
            answer = await other.get(path)
            assert answer.status_code in (303, 400)
            assert answer.headers.get("location", "/login").startswith("/login")
        assert (await browser.get("/oauth/callback?state=x&code=y")).status_code == 400
        assert await sealed(house) == []
        assert (await browser.get(path)).status_code == 303
        assert (await browser.get(path)).status_code == 400, "used before"
        late = await come_back(await leave(browser))
        await house.clock.advance(601)
        assert (await browser.get(late)).status_code == 400
        refused = await come_back(await leave(browser))
        state = dict(parse_qsl(urlsplit(refused).query))["state"]
        said = await browser.get(f"/oauth/callback?state={state}&error=access_denied&error_description=<b>no</b>")
        assert "The provider said no: access_denied: &lt;b&gt;no&lt;/b&gt;." in said.text

    at_the_cloud(tmp_path, story)


def test_v10_2_2_an_answer_of_another_issuer_is_refused(tmp_path):
    async def story(house, browser, _):
        path = await come_back(await leave(browser))
        assert (await browser.get(path + "&iss=https://evil.example")).status_code == 400
        path = await come_back(await leave(browser))
        assert (await browser.get(path + "&iss=https://cloud.example")).status_code == 303

    at_the_cloud(tmp_path, story)


def test_v10_2_3_no_more_is_asked_for_than_is_declared(tmp_path):
    async def story(_, browser, __):
        asked = dict(parse_qsl(urlsplit(await leave(browser)).query))
        assert asked["scope"] == "customers"

    at_the_cloud(tmp_path, story)


def test_v10_2_1_a_code_that_was_swapped_is_refused_by_pkce(tmp_path):
    async def story(house, browser, provider):
        mine = await come_back(await leave(browser))
        code = dict(parse_qsl(urlsplit(mine).query))["code"]
        other = await leave(browser)
        state = dict(parse_qsl(urlsplit(other).query))["state"]
        answer = await browser.get(f"/oauth/callback?state={state}&code={code}")
        assert answer.status_code >= 400
        assert await sealed(house) == []

    at_the_cloud(tmp_path, story)


def test_to_leave_takes_a_form_of_ours_and_an_operator(tmp_path):
    async def story(house, browser, _):
        assert (await browser.post("/connections/acme/authorize")).status_code == 403
        viewer = await house.person("viewer", email="vic@example.com")
        token = csrf_in(await viewer.get("/account"))
        assert (await viewer.post("/connections/acme/authorize", data={"csrf": token})).status_code == 403

    at_the_cloud(tmp_path, story)


def test_a_crash_before_the_new_token_is_stored_costs_an_authorisation_and_is_told(tmp_path):
    """The provider has replaced the refresh token, and we have not: nobody can help that but the account's owner."""

    async def story(house, browser, provider):
        provider.lasts = 100
        await authorise(browser)
        await house.clock.advance(90)

        class CrashError(Exception):
            pass

        def crash():
            raise CrashError

        failpoint.arm("oauth.before_store", crash)
        try:
            with pytest.raises(CrashError):
                await (await tokens_of(house)).access_token()
        finally:
            failpoint.disarm("oauth.before_store")
        await house.clock.advance(61)
        with pytest.raises(CredentialsError, match="invalid_grant"):
            await (await tokens_of(house)).access_token()

    at_the_cloud(tmp_path, story)


def test_a_declaration_says_what_is_wrong_with_it():
    good = {"authorize_url": "https://a.example/x", "token_url": "{settings.api}/t"}
    assert oauth_of(None) is None
    assert oauth_of(good).client_auth == "basic"
    for bad in (
        {"authorize_url": "https://a"},
        good | {"token_url": "ftp://x"},
        good | {"revoke_url": "/revoke"},
        good | {"colour": 1},
        good | {"scopes": "a"},
    ):
        with pytest.raises(ValueError, match=r"\$|missing|unknown"):
            oauth_of(bad)
    assert completed("{settings.api}/t", {"api": "https://eu.example/"}) == "https://eu.example/t"
    with pytest.raises(ValueError, match="no address"):
        completed("{settings.api}/t", {})


def test_a_token_says_nothing_of_itself():
    token = Token(access_token="canary-a", refresh_token="canary-r")
    assert "canary" not in repr(token)
    assert Token.of_text(token.sealed_text()) == token
