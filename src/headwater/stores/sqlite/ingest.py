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
from headwater.stores.plan import Effects, Found, KeyKey, Parcel, Plan, StreamKey, TypeKey
from headwater.stores.sqlite.database import execute, json_text, queries, table, value
from headwater.stores.sqlite.packing import pack_key, pack_origin, version_head

_sql = queries("ingest.sql")
_Numbers = tuple[int, dict[str, int], dict[str, int]]  # last sequence, types, connector versions
_decode_numbers = msgspec.json.Decoder(_Numbers).decode
_decode_differing = msgspec.json.Decoder(tuple[list[int], list[Known]]).decode


class Batch:
    """The reads and writes of a batch of parcels, within one transaction; `plan` decides in between."""

    def __init__(self, db: apsw.Connection, parcels: Sequence[Parcel]) -> None:
        self._db = db
        self._streams: dict[StreamKey, int] = {}
        asked = _by_type(parcels)
        names = {name for _, name in asked}, {parcel.connector_version for parcel in parcels}
        last, self._types, self._connector_versions = self._numbers(*names)
        self._first = last + 1
        self._found = self._look_up(asked)
        self.plan = Plan(self._found, first_sequence=self._first)

    def write(self) -> None:
        """Write all merged parcels: versions, records, keys, origins, populations, figures, quarantine."""
        if self.plan.size:
            self._write_versions()
            execute(self._db, _sql["insert_origins"], packed=apsw.carray(tuple(self._origins())))
            self._write_records()
        self._write_rows(
            "move_populations", [(home, self._type_id(t), n) for (home, t), n in self.plan.births().items()]
        )
        self._write_rows("observe_records", self._observed_rows())
        self._write_keys()
        self._write_figures()
        for effects in self.plan.merged:
            self._set_aside(effects.parcel)

    def _numbers(self, types: set[str], connector_versions: set[str]) -> _Numbers:
        asked = {"types": json_text(types), "connector_versions": json_text(connector_versions)}
        found: _Numbers = _decode_numbers(value(self._db, _sql["numbers"], **asked))
        return found

    def _look_up(self, asked: dict[TypeKey, list[Emission]]) -> Found:
        keys: dict[int, dict[bytes, None]] = {}
        for (connection_id, _), emissions in asked.items():
            if given := [one.key for one in emissions if one.key is not None]:
                keys.setdefault(connection_id, {}).update(dict.fromkeys(given))
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
            (connection_id, bytes.fromhex(key)): Content(bytes.fromhex(content), bool(deleted))
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
        return {
            sequence: (Content(bytes.fromhex(content), bool(deleted)), as_of)
            for sequence, content, deleted, as_of in found
        }

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
            stream_id=self._stream_id(effects.parcel.stream(emission.stream), effects.parcel.at),
            number=number,
            previous=previous or 0,
            stale=stale,
        )

    def _stream_id(self, stream: StreamKey, at: int) -> int:
        found = self._streams.get(stream)
        if found is None:
            connection_id, key, partition = stream
            asked: dict[str, Any] = {"connection_id": connection_id, "key": key}
            found = value(self._db, _sql["stream_id"], **asked, partition=partition)
            if found is None:
                found = value(self._db, _sql["insert_undeclared_stream"], **asked, at=at)
            self._streams[stream] = found
        return found

    def _type_id(self, name: str) -> int:
        found = self._types.get(name)
        if found is None:
            found = self._types[name] = value(self._db, _sql["insert_type"], name=name)
        return found

    def _connector_version_id(self, name: str) -> int:
        found = self._connector_versions.get(name)
        if found is None:
            found = self._connector_versions[name] = value(self._db, _sql["insert_connector_version"], name=name)
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

    def _origins(self) -> list[bytes]:
        return [
            pack_origin(effects, self._connector_version_id(effects.parcel.connector_version))
            for effects in self.plan.merged
            if effects.size
        ]

    def _write_figures(self) -> None:
        hours = self.plan.hours(self._stream_id)
        self._write_rows("count_hours", [(hour.stream_id, hour.start, *hour.figures) for hour in hours])
        self._write_rows("note_records", list({hour.stream_id: hour.last_at for hour in hours}.items()))

    def _set_aside(self, parcel: Parcel) -> None:
        for record in parcel.quarantined:
            execute(
                self._db,
                _sql["set_aside"],
                connection_id=parcel.connection_id,
                stream_id=self._stream_id(parcel.stream(record.stream), parcel.at),
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


def _by_type(parcels: Sequence[Parcel]) -> dict[TypeKey, list[Emission]]:
    given: dict[int, list[Emission]] = {}
    for parcel in parcels:
        given.setdefault(parcel.connection_id, []).extend(parcel.emissions)
    return {
        (connection_id, type_name): [one for one in emissions if one.type == type_name]
        for connection_id, emissions in given.items()
        for type_name in {emission.type for emission in emissions}
    }


def type_number(db: apsw.Connection, name: str) -> int:
    """The number of a canonical type, given now if it has none."""
    found = value(db, _sql["type_id"], name=name)
    return int(found if found is not None else value(db, _sql["insert_type"], name=name))
