"""`headwater connections`: the accounts that connectors are authorised for.

A secret is never an argument: it would stay in the shell's history and be seen in the process list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headwater.cli import output
from headwater.cli.main import ListGroup
from headwater.cli.secret import fields_of, read_secret, secrets_for
from headwater.cli.session import Options, confirm, platform_options, with_platform

if TYPE_CHECKING:
    from headwater.app import Platform
    from headwater.intention import StoredConnection

OVERLAP_HOURS = 24


@click.group(cls=ListGroup)
def connections() -> None:
    """Add and look after connections and their secrets."""


@connections.command("list")
@platform_options
def list_(options: Options) -> None:
    """All connections."""

    async def act(platform: Platform) -> None:
        found = await platform.store.connections()
        if options.json:
            output.print_json(found)
            return
        output.print_table(
            ("connection", "connector", "tenant", "state", "since", "reason"),
            [(one.key, one.connector, one.tenant, _state(one), one.created_at, one.paused_reason) for one in found],
            empty="No connections yet. `headwater connections add CONNECTOR` makes one.",
        )

    with_platform(options, act)


@connections.command("add")
@platform_options
@click.argument("connector")
@click.option("--key", help="Your name for it (default: the connector's key).")
@click.option("--tenant", help="Whose connection it is, for products that hold connections for their customers.")
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="A plain setting; repeat for more.")
@click.option("--secret-file", "secret_files", multiple=True, metavar="FIELD=PATH", help="A secret, from a file.")
@click.option("--secrets-stdin", is_flag=True, help="Read the secrets from stdin, as one JSON object.")
@click.option("--paused", is_flag=True, help="Begin paused: nothing runs until it is resumed.")
def add(
    options: Options,
    connector: str,
    key: str | None,
    tenant: str | None,
    settings: tuple[str, ...],
    secret_files: tuple[str, ...],
    secrets_stdin: bool,
    paused: bool,
) -> None:
    """Connect an account of CONNECTOR. Required secrets that were not given are asked for."""

    async def act(platform: Platform) -> None:
        declared = platform.project(connector).connector
        values = fields_of(declared, settings)
        values |= secrets_for(declared, secret_files, from_stdin=secrets_stdin, given=values)
        stored = await platform.add_connection(connector, values, key=key or connector, tenant=tenant, paused=paused)
        _tell(platform, options, stored)
        if not options.json and declared.connection.instructions:
            output.say(f"\n{declared.connection.instructions}")

    with_platform(options, act, projects=True)


@connections.command("show")
@platform_options
@click.argument("connection")
def show(options: Options, connection: str) -> None:
    """One connection: its settings, which secrets are set, its webhook URL."""

    async def act(platform: Platform) -> None:
        stored = await platform.find_connection(connection)
        names = [one.field for one in await platform.store.secrets(stored.id, at=platform.clock.now())]
        _tell(platform, options, stored, names)

    with_platform(options, act, projects=True)


@connections.command("set")
@platform_options
@click.argument("connection")
@click.argument("settings", nargs=-1, required=True, metavar="FIELD=VALUE…")
def set_(options: Options, connection: str, settings: tuple[str, ...]) -> None:
    """Change plain settings of CONNECTION; the others stay."""

    async def act(platform: Platform) -> None:
        from headwater.acts.setup import ChangeSettings

        stored = await platform.find_connection(connection)
        values = fields_of(platform.project(stored.connector).connector, settings)
        await platform.perform(ChangeSettings(connection=stored.key, settings=values))
        names = {one.field for one in await platform.store.secrets(stored.id, at=platform.clock.now())}
        changed = await platform.find_connection(stored.key)
        _tell(platform, options, changed, sorted(names))

    with_platform(options, act, projects=True)


@connections.command("set-secret")
@platform_options
@click.argument("connection")
@click.argument("field")
@click.option("--file", "path", type=click.Path(), help="Read it from a file; else from a prompt, or from stdin.")
def set_secret(options: Options, connection: str, field: str, path: str | None) -> None:
    """Set a secret FIELD of CONNECTION; the one before is forgotten at once."""
    _put_secret(options, connection, field, path, overlap_hours=None)


@connections.command("rotate-secret")
@platform_options
@click.argument("connection")
@click.argument("field")
@click.option("--file", "path", type=click.Path(), help="Read it from a file; else from a prompt, or from stdin.")
@click.option("--overlap", type=click.FloatRange(0), default=OVERLAP_HOURS, show_default=True, help="Hours.")
def rotate_secret(options: Options, connection: str, field: str, path: str | None, overlap: float) -> None:
    """Set a secret FIELD of CONNECTION; for deliveries, the one before stays valid for the overlap."""
    _put_secret(options, connection, field, path, overlap_hours=overlap)


@connections.command("test")
@platform_options
@click.argument("connection")
def test(options: Options, connection: str) -> int:
    """Try the credentials of CONNECTION with its connector's own test."""

    async def act(platform: Platform) -> int:
        from headwater.acts.connections import TestConnection

        stored = await platform.find_connection(connection)
        done = await platform.perform(TestConnection(connection=stored.key))
        if options.json:
            output.print_json({"connection": stored.key, **done.value})
        else:
            output.say(done.sentence)
        return 0 if done.ok else 1

    output.note("Asking the provider …")
    return with_platform(options, act, projects=True)


