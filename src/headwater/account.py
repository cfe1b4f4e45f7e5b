"""People who sign in, their sessions, the links that let them in first, and what a store promises of them.

invitation ──accepted──> account with a password ──login──> session ──idle, old, logout, new password, disabled──> gone

Tokens are random and shown once: a store keeps their SHA-256 alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from headwater.intention import ApiKey, AuditNote

Role = Literal["admin", "operator", "viewer"]
ROLES: tuple[Role, ...] = ("admin", "operator", "viewer")
ROLE_SCOPES: Mapping[Role, frozenset[str]] = {
    "viewer": frozenset({"read"}),
    "operator": frozenset({"read", "payloads", "operate"}),
    "admin": frozenset({"read", "payloads", "operate", "deploy", "admin"}),
}

NEVER_SHOWN = ("password", "factor")  # fields of an account
ACCOUNTS_MAX = 1_000
SESSIONS_MAX = 20  # of an account: the one that was idle longest makes room
SESSION_SECONDS_MAX = 12 * 3600  # since the login, however busy it is
SESSION_IDLE_SECONDS_MAX = 3600  # since the last thing that a person did
SESSION_NOTE_SECONDS = 60  # a session's last use is written down at most so often
INVITATION_SECONDS = 24 * 3600  # for somebody who was invited
SETUP_SECONDS = 3600  # for the first admin
LOGIN_SECONDS = 15 * 60  # the span in which logins are counted
LOGINS_OF_ACCOUNT_MAX = 10  # in it, that failed
LOGINS_OF_ADDRESS_MAX = 50
EMAIL_CHARACTERS_MAX = 254  # RFC 5321
NAME_CHARACTERS_MAX = 100
AGENT_CHARACTERS_MAX = 200  # of what a browser says of itself


@dataclass(frozen=True, kw_only=True)
class Account:
    """One person."""

    id: int
    email: str  # in lower case: what one signs in with
    name: str
    role: Role
    password: str = field(repr=False)  # its argon2id hash; "" while the invitation is not accepted
    created_at: datetime
    disabled_at: datetime | None
    last_login_at: datetime | None
    factor: str = field(default="", repr=False)  # the sealed secret of its second factor
    factor_at: datetime | None = None  # since when a code is asked for at a login

    @property
    def is_enabled(self) -> bool:
        """May sign in."""
        return self.disabled_at is None

    @property
    def state(self) -> Literal["active", "invited", "disabled"]:
        """Whether it may sign in."""
        if not self.is_enabled:
            return "disabled"
        return "active" if self.password else "invited"


@dataclass(frozen=True, kw_only=True)
class Session:
    """One browser in which somebody signed in."""

    id: int
    account_id: int
    created_at: datetime
    seen_at: datetime
    address: str  # where the login came from
    agent: str  # what the browser said of itself


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """A link that was not used yet."""

    account_id: int | None  # None: whoever comes first becomes the first admin
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class LoginLimit:
    """How many logins a subject may try in the span."""

    subject: str  # "account ann@example.com", "address 192.0.2.7"
    attempts_max: int


class AccountStore(Protocol):
    """Accounts, sessions, invitations, logins, keys. Each write notes its act in the audit, in one transaction."""

    async def accounts(self) -> Sequence[Account]:
        """All of them, by email."""
        ...

    async def has_account(self) -> bool:
        """Whether there is any."""
        ...

    async def account(self, email: str) -> Account | None:
        """The account of that email, disabled ones included."""
        ...

    async def add_account(self, *, email: str, name: str, role: Role, password: str, note: AuditNote) -> Account:
        """Store an account; `ConflictError` when the email is taken, `UsageError` beyond `ACCOUNTS_MAX`."""
        ...

    async def change_account(
        self, account_id: int, *, note: AuditNote, role: Role | None = None, disabled: bool | None = None
    ) -> Account:
        """Change a role, disable or enable; the sessions of a disabled account end.

        Raises `NotFoundError`, and `ConflictError` where no enabled admin would be left.
        """
        ...

    async def set_password(self, account_id: int, password: str, *, keep: bytes | None, note: AuditNote) -> None:
        """Set a password's hash; ends all sessions but the one of the hash `keep`, and the account's invitations."""
        ...

    async def renew_password_hash(self, account_id: int, old: str, new: str) -> None:
        """Replace a hash by a stronger one of the same password, unless it changed meanwhile."""
        ...

    async def add_session(
        self,
        account_id: int,
        *,
        hash: bytes,
        address: str,
        agent: str,
        replaced: bytes | None,
        forgiven: Sequence[str],
        note: AuditNote,
    ) -> Session:
        """Store a session in place of the one of the hash `replaced`, and forget the logins counted of `forgiven`.

        Raises `NotFoundError` when the account is disabled by now. Beyond `SESSIONS_MAX` the account's oldest goes.
        """
        ...

    async def session(
        self, hash: bytes, *, created_after: datetime, seen_after: datetime
    ) -> tuple[Session, Account] | None:
        """The session of that hash with its enabled account, unless it is older or was idle for longer."""
        ...

    async def note_session(self, session_id: int, *, at: datetime) -> None:
        """Note that a session was used."""
        ...

    async def sessions(self, account_id: int, *, created_after: datetime, seen_after: datetime) -> Sequence[Session]:
        """The sessions of an account, last used first."""
        ...

    async def end_sessions(self, account_id: int, *, note: AuditNote, session_id: int | None = None) -> int:
        """End one session of the account, or all; how many. What ends none is not noted."""
        ...

    async def count_login(self, limits: Sequence[LoginLimit], *, at: datetime, span_seconds: float) -> datetime | None:
        """Count an attempt to sign in, before it is looked at; of those tried at once none goes uncounted.

        When a subject had its attempts already, nothing is counted, and the instant is told from which on it may again.
        """
        ...

    async def add_invitation(
        self, hash: bytes, *, account_id: int | None, expires_at: datetime, note: AuditNote | None
    ) -> None:
        """Store an invitation, in place of those that the account had; expired ones go."""
        ...

    async def invitation(self, hash: bytes, *, at: datetime) -> Invitation | None:
        """The unexpired invitation of that hash, unless it is for the first admin and somebody came before."""
        ...

    async def accept_invitation(
        self, hash: bytes, *, email: str, name: str, password: str, note: AuditNote
    ) -> Account | None:
        """Set the password of the invited account, or make the first admin of this email and name; once.

        None when the invitation is gone; its account's sessions end.
        """
        ...

    async def begin_factor(self, account_id: int, *, sealed: str) -> None:
        """Keep the sealed secret of a second factor that is not asked for yet; `ConflictError` where one is."""
        ...

    async def confirm_factor(
        self, account_id: int, *, step: int, recovery: Sequence[bytes], keep: bytes, note: AuditNote
    ) -> None:
        """Ask for the factor that was begun from now on; with the hashes of recovery codes, and the step just used.

        Ends all sessions but the one of the hash `keep`; `ConflictError` where none was begun, or one is asked for.
        """
        ...

    async def use_factor_step(self, account_id: int, step: int) -> bool:
        """Let the code of a step count; False where it, or a later one, did before."""
        ...

    async def use_recovery_code(self, account_id: int, hash: bytes, *, note: AuditNote) -> bool:
        """Use up a recovery code; False where there is none of that hash."""
        ...

    async def put_recovery_codes(self, account_id: int, hashes: Sequence[bytes], *, note: AuditNote) -> None:
        """Replace the recovery codes."""
        ...

    async def recovery_codes_left(self, account_id: int) -> int:
        """How many are left."""
        ...

    async def remove_factor(self, account_id: int, *, note: AuditNote) -> bool:
        """Forget an account's second factor with its recovery codes; False where there was none."""
        ...

    async def replace_factor(self, account_id: int, old: str, new: str) -> bool:
        """Swap a sealed secret for the same one under another key, only if the old one still stands."""
        ...

    async def add_api_key(
        self,
        *,
        name: str,
        hash: bytes,
        scopes: Sequence[str],
        tenant: str | None,
        at: datetime,
        expires_at: datetime | None,
    ) -> ApiKey:
        """Store the SHA-256 of a key."""
        ...

    async def api_key(self, hash: bytes, *, at: datetime) -> ApiKey | None:
        """The unexpired key of that hash."""
        ...

    async def api_keys(self) -> Sequence[ApiKey]:
        """All keys, newest first, expired ones included."""
        ...

    async def revoke_api_key(self, key_id: int, *, note: AuditNote) -> bool:
        """Forget a key at once; False when there is none."""
        ...

    async def note_api_key(self, key_id: int, *, at: datetime) -> None:
        """Note that a key was used."""
        ...
