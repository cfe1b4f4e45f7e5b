"""What belongs to one authorised account of a connector: its settings, checked, and its secrets, encrypted at rest.

A secret's ciphertext is bound to its connection and field: one copied to another row of the database does not decrypt.
"""

from __future__ import annotations

import json
import secrets as random_tokens
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from headwater.account import AccountStore
from headwater.catalog import Connector
from headwater.errors import SettingsError, near_miss
from headwater.key_ring import KeyRing
from headwater.redaction import redact
from headwater.second_factor import factor_aad
from headwater.store import ConnectionStore

__all__ = ["KeyRing", "Reencrypted", "encrypt_secrets", "endpoint_id", "reencrypt", "secret_aad", "validate_settings"]

ENDPOINT_ID_BYTES = 24
SECRET_BYTES_MAX = 64 * 1024


def secret_aad(connection: str, field: str) -> str:
    """What a secret's ciphertext is bound to: the key of its connection, which is unique and stays, and its field."""
    return f"secret:{len(connection)}:{connection}:{field}"


def encrypt_secrets(key_ring: KeyRing, connection: str, secrets: Mapping[str, str]) -> dict[str, str]:
    """Ciphertexts of the secret fields of a connection, as the store keeps them."""
    return {name: key_ring.encrypt(secret, aad=secret_aad(connection, name)) for name, secret in secrets.items()}


@dataclass(frozen=True, kw_only=True)
class Reencrypted:
    """What a change of keys came to."""

    changed: int
    unreadable: Sequence[tuple[str, str]]  # whose and which: secrets that no key of the ring decrypts


class Sealed(ConnectionStore, AccountStore, Protocol):
    """Whatever holds ciphertexts of the key ring."""


async def reencrypt(store: Sealed, key_ring: KeyRing) -> Reencrypted:
    """Bring every stored secret under the newest key; safe while the platform runs, and to repeat.

    A secret that is set anew meanwhile is left as it is. Once nothing is unreadable, older keys may be removed.
    """
    keys = {connection.id: connection.key for connection in await store.connections()}
    changes: list[tuple[int, str, str, str]] = []
    unreadable: list[tuple[str, str]] = []
    for connection_id, stored in await store.all_secrets():
        connection = keys.get(connection_id)
        if connection is None or key_ring.is_newest(stored.ciphertext):
            continue
        aad = secret_aad(connection, stored.field)
        try:
            plain = key_ring.decrypt(stored.ciphertext, aad=aad)
        except SettingsError:
            unreadable.append((connection, stored.field))
        else:
            changes.append((connection_id, stored.field, stored.ciphertext, key_ring.encrypt(plain, aad=aad)))
    changed = await store.replace_ciphertexts(changes) if changes else 0
    for account in await store.accounts():
        if not account.factor or key_ring.is_newest(account.factor):
            continue
        aad = factor_aad(account.id)
        try:
            plain = key_ring.decrypt(account.factor, aad=aad)
        except SettingsError:
            unreadable.append((account.email, "second factor"))
        else:
            changed += await store.replace_factor(account.id, account.factor, key_ring.encrypt(plain, aad=aad))
    return Reencrypted(changed=changed, unreadable=unreadable)


def endpoint_id(token: Callable[[int], str] = random_tokens.token_urlsafe) -> str:
    """A new unguessable part of a webhook URL."""
    return token(ENDPOINT_ID_BYTES)


def validate_settings(
    connector: Connector, values: Mapping[str, Any], *, stored_secrets: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, str]]:
    """The plain settings, with defaults filled in, and the secrets, apart.

    `stored_secrets` names secret fields that are set already and may be left out. Raises one `SettingsError` that names
    every problem, and repeats no value: any of them may be a secret, in its own field or in a wrong one.
    """
    schema = connector.connection.settings
    known = schema.get("properties", {})
    secret_fields = connector.secret_fields
    given = connector.with_defaults(values)
    secrets = {name: value for name, value in given.items() if name in secret_fields}
    unknown = [] if _takes_more(schema) else [name for name in given if name not in known]
    problems = [(name, _unknown(name, known)) for name in unknown]
    kept = {name: value for name, value in given.items() if name not in unknown}
    unusable = {
        name: problem
        for name, value in kept.items()
        if (problem := _secret_problem(value) if name in secret_fields else _json_problem(value))
    }
    problems += [(name, f"`{name}` {problem}") for name, problem in unusable.items()]
    optional = {name for name in stored_secrets if name in secret_fields}
    problems += _schema_problems(schema, kept, optional, unusable)
    if problems:
        texts = [secret for secret in secrets.values() if isinstance(secret, str)]
        said = "; ".join(problem for _, problem in problems)
        refused = SettingsError(redact(f"The settings of {connector.key} are not usable: {said}.", texts))
        refused.problems = {name: redact(problem, texts) for name, problem in reversed(problems)}
        raise refused
    plain = {name: _plain(value) for name, value in kept.items() if name not in secret_fields}
    return plain, secrets


def _takes_more(schema: Mapping[str, Any]) -> bool:
    return bool(schema.get("patternProperties")) or schema.get("additionalProperties", False) is not False


def _unknown(name: str, known: Collection[str]) -> str:
    close = near_miss(name, known)
    return f"`{name}` is no setting of it" + (f" ({close})" if close else "")


def _secret_problem(value: object) -> str:
    if not isinstance(value, str):
        return "is a secret and must be text"
    if not value:
        return "is empty"
    if len(value.encode("utf-8", "surrogatepass")) > SECRET_BYTES_MAX:
        return f"is longer than {SECRET_BYTES_MAX // 1024} KiB"
    if value != value.strip():
        return "begins or ends with a space or a line break"
    return _json_problem(value)


def _json_problem(value: object) -> str:
    try:
        _json(value).encode()
    except (TypeError, ValueError, RecursionError):
        return "cannot be written as JSON"
    return ""


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_number)


def _plain(value: object) -> Any:
    """`value` as any store keeps it: settings come from forms, files and exact JSON alike."""
    return json.loads(_json(value))


def _number(value: object) -> object:
    if isinstance(value, Decimal) and value.is_finite():
        return float(value)
    raise TypeError


def _schema_problems(
    schema: Mapping[str, Any], values: Mapping[str, Any], optional: Collection[str], unusable: Collection[str]
) -> list[tuple[str, str]]:
    import jsonschema_rs

    required = [name for name in schema.get("required", ()) if name not in optional]
    try:
        # No value is repeated, and nothing is fetched for a `$ref`.
        validator = jsonschema_rs.validator_for(
            {**schema, "required": required}, mask="the value", validate_formats=True, offline=True
        )
    except (jsonschema_rs.ValidationError, ValueError) as invalid:
        return [("", f"its settings schema is not valid: {str(invalid).splitlines()[0]}")]
    found = []
    usable = {name: None if name in unusable else value for name, value in values.items()}
    for error in validator.iter_errors(usable):
        if error.instance_path and error.instance_path[0] in unusable:
            continue  # its problem is told already
        path = _path(error.instance_path)
        if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Required):
            name = f"{path}.{error.kind.property}" if path else error.kind.property
            found.append((str(error.instance_path[0]) if path else error.kind.property, f"`{name}` is missing"))
        elif path:
            found.append((str(error.instance_path[0]), f"`{path}`: {error.message}"))
        else:
            found.append(("", error.message))
    return found


def _path(parts: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
