"""Who may come in: the first admin, people who are invited, logins and sessions.

A login is counted before its password is looked at, and answered alike whether the account exists or not. A token is
256 random bits; whoever holds it is let in, and the store holds its SHA-256 alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any

from headwater import password as passwords
from headwater import second_factor
from headwater.account import (
    AGENT_CHARACTERS_MAX,
    EMAIL_CHARACTERS_MAX,
    INVITATION_SECONDS,
    LOGIN_SECONDS,
    LOGINS_OF_ACCOUNT_MAX,
    LOGINS_OF_ADDRESS_MAX,
    NAME_CHARACTERS_MAX,
    SESSION_IDLE_SECONDS_MAX,
    SESSION_NOTE_SECONDS,
    SESSION_SECONDS_MAX,
    SETUP_SECONDS,
    Account,
    Invitation,
    LoginLimit,
    Role,
    Session,
)
from headwater.breached import BreachedPasswords
from headwater.clock import Clock, to_micros
from headwater.errors import NotFoundError, SettingsError, SignInError, UsageError
from headwater.intention import AuditNote
from headwater.key_ring import KeyRing
from headwater.redaction import one_line
from headwater.store import Store

logger = logging.getLogger("headwater.access")

TOKEN_BYTES = 32
TOKEN_CHARACTERS_MAX = 64
TICKET = "login"  # what a ticket is sealed for
TICKET_SECONDS = 300  # from a password that was right to the code
TICKET_CHARACTERS_MAX = 1_000
_EMAIL = re.compile(r"[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+")


def token_hash(token: str) -> bytes:
    """The SHA-256 by which a token is stored."""
    return sha256(token.encode()).digest()


def email_of(text: str) -> str:
    """An email as accounts have it: in lower case; `UsageError` for what is none."""
    email = text.strip().lower()
    if len(email) > EMAIL_CHARACTERS_MAX or not _EMAIL.fullmatch(email):
        raise UsageError("This is no email address.", hint="Such as ann@example.com.")
    return email


def name_of(text: str, email: str) -> str:
    """A name for people; the email's beginning where none is given."""
    name = one_line(" ".join(text.split())) or email.partition("@")[0]
    if len(name) > NAME_CHARACTERS_MAX:
        raise UsageError(f"A name has at most {NAME_CHARACTERS_MAX} characters.")
    return name


@dataclass(frozen=True, kw_only=True)
class CodeAsked:
    """The password was right: the ticket, with a code of the second factor, opens a session."""

    ticket: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class NewFactor:
    """What somebody's app needs to take a second factor over; shown once."""

    secret: str = field(repr=False)
    address: str = field(repr=False)
    picture: str = field(repr=False)  # SVG


