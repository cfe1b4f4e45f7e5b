"""The second factor: its codes, its pages, its way through a login, and what an admin does when a phone is lost."""

import re
from datetime import UTC, datetime, timedelta

import pyotp
import pytest

from doors import BETTER, EMAIL, GOOD, csrf_in, send, sign_in, visit
from factors import by_code, ticket_in, with_factor
from headwater import second_factor
from headwater.account import LOGINS_OF_ACCOUNT_MAX
from headwater.connection import reencrypt
from headwater.door import TICKET_SECONDS, Door
from headwater.errors import UsageError
from headwater.key_ring import KeyRing
from headwater.second_factor import RECOVERY_CODES, STEP_SECONDS, new_recovery_codes, recovery_hash, step_of

pytestmark = pytest.mark.usefixtures("quick_passwords")
# RFC 6238, appendix B, SHA-1: its secret, and for each instant the last six of the eight digits told there.
RFC_SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
RFC_CODES = [(59, "287082"), (1111111109, "081804"), (1111111111, "050471"), (2000000000, "279037")]


@pytest.mark.parametrize(("seconds", "code"), RFC_CODES)
def test_codes_are_those_of_the_rfc(seconds, code):
    at = datetime.fromtimestamp(seconds, UTC)
    assert step_of(RFC_SECRET, code, at) == seconds // STEP_SECONDS
    assert step_of(RFC_SECRET, f" {code[:3]} {code[3:]}", at) == seconds // STEP_SECONDS
    for apart, is_right in ((-61, False), (-30, True), (30, True), (61, False)):
        assert (step_of(RFC_SECRET, code, at + timedelta(seconds=apart)) is not None) == is_right
    for wrong in ("", "000000", code[:5], code + "0", "２８７０８２", "28708a"):
        assert step_of(RFC_SECRET, wrong, at) is None


def test_recovery_codes_are_random_and_known_however_they_are_written():
    codes = new_recovery_codes()
    assert len({recovery_hash(code) for code in codes}) == RECOVERY_CODES
    assert all(re.fullmatch(r"([0-9a-f]{5}-){3}[0-9a-f]{5}", code) for code in codes)
    assert recovery_hash(codes[0].upper().replace("-", " ")) == recovery_hash(codes[0])


def test_a_login_asks_for_the_code_after_the_right_password_alone(tmp_path):
    async def act(house):
        _, app, _ = await with_factor(house)
        other = house.browser()
        assert (await sign_in(other, text="wrong")).status_code == 401
        asked = await sign_in(other)
        assert (asked.status_code, "And the code" in asked.text) == (200, True)
        assert (await other.get("/?format=json")).status_code == 401, "half a login opens nothing"
        wrong = await by_code(other, asked, "000000")
        assert (wrong.status_code, "not right, or was used before" in wrong.text) == (401, True)
        done = await by_code(other, wrong, await app.code())
        assert (done.status_code, done.headers["location"]) == (303, "/system")
        assert (await other.get("/?format=json")).status_code == 200

    visit(tmp_path, act)


def test_a_factor_is_set_up_with_the_password_and_a_code(tmp_path):
    async def act(house):
        browser, elsewhere = await house.person(), await house.person()
        refused = await send(browser, "/account", "/account/factor", current="another one")
        assert (refused.status_code, "is another one" in refused.text) == (422, True)
        page = await send(browser, "/account", "/account/factor", current=GOOD)
        assert "<svg" in page.text
        assert "style=" not in page.text
        wrong = await browser.post("/account/factor/confirm", data={"csrf": csrf_in(page), "code": "000000"})
        assert (wrong.status_code, "not the code that the app shows" in wrong.text) == (422, True)
        assert (await sign_in(house.browser())).status_code == 303, "it is not asked for yet"
        secret = re.search(r"<code>([A-Z2-7]{32})</code>", page.text)[1]
        code = pyotp.TOTP(secret).at(house.clock.now())
        done = await browser.post("/account/factor/confirm", data={"csrf": csrf_in(page), "code": code})
        assert "Your recovery codes" in done.text
        assert secret not in done.text
        assert (await elsewhere.get("/account")).status_code == 303, "every other session has ended"
        shown = await browser.get("/account")
        assert "10 recovery codes are left" in shown.text
        twin = (await browser.get("/account?format=json")).json()
        assert twin["recovery_codes_left"] == RECOVERY_CODES
        assert not {"factor", "password"} & twin.keys()
        assert [one for one in await house.acts() if "factor" in one[0]] == [("accounts.factor", EMAIL, EMAIL)]

    visit(tmp_path, act)


def test_it_is_turned_off_with_both_and_renewed_with_a_code(tmp_path):
    async def act(house):
        browser, app, codes = await with_factor(house)
        wrong = await send(browser, "/account", "/account/factor/codes", code="000000")
        assert wrong.status_code == 422
        renewed = await send(browser, "/account", "/account/factor/codes", code=await app.code())
        assert "Your recovery codes" in renewed.text
        assert codes[0] not in renewed.text
        asked = await sign_in(house.browser())
        assert (await by_code(house.browser(), asked, codes[0])).status_code == 401, "those before are good no longer"
        for current, code in ((GOOD, "000000"), ("another", await app.code())):
            kept = await send(browser, "/account", "/account/factor/off", current=current, code=code)
            assert kept.status_code == 422
        off = await send(browser, "/account", "/account/factor/off", current=GOOD, code=await app.code())
        assert "the password alone" in off.text
        assert (await sign_in(house.browser())).status_code == 303

    visit(tmp_path, act)


