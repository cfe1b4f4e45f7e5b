"""`headwater quarantine`: records that did not fit their type, and ingesting them after a fix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from headwater.cli import output
from headwater.cli.main import PARTIAL, ListGroup
from headwater.cli.session import Options, confirm, platform_options, with_platform

if TYPE_CHECKING:
    from headwater.acts.act import Act
    from headwater.app import Platform

STATES = ("waiting", "released", "dropped")


@click.group(cls=ListGroup)
def quarantine() -> None:
    """List, release or drop quarantined records."""


@quarantine.command("list")
@platform_options
@click.option("--connection", help="Connection key.")
@click.option("--stream", help="Stream key.")
@click.option("--state", type=click.Choice([*STATES, "all"]), default="waiting", show_default=True)
@click.option("--limit", type=click.IntRange(1, 1000), default=30, show_default=True)
@click.option("--after", type=int, help="Go on after this id (smaller ones).")
def list_(
    options: Options, connection: str | None, stream: str | None, state: str, limit: int, after: int | None
) -> None:
    """Quarantined records with their reasons, newest first."""

    async def act(platform: Platform) -> None:
        found = await platform.store.quarantined(
            connection=connection, stream=stream, state=None if state == "all" else state, after=after, limit=limit
        )
        if options.json:
            output.print_json(found)
            return
        output.print_table(
            ("id", "connection", "stream", "type", "record", "when", "reason"),
            [
                (one.id, one.connection, one.stream, one.type, one.source_id, one.created_at, one.reason)
                for one in found
            ],
            empty="Nothing is quarantined.",
        )

    with_platform(options, act)


@quarantine.command("release")
@platform_options
@click.argument("ids", type=int, nargs=-1)
@click.option("--all", "every", is_flag=True, help="All that wait (of --connection, --stream).")
@click.option("--connection", help="Connection key.")
@click.option("--stream", help="Stream key.")
@click.option("--payload", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Repaired JSON of one.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def release(
    options: Options,
    ids: tuple[int, ...],
    every: bool,
    connection: str | None,
    stream: str | None,
    payload: Path | None,
    yes: bool,
) -> int:
    """Ingest quarantined records again, with the types as they are now. What still does not fit stays.

    Exit code 4 when some were released and some were not.
    """
    if bool(ids) == every:
        raise click.UsageError("Name records, or say --all.")
    if payload and len(ids) != 1:
        raise click.UsageError("--payload repairs one record: name it.")

    repaired = payload.read_text(encoding="utf-8") if payload else None

    async def act(platform: Platform) -> int:
        from headwater.acts.quarantine import ReleaseQuarantined, RepairQuarantined

        wanted: Act = ReleaseQuarantined(ids=ids or None, connection=connection, stream=stream)
        if repaired is not None:
            wanted = RepairQuarantined(record=ids[0], payload=repaired)
        elif not ids:
            count = (await wanted.plan(platform.desk())).count
            confirm(f"{count} quarantined records will be ingested. Go on?", yes=yes or not count)
        done = await platform.perform(wanted)
        if options.json:
            output.print_json(done.value)
        else:
            output.say(done.sentence)
        for one, reason in done.value["failed"].items():
            output.note(f"{one}: {reason}")
        return 0 if done.ok else PARTIAL if done.value["released"] else 1

    return with_platform(options, act, projects=True)


@quarantine.command("drop")
@platform_options
@click.argument("ids", type=int, nargs=-1)
@click.option("--all", "every", is_flag=True, help="All that wait (of --connection, --stream).")
@click.option("--connection", help="Connection key.")
@click.option("--stream", help="Stream key.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(
    options: Options, ids: tuple[int, ...], every: bool, connection: str | None, stream: str | None, yes: bool
) -> None:
    """Give these records up; they stay readable with --state dropped."""
    if bool(ids) == every:
        raise click.UsageError("Name records, or say --all.")

    async def act(platform: Platform) -> None:
        from headwater.acts.quarantine import DropQuarantined

        wanted = DropQuarantined(ids=ids or None, connection=connection, stream=stream)
        confirm(f"Give up {(await wanted.plan(platform.desk())).count} quarantined records?", yes=yes)
        done = await platform.perform(wanted)
        if options.json:
            output.print_json({"dropped": done.value["dropped"]})
        else:
            output.say(done.sentence)

    with_platform(options, act)