@dataclass(frozen=True, kw_only=True)
class Door:
    """What pages and commands do with accounts; everything is audited under the name `actor`.

    Without a key ring nobody who has a second factor comes in.
    """

    store: Store
    clock: Clock
    key_ring: KeyRing | None = None
    breached: BreachedPasswords | None = None  # that nobody may take; None: none is known
    factor_required: bool = False  # who has no second factor may do nothing but set one up

    async def setup_token(self) -> str | None:
        """A token for the first admin, good once and for `SETUP_SECONDS`; None when there is an account."""
        if await self.store.has_account():
            return None
        token, expires_at = self._token(SETUP_SECONDS)
        await self.store.add_invitation(token_hash(token), account_id=None, expires_at=expires_at, note=None)
        return token

    async def invite(self, *, email: str, name: str, role: Role, actor: str) -> tuple[Account, str]:
        """A new account without a password, and the token by which its owner sets one."""
        address = email_of(email)
        note = self._note(actor, "accounts.add", address, {"role": role})
        words: dict[str, Any] = {"name": name_of(name, address), "role": role, "password": ""}
        account = await self.store.add_account(email=address, **words, note=note)
        return account, await self.invite_again(account, actor=actor)

    async def invite_again(self, account: Account, *, actor: str) -> str:
        """Another token to set a password by; the one before is good no longer."""
        token, expires_at = self._token(INVITATION_SECONDS)
        note = self._note(actor, "accounts.invite", account.email)
        await self.store.add_invitation(token_hash(token), account_id=account.id, expires_at=expires_at, note=note)
        return token

    async def add(self, *, email: str, name: str, role: Role, password: str, actor: str) -> Account:
        """A new account with its password, from the command line."""
        address = email_of(email)
        await self._require_good(password, names=(address, name))
        note = self._note(actor, "accounts.add", address, {"role": role})
        words: dict[str, Any] = {"name": name_of(name, address), "role": role}
        return await self.store.add_account(
            email=address, **words, password=await passwords.hashed(password), note=note
        )

    async def invitation(self, token: str) -> tuple[Invitation, Account | None] | None:
        """What a token is for, and for whom; None when it is good no longer."""
        if len(token) > TOKEN_CHARACTERS_MAX:
            return None
        found = await self.store.invitation(token_hash(token), at=self.clock.now())
        if found is None or found.account_id is None:
            return None if found is None else (found, None)
        return found, next((one for one in await self.store.accounts() if one.id == found.account_id), None)

    async def accept(self, token: str, *, email: str, name: str, password: str) -> Account:
        """The account whose password was set by a token, the first admin's made on the way."""
        found = await self.invitation(token)
        if found is None:
            raise NotFoundError("This link was used before, or has expired.", hint="Ask for another one.")
        _, account = found
        address = account.email if account else email_of(email)
        shown = account.name if account else name_of(name, address)
        await self._require_good(password, names=(address, shown))
        act = "accounts.accept" if account else "accounts.setup"
        accepted = await self.store.accept_invitation(
            token_hash(token),
            email=address,
            name=shown,
            password=await passwords.hashed(password),
            note=self._note(address, act, address),
        )
        if accepted is None:
            raise NotFoundError("This link was used before, or has expired.", hint="Ask for another one.")
        return accepted

    async def sign_in(
        self, *, email: str, password: str, address: str, agent: str, replaced: str | None = None
    ) -> tuple[str, Account] | CodeAsked:
        """The token of a new session, or a ticket where a code is asked for, too. `SignInError` is the same for a wrong
        password, a wrong email and a disabled one.

        The session of the token `replaced` ends: what was known before a login opens nothing after it.
        """
        name = email.strip().lower()[:EMAIL_CHARACTERS_MAX]
        await self._count(name, address)
        account = await self.store.account(name)
        is_right = await passwords.matches(account.password if account else "", password)
        if account is None or not is_right or not account.is_enabled:
            await self._refuse(name, address, "disabled" if is_right else "wrong")
            raise SignInError
        if passwords.is_weak(account.password):
            await self.store.renew_password_hash(account.id, account.password, await passwords.hashed(password))
        if account.factor_at is not None:
            return CodeAsked(ticket=self._ticket(account))
        return await self.open_session(
            account, address=address, agent=agent, replaced=replaced, forgiven=(_subject(name),)
        )

    async def sign_in_by_code(
        self, ticket: str, code: str, *, address: str, agent: str, replaced: str | None = None
    ) -> tuple[str, Account]:
        """The token of a new session for the ticket of a password that was right, and a code of the second factor.

        `SignInError` for a ticket that is over, and for a code that is wrong or counted before; each counts as a login.
        """
        account = await self._of_ticket(ticket)
        await self._count(account.email, address)
        if not await self._is_right(account, code):
            await self._refuse(account.email, address, "wrong code")
            raise SignInError("This code is not right, or was used before.")
        return await self.open_session(
            account, address=address, agent=agent, replaced=replaced, forgiven=(_subject(account.email),)
        )

    async def begin_factor(self, account: Account, *, password: str, address: str) -> NewFactor:
        """A second factor for an account's app; it is asked for once `confirm_factor` was given a code of it."""
        await self._prove(account, password, address=address)
        secret = second_factor.new_secret()
        sealed = self._ring().encrypt(secret, aad=second_factor.factor_aad(account.id))
        await self.store.begin_factor(account.id, sealed=sealed)
        uri = second_factor.address_of(secret, account.email)
        return NewFactor(secret=secret, address=uri, picture=second_factor.picture_of(uri))

    async def confirm_factor(self, account: Account, token: str, *, code: str) -> Sequence[str]:
        """Ask for the factor that was begun from now on; the recovery codes, which nothing shows again.

        Every session ends but that of the token. `UsageError` for a code that is not the app's.
        """
        step = second_factor.step_of(self._secret(account), code, self.clock.now()) if account.factor else None
        if step is None:
            raise UsageError("This is not the code that the app shows.", hint="Are both clocks right?")
        codes = second_factor.new_recovery_codes()
        await self.store.confirm_factor(
            account.id,
            step=step,
            recovery=[second_factor.recovery_hash(one) for one in codes],
            keep=token_hash(token),
            note=self._note(account.email, "accounts.factor", account.email),
        )
        return codes

    async def renew_recovery_codes(self, account: Account, *, code: str, address: str) -> Sequence[str]:
        """New recovery codes; those before are good no longer. `UsageError` for a wrong code, counted as a login."""
        await self._count(account.email, address)
        if not await self._is_right(account, code):
            await self._refuse(account.email, address, "wrong code")
            raise UsageError("This code is not right, or was used before.")
        codes = second_factor.new_recovery_codes()
        note = self._note(account.email, "accounts.recovery", account.email)
        await self.store.put_recovery_codes(account.id, [second_factor.recovery_hash(one) for one in codes], note=note)
        return codes

    async def turn_factor_off(self, account: Account, *, password: str, code: str, address: str) -> None:
        """Ask for no second factor any more, for somebody who proves both. `UsageError` where everybody needs one."""
        if self.factor_required:
            raise UsageError("Here everybody needs a second factor.", hint="An admin can reset it for a new one.")
        await self._prove(account, password, address=address)
        if not await self._is_right(account, code):
            await self._refuse(account.email, address, "wrong code")
            raise UsageError("This code is not right, or was used before.")
        await self.reset_factor(account, actor=account.email)

    async def reset_factor(self, account: Account, *, actor: str) -> bool:
        """Forget somebody's second factor, such as of a phone that is lost; False where there is none."""
        note = self._note(actor, "accounts.factor_off", account.email)
        return await self.store.remove_factor(account.id, note=note)

    async def open_session(
        self,
        account: Account,
        *,
        address: str,
        agent: str,
        replaced: str | None = None,
        forgiven: tuple[str, ...] = (),
    ) -> tuple[str, Account]:
        """The token of a session for somebody who just proved who they are."""
        token, _ = self._token(0)
        await self.store.add_session(
            account.id,
            hash=token_hash(token),
            address=address,
            agent=one_line(agent[:AGENT_CHARACTERS_MAX]),
            replaced=token_hash(replaced) if replaced else None,
            forgiven=forgiven,
            note=self._note(account.email, "sessions.begin", account.email, {"address": address}),
        )
        return token, account

    def lacks_factor(self, account: Account) -> bool:
        """Whether an account has yet to set up the second factor that everybody needs here."""
        return self.factor_required and account.factor_at is None

    async def who(self, token: str, *, is_act: bool) -> tuple[Session, Account] | None:
        """Whose session a token is; `is_act` when a person does something, rather than a page that renews itself."""
        if len(token) > TOKEN_CHARACTERS_MAX:
            return None
        at = self.clock.now()
        created_after, seen_after = self._bounds()
        found = await self.store.session(token_hash(token), created_after=created_after, seen_after=seen_after)
        if found is not None and is_act and (at - found[0].seen_at).total_seconds() >= SESSION_NOTE_SECONDS:
            await self.store.note_session(found[0].id, at=at)
        return found

    async def sessions(self, account_id: int) -> list[Session]:
        """The sessions of an account that are good, last used first."""
        created_after, seen_after = self._bounds()
        return list(await self.store.sessions(account_id, created_after=created_after, seen_after=seen_after))

    async def end_sessions(self, account: Account, *, actor: str, session_id: int | None = None) -> int:
        """End one session, or all; how many."""
        note = self._note(actor, "sessions.end", account.email, {} if session_id is None else {"session": session_id})
        return await self.store.end_sessions(account.id, session_id=session_id, note=note)

    async def change_password(self, account: Account, token: str, *, old: str, new: str, address: str) -> None:
        """Replace one's own password; every other session ends. A wrong old one counts as a login that failed."""
        await self._prove(account, old, address=address)
        await self.set_password(account, new, actor=account.email, keep=token)

    async def set_password(self, account: Account, new: str, *, actor: str, keep: str | None = None) -> None:
        """Set a password; every session ends but that of the token `keep`."""
        await self._require_good(new, names=(account.email, account.name))
        note = self._note(actor, "accounts.password", account.email)
        kept = token_hash(keep) if keep else None
        await self.store.set_password(account.id, await passwords.hashed(new), keep=kept, note=note)

    async def change_role(self, account: Account, role: Role, *, actor: str) -> Account:
        """Give a role; it counts from the next request on."""
        note = self._note(actor, "accounts.role", account.email, {"from": account.role, "to": role})
        return await self.store.change_account(account.id, role=role, note=note)

    async def change_enabled(self, account: Account, *, enabled: bool, actor: str) -> Account:
        """Disable or enable; a disabled account's sessions end at once."""
        note = self._note(actor, "accounts.enable" if enabled else "accounts.disable", account.email)
        return await self.store.change_account(account.id, disabled=not enabled, note=note)

    async def named(self, email: str) -> Account:
        """The account of an email; `NotFoundError` when there is none."""
        found = await self.store.account(email.strip().lower())
        if found is None:
            raise NotFoundError("There is no such account.", hint="`headwater accounts` lists them.")
        return found

    async def _require_good(self, password: str, *, names: Iterable[str]) -> None:
        """`UsageError` with what is wrong with a new password."""
        passwords.require_good(password, names=names)
        if self.breached is not None and await asyncio.to_thread(self.breached.holds, password):
            raise UsageError(
                "This password is known from a breach of another place, and is tried by others.",
                hint="Take one that you never used anywhere.",
            )

    async def _prove(self, account: Account, password: str, *, address: str) -> None:
        """Once more the password of somebody who is signed in; a wrong one counts as a login that failed."""
        await self._count(account.email)
        if not await passwords.matches(account.password, password):
            await self._refuse(account.email, address, "wrong")
            raise UsageError("The password that you have now is another one.")

    async def _count(self, email: str, address: str | None = None) -> None:
        """Count an attempt to sign in; `SignInError` where there were too many."""
        at = self.clock.now()
        limits = [LoginLimit(subject=_subject(email), attempts_max=LOGINS_OF_ACCOUNT_MAX)]
        if address is not None:
            limits.append(LoginLimit(subject=f"address {address}", attempts_max=LOGINS_OF_ADDRESS_MAX))
        until = await self.store.count_login(limits, at=at, span_seconds=LOGIN_SECONDS)
        if until is not None:
            await self._refuse(email, address or "a session", "too many attempts")
            raise SignInError("There were too many attempts.", retry_after_seconds=(until - at).total_seconds())

    async def _is_right(self, account: Account, code: str) -> bool:
        """Whether a code is right, and counts: one of the app once, and a recovery code once."""
        if account.factor_at is None or len(code) > second_factor.CODE_CHARACTERS_MAX:
            return False
        step = second_factor.step_of(self._secret(account), code, self.clock.now())
        if step is not None:
            return await self.store.use_factor_step(account.id, step)
        note = self._note(account.email, "accounts.recovery_used", account.email)
        return await self.store.use_recovery_code(account.id, second_factor.recovery_hash(code), note=note)

    def _secret(self, account: Account) -> str:
        return self._ring().decrypt(account.factor, aad=second_factor.factor_aad(account.id))

    def _ring(self) -> KeyRing:
        if self.key_ring is None:
            raise UsageError("Second factors are looked after on the pages alone.")
        return self.key_ring

    def _ticket(self, account: Account) -> str:
        until = to_micros(self.clock.now() + timedelta(seconds=TICKET_SECONDS))
        facts = json.dumps([account.email, until, _mark_of(account)])
        return self._ring().encrypt(facts, aad=TICKET)

    async def _of_ticket(self, ticket: str) -> Account:
        """Whose password was right; `SignInError` for a ticket that is over, or whose password is another by now."""
        try:
            email, until, mark = json.loads(self._ring().decrypt(ticket[:TICKET_CHARACTERS_MAX], aad=TICKET))
        except SettingsError as error:
            raise SignInError("This login took too long.", hint="Begin anew.") from error
        account = await self.store.account(email)
        is_good = account is not None and account.is_enabled and _mark_of(account) == mark
        if account is None or not is_good or to_micros(self.clock.now()) > until:
            raise SignInError("This login took too long.", hint="Begin anew.")
        return account

    async def _refuse(self, email: str, address: str, reason: str) -> None:
        logger.warning("Refused a login as %s from %s: %s.", one_line(email), address, reason)
        detail = {"address": address, "reason": reason}
        await self.store.audit(at=self.clock.now(), actor="nobody", act="sessions.refuse", target=email, detail=detail)

    def _token(self, seconds: float) -> tuple[str, Any]:
        return secrets.token_urlsafe(TOKEN_BYTES), self.clock.now() + timedelta(seconds=seconds)

    def _bounds(self) -> tuple[Any, Any]:
        at = self.clock.now()
        return at - timedelta(seconds=SESSION_SECONDS_MAX), at - timedelta(seconds=SESSION_IDLE_SECONDS_MAX)

    def _note(self, actor: str, act: str, target: str, detail: dict[str, Any] | None = None) -> AuditNote:
        return AuditNote(at=self.clock.now(), actor=actor, act=act, target=target, detail=detail or {})


def _subject(email: str) -> str:
    """By what the logins of an account are counted."""
    return f"account {email}"


def _mark_of(account: Account) -> str:
    """What is otherwise as soon as the password is."""
    return sha256(account.password.encode()).hexdigest()[:16]
