"""The hot path: what a batch of parcels has to know in one round trip, what it comes to in another few.

    hold the connections ── look up ── decide (`stores/plan.py`) ── take sequences ── COPY versions ── merge the rest

Everything here is within the caller's transaction, which holds the connections: nobody else changes their records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headwater.stores.outcome import Content, Known
from headwater.stores.plan import Found, Parcel, Plan, StreamKey, Wanted, wanted
from headwater.stores.postgres.database import Connection, Row, begin, escaped, execute, json_text, queries, value
from headwater.stores.postgres.numbers import Numbers

PROVISIONAL = 1 << 60  # beyond any sequence that was ever given out: until the batch has taken real ones

_sql = queries("ingest.sql")
_VERSION_TYPES = (
    "int8", "int8", "int8", "int4", "int8", "text", "int4", "bool", "bool", "int8", "int8", "bytea", "bytea",
)  # fmt: skip
_FIGURES = (
    "created", "updated", "unchanged", "duplicate", "stale", "deleted", "quarantined", "poll_changes",
    "webhook_changes",
)  # fmt: skip


class Batch:
    """The reads and writes of a batch of parcels; `plan` decides in between."""

    def __init__(self, parcels: Sequence[Parcel], numbers: Numbers) -> None:
        self.parcels = parcels
        self.wanted: Wanted = wanted(parcels)
        self.plan = Plan(Found(), first_sequence=PROVISIONAL)
        self._numbers = numbers
        self._streams: dict[StreamKey, int] = {}
        self._sequences: list[int] = []

    async def look_up(self, db: Connection) -> None:
        """Ask for everything that the plan has to know, at once."""
        records, keys, streams = self.wanted.records, self.wanted.keys, self.wanted.streams
        homes = sorted({parcel.connection_id for parcel in self.parcels})
        type_ids = [self._numbers.types[name] for name in self.wanted.types]
        async with db.pipeline():
            known = await begin(
                db,
                _sql["known_records"],
                connection_ids=[home for home, _, _ in records],
                type_ids=[self._numbers.types[name] for _, name, _ in records],
                source_ids=[source_id for _, _, source_id in records],
            )
            seen = await begin(
                db,
                _sql["known_keys"],
                connection_ids=[home for home, _ in keys],
                keys=[key for _, key in keys],
            )
            rows_of_streams = await begin(
                db,
                _sql["stream_ids"],
                connection_ids=[home for home, _, _ in streams],
                keys=[key for _, key, _ in streams],
                partitions=[partition for _, _, partition in streams],
            )
            live = await begin(db, _sql["live_records"], connection_ids=homes, type_ids=type_ids)
        self._streams = {streams[found["place"] - 1]: found["id"] for found in await rows_of_streams.fetchall()}
        found = self._found(await known.fetchall(), await seen.fetchall(), await live.fetchall())
        self.plan = Plan(found, first_sequence=PROVISIONAL)

    async def write(self, db: Connection) -> None:
        """Write all merged parcels: versions, records, keys, origins, populations, figures, quarantine."""
        await self._add_streams(db)
        if versions := self.plan.size:
            self._sequences = await value(db, _sql["take_sequences"], wanted=versions)
            await self._copy(db)
        async with db.pipeline():
            if versions:
                await execute(db, _sql["insert_origins"], rows=json_text(self._origins()))
            await self._move_populations(db)
            await self._upsert_records(db)
            await self._upsert_keys(db)
            await self._count(db)
            for effects in self.plan.merged:
                await self._set_aside(db, effects.parcel)

    def _found(self, known: Sequence[Row], seen: Sequence[Row], live: Sequence[Row]) -> Found:
        records, keys = self.wanted.records, self.wanted.keys
        names = {self._numbers.types[name]: name for name in self.wanted.types}
        absent: dict[tuple[int, str], set[str]] = {}
        for home, name, source_id in records:
            absent.setdefault((home, name), set()).add(source_id)
        standing: dict[tuple[int, str], dict[str, Known]] = {}
        for one in known:
            home, name, source_id = records[one["place"] - 1]
            absent[home, name].remove(source_id)
            standing.setdefault((home, name), {})[source_id] = Known(
                source_id, one["sequence"], one["latest"], one["version"], one["hash"].hex(), one["as_of"],
                one["deleted"], one["by_object"],
            )  # fmt: skip
        return Found(
            records=standing,
            absent=absent,
            keys={keys[one["place"] - 1]: Content(one["hash"], one["deleted"]) for one in seen},
            stale_contents={
                one["latest"]: (Content(one["latest_hash"], one["latest_deleted"]), one["latest_as_of"])
                for one in known
                if one["latest_hash"] is not None
            },
            live={(one["connection_id"], names[one["type_id"]]): one["live"] for one in live},
        )

    async def _add_streams(self, db: Connection) -> None:
        for effects in self.plan.merged:
            parcel = effects.parcel
            named = {emission.stream for emission in parcel.emissions} | {one.stream for one in parcel.quarantined}
            for key in sorted(named):
                place = parcel.stream(key)
                if place not in self._streams:
                    asked: dict[str, Any] = {"connection_id": parcel.connection_id, "key": key, "at": parcel.at}
                    added: int = await value(db, _sql["insert_undeclared_stream"], **asked)
                    # The new row has no partition: it is the one of every partition that is asked for.
                    for other in self.wanted.streams:
                        if other[:2] == place[:2]:
                            self._streams[other] = added

    def _final(self, sequence: int) -> int:
        return sequence if sequence < PROVISIONAL else self._sequences[sequence - PROVISIONAL]

    async def _copy(self, db: Connection) -> None:
        types, final = self._numbers.types, self._final
        async with db.cursor() as cursor, cursor.copy(_sql["copy_versions"].encode()) as copy:
            copy.set_types(_VERSION_TYPES)
            for effects in self.plan.merged:
                parcel = effects.parcel
                for one in effects.each_version():
                    emission = one.emission
                    stream_id = self._streams[parcel.stream(emission.stream)]
                    previous = None if one.previous is None else final(one.previous)
                    await copy.write_row((
                        final(one.sequence), final(effects.first_sequence), parcel.connection_id, types[emission.type],
                        stream_id, escaped(emission.source_id), one.number, emission.deleted, one.stale, previous,
                        emission.as_of, emission.hash, emission.payload,
                    ))  # fmt: skip

    def _origins(self) -> list[dict[str, Any]]:
        return [
            {
                "id": self._final(effects.first_sequence),
                "last_sequence": self._final(effects.first_sequence + effects.size - 1),
                "connection_id": effects.parcel.connection_id,
                "origin": effects.parcel.origin,
                "run_id": effects.parcel.run_id,
                "page": effects.parcel.page,
                "delivery_id": effects.parcel.delivery_id,
                "connector_version_id": self._numbers.connector_versions[effects.parcel.connector_version],
                "observed_at": effects.parcel.at,
            }
            for effects in self.plan.merged
            if effects.size
        ]

    async def _move_populations(self, db: Connection) -> None:
        if moved := sorted(self.plan.births().items()):
            await execute(
                db,
                _sql["move_populations"],
                connection_ids=[home for (home, _), _ in moved],
                type_ids=[self._numbers.types[name] for (_, name), _ in moved],
                births=[born for _, born in moved],
            )

    async def _upsert_records(self, db: Connection) -> None:
        changed = sorted(self.plan.records().items())
        if not changed:
            return
        known = [one for _, one in changed]
        await execute(
            db,
            _sql["upsert_records"],
            connection_ids=[home for (home, _, _), _ in changed],
            type_ids=[self._numbers.types[name] for (_, name, _), _ in changed],
            source_ids=[source_id for (_, _, source_id), _ in changed],
            sequences=[self._final(one.sequence) for one in known],
            latests=[self._final(one.latest) for one in known],
            versions=[one.version for one in known],
            hashes=[bytes.fromhex(one.hash) for one in known],
            as_ofs=[one.as_of for one in known],
            deleted=[bool(one.deleted) for one in known],
            by_object=[bool(one.by_object) for one in known],
        )

    async def _upsert_keys(self, db: Connection) -> None:
        # Of a key that came twice in the batch, the later word stands.
        keys = {
            key: (content, effects.parcel.delivery_id)
            for effects in self.plan.merged
            for key, content in effects.keys.items()
        }
        if keys:
            given = sorted(keys.items(), key=lambda item: item[0])
            await execute(
                db,
                _sql["upsert_keys"],
                connection_ids=[home for (home, _), _ in given],
                keys=[key for (_, key), _ in given],
                hashes=[content.hash for _, (content, _) in given],
                deleted=[content.deleted for _, (content, _) in given],
                delivery_ids=[delivery_id for _, (_, delivery_id) in given],
            )

    async def _count(self, db: Connection) -> None:
        if hours := self.plan.hours(lambda stream, _: self._streams[stream]):
            counted = [
                {"stream_id": hour.stream_id, "hour": hour.start, **dict(zip(_FIGURES, hour.figures, strict=True))}
                for hour in hours
            ]
            await execute(db, _sql["count_hours"], rows=json_text(counted))
            last = {hour.stream_id: hour.last_at for hour in hours}
            await execute(db, _sql["note_records"], ids=list(last), ats=list(last.values()))

    async def _set_aside(self, db: Connection, parcel: Parcel) -> None:
        for record in parcel.quarantined:
            await execute(
                db,
                _sql["set_aside"],
                connection_id=parcel.connection_id,
                stream_id=self._streams[parcel.stream(record.stream)],
                type=record.type,
                source_id=record.source_id,
                idempotency_key=record.idempotency_key,
                payload=record.payload,
                reason=record.reason,
                as_of=record.as_of,
                created_at=parcel.at,
                run_id=parcel.run_id,
                page=parcel.page,
                delivery_id=parcel.delivery_id,
            )


async def prepare(parcels: Sequence[Parcel], numbers: Numbers) -> Batch:
    """A batch whose names are numbered; to be made before its transaction begins."""
    batch = Batch(parcels, numbers)
    await numbers.learn(batch.wanted)
    return batch
