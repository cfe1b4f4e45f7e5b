"""`headwater quarantine`: records that did not fit their type, and ingesting them after a fix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headwater.cli import output
from headwater.cli.main import PARTIAL, ListGroup
from headwater.cli.session import Options, confirm, platform_options, with_platform

if TYPE_CHECKING:
    from headwater.app import Platform
    from headwater.project import Project
    from headwater.record import Emission, QuarantinedRecord

STATES = ("waiting", "released", "dropped")
SELECT_LIMIT = 1000


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

    repaired = payload.read_bytes() if payload else None

    async def act(platform: Platform) -> int:
        found = await _selected(platform, ids, connection, stream)
        confirm(f"{len(found)} quarantined records will be ingested. Go on?", yes=yes or not found or bool(ids))
        released, failures = await _release(platform, found, repaired)
        if options.json:
            output.print_json({"released": released, "failed": failures})
        else:
            output.say(f"{released} released.")
        for one, reason in failures.items():
            output.note(f"{one}: {reason}")
        return 0 if not failures else PARTIAL if released else 1

    return with_platform(options, act, projects=True)


@quarantine.command("drop")
@platform_options
@click.argument("ids", type=int, nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(options: Options, ids: tuple[int, ...], yes: bool) -> None:
    """Give these records up; they stay readable with --state dropped."""

    async def act(platform: Platform) -> None:
        confirm(f"Give up {len(ids)} quarantined records?", yes=yes)
        dropped = await platform.store.drop_quarantined(ids)
        await platform.audit("quarantine.drop", ",".join(map(str, ids)), {"dropped": dropped})
        if options.json:
            output.print_json({"dropped": dropped})
        else:
            output.say(f"{dropped} dropped.")

    with_platform(options, act)


async def _selected(
    platform: Platform, ids: Sequence[int], connection: str | None, stream: str | None
) -> list[QuarantinedRecord]:
    from headwater.errors import NotFoundError

    found: list[QuarantinedRecord] = []
    after: int | None = None
    while batch := await platform.store.quarantined(
        connection=connection, stream=stream, after=after, limit=SELECT_LIMIT
    ):
        found += batch
        after = batch[-1].id
    if not ids:
        return found
    chosen = [one for one in found if one.id in ids]
    if missing := sorted(set(ids) - {one.id for one in chosen}):
        raise NotFoundError(f"No quarantined record {missing[0]} waits.", hint="`headwater quarantine` lists them.")
    return chosen


async def _release(
    platform: Platform, found: Sequence[QuarantinedRecord], repaired: bytes | None
) -> tuple[int, dict[int, str]]:
    from headwater.errors import HeadwaterError

    by_connection: dict[str, list[QuarantinedRecord]] = defaultdict(list)
    for one in found:
        by_connection[one.connection].append(one)
    released, failures = 0, {}
    for key, records in by_connection.items():
        project = await platform.project_of(key)
        releases = []
        for one in records:
            try:
                releases.append((one.id, _emission(project, one, repaired)))
            except HeadwaterError as error:
                failures[one.id] = str(error)
        if releases:
            await platform.store.release_quarantined(
                releases, at=platform.clock.now(), connector_version=project.version
            )
            await platform.audit("quarantine.release", key, {"released": len(releases)})
            released += len(releases)
    return released, failures


def _emission(project: Project, one: QuarantinedRecord, repaired: bytes | None) -> Emission:
    from headwater import ingest
    from headwater.clock import to_micros
    from headwater.errors import EmissionError, near_miss

    kind = project.types.get(one.type)
    if kind is None:
        raise EmissionError(f"There is no canonical type `{one.type}`.", hint=near_miss(one.type, project.types))
    return ingest.prepare(
        kind,
        one.payload.encode() if repaired is None else repaired,
        connector_key=project.connector.key,
        stream=one.stream,
        idempotency_key=one.idempotency_key,
        source_id=one.source_id,
        as_of=to_micros(one.as_of),
    )
