"""OWASP ASVS 5.0 on who comes and what they may do: each test is named after its item.

V6 authentication · V7 sessions · V8 authorization.
"""

import re
from hashlib import sha1

import pytest

from doors import (
    BETTER,
    EMAIL,
    GOOD,
    csrf_in,
    send,
    sign_in,
    visit,
)
from every_route import CANARY, ROOT, TEMPLATES, UNSAFE, asks_everything, filled, routes_of
from factors import by_code, with_factor
from headwater import account, password, second_factor
from headwater.api.session import COOKIE, csrf_of
from headwater.errors import SignInError, UsageError
from stored import connect, deliver, emit, ingest, webhook

pytestmark = pytest.mark.usefixtures("quick_passwords")
# V6: authentication


@pytest.mark.parametrize("length", [1, 8, 11])
def test_v6_2_1_a_password_has_a_length_to_speak_of(length):
    with pytest.raises(UsageError):
        password.require_good("xK9#mQ2$vL7!"[:length])


def test_v6_2_2_one_may_change_ones_password(tmp_path):
    async def act(house):
        form = {"current": GOOD, "password": BETTER, "again": BETTER}
        assert (await send(await house.person(), "/account", "/account/password", **form)).status_code == 303
        assert (await sign_in(house.browser(), text=BETTER)).status_code == 303

    visit(tmp_path, act)


def test_v6_2_3_and_only_by_knowing_the_one_before(tmp_path):
    async def act(house):
        browser = await house.person()
        for current in ("", "wrong", BETTER):
            form = {"current": current, "password": BETTER, "again": BETTER}
            assert (await send(browser, "/account", "/account/password", **form)).status_code == 422
        assert (await sign_in(house.browser())).status_code == 303

    visit(tmp_path, act)


@pytest.mark.parametrize("common", ["password1234", "qwertyuiop12", "iloveyou1234", "P@ssw0rd!2026", "letmein12345"])
def test_v6_2_4_what_is_guessed_first_is_refused(common):
    with pytest.raises(UsageError, match="guessed first"):
        password.require_good(common)


@pytest.mark.parametrize(
    "plain", ["tundra gravel omelette", "TUNDRAGRAVELOMELETTE", "48151623427194", "日本語のパスワードは強い"]
)
def test_v6_2_5_a_password_is_made_of_whatever_one_likes(plain):
    password.require_good(plain)


def test_v6_2_6_passwords_are_typed_unseen():
    fields = [one for path in TEMPLATES for one in re.findall(r'field\("(\w+)"[^}]*\)', path.read_text())]
    assert {"password", "current", "again"} <= set(fields)
    for path in TEMPLATES:
        for name, rest in re.findall(r'field\("(password|current|again)"([^}]*)\)', path.read_text()):
            assert 'type="password"' in rest, (path, name)


def test_v6_2_7_passwords_may_be_pasted_and_kept_by_a_manager():
    text = "".join(path.read_text() for path in TEMPLATES)
    assert "onpaste" not in text
    for word in ("current-password", "new-password", "username"):
        assert f'autocomplete="{word}"' in text
    assert "paste" not in (ROOT / "src/headwater/dashboard/static/headwater.js").read_text()


def test_v6_2_8_a_password_counts_exactly_as_it_was_given(tmp_path):
    async def act(house):
        word = " Tundra gravel omelette Ü "
        await house.door.add(email=EMAIL, name="", role="viewer", password=word, actor="cli:me")
        for wrong in (word.strip(), word.lower(), word[:-1], word + " ", word.replace("Ü", "U\u0308")):
            assert (await sign_in(house.browser(), text=wrong)).status_code == 401, wrong
        assert (await sign_in(house.browser(), text=word)).status_code == 303

    visit(tmp_path, act)


def test_v6_2_9_a_password_may_be_long(tmp_path):
    async def act(house):
        word = "tundra gravel omelette " * 5 + "mortar violin"
        assert len(word) == 128
        await house.door.add(email=EMAIL, name="", role="viewer", password=word, actor="cli:me")
        assert (await sign_in(house.browser(), text=word)).status_code == 303
        assert (await sign_in(house.browser(), text=word[:-1] + "x")).status_code == 401

    visit(tmp_path, act)


