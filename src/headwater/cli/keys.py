"""`headwater keys`: keys of the HTTP API, and the master key that encrypts stored secrets."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from headwater.cli import output
from headwater.cli.main import PARTIAL, ListGroup
from headwater.cli.session import Options, confirm, platform_options, with_platform

if TYPE_CHECKING:
    from headwater.app import Platform

SCOPES = ("read", "payloads", "operate", "deploy", "admin")
SCOPES_UNASKED = ("read", "payloads", "operate")  # to deploy is to run code on the server: that is asked for by name


@click.group(cls=ListGroup)
def keys() -> None:
    """Create, list and revoke keys of the HTTP API."""


@keys.command("list")
@platform_options
def list_(options: Options) -> None:
    """Keys of the HTTP API, newest first; the keys themselves are not stored."""

    async def act(platform: Platform) -> None:
        found, now = await platform.store.api_keys(), platform.clock.now()
        if options.json:
            output.print_json(found)
            return
        output.print_table(
            ("key", "name", "scopes", "tenant", "made", "last used", "expires"),
            [
                (
                    one.id, one.name, " ".join(one.scopes), one.tenant, output.ago(one.created_at, now),
                    output.ago(one.last_used_at, now), one.expires_at or "never",
                )
                for one in found
            ],
            empty="No key was made yet.",
        )  # fmt: skip

    with_platform(options, act)


@keys.command("revoke")
@platform_options
@click.argument("key", type=int)
def revoke(options: Options, key: int) -> None:
    """Let the key of that number open nothing any more."""

    async def act(platform: Platform) -> None:
        from headwater.app import person
        from headwater.errors import NotFoundError
        from headwater.intention import AuditNote

        found = next((one for one in await platform.store.api_keys() if one.id == key), None)
        note = AuditNote(
            at=platform.clock.now(),
            actor=person(),
            act="keys.revoke",
            target=found.name if found else "",
            detail={"key": key},
        )
        if found is None or not await platform.store.revoke_api_key(key, note=note):
            raise NotFoundError(f"There is no key {key}.", hint="`headwater keys` lists them.")
        if options.json:
            output.print_json({"revoked": found})
        else:
            output.say(f"{found.name} opens nothing any more.")

    with_platform(options, act)


@keys.command("create")
@platform_options
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), default=SCOPES_UNASKED, show_default=True)
@click.option("--tenant", help="Limit it to the connections of one tenant.")
@click.option("--days", type=click.IntRange(1), help="It expires after so many days.")
def create(options: Options, name: str, scopes: tuple[str, ...], tenant: str | None, days: int | None) -> None:
    """Make a key of the HTTP API. It is shown once, now, and stored as its hash alone."""

    async def act(platform: Platform) -> None:
        from headwater.api.access import api_key_hash, new_api_key

        key, at = new_api_key(), platform.clock.now()
        made = await platform.store.add_api_key(
            name=name,
            hash=api_key_hash(key),
            scopes=scopes,
            tenant=tenant,
            at=at,
            expires_at=at + timedelta(days=days) if days else None,
        )
        await platform.audit("keys.create", name, {"scopes": list(scopes), "tenant": tenant})
        if options.json:
            output.print_json({"key": key, "api_key": made})
        else:
            output.say(key)
            output.note("This key is shown once. Send it as `Authorization: Bearer …`.")

    with_platform(options, act)


@keys.command("rotate")
@platform_options
@click.option("--yes", is_flag=True, help="Do not ask.")
def rotate(options: Options, yes: bool) -> int:
    """Put a new master key before the others in the key file, and encrypt every stored secret under it.

    Restart a running server afterwards. Exit code 4 when a secret could not be read with any of the keys.
    """

    async def act(platform: Platform) -> int:
        from headwater.connection import reencrypt
        from headwater.errors import UsageError
        from headwater.key_ring import add_key

        if platform.config.key is not None:
            raise UsageError("The key ring comes from HEADWATER_KEY: put the new key before the others there.")
        confirm(f"Add a new master key to {platform.config.key_file}?", yes=yes)
        result = await reencrypt(platform.store, add_key(platform.config.key_file))
        await platform.audit("keys.rotate", str(platform.config.key_file), {"changed": result.changed})
        if options.json:
            output.print_json(result)
        else:
            output.say(f"{result.changed} secrets are encrypted under the new key.")
            for connection, field in result.unreadable:
                output.note(f"{connection} {field} is not readable with any key; set it anew.")
        return PARTIAL if result.unreadable else 0

    return with_platform(options, act, projects=True)
