"""The pages of the door: the first admin, login, logout, oneself, accounts and keys, as a browser meets them."""

import re

import pytest

from doors import BETTER, EMAIL, GOOD, PUBLIC, csrf_in, send, sign_in, visit
from headwater.account import LOGINS_OF_ACCOUNT_MAX, SESSION_IDLE_SECONDS_MAX
from headwater.api.session import COOKIE, COOKIE_ON_LOOPBACK
from headwater.dashboard.login import safe_next

pytestmark = pytest.mark.usefixtures("quick_passwords")
LOCAL = "http://127.0.0.1:8700"


def test_the_first_admin_comes_by_the_link_and_is_signed_in(tmp_path):
    async def act(house):
        link = await house.application.first_link()
        assert link.startswith(f"{PUBLIC}/setup?token=")
        browser = house.browser()
        page = await browser.get(link)
        assert "The first admin" in page.text
        token = link.partition("token=")[2]
        form = {"token": token, "email": EMAIL, "name": "Ann", "password": GOOD, "again": BETTER}
        refused = await browser.post("/setup", data=form)
        assert (refused.status_code, "are not the same" in refused.text) == (422, True)
        assert GOOD not in refused.text
        done = await browser.post("/setup", data={**form, "again": GOOD})
        assert (done.status_code, done.headers["location"]) == (303, "/")
        assert "ann@example.com" in (await browser.get("/")).text
        assert (await browser.get(link)).status_code == 404
        assert await house.application.first_link() is None
        assert (await browser.get("/accounts")).status_code == 200

    visit(tmp_path, act)


def test_a_page_asks_who_comes_and_goes_on_to_where_one_wanted(tmp_path):
    async def act(house):
        browser = house.browser()
        asked = await browser.get("/?status=failing&q=a b")
        assert (asked.status_code, asked.headers["location"]) == (303, "/login?next=/%3Fstatus%3Dfailing%26q%3Da%2520b")
        assert "Nobody has an account yet" in (await browser.get(asked.headers["location"])).text
        await house.person()
        form = await browser.get(asked.headers["location"])
        assert 'value="/?status=failing&amp;q=a%20b"' in form.text
        done = await sign_in(browser, next="/?status=failing&q=a%20b")
        assert (done.status_code, done.headers["location"]) == (303, "/?status=failing&q=a%20b")
        assert (await browser.get("/login?next=/system")).headers["location"] == "/system"
        assert (await browser.get("/?format=json")).status_code == 200
        assert (await house.browser().get("/?format=json")).status_code == 401
        assert (await house.browser().get("/api/v1/streams")).status_code == 401

    visit(tmp_path, act)