def test_v6_2_10_a_password_stays_good(tmp_path):
    async def act(house):
        await house.person()
        await house.clock.advance(3 * 365 * 86_400)
        assert (await sign_in(house.browser())).status_code == 303

    visit(tmp_path, act)


@pytest.mark.parametrize("word", ["headwater-2026", "ann.archer.1987", "example.com12", "stripe-webhook"])
def test_v6_2_11_words_of_this_place_are_no_password(word):
    with pytest.raises(UsageError):
        password.require_good(word, names=("ann@example.com", "Ann Archer"))


def test_v6_2_12_what_is_known_from_breaches_is_refused(tmp_path):
    listed = tmp_path / "breached.txt"
    listed.write_text("".join(f"{sha1(one.encode()).hexdigest().upper()}:3\n" for one in [BETTER]))

    async def act(house):
        browser = await house.person()
        for new, status in ((BETTER, 422), (f"{BETTER}, once more", 303)):
            form = {"current": GOOD, "password": new, "again": new}
            answer = await send(browser, "/account", "/account/password", **form)
            assert answer.status_code == status
            assert ("known from a breach" in answer.text) == (status == 422)

    visit(tmp_path, act, breached_passwords=listed)


def test_v6_3_1_guessing_ends_by_account_and_by_address(tmp_path):
    async def act(house):
        await house.person()
        for number in range(account.LOGINS_OF_ACCOUNT_MAX):
            await sign_in(house.browser(client=(f"192.0.2.{number}", 1)), text="wrong")
        late = await sign_in(house.browser(client=("198.51.100.1", 1)))
        assert (late.status_code, "retry-after" in late.headers) == (429, True)
        for number in range(account.LOGINS_OF_ADDRESS_MAX):
            await sign_in(house.browser(client=("203.0.113.5", 1)), email=f"a{number}@x.y")
        assert (await sign_in(house.browser(client=("203.0.113.5", 1)), email="b@x.y")).status_code == 429
        assert (await sign_in(house.browser(client=("203.0.113.6", 1)), email="b@x.y")).status_code == 401

    visit(tmp_path, act)


def test_v6_3_2_there_is_no_account_that_nobody_made(tmp_path):
    async def act(house):
        assert await house.store.accounts() == []
        for email in ("admin", "admin@example.com", "root", ""):
            for word in ("", "admin", "password", "headwater"):
                with pytest.raises(SignInError):
                    await house.door.sign_in(email=email, password=word, address=f"{email}{word}", agent="")
        assert (await house.browser().get("/api/v1/streams")).status_code == 401

    visit(tmp_path, act)


def test_v6_5_2_tokens_and_keys_are_stored_as_hashes(tmp_path):
    async def act(house):
        admin = await house.person()
        made = await send(admin, "/keys", "/keys", **{"name": "ci", "scope-read": "1"})
        key = re.search(r"<code>(hw_[^<]+)</code>", made.text)[1]
        link = (await send(admin, "/accounts", "/accounts", email="bob@x.y", role="viewer")).text
        token = re.search(r"token=([\w-]+)", link)[1]
        held = b"".join(path.read_bytes() for path in (tmp_path / ".headwater").glob("headwater.db*"))
        assert EMAIL.encode() in held
        for secret in (key, token, admin.cookies[COOKIE], csrf_of(admin.cookies[COOKIE]), GOOD):
            assert secret.encode() not in held

    visit(tmp_path, act)


# V7: sessions


def test_v7_2_2_each_login_has_a_token_of_its_own(tmp_path):
    async def act(house):
        tokens = {(await house.person()).cookies[COOKIE] for _ in range(5)}
        assert len(tokens) == 5

    visit(tmp_path, act)


