"""The hot path: what a batch of parcels has to know in one lookup per type, what it comes to in one write per table.

parcels ── look up what differs ──> decide (`stores/plan.py`) ──> one bulk write of all that was merged

Rows travel packed as blobs, or as one JSON text, so that a statement is one step outside the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw
import msgspec

from headwater.record import Emission
from headwater.stores.outcome import Content, Known
from headwater.stores.plan import Effects, Found, KeyKey, Parcel, Plan, TypeKey, hour_of
from headwater.stores.sqlite.database import execute, json_text, queries, table, value
from headwater.stores.sqlite.packing import pack_key, version_head

_sql = queries("ingest.sql")
_decode_differing = msgspec.json.Decoder(tuple[list[int], list[Known]]).decode


class Batch:
    """The reads and writes of a batch of parcels, within one transaction; `plan` decides in between."""

    def __init__(self, db: apsw.Connection, parcels: Sequence[Parcel]) -> None:
        self._db = db
        self._types: dict[str, int] = {}
        self._streams: dict[tuple[int, str, str], int] = {}
        self._connector_versions: dict[str, int] = {}
        self._first = value(db, _sql["last_sequence"]) + 1
        self._found = self._look_up(parcels)
        self.plan = Plan(self._found, first_sequence=self._first)

    def write(self) -> None:
        """Write all merged parcels: versions, records, keys, origins, populations, figures, quarantine."""
        if self.plan.size:
            self._write_versions()
            self._write_rows("insert_origins", self._origin_rows())
            self._write_records()
        self._write_rows(
            "move_populations", [(home, self._type_id(t), n) for (home, t), n in self.plan.births().items()]
        )
        self._write_rows("observe_records", self._observed_rows())
        self._write_keys()
        self._write_figures()
        for effects in self.plan.merged:
            self._set_aside(effects.parcel)

    def _look_up(self, parcels: Sequence[Parcel]) -> Found:
        asked: dict[TypeKey, list[Emission]] = {}
        keys: dict[int, dict[bytes, None]] = {}
        for parcel in parcels:
            for type_name in {emission.type for emission in parcel.emissions}:
                emissions = asked.setdefault((parcel.connection_id, type_name), [])
                emissions += [emission for emission in parcel.emissions if emission.type == type_name]
            if given := [one.key for one in parcel.emissions if one.key is not None]:
                keys.setdefault(parcel.connection_id, {}).update(dict.fromkeys(given))
        records: dict[TypeKey, dict[str, Known]] = {}
        absent: dict[TypeKey, set[str]] = {}
        for home, emissions in asked.items():
            records[home], absent[home] = self._differing(*home, emissions)
        return Found(
            records=records,
            absent=absent,
            keys=self._known_keys(keys),
            stale_contents=self._stale_contents(records),
            live=self._live_records(asked),
        )

    def _differing(
        self, connection_id: int, type: str, emissions: Sequence[Emission]
    ) -> tuple[dict[str, Known], set[str]]:
        bodies = apsw.carray(tuple([emission.body for emission in emissions]))
        parameters = {"bodies": bodies, "connection_id": connection_id, "type_id": self._type_id(type)}
        places, differing = _decode_differing(self._db.execute(_sql["differing_records"], parameters).get)
        return {one.source_id: one for one in differing}, {emissions[place - 1].source_id for place in places}

    def _known_keys(self, keys: dict[int, dict[bytes, None]]) -> dict[KeyKey, Content]:
        return {
            (connection_id, bytes.fromhex(key)): Content(content, bool(deleted))
            for connection_id, asked in keys.items()
            for key, content, deleted in table(
                self._db, _sql["known_keys"], keys=apsw.carray(tuple(asked)), connection_id=connection_id
            )
        }

    def _stale_contents(self, records: dict[TypeKey, dict[str, Known]]) -> dict[int, tuple[Content, int]]:
        newest = [one.latest for found in records.values() for one in found.values() if one.latest != one.sequence]
        if not newest:
            return {}
        found = table(self._db, _sql["version_contents"], sequences=json_text(newest))
        return {sequence: (Content(content, bool(deleted)), as_of) for sequence, content, deleted, as_of in found}

    def _live_records(self, asked: dict[TypeKey, list[Emission]]) -> dict[TypeKey, int]:
        # Only the brake on deletion asks.
        return {
            (connection_id, type_name): value(
                self._db, _sql["population"], connection_id=connection_id, type_id=self._type_id(type_name)
            )
            or 0
            for (connection_id, type_name), emissions in asked.items()
            if any(emission.deleted for emission in emissions)
        }

    def _write_versions(self) -> None:
        heads = b"".join([head for effects in self.plan.merged for head in self._heads(effects)])
        bodies = [
            emission.body
            for effects in self.plan.merged
            for emission in effects.firsts or [version.emission for version in effects.versions]
        ]
        execute(self._db, _sql["insert_versions"], first=self._first, heads=heads, bodies=apsw.carray(tuple(bodies)))

    def _write_records(self) -> None:
        execute(self._db, _sql["insert_records"], first=self._first)
        if any(version.number > 1 for effects in self.plan.merged for version in effects.versions):
            execute(self._db, _sql["renew_records"], first=self._first)

    def _write_keys(self) -> None:
        # Of a key that came twice in the batch, the later word stands.
        packed = {
            key: pack_key(*key, content, delivery_id=effects.parcel.delivery_id)
            for effects in self.plan.merged
            for key, content in effects.keys.items()
        }
        known = [packed.pop(key) for key in packed.keys() & self._found.keys.keys()]
        for query, keys in ("insert_keys", list(packed.values())), ("renew_keys", known):
            if keys:
                execute(self._db, _sql[query], packed=apsw.carray(tuple(sorted(keys))))

    def _heads(self, effects: Effects) -> Sequence[bytes]:
        if effects.firsts:
            return [self._head(effects, effects.firsts[0], 1, None, False)] * len(effects.firsts)
        return [self._head(effects, one.emission, one.number, one.previous, one.stale) for one in effects.versions]

    def _head(self, effects: Effects, emission: Emission, number: int, previous: int | None, stale: bool) -> bytes:
        return version_head(
            emission,
            origin_id=effects.first_sequence,
            connection_id=effects.parcel.connection_id,
            type_id=self._type_id(emission.type),
            stream_id=self._stream_id(effects.parcel, emission.stream),
            number=number,
            previous=previous or 0,
            stale=stale,
        )

    def _stream_id(self, parcel: Parcel, key: str) -> int:
        place = parcel.connection_id, key, parcel.partition
        found = self._streams.get(place)
        if found is None:
            asked: dict[str, Any] = {"connection_id": parcel.connection_id, "key": key}
            found = value(self._db, _sql["stream_id"], **asked, partition=parcel.partition)
            if found is None:
                found = value(self._db, _sql["insert_undeclared_stream"], **asked, at=parcel.at)
            self._streams[place] = found
        return found

    def _type_id(self, name: str) -> int:
        found = self._types.get(name)
        if found is None:
            found = self._types[name] = type_number(self._db, name)
        return found

    def _connector_version_id(self, name: str) -> int:
        found = self._connector_versions.get(name)
        if found is None:
            found = _number(self._db, "connector_version_id", "insert_connector_version", name)
            self._connector_versions[name] = found
        return found

    def _write_rows(self, query: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            execute(self._db, _sql[query], rows=json_text(rows))

    def _observed_rows(self) -> list[tuple[int, int, str, int]]:
        return [
            (effects.parcel.connection_id, self._type_id(type_name), source_id, as_of)
            for effects in self.plan.merged
            for type_name, source_id, as_of in effects.observed
        ]

    def _origin_rows(self) -> list[tuple[Any, ...]]:
        return [
            (
                effects.first_sequence, effects.first_sequence + effects.size - 1, effects.parcel.connection_id,
                effects.parcel.origin, effects.parcel.run_id, effects.parcel.page, effects.parcel.delivery_id,
                self._connector_version_id(effects.parcel.connector_version), effects.parcel.at,
            )
            for effects in self.plan.merged
            if effects.size
        ]  # fmt: skip

    def _write_figures(self) -> None:
        hours: dict[tuple[int, int], list[int]] = {}
        seen: dict[int, int] = {}
        for effects in self.plan.merged:
            for key, figures in effects.figures():
                stream_id = self._stream_id(effects.parcel, key)
                total = hours.setdefault((stream_id, hour_of(effects.parcel.at)), [0] * len(figures))
                total[:] = map(sum, zip(total, figures, strict=True))
                seen[stream_id] = max(effects.parcel.at, seen.get(stream_id, 0))
        self._write_rows("count_hours", [(*key, *figures) for key, figures in hours.items()])
        self._write_rows("note_records", list(seen.items()))

    def _set_aside(self, parcel: Parcel) -> None:
        for record in parcel.quarantined:
            execute(
                self._db,
                _sql["set_aside"],
                connection_id=parcel.connection_id,
                stream_id=self._stream_id(parcel, record.stream),
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


def type_number(db: apsw.Connection, name: str) -> int:
    """The number of a canonical type, given now if it has none."""
    return _number(db, "type_id", "insert_type", name)


def _number(db: apsw.Connection, find: str, insert: str, name: str) -> int:
    found = value(db, _sql[find], name=name)
    return int(found if found is not None else value(db, _sql[insert], name=name))
