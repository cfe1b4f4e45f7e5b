"""Accounts, sessions, invitations, counted logins, and keys of the API."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from headwater.account import SESSIONS_MAX, Account, LoginLimit, Session
from headwater.errors import ConflictError, NotFoundError
from headwater.intention import AuditNote
from headwater.store import Store
from headwater.testing.conformance.world import World, at, refused

NEVER = at(-1_000_000)
SPAN_SECONDS = 900.0


def _note(act: str = "accounts.add", seconds: float = 0, **words: Any) -> AuditNote:
    return AuditNote(**{"at": at(seconds), "actor": "ann", "act": act, "target": "x", **words})


async def _add(store: Store, email: str = "ann@example.com", **overrides: Any) -> Account:
    words: dict[str, Any] = {"name": "Ann", "role": "admin", "password": "$argon2id$1", "note": _note(), **overrides}
    return await store.add_account(email=email, **words)


async def _sign_in(store: Store, account: Account, hash: bytes, seconds: float = 0, **overrides: Any) -> Session:
    words: dict[str, Any] = {
        "address": "192.0.2.7", "agent": "Browser", "replaced": None, "forgiven": (),
        "note": _note("login", seconds), **overrides,
    }  # fmt: skip
    return await store.add_session(account.id, hash=hash, **words)


async def _alive(store: Store, *hashes: bytes, created: datetime = NEVER, seen: datetime = NEVER) -> list[bytes]:
    return [one for one in hashes if await store.session(one, created_after=created, seen_after=seen) is not None]


async def accounts_are_kept_by_their_email(world: World) -> None:
    """Each once; every change is noted with it, and what is refused is not."""
    store = world.store
    assert not await store.has_account()
    ann = await _add(store)
    bob = await _add(store, "bob@example.com", name="Bob é", role="viewer", password="")
    assert await store.has_account()
    assert (ann.email, ann.name, ann.role, ann.password) == ("ann@example.com", "Ann", "admin", "$argon2id$1")
    assert (ann.created_at, ann.disabled_at, ann.last_login_at, ann.is_enabled) == (at(), None, None, True)
    await refused(ConflictError, _add(store))
    assert await store.accounts() == [ann, bob]
    assert await store.account("bob@example.com") == bob
    assert await store.account("eve@example.com") is None
    changed = await store.change_account(bob.id, role="operator", note=_note("accounts.role", 1))
    assert (changed.role, changed.is_enabled) == ("operator", True)
    await refused(NotFoundError, store.change_account(99, role="admin", note=_note()))
    await refused(NotFoundError, store.set_password(99, "x", keep=None, note=_note()))
    assert [one.act for one in await store.audit_log()] == ["accounts.role", "accounts.add", "accounts.add"]
    await store.renew_password_hash(ann.id, "$argon2id$1", "$argon2id$2")
    await store.renew_password_hash(ann.id, "$argon2id$1", "$argon2id$3")
    found = await store.account("ann@example.com")
    assert found is not None
    assert found.password.endswith("2")
    assert "argon" not in repr(found)


async def the_last_admin_stays(world: World) -> None:
    """Of two that are taken away at once, one remains; one who was only invited does not count."""
    store = world.store
    ann, bob = await _add(store), await _add(store, "bob@example.com", password="")
    await refused(ConflictError, store.change_account(ann.id, role="viewer", note=_note()))
    await refused(ConflictError, store.change_account(ann.id, disabled=True, note=_note()))
    await store.set_password(bob.id, "$argon2id$9", keep=None, note=_note("accounts.password"))
    results = await asyncio.gather(
        store.change_account(ann.id, disabled=True, note=_note("accounts.disable", 1)),
        store.change_account(bob.id, role="viewer", note=_note("accounts.role", 1)),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in results) == ["Account", "ConflictError"]
    admins = [one for one in await store.accounts() if one.role == "admin" and one.is_enabled]
    assert len(admins) == 1


async def a_session_lives_until_it_is_old_idle_or_ended(world: World) -> None:
    """Found by its hash alone, with its account as it is now."""
    store = world.store
    ann = await _add(store)
    session = await _sign_in(store, ann, b"a")
    assert (session.account_id, session.created_at, session.seen_at) == (ann.id, at(), at())
    assert (session.address, session.agent) == ("192.0.2.7", "Browser")
    found = await store.session(b"a", created_after=NEVER, seen_after=NEVER)
    assert found is not None
    assert found[0] == session
    assert (found[1].id, found[1].last_login_at) == (ann.id, at())
    assert await store.session(b"b", created_after=NEVER, seen_after=NEVER) is None
    assert await _alive(store, b"a", created=at()) == []
    assert await _alive(store, b"a", seen=at()) == []
    await store.note_session(session.id, at=at(60))
    await store.note_session(session.id, at=at(30))
    assert await _alive(store, b"a", seen=at(59)) == [b"a"]
    await _sign_in(store, ann, b"b", 70, replaced=b"a")
    assert await _alive(store, b"a", b"b") == [b"b"]
    other = await _sign_in(store, ann, b"c", 80)
    listed = await store.sessions(ann.id, created_after=NEVER, seen_after=NEVER)
    assert listed[0] == other
    assert len(listed) == 2
    assert await store.sessions(ann.id, created_after=at(70), seen_after=NEVER) == [other]
    assert await store.end_sessions(ann.id, session_id=other.id, note=_note("sessions.end", 90)) == 1
    assert await store.end_sessions(ann.id + 1, session_id=listed[1].id, note=_note("sessions.end", 91)) == 0
    assert await _alive(store, b"b", b"c") == [b"b"]
    assert await store.end_sessions(ann.id, note=_note("sessions.end", 92)) == 1
    assert [one.act for one in await store.audit_log()][:3] == ["sessions.end", "sessions.end", "login"]


async def sessions_end_with_their_account_and_with_its_password(world: World) -> None:
    """The browser in which it was changed goes on, where that is wanted."""
    store = world.store
    ann, bob = await _add(store), await _add(store, "bob@example.com")
    for token in (b"a", b"b", b"c"):
        await _sign_in(store, ann, token)
    await _sign_in(store, bob, b"z")
    await store.set_password(ann.id, "$argon2id$2", keep=b"b", note=_note("account.password"))
    assert await _alive(store, b"a", b"b", b"c", b"z") == [b"b", b"z"]
    await store.set_password(ann.id, "$argon2id$3", keep=None, note=_note("account.password"))
    assert await _alive(store, b"b", b"z") == [b"z"]
    await store.change_account(bob.id, disabled=True, note=_note("accounts.disable"))
    assert await _alive(store, b"z") == []
    await refused(NotFoundError, _sign_in(store, bob, b"y"))
    enabled = await store.change_account(bob.id, disabled=False, note=_note("accounts.enable"))
    assert enabled.is_enabled
    assert await _alive(store, b"z") == []
    assert (await _sign_in(store, bob, b"y")).account_id == bob.id


async def an_account_has_so_many_sessions_and_no_more(world: World) -> None:
    """The one that was idle longest makes room."""
    store = world.store
    ann = await _add(store)
    hashes = [bytes([number]) for number in range(SESSIONS_MAX + 2)]
    for number, token in enumerate(hashes):
        await _sign_in(store, ann, token, number)
    assert await _alive(store, *hashes) == hashes[2:]


async def logins_are_counted_before_they_are_tried(world: World) -> None:
    """Of many at once as many pass as may; success forgets, and so does the end of the span."""
    store = world.store
    ann = await _add(store)
    limits = [LoginLimit(subject="account ann", attempts_max=3), LoginLimit(subject="address 1", attempts_max=5)]

    async def count(seconds: float = 0, *, of: list[LoginLimit] = limits) -> datetime | None:
        return await store.count_login(of, at=at(seconds), span_seconds=SPAN_SECONDS)

    tried = await asyncio.gather(*(count() for _ in range(8)))
    assert tried.count(None) == 3
    assert {one for one in tried if one is not None} == {at(SPAN_SECONDS)}
    assert await count(1, of=limits[1:]) is None
    await _sign_in(store, ann, b"a", 2, forgiven=["account ann"])
    assert await count(3) is None
    assert await count(4) == at(SPAN_SECONDS)  # the address has had its five
    assert await count(SPAN_SECONDS) is None
    other = [LoginLimit(subject="account bob", attempts_max=1)]
    assert await count(SPAN_SECONDS, of=other) is None
    assert await count(SPAN_SECONDS + 10, of=other) == at(2 * SPAN_SECONDS)


async def the_first_admin_comes_by_a_link_and_is_one(world: World) -> None:
    """Once, in time, and only while nobody is there."""
    store = world.store
    for token in (b"one", b"two", b"old"):
        seconds = 10 if token == b"old" else 3600
        await store.add_invitation(token, account_id=None, expires_at=at(seconds), note=None)
    found = await store.invitation(b"one", at=at(20))
    assert found is not None
    assert (found.account_id, found.expires_at) == (None, at(3600))
    assert await store.invitation(b"old", at=at(10)) is None
    words = {"name": "Ann", "password": "$argon2id$1"}
    assert await store.accept_invitation(b"old", email="x@example.com", note=_note("setup", 10), **words) is None
    accepted = await asyncio.gather(
        store.accept_invitation(b"one", email="ann@example.com", note=_note("setup", 20), **words),
        store.accept_invitation(b"two", email="eve@example.com", note=_note("setup", 20), **words),
    )
    (admin,) = [one for one in accepted if one is not None]
    assert (admin.role, admin.password) == ("admin", "$argon2id$1")
    assert await store.accounts() == [admin]
    for token in (b"one", b"two"):
        assert await store.invitation(token, at=at(21)) is None
    await store.add_invitation(b"late", account_id=None, expires_at=at(3600), note=None)
    assert await store.invitation(b"late", at=at(21)) is None
    assert [one.act for one in await store.audit_log()] == ["setup"]


async def an_invitation_sets_a_password_once(world: World) -> None:
    """A new one takes the old one back, and so does a disabled account."""
    store = world.store
    await _add(store)
    bob = await _add(store, "bob@example.com", role="viewer", password="")
    await _sign_in(store, bob, b"s")
    for token, seconds in ((b"first", 1), (b"second", 2)):
        note = _note("accounts.invite", seconds)
        await store.add_invitation(token, account_id=bob.id, expires_at=at(3600), note=note)
    assert await store.invitation(b"first", at=at(3)) is None
    words = {"email": "", "name": "", "password": "$argon2id$7"}
    assert await store.accept_invitation(b"first", note=_note("accounts.accept"), **words) is None
    accepted = await store.accept_invitation(b"second", note=_note("accounts.accept", 4), **words)
    assert accepted is not None
    assert (accepted.id, accepted.email, accepted.role, accepted.password) == (
        bob.id, "bob@example.com", "viewer", "$argon2id$7",
    )  # fmt: skip
    assert await _alive(store, b"s") == []
    assert await store.accept_invitation(b"second", note=_note("accounts.accept", 5), **words) is None
    await store.add_invitation(b"third", account_id=bob.id, expires_at=at(3600), note=_note("accounts.invite", 6))
    await store.change_account(bob.id, disabled=True, note=_note("accounts.disable", 7))
    assert await store.invitation(b"third", at=at(8)) is None
    await refused(NotFoundError, store.add_invitation(b"x", account_id=99, expires_at=at(1), note=_note()))


async def keys_are_listed_and_revoked(world: World) -> None:
    """A key that was revoked opens nothing from then on."""
    store = world.store
    words: dict[str, Any] = {"scopes": ["read"], "tenant": None, "at": at()}
    first = await store.add_api_key(name="first", hash=b"1", expires_at=at(10), **words)
    second = await store.add_api_key(name="second", hash=b"2", expires_at=None, **words)
    await store.note_api_key(second.id, at=at(5))
    listed = await store.api_keys()
    assert [(one.id, one.last_used_at) for one in listed] == [(second.id, at(5)), (first.id, None)]
    assert await store.revoke_api_key(second.id, note=_note("keys.revoke", 6, target="second"))
    assert not await store.revoke_api_key(second.id, note=_note("keys.revoke", 7))
    assert await store.api_key(b"2", at=at(8)) is None
    assert await store.api_key(b"1", at=at(8)) == first
    assert [(one.act, one.target) for one in await store.audit_log()] == [("keys.revoke", "second")]


async def a_second_factor_is_asked_for_once_it_was_confirmed(world: World) -> None:
    """Begun as often as one likes, confirmed once; then other sessions have ended, and it is removed whole."""
    store = world.store
    ann = await _add(store)
    for token in (b"a", b"b"):
        await _sign_in(store, ann, token)
    assert (ann.factor, ann.factor_at) == ("", None)
    confirm: dict[str, Any] = {"step": 7, "recovery": [b"r1", b"r2"], "keep": b"a", "note": _note("accounts.factor", 5)}
    await refused(ConflictError, store.confirm_factor(ann.id, **confirm))
    await store.begin_factor(ann.id, sealed="one")
    await store.begin_factor(ann.id, sealed="two")
    assert not await store.use_factor_step(ann.id, 9)
    await store.confirm_factor(ann.id, **confirm)
    (found,) = await store.accounts()
    assert (found.factor, found.factor_at) == ("two", at(5))
    assert "two" not in repr(found)
    assert await _alive(store, b"a", b"b") == [b"a"]
    await refused(ConflictError, store.begin_factor(ann.id, sealed="three"))
    await refused(ConflictError, store.confirm_factor(ann.id, **confirm))
    await refused(NotFoundError, store.begin_factor(99, sealed="x"))
    assert not await store.replace_factor(ann.id, "one", "new")
    assert await store.replace_factor(ann.id, "two", "new")
    assert await store.remove_factor(ann.id, note=_note("accounts.factor_off", 6))
    assert not await store.remove_factor(ann.id, note=_note("accounts.factor_off", 7))
    (found,) = await store.accounts()
    assert (found.factor, found.factor_at, await store.recovery_codes_left(ann.id)) == ("", None, 0)
    assert [one.act for one in await store.audit_log()][:2] == ["accounts.factor_off", "accounts.factor"]


async def codes_of_a_second_factor_count_once(world: World) -> None:
    """Of many that say the same at once, one is let in: by the app's code, and by a recovery code."""
    store = world.store
    ann, bob = await _add(store), await _add(store, "bob@example.com")
    for number, account in enumerate((ann, bob)):
        await store.begin_factor(account.id, sealed="x")
        words: dict[str, Any] = {"step": 7, "keep": b"", "note": _note("accounts.factor", number)}
        await store.confirm_factor(account.id, **words, recovery=[b"r1", b"r2"])
    assert not await store.use_factor_step(ann.id, 7)
    assert sorted(await asyncio.gather(*(store.use_factor_step(ann.id, 8) for _ in range(5)))) == [False] * 4 + [True]
    assert not await store.use_factor_step(ann.id, 7)
    note = _note("accounts.recovery_used", 9)
    used = await asyncio.gather(*(store.use_recovery_code(ann.id, b"r1", note=note) for _ in range(5)))
    assert sorted(used) == [False] * 4 + [True]
    assert not await store.use_recovery_code(ann.id, b"unknown", note=note)
    assert (await store.recovery_codes_left(ann.id), await store.recovery_codes_left(bob.id)) == (1, 2)
    await store.put_recovery_codes(ann.id, [b"r3", b"r4", b"r5"], note=_note("accounts.recovery", 10))
    assert not await store.use_recovery_code(ann.id, b"r2", note=note)
    assert await store.recovery_codes_left(ann.id) == 3
    assert [one.act for one in await store.audit_log()][:2] == ["accounts.recovery", "accounts.recovery_used"]
