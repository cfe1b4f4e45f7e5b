"""Quarantined records: ingesting them again after a fix, or giving them up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from headwater import ingest
from headwater.acts.act import INTEGER_MAX, SAMPLE_MAX, Act, Desk, Done, Place, Plan, counted, options, require_expected
from headwater.acts.streams import Id, Name
from headwater.clock import to_micros
from headwater.errors import EmissionError, HeadwaterError, NotFoundError, UsageError, near_miss
from headwater.intention import LIST_LIMIT_MAX
from headwater.project import Project
from headwater.record import Emission, QuarantinedRecord

RECORDS_MAX = 100_000  # of one act
IDS_MAX = 10_000
PAYLOAD_CHARACTERS_MAX = 200_000  # a form is bounded; larger ones come from a file
REASONS_SHOWN = 50


class _QuarantineAct(Act, frozen=True, kw_only=True):
    """An act on quarantined records that wait: those named, or all of a connection or stream."""

    verb: ClassVar[str]
    consequences: ClassVar[Sequence[str]] = ()

    ids: Annotated[tuple[Id, ...], msgspec.Meta(max_length=IDS_MAX)] | None = None
    connection: Name | None = None
    stream: Name | None = None
    expected: Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)] | None = None

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        found = await self.chosen(desk)
        return Plan(
            sentence=f"{counted(len(found), 'quarantined record')} {'is' if len(found) == 1 else 'are'} {self.verb}.",
            consequences=self.consequences,
            count=len(found),
            columns=("id", "connection", "stream", "type", "record", "reason"),
            sample=[
                (one.id, one.connection, one.stream, one.type, one.source_id or "", one.reason)
                for one in found[:SAMPLE_MAX]
            ],
            is_possible=bool(found),
        )

    async def chosen(self, desk: Desk) -> list[QuarantinedRecord]:
        """Those that wait and are meant, newest first; `UsageError` for more than `RECORDS_MAX`."""
        found: list[QuarantinedRecord] = []
        for key in await desk.own_connections(self.connection):
            after: int | None = None
            while batch := await desk.store.quarantined(
                connection=key, stream=self.stream, after=after, limit=LIST_LIMIT_MAX
            ):
                found += batch
                after = batch[-1].id
                if len(found) > RECORDS_MAX:
                    raise UsageError(f"More than {RECORDS_MAX:,} records wait.", hint="Narrow it by stream.")
        if self.ids is None:
            require_expected(self.expected, len(found), "quarantined records")
            return found
        named = set(self.ids)
        chosen = [one for one in found if one.id in named]
        if missing := sorted(named - {one.id for one in chosen}):
            raise NotFoundError(f"No quarantined record {missing[0]} waits.", hint="`headwater quarantine` lists them.")
        return chosen

    def about(self) -> Place:
        """See `Act.about`."""
        return Place(("quarantine",))

    def target(self) -> str:
        """What it is about, for the audit."""
        words = " ".join(word for word in (self.connection, self.stream) if word)
        return f"quarantine of {words}" if words else "quarantine"

    def selection(self) -> list[str]:
        """The words of the command that say which."""
        named = [str(one) for one in self.ids or ()]
        return [*named, *options(all=not named, connection=self.connection, stream=self.stream), "--yes"]


class ReleaseQuarantined(_QuarantineAct, frozen=True, kw_only=True):
    """Ingest quarantined records again, with the types as they are now; what still does not fit stays."""

    name: ClassVar[str] = "quarantine.release"
    title: ClassVar[str] = "Release"
    verb: ClassVar[str] = "ingested again"
    consequences: ClassVar = ("What fits its type by now becomes a record; what still does not, stays here.",)

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        return await _release(desk, await self.chosen(desk), self.target())

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["quarantine", "release", *self.selection()]


class RepairQuarantined(Act, frozen=True, kw_only=True):
    """Ingest a quarantined record with a payload that was put right."""

    name: ClassVar[str] = "quarantine.repair"
    title: ClassVar[str] = "Repair and release"
    inputs: ClassVar = ("payload",)

    record: Id
    payload: Annotated[
        str,
        msgspec.Meta(
            min_length=1, max_length=PAYLOAD_CHARACTERS_MAX, title="Payload", description="JSON that fits the type.",
            extra_json_schema={"format": "json"},
        ),
    ]  # fmt: skip

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        (found,) = await self._proved(desk)
        return Plan(sentence=f"{found.type} {found.source_id or found.idempotency_key} is ingested with this payload.")

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        return await _release(desk, await self._proved(desk), f"quarantined record {self.record}", self.payload)

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["quarantine", "release", str(self.record), *options(payload="repaired.json", yes=True)]

    def about(self) -> Place:
        """See `Act.about`."""
        return Place(("quarantine", self.record))

    async def _proved(self, desk: Desk) -> list[QuarantinedRecord]:
        """The record; raises what is wrong with the payload."""
        (found,) = await ReleaseQuarantined(ids=(self.record,)).chosen(desk)
        _emission(desk.project((await desk.connection(found.connection)).connector), found, self.payload)
        return [found]


class DropQuarantined(_QuarantineAct, frozen=True, kw_only=True):
    """Give quarantined records up; they stay readable."""

    name: ClassVar[str] = "quarantine.drop"
    title: ClassVar[str] = "Give up"
    verb: ClassVar[str] = "given up"
    consequences: ClassVar = ("They stay readable among the dropped, and are never ingested.",)
    is_grave: ClassVar[bool] = True

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        dropped = await desk.store.drop_quarantined([one.id for one in await self.chosen(desk)])
        return Done(
            sentence=f"{counted(dropped, 'record')} given up.",
            value={"dropped": dropped, "ids": self.ids},
            target=self.target(),
            place=self.about(),
        )

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["quarantine", "drop", *self.selection()]


async def _release(desk: Desk, found: Sequence[QuarantinedRecord], target: str, repaired: str | None = None) -> Done:
    by_connection: dict[str, list[QuarantinedRecord]] = defaultdict(list)
    for one in found:
        by_connection[one.connection].append(one)
    released, failures = 0, {}
    for key, records in by_connection.items():
        project = desk.project((await desk.connection(key)).connector)
        releases = []
        for one in records:
            try:
                releases.append((one.id, _emission(project, one, repaired)))
            except HeadwaterError as error:
                failures[one.id] = str(error)
        if releases:
            await desk.store.release_quarantined(releases, at=desk.clock.now(), connector_version=project.version)
            released += len(releases)
    stays = f" {counted(len(failures), 'record')} still {'does' if len(failures) == 1 else 'do'} not fit."
    return Done(
        sentence=f"{counted(released, 'record')} released." + (stays if failures else ""),
        value={"released": released, "failed": {str(one): why for one, why in list(failures.items())[:IDS_MAX]}},
        target=target,
        columns=("id", "why it stays"),
        rows=list(failures.items())[:REASONS_SHOWN],
        place=None if failures else Place(("quarantine",)),
        ok=not failures,
    )


def _emission(project: Project, one: QuarantinedRecord, repaired: str | None) -> Emission:
    kind = project.types.get(one.type)
    if kind is None:
        raise EmissionError(f"There is no canonical type `{one.type}`.", hint=near_miss(one.type, project.types))
    return ingest.prepare(
        kind,
        (one.payload if repaired is None else repaired).encode(),
        connector_key=project.connector.key,
        stream=one.stream,
        idempotency_key=one.idempotency_key,
        source_id=one.source_id,
        as_of=to_micros(one.as_of),
    )