@pytest.mark.parametrize(
    ("given", "goes"),
    [
        ("/runs/7?a=b", "/runs/7?a=b"),
        ("https://evil.example", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/a\\b", "/"),
        ("javascript:alert(1)", "/"),
        ("", "/"),
        ("/a\r\nSet-Cookie: x", "/"),
        ("/" + "a" * 3000, "/"),
    ],
)
def test_a_login_leads_to_no_other_site(given, goes):
    assert safe_next(given) == goes


def test_a_wrong_login_says_nothing_and_too_many_say_when(tmp_path):
    async def act(house):
        await house.person()
        browser = house.browser()
        wrong, unknown = await sign_in(browser, text="wrong"), await sign_in(browser, email="eve@example.com")
        assert (wrong.status_code, unknown.status_code) == (401, 401)
        assert wrong.text.replace(EMAIL, "") == unknown.text.replace("eve@example.com", "")
        for _ in range(LOGINS_OF_ACCOUNT_MAX - 1):
            await sign_in(browser, text="wrong")
        late = await sign_in(browser)
        assert late.status_code == 429
        assert 0 < int(late.headers["retry-after"]) <= 901
        assert "Try again in 1" in late.text
        assert COOKIE not in browser.cookies

    visit(tmp_path, act)


def test_a_logout_ends_the_session_on_the_server(tmp_path):
    async def act(house):
        browser = await house.person()
        kept = browser.cookies[COOKIE]
        done = await send(browser, "/account", "/logout")
        assert (done.status_code, done.headers["location"]) == (303, "/login")
        assert "cookies" in done.headers["clear-site-data"]
        assert COOKIE not in browser.cookies
        stolen = house.browser()
        stolen.cookies.set(COOKIE, kept)
        assert (await stolen.get("/")).status_code == 303
        assert (await stolen.post("/logout")).headers["location"] == "/login"

    visit(tmp_path, act)


def test_one_sees_and_ends_ones_own_sessions(tmp_path):
    async def act(house):
        browser = await house.person(**{"user-agent": "Firefox <b>"})
        other = await house.person(client=("2001:db8::1", 1))
        page = await browser.get("/account")
        assert "Firefox &lt;b&gt;" in page.text
        assert "2001:db8::1" in page.text
        listed = (await browser.get("/account?format=json")).json()["sessions"]
        assert "password" not in (await browser.get("/account?format=json")).json()
        theirs = next(one["id"] for one in listed if not one["is_this"])
        assert (await send(browser, "/account", "/account/sessions/end", session=theirs)).status_code == 303
        assert (await other.get("/account")).status_code == 303
        assert (await browser.get("/account")).status_code == 200
        assert (await send(browser, "/account", "/account/sessions/end")).headers["location"] == "/login"
        assert (await browser.get("/account")).status_code == 303

    visit(tmp_path, act)


def test_another_password_takes_the_one_before(tmp_path):
    async def act(house):
        browser, other = await house.person(), await house.person()
        words = {"password": BETTER, "again": BETTER}
        wrong = await send(browser, "/account", "/account/password", current="wrong", **words)
        assert (wrong.status_code, "is another one" in wrong.text) == (422, True)
        common = await send(browser, "/account", "/account/password", current=GOOD, password="p" * 12, again="p" * 12)
        assert common.status_code == 422
        done = await send(browser, "/account", "/account/password", current=GOOD, **words)
        assert done.headers["location"] == "/account?done=password"
        assert "every other session has ended" in (await browser.get("/account?done=password")).text
        assert (await other.get("/account")).status_code == 303
        assert (await sign_in(house.browser(), text=GOOD)).status_code == 401
        assert (await sign_in(house.browser(), text=BETTER)).status_code == 303

    visit(tmp_path, act)


def test_an_admin_invites_changes_and_disables(tmp_path):
    async def act(house):
        admin = await house.person()
        made = await send(admin, "/accounts", "/accounts", email="bob@example.com", name="Bob", role="viewer")
        link = re.search(r"<code>(https://[^<]+)</code>", made.text)[1]
        assert link.startswith(f"{PUBLIC}/setup?token=")
        bob = house.browser()
        assert "Welcome, Bob" in (await bob.get(link)).text
        token = link.partition("token=")[2]
        await bob.post("/setup", data={"token": token, "password": BETTER, "again": BETTER})
        assert (await bob.get("/")).status_code == 200
        assert (await bob.get("/accounts")).status_code == 403
        assert (await bob.get("/keys")).status_code == 403
        listed = (await admin.get("/accounts?format=json")).json()["accounts"]
        assert [(one["email"], one["role"], one["state"]) for one in listed] == [
            (EMAIL, "admin", "active"),
            ("bob@example.com", "viewer", "active"),
        ]
        assert "argon2" not in str(listed)
        number = listed[1]["id"]
        await send(admin, "/accounts", f"/accounts/{number}/role", role="admin")
        assert (await bob.get("/accounts")).status_code == 200
        await send(admin, "/accounts", f"/accounts/{number}/sessions/end")
        assert (await bob.get("/")).status_code == 303
        await send(admin, "/accounts", f"/accounts/{number}/enabled", enabled="false")
        assert (await sign_in(bob, email="bob@example.com", text=BETTER)).status_code == 401
        await send(admin, "/accounts", f"/accounts/{number}/enabled", enabled="true")
        assert (await sign_in(bob, email="bob@example.com", text=BETTER)).status_code == 303
        refused = await send(admin, "/accounts", "/accounts", email="bob@example.com", role="viewer")
        assert (refused.status_code, "already" in refused.text) == (422, True)
        assert (await send(admin, "/accounts", "/accounts/99/invite")).status_code == 404
        await send(admin, "/accounts", f"/accounts/{number}/role", role="viewer")
        alone = await send(admin, "/accounts", f"/accounts/{listed[0]['id']}/enabled", enabled="false")
        assert (alone.status_code, "only admin" in alone.text) == (409, True)
        assert "email,name,role" in (await admin.get("/accounts?format=csv")).text

    visit(tmp_path, act)


def test_a_key_is_made_shown_once_used_and_revoked(tmp_path):
    async def act(house):
        admin = await house.person()
        form = {"name": "ci", "scope-read": "1", "scope-operate": "1", "tenant": "north", "days": "30"}
        made = await send(admin, "/keys", "/keys", **form)
        key = re.search(r"<code>(hw_[^<]+)</code>", made.text)[1]
        page = await admin.get("/keys")
        assert key not in page.text
        assert "read, operate" in page.text
        program = house.browser(authorization=f"Bearer {key}")
        assert (await program.get("/api/v1/streams")).status_code == 200
        assert (await program.get("/keys")).status_code == 403
        (listed,) = (await admin.get("/keys?format=json")).json()["keys"]
        assert (listed["tenant"], listed["scopes"]) == ("north", ["read", "operate"])
        assert listed["last_used_at"] is not None
        await house.clock.advance(30 * 86_400)
        assert (await program.get("/api/v1/streams")).status_code == 401
        admin = await house.person()
        assert "expired" in (await admin.get("/keys")).text
        assert (await send(admin, "/keys", f"/keys/{listed['id']}/revoke")).status_code == 303
        assert (await admin.get("/keys?format=json")).json()["keys"] == []
        for wrong in ({"name": ""}, {"name": "x"}, {"name": "x", "scope-read": "1", "days": "7"}):
            assert (await send(admin, "/keys", "/keys", **wrong)).status_code == 422
        acts = [one for one in await house.acts() if one[0].startswith("keys")]
        assert acts == [("keys.create", EMAIL, "ci"), ("keys.revoke", EMAIL, "ci")]

    visit(tmp_path, act)


def test_a_key_of_one_tenant_manages_nothing(tmp_path):
    async def act(house):
        program = await house.key("read", "admin", tenant="north")
        for path in ("/accounts", "/keys"):
            assert (await program.get(path)).status_code == 403
            assert (await program.post(path, data={"name": "x", "scope-read": "1", "email": "x@y"})).status_code == 403
        assert (await (await house.key("admin")).get("/accounts")).status_code == 200
        assert (await (await house.key("read")).get("/account?format=json")).status_code == 404

    visit(tmp_path, act)


def test_on_loopback_all_is_open_until_somebody_has_an_account(tmp_path):
    async def act(house):
        browser = house.browser(client=("127.0.0.1", 1))
        page = await browser.get("/")
        assert page.status_code == 200
        assert 'href="/login"' in page.text
        assert (await browser.get("/keys")).status_code == 403
        assert (await browser.get("/", headers={"x-forwarded-for": "192.0.2.1"})).status_code == 303
        person = await house.person(client=("127.0.0.1", 1))
        assert COOKIE_ON_LOOPBACK in person.cookies
        assert (await person.get("/")).status_code == 200
        assert (await browser.get("/")).status_code == 303
        assert (await browser.get("/api/v1/streams")).status_code == 401

    visit(tmp_path, act, base_url=LOCAL)


def test_no_password_is_asked_for_where_others_could_read_it(tmp_path):
    async def act(house):
        await house.door.add(email=EMAIL, name="", role="admin", password=GOOD, actor="cli:me")
        answer = await sign_in(house.browser())
        assert answer.status_code == 403
        assert "Signing in takes https" in answer.text
        assert "set-cookie" not in answer.headers

    visit(tmp_path, act, base_url="http://192.168.1.9:8700", host="0.0.0.0")


def test_a_page_that_renews_itself_keeps_nobody_signed_in(tmp_path):
    async def act(house):
        browser = await house.person()
        for _ in range(4):
            await house.clock.advance(SESSION_IDLE_SECONDS_MAX // 4)
            answer = await browser.get("/", headers={"sec-fetch-mode": "cors"})
        assert answer.status_code == 303
        browser = await house.person()
        for _ in range(8):
            await house.clock.advance(SESSION_IDLE_SECONDS_MAX // 4)
            answer = await browser.get("/", headers={"sec-fetch-mode": "navigate"})
        assert answer.status_code == 200

    visit(tmp_path, act)


def test_a_form_of_another_session_is_none_of_this_one(tmp_path):
    async def act(house):
        ann, bob = await house.person(), await house.person(email="bob@example.com")
        token = csrf_in(await bob.get("/keys"))
        refused = await ann.post("/keys", data={"csrf": token, "name": "x", "scope-read": "1"})
        assert refused.status_code == 403
        assert (await ann.get("/keys?format=json")).json()["keys"] == []

    visit(tmp_path, act)
