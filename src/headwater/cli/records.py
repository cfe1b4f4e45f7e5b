"""`headwater records`: the current records, and one with its whole history and where each version came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from headwater.cli import output
from headwater.cli.main import ListGroup
from headwater.cli.session import Options, confirm, platform_options, with_platform

if TYPE_CHECKING:
    from headwater.app import Platform
    from headwater.record import Record, Version


@click.group(cls=ListGroup)
def records() -> None:
    """List records, or show one with its versions."""


@records.command("list")
@platform_options
@click.option("--connection", help="Connection key.")
@click.option("--type", "type_", help="Canonical type, such as customer.")
@click.option("--search", help="Beginning of a source id.")
@click.option("--deleted/--live", default=None, help="Only deleted ones, or only those that are not.")
@click.option("--limit", type=click.IntRange(1, 1000), default=30, show_default=True)
@click.option("--after", help="Go on after this cursor (printed on stderr where there is more).")
def list_(
    options: Options,
    connection: str | None,
    type_: str | None,
    search: str | None,
    deleted: bool | None,
    limit: int,
    after: str | None,
) -> None:
    """Current records, by connection, type and id."""

    async def act(platform: Platform) -> None:
        from headwater.record import record_cursor

        found = await platform.store.records(
            connection=connection, type=type_, deleted=deleted, search=search, after=after, limit=limit
        )
        if options.json:
            output.print_json(found)
        else:
            output.print_table(
                ("connection", "type", "id", "version", "deleted", "as of", "from"),
                [
                    (one.connection, one.type, one.source_id, one.version, one.deleted, one.current.as_of,
                     came_from(one.current))
                    for one in found
                ],
                empty="No records match.",
            )  # fmt: skip
        if len(found) == limit:
            output.note(f"There may be more: --after '{record_cursor(found[-1])}'")

    with_platform(options, act)


@records.command("show")
@platform_options
@click.argument("connection")
@click.argument("type_", metavar="TYPE")
@click.argument("source_id")
def show(options: Options, connection: str, type_: str, source_id: str) -> None:
    """One record of CONNECTION: its payload, its versions, and where each came from."""

    async def act(platform: Platform) -> None:
        stored = await platform.find_connection(connection)
        record = await platform.store.record(stored.key, type_, source_id)
        if record is None:
            raise await _nothing(platform, stored.key, type_, source_id)
        versions = await platform.store.versions(stored.key, type_, source_id)
        if options.json:
            output.print_json({"record": record, "versions": versions})
        else:
            _print_record(record, versions)

    with_platform(options, act)


async def _nothing(platform: Platform, connection: str, type_: str, source_id: str) -> Exception:
    from headwater.errors import NotFoundError, near_miss

    types = {kind for owner, kind, _ in await platform.store.populations() if owner == connection}
    if type_ not in types:
        hint = near_miss(type_, types) or (f"It has {', '.join(sorted(types))}." if types else "It has none yet.")
        return NotFoundError(f"{connection} has no records of type `{type_}`.", hint=hint)
    return NotFoundError(f"{connection} has no {type_} `{source_id}`.", hint="`headwater records --search` finds ids.")


def came_from(version: Version) -> str:
    """Where a version came from: the run and page, or the delivery, that emitted it."""
    if version.delivery_id is not None:
        return f"{version.origin}, delivery {version.delivery_id}"
    if version.run_id is not None:
        return f"{version.origin}, run {version.run_id} page {version.page}"
    return version.origin


@records.command("forget")
@platform_options
@click.argument("connection")
@click.option("--type", "type_", help="Canonical type, such as customer (default: every type).")
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(options: Options, connection: str, type_: str | None, yes: bool) -> None:
    """Remove the stored records of CONNECTION with all their versions; checkpoints stay."""

    async def act(platform: Platform) -> None:
        from headwater.acts.connections import ForgetRecords

        stored = await platform.find_connection(connection)
        wanted = ForgetRecords(connection=stored.key, type=type_)
        confirm(f"{(await wanted.plan(platform.desk())).sentence} It cannot be undone. Go on?", yes=yes)
        output.note("Forgetting …")
        done = await platform.perform(wanted)
        if options.json:
            output.print_json(done.value)
        else:
            output.say(done.sentence)

    with_platform(options, act)


def _print_record(record: Record, versions: Sequence[Version]) -> None:
    output.print_facts(
        [
            ("record", f"{record.connection} {record.type} {record.source_id}"),
            ("version", f"{record.version}{' (deleted)' if record.deleted else ''}"),
            ("as of", record.current.as_of),
            ("stream", record.current.stream),
        ]
    )
    output.say()
    output.say(msgspec.json.format(bytes(record.current.payload), indent=2).decode())
    output.say()
    output.print_table(
        ("version", "operation", "as of", "observed", "from", "connector", "hash"),
        [
            (
                one.version, f"{one.operation}{', stale' if one.stale else ''}", one.as_of, one.observed_at,
                came_from(one), one.connector_version, one.hash[:12],
            )
            for one in versions
        ],
    )  # fmt: skip
