"""Accounts, sessions, invitations, logins and keys: each act is noted in the transaction that carries it out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import apsw

from headwater.account import (
    ACCOUNTS_MAX,
    SESSION_IDLE_SECONDS_MAX,
    SESSION_SECONDS_MAX,
    SESSIONS_MAX,
    Account,
    Invitation,
    LoginLimit,
    Role,
    Session,
)
from headwater.clock import from_micros, to_micros
from headwater.errors import ConflictError, NotFoundError, UsageError
from headwater.intention import ApiKey, AuditNote
from headwater.stores.row import as_account, as_api_key, as_invitation, as_session, as_session_with_account
from headwater.stores.sqlite.database import Row, execute, queries, row, rows, value
from headwater.stores.sqlite.system import audit

_sql = queries("accounts.sql")


def accounts(db: apsw.Connection) -> Sequence[Account]:
    """See `AccountStore.accounts`."""
    return [as_account(one) for one in rows(db, _sql["accounts"])]


def has_account(db: apsw.Connection) -> bool:
    """See `AccountStore.has_account`."""
    return value(db, _sql["has_account"]) is not None


def account(db: apsw.Connection, email: str) -> Account | None:
    """See `AccountStore.account`."""
    found = row(db, _sql["account"], email=email)
    return None if found is None else as_account(found)


def add_account(db: apsw.Connection, *, email: str, name: str, role: Role, password: str, note: AuditNote) -> Account:
    """See `AccountStore.add_account`."""
    if row(db, _sql["account"], email=email) is not None:
        raise ConflictError(f"There is an account {email} already.")
    if int(value(db, _sql["count_accounts"])) >= ACCOUNTS_MAX:
        raise UsageError(f"There are {ACCOUNTS_MAX} accounts, and there may be no more.")
    words = {"email": email, "name": name, "role": role, "password": password}
    found = row(db, _sql["insert_account"], **words, at=to_micros(note.at))
    assert found is not None
    if password:
        execute(db, _sql["end_setup"])
    _note(db, note)
    return as_account(found)


def change_account(
    db: apsw.Connection,
    account_id: int,
    *,
    note: AuditNote,
    role: Role | None = None,
    disabled: bool | None = None,
) -> Account:
    """See `AccountStore.change_account`."""
    found = _required(db, account_id)
    disabled_at = found["disabled_at"]
    if disabled is not None:
        disabled_at = (disabled_at or to_micros(note.at)) if disabled else None
    wanted = role or found["role"]
    is_admin = found["role"] == "admin" and found["disabled_at"] is None
    stays = wanted == "admin" and disabled_at is None
    if is_admin and not stays and not value(db, _sql["other_admin"], account_id=account_id):
        raise ConflictError(f"{found['email']} is the only admin.", hint="Make another one first.")
    changed = row(db, _sql["change_account"], account_id=account_id, role=wanted, disabled_at=disabled_at)
    assert changed is not None
    if disabled_at is not None:
        execute(db, _sql["end_sessions"], account_id=account_id)
        execute(db, _sql["end_invitations"], account_id=account_id)
    _note(db, note)
    return as_account(changed)


def set_password(db: apsw.Connection, account_id: int, password: str, *, keep: bytes | None, note: AuditNote) -> None:
    """See `AccountStore.set_password`."""
    _required(db, account_id)
    _set_password(db, account_id, password, keep=keep)
    _note(db, note)


def renew_password_hash(db: apsw.Connection, account_id: int, old: str, new: str) -> None:
    """See `AccountStore.renew_password_hash`."""
    execute(db, _sql["renew_password_hash"], account_id=account_id, old=old, new=new)


def add_session(
    db: apsw.Connection,
    account_id: int,
    *,
    hash: bytes,
    address: str,
    agent: str,
    replaced: bytes | None,
    forgiven: Sequence[str],
    note: AuditNote,
) -> Session:
    """See `AccountStore.add_session`."""
    at = to_micros(note.at)
    if not execute(db, _sql["note_login"], account_id=account_id, at=at):
        raise NotFoundError("There is no such account.")
    if replaced is not None:
        execute(db, _sql["end_session_of_hash"], hash=replaced)
    for subject in forgiven:
        execute(db, _sql["forget_logins"], subject=subject)
    words = {"hash": hash, "account_id": account_id, "address": address, "agent": agent}
    found = row(db, _sql["insert_session"], **words, at=at)
    assert found is not None
    execute(db, _sql["trim_sessions"], account_id=account_id, kept=SESSIONS_MAX)
    execute(
        db,
        _sql["purge_sessions"],
        created_after=at - SESSION_SECONDS_MAX * 1_000_000,
        seen_after=at - SESSION_IDLE_SECONDS_MAX * 1_000_000,
    )
    _note(db, note)
    return as_session(found)


def session(
    db: apsw.Connection, hash: bytes, *, created_after: datetime, seen_after: datetime
) -> tuple[Session, Account] | None:
    """See `AccountStore.session`."""
    found = row(
        db, _sql["session"], hash=hash, created_after=to_micros(created_after), seen_after=to_micros(seen_after)
    )
    return None if found is None else as_session_with_account(found)


def note_session(db: apsw.Connection, session_id: int, *, at: datetime) -> None:
    """See `AccountStore.note_session`."""
    execute(db, _sql["note_session"], session_id=session_id, at=to_micros(at))


def sessions(
    db: apsw.Connection, account_id: int, *, created_after: datetime, seen_after: datetime
) -> Sequence[Session]:
    """See `AccountStore.sessions`."""
    bounds = {"created_after": to_micros(created_after), "seen_after": to_micros(seen_after)}
    return [as_session(one) for one in rows(db, _sql["sessions"], account_id=account_id, **bounds)]


def end_sessions(db: apsw.Connection, account_id: int, *, note: AuditNote, session_id: int | None = None) -> int:
    """See `AccountStore.end_sessions`."""
    if session_id is None:
        ended = execute(db, _sql["end_sessions"], account_id=account_id)
    else:
        ended = execute(db, _sql["end_session"], account_id=account_id, session_id=session_id)
    if ended:
        _note(db, note)
    return ended


def count_login(
    db: apsw.Connection, limits: Sequence[LoginLimit], *, at: datetime, span_seconds: float
) -> datetime | None:
    """See `AccountStore.count_login`."""
    after = to_micros(at - timedelta(seconds=span_seconds))
    execute(db, _sql["purge_logins"], after=after)
    for limit in limits:
        found = row(db, _sql["login"], subject=limit.subject, after=after)
        if found is not None and found["attempts"] >= limit.attempts_max:
            return from_micros(found["since"]) + timedelta(seconds=span_seconds)
    for limit in limits:
        execute(db, _sql["count_login"], subject=limit.subject, at=to_micros(at), after=after)
    return None


def add_invitation(
    db: apsw.Connection, hash: bytes, *, account_id: int | None, expires_at: datetime, note: AuditNote | None
) -> None:
    """See `AccountStore.add_invitation`."""
    if account_id is not None:
        _required(db, account_id)
        execute(db, _sql["end_invitations"], account_id=account_id)
    if note is not None:
        execute(db, _sql["purge_invitations"], at=to_micros(note.at))
    execute(db, _sql["insert_invitation"], hash=hash, account_id=account_id, expires_at=to_micros(expires_at))
    if note is not None:
        _note(db, note)


def invitation(db: apsw.Connection, hash: bytes, *, at: datetime) -> Invitation | None:
    """See `AccountStore.invitation`."""
    found = row(db, _sql["invitation"], hash=hash, at=to_micros(at))
    return None if found is None else as_invitation(found)


def accept_invitation(
    db: apsw.Connection, hash: bytes, *, email: str, name: str, password: str, note: AuditNote
) -> Account | None:
    """See `AccountStore.accept_invitation`."""
    found = row(db, _sql["invitation"], hash=hash, at=to_micros(note.at))
    if found is None:
        return None
    if found["account_id"] is None:
        return add_account(db, email=email, name=name, role="admin", password=password, note=note)
    accepted = _set_password(db, found["account_id"], password, keep=None)
    _note(db, note)
    return accepted


def begin_factor(db: apsw.Connection, account_id: int, *, sealed: str) -> None:
    """See `AccountStore.begin_factor`."""
    _required(db, account_id)
    if not execute(db, _sql["begin_factor"], account_id=account_id, sealed=sealed):
        raise ConflictError("The account has a second factor already.", hint="Turn it off first.")


def confirm_factor(
    db: apsw.Connection, account_id: int, *, step: int, recovery: Sequence[bytes], keep: bytes, note: AuditNote
) -> None:
    """See `AccountStore.confirm_factor`."""
    if not execute(db, _sql["confirm_factor"], account_id=account_id, step=step, at=to_micros(note.at)):
        raise ConflictError("The account has a second factor already, or none was begun.")
    _put_recovery_codes(db, account_id, recovery)
    execute(db, _sql["end_other_sessions"], account_id=account_id, keep=keep)
    _note(db, note)


def use_factor_step(db: apsw.Connection, account_id: int, step: int) -> bool:
    """See `AccountStore.use_factor_step`."""
    return bool(execute(db, _sql["use_factor_step"], account_id=account_id, step=step))


def use_recovery_code(db: apsw.Connection, account_id: int, hash: bytes, *, note: AuditNote) -> bool:
    """See `AccountStore.use_recovery_code`."""
    if not execute(db, _sql["use_recovery_code"], account_id=account_id, hash=hash):
        return False
    _note(db, note)
    return True


def put_recovery_codes(db: apsw.Connection, account_id: int, hashes: Sequence[bytes], *, note: AuditNote) -> None:
    """See `AccountStore.put_recovery_codes`."""
    _put_recovery_codes(db, account_id, hashes)
    _note(db, note)


def recovery_codes_left(db: apsw.Connection, account_id: int) -> int:
    """See `AccountStore.recovery_codes_left`."""
    return int(value(db, _sql["count_recovery_codes"], account_id=account_id))


def remove_factor(db: apsw.Connection, account_id: int, *, note: AuditNote) -> bool:
    """See `AccountStore.remove_factor`."""
    execute(db, _sql["drop_recovery_codes"], account_id=account_id)
    if not execute(db, _sql["remove_factor"], account_id=account_id):
        return False
    _note(db, note)
    return True


def replace_factor(db: apsw.Connection, account_id: int, old: str, new: str) -> bool:
    """See `AccountStore.replace_factor`."""
    return bool(execute(db, _sql["replace_factor"], account_id=account_id, old=old, new=new))


def _put_recovery_codes(db: apsw.Connection, account_id: int, hashes: Sequence[bytes]) -> None:
    execute(db, _sql["drop_recovery_codes"], account_id=account_id)
    for one in hashes:
        execute(db, _sql["insert_recovery_code"], account_id=account_id, hash=one)


def api_keys(db: apsw.Connection) -> Sequence[ApiKey]:
    """See `AccountStore.api_keys`."""
    return [as_api_key(one) for one in rows(db, _sql["api_keys"])]


def revoke_api_key(db: apsw.Connection, key_id: int, *, note: AuditNote) -> bool:
    """See `AccountStore.revoke_api_key`."""
    if not execute(db, _sql["revoke_api_key"], key_id=key_id):
        return False
    _note(db, note)
    return True


def note_api_key(db: apsw.Connection, key_id: int, *, at: datetime) -> None:
    """See `AccountStore.note_api_key`."""
    execute(db, _sql["note_api_key"], key_id=key_id, at=to_micros(at))


def _required(db: apsw.Connection, account_id: int) -> Row:
    found = row(db, _sql["account_by_id"], account_id=account_id)
    if found is None:
        raise NotFoundError("There is no such account.")
    return found


def _set_password(db: apsw.Connection, account_id: int, password: str, *, keep: bytes | None) -> Account:
    found = row(db, _sql["set_password"], account_id=account_id, password=password)
    assert found is not None, "the caller has seen it"
    if keep is None:
        execute(db, _sql["end_sessions"], account_id=account_id)
    else:
        execute(db, _sql["end_other_sessions"], account_id=account_id, keep=keep)
    execute(db, _sql["end_invitations"], account_id=account_id)
    return as_account(found)


def _note(db: apsw.Connection, note: AuditNote) -> None:
    audit(db, at=note.at, actor=note.actor, act=note.act, target=note.target, detail=note.detail)