def test_a_ticket_ends_with_its_time_and_with_the_password(tmp_path):
    async def act(house):
        _, app, _ = await with_factor(house)
        late, changed = await sign_in(house.browser()), await sign_in(house.browser())
        ann = await house.store.account(EMAIL)
        await house.door.set_password(ann, BETTER, actor="cli:me")
        over = await by_code(house.browser(), changed, await app.code())
        assert (over.status_code, "took too long" in over.text) == (401, True)
        fresh = await sign_in(house.browser(), text=BETTER)
        await house.clock.advance(TICKET_SECONDS + 1)
        assert (await by_code(house.browser(), fresh, await app.code())).status_code == 401
        for forged in ("", "v1.x.y.z", ticket_in(late)[:-2]):
            answer = await house.browser().post("/login/code", data={"ticket": forged, "code": "000000"})
            assert answer.status_code == 401

    visit(tmp_path, act)


def test_a_link_for_a_new_password_does_not_pass_the_factor_by(tmp_path):
    async def act(house):
        await with_factor(house)
        token = await house.door.invite_again(await house.store.account(EMAIL), actor="cli:me")
        browser = house.browser()
        done = await browser.post("/setup", data={"token": token, "password": BETTER, "again": BETTER})
        assert (done.status_code, done.headers["location"]) == (303, "/login")
        assert (await browser.get("/?format=json")).status_code == 401
        assert "And the code" in (await sign_in(browser, text=BETTER)).text

    visit(tmp_path, act)


def test_an_admin_resets_the_factor_of_somebody_whose_phone_is_lost(tmp_path):
    async def act(house):
        await with_factor(house, "operator", "bob@example.com")
        admin = await house.person()
        shown = await admin.get("/accounts")
        assert "with a second factor" in shown.text
        bob = await house.store.account("bob@example.com")
        program = await house.key("admin", "read", "payloads", "operate")
        listed = (await program.get("/api/v1/accounts")).json()["data"]
        assert [one["factor_at"] is not None for one in listed] == [False, True]
        assert not any({"factor", "password"} & one.keys() for one in listed)
        small = await house.key("admin")
        assert (await small.post(f"/api/v1/accounts/{bob.id}/reset-factor")).status_code == 403
        assert (await program.post(f"/api/v1/accounts/{bob.id}/reset-factor")).json() == {"reset": True}
        assert (await program.post(f"/api/v1/accounts/{bob.id}/reset-factor")).json() == {"reset": False}
        assert (await sign_in(house.browser(), email="bob@example.com")).status_code == 303
        done = await send(admin, "/accounts", f"/accounts/{bob.id}/factor/reset")
        assert done.status_code == 303
        assert [one[0] for one in await house.acts()].count("accounts.factor_off") == 1

    visit(tmp_path, act)


def test_a_new_master_key_leaves_the_factor_good(tmp_path):
    async def act(house):
        _, app, _ = await with_factor(house)
        before = (await house.store.account(EMAIL)).factor
        old = house.platform.config.key_file.read_text()
        both = KeyRing.from_text(f"{'1' * 64}\n{old}")
        result = await reencrypt(house.store, both)
        assert (result.changed, result.unreadable) == (1, [])
        assert (await house.store.account(EMAIL)).factor != before
        door = Door(store=house.store, clock=house.clock, key_ring=KeyRing.from_text("1" * 64))
        asked = await door.sign_in(email=EMAIL, password=GOOD, address="192.0.2.1", agent="")
        token, _ = await door.sign_in_by_code(asked.ticket, await app.code(), address="192.0.2.1", agent="")
        assert await door.who(token, is_act=False)
        lost = await reencrypt(house.store, KeyRing.from_text("2" * 64))
        assert lost.unreadable == [(EMAIL, "second factor")]
        with pytest.raises(UsageError):
            await Door(store=house.store, clock=house.clock).sign_in(
                email=EMAIL, password=GOOD, address="192.0.2.1", agent=""
            )

    visit(tmp_path, act)


def test_codes_that_are_guessed_count_as_logins(tmp_path):
    async def act(house):
        _, app, _ = await with_factor(house)
        asked = await sign_in(house.browser())
        answers = [await by_code(house.browser(), asked, f"{n:06}") for n in range(LOGINS_OF_ACCOUNT_MAX)]
        assert answers[-1].status_code == 429
        assert "retry-after" in answers[-1].headers
        assert (await by_code(house.browser(), asked, await app.code())).status_code == 429

    visit(tmp_path, act)


def test_the_picture_holds_the_address_and_no_style():
    address = second_factor.address_of(RFC_SECRET, EMAIL)
    assert address == f"otpauth://totp/Headwater:ann%40example.com?secret={RFC_SECRET}&issuer=Headwater"
    picture = second_factor.picture_of(address)
    assert picture.startswith("<svg")
    assert not re.search(r"style|script|xlink|http", picture)
