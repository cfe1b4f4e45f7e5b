"""Who may come in: the first admin, invitations, logins, sessions, each as it is told in the audit."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from headwater import account, password
from headwater.door import Door, token_hash
from headwater.errors import ConflictError, NotFoundError, SignInError, UsageError
from headwater.testing.clock import FakeClock
from stored import open_store

GOOD, BETTER = "correct horse battery", "tundra gravel omelette"
EMAIL = "ann@example.com"


pytestmark = pytest.mark.usefixtures("quick_passwords")


@asynccontextmanager
async def opened():
    clock = FakeClock()
    async with open_store(clock=clock) as store:
        yield Door(store=store, clock=clock)


def run(act):
    async def main():
        async with opened() as door:
            await act(door)

    asyncio.run(main())


async def ann(door, **overrides):
    words = {"email": EMAIL, "name": "Ann", "role": "admin", "password": GOOD, "actor": "cli:me"} | overrides
    return await door.add(**words)


async def login(door, text=GOOD, *, email=EMAIL, address="192.0.2.7", **more):
    token, _ = await door.sign_in(email=email, password=text, address=address, agent="Browser", **more)
    return token


async def acts(door):
    return [(one.act, one.actor, one.target) for one in reversed(await door.store.audit_log())]


def test_the_first_admin_comes_by_the_link_and_nobody_after():
    async def act(door):
        token, other = await door.setup_token(), await door.setup_token()
        assert token != other
        assert len(token) >= 43  # 256 bits
        assert await door.invitation(token) is not None
        with pytest.raises(UsageError):
            await door.accept(token, email="ann", name="", password=GOOD)
        with pytest.raises(UsageError):
            await door.accept(token, email=EMAIL, name="", password="ann@example1")
        admin = await door.accept(token, email=" Ann@Example.com ", name="", password=GOOD)
        assert (admin.email, admin.name, admin.role) == (EMAIL, "ann", "admin")
        for used in (token, other):
            with pytest.raises(NotFoundError):
                await door.accept(used, email="eve@example.com", name="", password=GOOD)
        assert await door.setup_token() is None
        assert await acts(door) == [("accounts.setup", EMAIL, EMAIL)]

    run(act)


def test_the_link_is_good_for_an_hour():
    async def act(door):
        token = await door.setup_token()
        await door.clock.advance(account.SETUP_SECONDS)
        assert await door.invitation(token) is None
        assert await door.invitation("x" * 10_000) is None

    run(act)


def test_an_invited_person_sets_the_password_and_nobody_else_knows_it():
    async def act(door):
        await ann(door)
        bob, token = await door.invite(email="bob@example.com", name="Bob", role="viewer", actor=EMAIL)
        with pytest.raises(SignInError):
            await login(door, "", email="bob@example.com")
        again = await door.invite_again(bob, actor=EMAIL)
        assert await door.invitation(token) is None
        accepted = await door.accept(again, email="eve@example.com", name="Eve", password=BETTER)
        assert (accepted.email, accepted.name, accepted.role) == ("bob@example.com", "Bob", "viewer")
        assert await login(door, BETTER, email="bob@example.com")
        with pytest.raises(ConflictError):
            await door.invite(email="BOB@example.com", name="", role="viewer", actor=EMAIL)

    run(act)


def test_a_login_is_refused_alike_whatever_is_wrong():
    async def act(door):
        bob = await ann(door, email="bob@example.com", role="viewer")
        await ann(door)
        await door.change_enabled(bob, enabled=False, actor=EMAIL)
        said = set()
        for email, text in ((EMAIL, BETTER), ("eve@example.com", GOOD), ("bob@example.com", GOOD), (EMAIL, "")):
            with pytest.raises(SignInError) as caught:
                await login(door, text, email=email)
            said.add((str(caught.value), caught.value.retry_after_seconds))
        assert said == {("The email or the password is not right.", None)}
        refused = [one.detail["reason"] for one in await door.store.audit_log() if one.act == "sessions.refuse"]
        assert refused == ["wrong", "disabled", "wrong", "wrong"]

    run(act)


def test_guessing_ends_after_so_many_and_a_right_password_does_not_help_then():
    async def act(door):
        await ann(door)
        for _ in range(account.LOGINS_OF_ACCOUNT_MAX):
            with pytest.raises(SignInError) as caught:
                await login(door, "wrong")
            assert caught.value.retry_after_seconds is None
        with pytest.raises(SignInError) as caught:
            await login(door)
        assert caught.value.retry_after_seconds == account.LOGIN_SECONDS
        await door.clock.advance(account.LOGIN_SECONDS)
        for _ in range(account.LOGINS_OF_ACCOUNT_MAX + 1):
            assert await login(door)  # success forgets what was counted

    run(act)


def test_an_address_may_guess_so_many_accounts():
    async def act(door):
        for number in range(account.LOGINS_OF_ADDRESS_MAX):
            with pytest.raises(SignInError) as caught:
                await login(door, email=f"a{number}@example.com")
            assert caught.value.retry_after_seconds is None
        with pytest.raises(SignInError) as caught:
            await login(door, email="other@example.com")
        assert caught.value.retry_after_seconds
        with pytest.raises(SignInError) as caught:
            await login(door, email="other@example.com", address="192.0.2.8")
        assert caught.value.retry_after_seconds is None

    run(act)


def test_a_session_ends_by_age_and_by_idleness_and_a_page_that_renews_itself_does_not_count():
    async def act(door):
        await ann(door)
        token = await login(door)
        for _ in range(3):
            await door.clock.advance(account.SESSION_IDLE_SECONDS_MAX - 1)
            assert await door.who(token, is_act=True)
        await door.clock.advance(account.SESSION_IDLE_SECONDS_MAX - 1)
        assert await door.who(token, is_act=False)
        await door.clock.advance(1)
        assert await door.who(token, is_act=True) is None
        busy = await login(door)
        for _ in range(account.SESSION_SECONDS_MAX // 1800 - 1):
            await door.clock.advance(1800)
            assert await door.who(busy, is_act=True)
        await door.clock.advance(1800)
        assert await door.who(busy, is_act=True) is None
        assert await door.who("x" * 10_000, is_act=True) is None

    run(act)


def test_a_login_replaces_the_session_before_it_and_only_hashes_are_stored():
    async def act(door):
        await ann(door)
        first = await login(door)
        second = await login(door, replaced=first)
        assert await door.who(first, is_act=True) is None
        session, who = await door.who(second, is_act=True)
        assert (who.email, session.address, session.agent) == (EMAIL, "192.0.2.7", "Browser")
        stored = door.store._writer._db.execute("SELECT hash FROM sessions").fetchall()
        assert stored == [(token_hash(second),)]

    run(act)


def test_a_new_password_ends_every_other_session():
    async def act(door):
        await ann(door)
        here, there = await login(door), await login(door)
        _, who = await door.who(here, is_act=True)
        words = {"address": "192.0.2.7", "new": BETTER}
        with pytest.raises(UsageError):
            await door.change_password(who, here, old=BETTER, **words)
        await door.change_password(who, here, old=GOOD, **words)
        assert await door.who(here, is_act=True)
        assert await door.who(there, is_act=True) is None
        with pytest.raises(SignInError):
            await login(door, GOOD)
        assert await login(door, BETTER)
        await door.set_password(who, GOOD, actor="cli:me")
        assert await door.who(here, is_act=True) is None

    run(act)


def test_the_audit_tells_who_came_and_what_was_changed():
    async def act(door):
        await ann(door)
        bob, token = await door.invite(email="bob@example.com", name="", role="viewer", actor=EMAIL)
        await door.accept(token, email="", name="", password=BETTER)
        bob = await door.change_role(bob, "operator", actor=EMAIL)
        await login(door, BETTER, email="bob@example.com")
        assert await door.end_sessions(bob, actor=EMAIL) == 1
        await door.change_enabled(bob, enabled=False, actor=EMAIL)
        assert await acts(door) == [
            ("accounts.add", "cli:me", EMAIL),
            ("accounts.add", EMAIL, "bob@example.com"),
            ("accounts.invite", EMAIL, "bob@example.com"),
            ("accounts.accept", "bob@example.com", "bob@example.com"),
            ("accounts.role", EMAIL, "bob@example.com"),
            ("sessions.begin", "bob@example.com", "bob@example.com"),
            ("sessions.end", EMAIL, "bob@example.com"),
            ("accounts.disable", EMAIL, "bob@example.com"),
        ]
        text = str(await door.store.audit_log())
        assert GOOD not in text
        assert BETTER not in text
        assert token not in text

    run(act)


def test_a_hash_of_an_older_strength_is_renewed_at_the_next_login(monkeypatch):
    async def act(door):
        await ann(door)
        from argon2 import PasswordHasher

        stronger = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
        monkeypatch.setattr(password, "_hasher", lambda: stronger)
        await login(door)
        assert ",t=2," in (await door.named(EMAIL)).password
        await login(door)

    run(act)