def test_v7_2_3_a_token_cannot_be_guessed(tmp_path):
    async def act(house):
        token = (await house.person()).cookies[COOKIE]
        assert len(token) * 6 >= 256
        stranger = house.browser()
        for guess in ("", "1", token[:-1], token + "a", token.swapcase(), "a" * 10_000):
            stranger.cookies.set(COOKIE, guess)
            assert (await stranger.get("/?format=json")).status_code in (401, 431)
            stranger.cookies.clear()

    visit(tmp_path, act)


def test_v7_2_4_a_login_gives_a_new_token_and_ends_the_one_before(tmp_path):
    async def act(house):
        browser = await house.person()
        before = browser.cookies[COOKIE]
        await sign_in(browser)
        assert browser.cookies[COOKIE] != before
        stolen = house.browser()
        stolen.cookies.set(COOKIE, before)
        assert (await stolen.get("/?format=json")).status_code == 401
        fixed = house.browser()
        fixed.cookies.set(COOKIE, "chosen-by-somebody-else")
        answer = await sign_in(fixed)
        assert "chosen-by-somebody-else" not in answer.headers["set-cookie"]

    visit(tmp_path, act)


def test_v7_3_1_an_idle_session_ends(tmp_path):
    async def act(house):
        browser = await house.person()
        await house.clock.advance(account.SESSION_IDLE_SECONDS_MAX)
        assert (await browser.get("/?format=json")).status_code == 401

    visit(tmp_path, act)