@connections.command("pause")
@platform_options
@click.argument("connection")
@click.option("--reason", default="paused by an operator", show_default=True)
def pause(options: Options, connection: str, reason: str) -> None:
    """Run nothing of CONNECTION until it is resumed; deliveries are still stored."""

    async def act(platform: Platform) -> None:
        from headwater.acts.connections import PauseConnection

        stored = await platform.find_connection(connection)
        await platform.perform(PauseConnection(connection=stored.key, reason=reason))
        _tell(platform, options, await platform.find_connection(stored.key))

    with_platform(options, act)


@connections.command("resume")
@platform_options
@click.argument("connection")
def resume(options: Options, connection: str) -> None:
    """Undo a pause, or say that what needed attention is mended."""

    async def act(platform: Platform) -> None:
        from headwater.acts.connections import ResumeConnection

        stored = await platform.find_connection(connection)
        await platform.perform(ResumeConnection(connection=stored.key))
        _tell(platform, options, await platform.find_connection(stored.key))

    with_platform(options, act)


@connections.command("authorize")
@platform_options
@click.argument("connection")
def authorize(options: Options, connection: str) -> None:
    """Tell where the account of CONNECTION authorises us by OAuth: in a browser, on the server's pages."""

    async def act(platform: Platform) -> None:
        from headwater.errors import UsageError

        stored = await platform.find_connection(connection)
        if platform.project(stored.connector).connector.connection.oauth is None:
            raise UsageError(f"{stored.key} is not authorised by OAuth.")
        url = f"{platform.config.base_url}/connections/{stored.key}/settings"
        if options.json:
            output.print_json({"url": url})
        else:
            output.say(f"Open {url} and press Connect.")

    with_platform(options, act, projects=True)


@connections.command("disconnect")
@platform_options
@click.argument("connection")
@click.option("--yes", is_flag=True, help="Do not ask.")
def disconnect(options: Options, connection: str, yes: bool) -> int:
    """Forget the OAuth authorisation of CONNECTION; nothing of it runs until it is authorised again.

    The provider is asked to withdraw it where the connector tells its URL; exit code 1 when it did not.
    """

    async def act(platform: Platform) -> int:
        from headwater.acts.setup import Disconnect

        stored = await platform.find_connection(connection)
        confirm(f"Forget the authorisation of {stored.key}?", yes=yes)
        done = await platform.perform(Disconnect(connection=stored.key))
        if options.json:
            output.print_json({"connection": stored.key, **done.value})
        else:
            output.say(done.sentence)
        return 0 if done.ok else 1

    return with_platform(options, act, projects=True)


@connections.command("remove")
@platform_options
@click.argument("connection")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(options: Options, connection: str, yes: bool) -> int:
    """Remove CONNECTION with everything that was ingested through it.

    The provider is asked to withdraw an OAuth authorisation where the connector tells its URL; exit code 1 when it did
    not.
    """

    async def act(platform: Platform) -> int:
        from headwater.acts.setup import RemoveConnection

        stored = await platform.find_connection(connection)
        counts = [count for key, _, count in await platform.store.populations() if key == stored.key]
        confirm(f"Remove {stored.key} with its {sum(counts)} records, its runs and its deliveries?", yes=yes)
        done = await platform.perform(RemoveConnection(connection=stored.key))
        if options.json:
            output.print_json(done.value)
        else:
            output.say(done.sentence)
        return 0 if done.ok else 1

    return with_platform(options, act, projects=True, warn=False)


def _put_secret(
    options: Options, connection: str, field: str, path: str | None, *, overlap_hours: float | None
) -> None:
    async def act(platform: Platform) -> None:
        from headwater.acts.setup import SetSecret, require_secret

        stored = await platform.find_connection(connection)
        require_secret(platform.project(stored.connector).connector, field)
        secret = read_secret(field, path)
        done = await platform.perform(
            SetSecret(connection=stored.key, field=field, value=secret, overlap_hours=overlap_hours or 0.0)
        )
        if options.json:
            until = done.value["previous_until"]
            output.print_json({"connection": stored.key, "field": field, "previous_until": until})
        else:
            output.say(done.sentence)

    with_platform(options, act, projects=True)


def _state(one: StoredConnection) -> str:
    if one.needs_attention:
        return "needs attention"
    return "paused" if one.paused_at else "active"


def _tell(
    platform: Platform, options: Options, stored: StoredConnection, secret_names: list[str] | None = None
) -> None:
    url = platform.webhook_url(stored)
    if options.json:
        more = {} if secret_names is None else {"secrets": sorted(set(secret_names))}
        output.print_json({"connection": stored, "webhook_url": url, **more})
        return
    output.print_facts(
        [
            ("connection", stored.key),
            ("connector", stored.connector),
            ("tenant", stored.tenant),
            ("state", _state(stored)),
            ("reason", stored.paused_reason),
            *((name, value) for name, value in stored.settings.items()),
            ("secrets", ", ".join(sorted(set(secret_names))) if secret_names else None),
            ("webhook URL", url),
        ]
    )
