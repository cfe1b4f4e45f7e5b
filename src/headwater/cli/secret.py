"""Settings and secrets on their way in: plain ones as words, secret ones by prompt, stdin or file."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from headwater.catalog import Connector
from headwater.errors import InvalidPayloadError, UsageError, near_miss

STDIN_BYTES_MAX = 256 * 1024


def fields_of(connector: Connector, words: Sequence[str]) -> dict[str, Any]:
    """The plain settings in `field=value` words, each read as its schema's type."""
    properties = connector.connection.settings.get("properties", {})
    values: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise UsageError(f"`{name}` has no value.", hint="Write FIELD=VALUE.")
        if name in connector.secret_fields:
            # The text is not repeated: it is a secret, even though it was shown to the shell already.
            raise UsageError(
                f"`{name}` is a secret, and arguments are seen by others.",
                hint=f"Give it by --secret-file {name}=PATH, by --secrets-stdin or when asked; and change this one.",
            )
        if name not in properties:
            raise UsageError(f"{connector.key} has no setting `{name}`.", hint=near_miss(name, properties))
        values[name] = _typed(name, text, properties[name])
    return values


def secrets_for(
    connector: Connector, files: Sequence[str], *, from_stdin: bool, given: Mapping[str, Any]
) -> dict[str, str]:
    """The secrets from files and stdin; on a terminal, required ones that are missing are asked for."""
    from headwater.config import secret_file

    secrets: dict[str, str] = _from_stdin() if from_stdin else {}
    for word in files:
        name, _, path = word.partition("=")
        secrets[name] = secret_file(Path(path))
    for name in secrets:
        if name not in connector.secret_fields:
            raise UsageError(f"{connector.key} has no secret `{name}`.", hint=near_miss(name, connector.secret_fields))
    required = set(connector.connection.settings.get("required", ())) & connector.secret_fields
    for name in sorted(required - secrets.keys() - given.keys()):
        if sys.stdin.isatty():
            secrets[name] = click.prompt(name, hide_input=True, err=True)
    return secrets


def read_secret(name: str, path: str | None) -> str:
    """One secret: from a file, from a prompt on a terminal, else from stdin."""
    from headwater.config import secret_file

    if path is not None and path != "-":
        return secret_file(Path(path))
    if path is None and sys.stdin.isatty():
        return str(click.prompt(name, hide_input=True, err=True))
    return _stdin().rstrip("\r\n")


def _stdin() -> str:
    text = sys.stdin.read(STDIN_BYTES_MAX + 1)
    if len(text) > STDIN_BYTES_MAX:
        raise UsageError(f"Stdin holds more than {STDIN_BYTES_MAX} characters: that is no secret.")
    return text


def _from_stdin() -> dict[str, str]:
    from headwater import jsonvalue

    try:
        found = jsonvalue.decode(_stdin())
    except InvalidPayloadError:
        # Its words may repeat what it could not read.
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise UsageError("Stdin holds no JSON object of texts.", hint='Such as {"api_key": "…"}.')
    return {name: str(value) for name, value in found.items()}


def _typed(name: str, text: str, schema: Any) -> Any:
    import msgspec

    kind = schema.get("type") if isinstance(schema, Mapping) else None
    if kind == "string" or kind is None:
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise UsageError(f"`{name}` is not written as JSON of its type {kind}.", hint=f"{error}.") from error