def test_v7_3_2_a_busy_session_ends_too(tmp_path):
    async def act(house):
        browser = await house.person()
        step = account.SESSION_IDLE_SECONDS_MAX // 2
        for _ in range(account.SESSION_SECONDS_MAX // step - 1):
            await house.clock.advance(step)
            assert (await browser.get("/?format=json")).status_code == 200
        await house.clock.advance(step)
        assert (await browser.get("/?format=json")).status_code == 401

    visit(tmp_path, act)


def test_v7_4_1_a_logout_ends_the_session_here_and_there(tmp_path):
    async def act(house):
        browser = await house.person()
        kept = browser.cookies[COOKIE]
        await send(browser, "/account", "/logout")
        browser.cookies.set(COOKIE, kept)
        assert (await browser.get("/?format=json")).status_code == 401

    visit(tmp_path, act)


def test_v7_4_2_a_disabled_accounts_sessions_end_at_once(tmp_path):
    async def act(house):
        await house.person()
        browser = await house.person("viewer", "bob@x.y")
        bob = await house.door.named("bob@x.y")
        await house.door.change_enabled(bob, enabled=False, actor="cli:me")
        assert (await browser.get("/?format=json")).status_code == 401
        assert (await sign_in(house.browser(), email="bob@x.y")).status_code == 401

    visit(tmp_path, act)


def test_v7_4_3_a_new_password_ends_all_other_sessions(tmp_path):
    async def act(house):
        here, there = await house.person(), await house.person()
        form = {"current": GOOD, "password": BETTER, "again": BETTER}
        await send(here, "/account", "/account/password", **form)
        assert (await here.get("/?format=json")).status_code == 200
        assert (await there.get("/?format=json")).status_code == 401

    visit(tmp_path, act)


def test_v7_4_4_every_page_has_the_way_out(tmp_path):
    async def act(house):
        browser, seen = await house.person(), 0
        for path, methods in routes_of(house):
            if "GET" in methods and "{" not in path and not path.startswith(("/api/", "/setup", "/login")):
                answer = await browser.get(path)
                if answer.status_code == 200 and answer.headers["content-type"].startswith("text/html"):
                    assert 'action="/logout"' in answer.text, path
                    seen += 1
        assert seen >= 5

    visit(tmp_path, act)


def test_v7_4_5_an_admin_ends_the_sessions_of_somebody(tmp_path):
    async def act(house):
        admin, browser = await house.person(), await house.person("viewer", "bob@x.y")
        number = (await house.door.named("bob@x.y")).id
        await send(admin, "/accounts", f"/accounts/{number}/sessions/end")
        assert (await browser.get("/?format=json")).status_code == 401

    visit(tmp_path, act)


# V8: authorization


def test_v8_2_1_what_one_may_do_is_asked_at_each_function(tmp_path):
    async def act(house):
        await house.person()
        viewer = await house.person("viewer", "bob@x.y")
        token = csrf_in(await viewer.get("/account"))
        own = {"/login", "/login/code", "/setup", "/logout", "/account/password", "/account/sessions/end"}
        own |= {"/account/factor", "/account/factor/confirm", "/account/factor/codes", "/account/factor/off"}
        own.add("/api/v1/consumers/{name}")  # whoever reads the feed notes how far they came
        tried = 0
        for path, methods in routes_of(house):
            for method in methods & UNSAFE:
                if path not in own:
                    answer = await viewer.request(method, filled(path), headers={"x-csrf-token": token})
                    assert answer.status_code == 403, (method, path)
                    tried += 1
        for path in ("/accounts", "/keys", "/audit", "/api/v1/keys"):
            assert (await viewer.get(path)).status_code == 403
        assert tried >= 8

    visit(tmp_path, act)


async def two_tenants(house):
    """North has something of everything, each with the canary in it; what its ids are."""
    store, clock = house.store, house.clock
    north = await connect(store, clock, key="north", tenant="north", streams=["customers", webhook()])
    await connect(store, clock, key="south", tenant="south", streams=["customers", webhook()])
    run = await ingest(store, clock, emit(f"id-{CANARY}", clock, name=CANARY), connection="north")
    delivery = await deliver(store, clock, north, f"evt-{CANARY}", body=CANARY.encode())
    await store.reject_delivery(north.id, reason="bad signature", at=clock.now(), sample=CANARY)
    await store.audit(at=clock.now(), actor="ann", act="x", target="north", detail={"a": CANARY})
    return {
        "connection": "north", "key": "north", "stream": "customers", "run": run, "delivery": delivery, "id": run,
        "type": "customer", "source_id": f"id-{CANARY}", "backfill": 1, "record": 1,
    }  # fmt: skip


def test_v8_2_2_ids_of_others_open_nothing(tmp_path):
    async def act(house):
        known = await two_tenants(house)
        south = await house.key("read", "payloads", "operate", "admin", tenant="south")
        async for path, answer in asks_everything(south, house, known):
            assert CANARY not in answer.text, (path, answer.url)
            assert "canary-4111" not in answer.text, (path, answer.url)
            assert answer.status_code < 500, (path, answer.url)
        for path in ("/api/v1/runs/{run}", "/api/v1/deliveries/{delivery}"):
            theirs, nobodys = await south.get(path.format(**known)), await south.get(filled(path, run=99, delivery=99))
            assert (theirs.status_code, theirs.json()) == (404, nobodys.json())

    visit(tmp_path, act)


def test_v8_2_3_payloads_are_for_those_who_may_see_them(tmp_path):
    async def act(house):
        known = await two_tenants(house)
        await house.person()
        viewer = await house.person("viewer", "bob@x.y")
        async for path, answer in asks_everything(viewer, house, known):
            assert f'"name":"{CANARY}' not in answer.text, (path, answer.url)
            assert "evt-" not in answer.text or CANARY not in answer.text.replace(f"evt-{CANARY}", ""), path
        operator = await house.person("operator", "op@x.y")
        shown = await operator.get(f"/api/v1/deliveries/{known['delivery']}")
        assert CANARY in shown.text
        assert "payloads.reveal" in [one[0] for one in await house.acts()]

    visit(tmp_path, act)


def test_v8_3_1_the_server_decides_whatever_a_page_offers(tmp_path):
    async def act(house):
        admin = await house.person()
        viewer = await house.person("viewer", "bob@x.y")
        token = csrf_in(await viewer.get("/account"))
        number = (await house.door.named("bob@x.y")).id
        raised = await viewer.post(f"/accounts/{number}/role", data={"csrf": token, "role": "admin"})
        assert raised.status_code == 403
        await send(admin, "/accounts", f"/accounts/{number}/role", role="admin")
        assert (await viewer.get("/accounts")).status_code == 200  # a change counts from the next request on
        await send(admin, "/accounts", f"/accounts/{number}/role", role="viewer")
        assert (await viewer.get("/accounts")).status_code == 403

    visit(tmp_path, act)


def test_v8_4_1_nothing_crosses_from_one_tenant_to_another(tmp_path):
    async def act(house):
        known = await two_tenants(house)
        south = await house.key("read", "payloads", "operate", "deploy", "admin", tenant="south")
        before = [one.state for one in await house.store.runs()]
        refused = 0
        for path, methods in routes_of(house):
            for method in methods & UNSAFE:
                if path not in ("/login", "/setup", "/logout"):
                    bodies = ({}, {"connection": "north"}, {"connection": "north", "ids": [known["delivery"]]})
                    for body in bodies:
                        answer = await south.request(method, filled(path, **known), json=body)
                        # Of its own it has none: what is counted or done comes to nothing.
                        is_nothing = any(
                            word in answer.text for word in ('"count":0', '"replayed":0', '"dropped":0', '"released":0')
                        )
                        is_refused = answer.status_code in (400, 401, 403, 404, 409, 411, 415, 422)
                        assert is_refused or is_nothing, (method, path, answer.text)
                        refused += 1
        assert refused >= 20
        assert [one.state for one in await house.store.runs()] == before
        assert (await house.store.delivery(known["delivery"])).state.value == "pending"

    visit(tmp_path, act)


def test_v6_3_3_a_second_factor_keeps_out_whoever_has_the_password_alone(tmp_path):
    async def act(house):
        await with_factor(house)
        thief = house.browser()
        asked = await sign_in(thief)
        assert "set-cookie" not in asked.headers
        for path in ("/", "/accounts", "/api/v1/streams"):
            assert (await thief.get(path, params={"format": "json"} if path == "/" else {})).status_code in (303, 401)

    visit(tmp_path, act)


def test_v6_3_3_who_lacks_a_second_factor_that_is_required_may_only_set_one_up(tmp_path):
    async def act(house):
        admin = await house.person()
        home = (await admin.get("/account")).text
        assert "Here everybody needs a second factor" in home
        assert 'aria-label="Main"' not in home
        csrf = csrf_in(await admin.get("/account"))
        open_to_all = {"/account", "/login", "/setup", "/healthz", "/livez", "/readyz"}
        tried = 0
        for path, methods in routes_of(house):
            if path in open_to_all or path.startswith(("/static", "/account/", "/login/", "/logout")):
                continue
            for method in methods - {"HEAD"}:
                answer = await admin.request(method, filled(path), headers={"x-csrf-token": csrf}, data={"csrf": csrf})
                refused = answer.status_code == 403 and "Here everybody needs a second factor" in answer.text
                assert refused or answer.headers.get("location") == "/account", (method, path, answer.status_code)
                tried += 1
        assert tried > 100
        program = await house.key("read")
        assert (await program.get("/api/v1/streams")).status_code == 200

        browser, _, _ = await with_factor(house)
        assert (await browser.get("/")).status_code == 200
        assert (await browser.get("/api/v1/accounts")).status_code == 200
        assert "Turn it off" not in (await browser.get("/account")).text
        form = {"current": GOOD, "code": "000000"}
        answer = await send(browser, "/account", "/account/factor/off", **form)
        assert (answer.status_code, "everybody needs a second factor" in answer.text) == (422, True)

    visit(tmp_path, act, second_factor_required=True)


def test_v6_5_1_a_code_counts_once(tmp_path):
    async def act(house):
        _, app, codes = await with_factor(house)
        for code in (await app.code(), codes[0]):
            asked = [await sign_in(house.browser()) for _ in range(2)]
            answers = [await by_code(house.browser(), page, code) for page in asked]
            assert [one.status_code for one in answers] == [303, 401]

    visit(tmp_path, act)


def test_v6_5_5_a_code_is_good_for_a_minute_or_so(tmp_path):
    async def act(house):
        _, app, _ = await with_factor(house)
        code = await app.code()
        await house.clock.advance(2 * second_factor.STEP_SECONDS + 1)
        assert (await by_code(house.browser(), await sign_in(house.browser()), code)).status_code == 401

    visit(tmp_path, act)
