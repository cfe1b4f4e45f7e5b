"""The hot path: many pages and deliveries become one lookup and one bulk write per table.

parcels ── one lookup of what differs ──> decide each emission ── all that passed ──> one bulk write
                                            └── a parcel that fails leaves no trace

A parcel is the emissions of one page, one delivery or one release. Later parcels see the effects of earlier ones.
Rows travel packed as blobs, or as one JSON text, so that a statement is one step outside the interpreter's lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeAlias

import apsw
import msgspec

from headwater.intention import CommitResult
from headwater.record import COUNT_NAMES, Counts, Emission, Origin, Outcome, Quarantined
from headwater.stores.sqlite.database import execute, json_text, queries, table, value
from headwater.stores.sqlite.outcome import Content, Known, decide
from headwater.stores.sqlite.packing import pack_key, version_head

HOUR_MICROSECONDS = 3_600_000_000

_sql = queries("ingest.sql")
_decode_differing = msgspec.json.Decoder(tuple[list[int], list[Known]]).decode
_OUTCOMES = tuple(Outcome(name) for name in COUNT_NAMES)
_CREATED, _DUPLICATE, _UNCHANGED = Outcome.CREATED, Outcome.DUPLICATE, Outcome.UNCHANGED

# A record as it stands, or the first version that this batch brings of it, with its sequence.
Standing: TypeAlias = Known | tuple[Emission, int]

_POLLED: frozenset[Origin] = frozenset({"poll"})
_PUSHED: frozenset[Origin] = frozenset({"webhook", "replay"})


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """What one page, delivery or release brings."""

    connection_id: int
    partition: str
    emissions: Sequence[Emission]
    quarantined: Sequence[Quarantined]
    origin: Origin
    connector_version: str
    at: int
    run_id: int | None = None
    page: int | None = None
    delivery_id: int | None = None


@dataclass(kw_only=True)
class Effects:
    """What a parcel comes to, until it is merged into the plan."""

    parcel: Parcel
    first_sequence: int
    result: CommitResult
    records: dict[str, dict[str, Standing]] = field(default_factory=dict)  # by type and source id
    observed: list[tuple[str, str, int]] = field(default_factory=list)  # type, source id, newer instant
    keys: dict[bytes, Content] = field(default_factory=dict)
    heads: list[bytes] = field(default_factory=list)  # of the new versions, beside …
    bodies: list[bytes] = field(default_factory=list)  # … those of their emissions
    contents: dict[int, str] = field(default_factory=dict)  # of the versions not yet written
    births: Counter[str] = field(default_factory=Counter)  # live records gained, by type
    buried: Counter[str] = field(default_factory=Counter)  # live records deleted, by type


class Plan:
    """The reads and writes of a batch of parcels, within one transaction."""

    def __init__(self, db: apsw.Connection, parcels: Sequence[Parcel]) -> None:
        self._db = db
        self._next = value(db, _sql["last_sequence"]) + 1
        self._types: dict[str, int] = {}
        self._streams: dict[tuple[int, str, str], int] = {}
        self._connector_versions: dict[str, int] = {}
        self._known: dict[tuple[int, str], dict[str, Standing]] = {}  # those that differ from their emission
        self._absent: dict[tuple[int, str], set[str]] = {}  # source ids without a record
        self._keys: dict[int, dict[bytes, Content]] = {}
        self._contents: dict[int, str] = {}
        self._live: dict[tuple[int, str], int] = {}
        self._merged: list[Effects] = []
        self._look_up(parcels)

    def weigh(self, parcel: Parcel) -> Effects:
        """Decide every emission of a parcel; nothing is written and the plan does not change."""
        effects = Effects(parcel=parcel, first_sequence=self._next, result=CommitResult(counts=Counts(), outcomes=()))
        outcomes = self._at_once(effects) or self._one_by_one(effects)
        counts = _tally(outcomes, len(parcel.quarantined))
        effects.result = CommitResult(counts=counts, outcomes=outcomes)
        return effects

    def merge(self, effects: Effects) -> None:
        """Take a parcel's effects into the batch: later ones see them, and `write` writes them."""
        connection_id = effects.parcel.connection_id
        self._merged.append(effects)
        self._next += len(effects.bodies)
        for type_name, records in effects.records.items():
            self._known[connection_id, type_name].update(records)
            self._absent[connection_id, type_name].difference_update(records)
        for type_name, born in effects.births.items():
            self._live[connection_id, type_name] = self.live(connection_id, type_name) + born
        if effects.keys:
            self._keys.setdefault(connection_id, {}).update(effects.keys)
        self._contents.update(effects.contents)

    def live(self, connection_id: int, type: str) -> int:
        """The live records of a type, those of this batch included."""
        if (connection_id, type) not in self._live:
            type_id = self._type_id(type)
            live = value(self._db, _sql["population"], connection_id=connection_id, type_id=type_id)
            self._live[connection_id, type] = live or 0
        return self._live[connection_id, type]

    def write(self) -> None:
        """Write all merged parcels: versions, records, keys, origins, populations, figures, quarantine."""
        bodies = [body for effects in self._merged for body in effects.bodies]
        if bodies:
            first = self._next - len(bodies)
            heads = b"".join([head for effects in self._merged for head in effects.heads])
            execute(self._db, _sql["insert_versions"], first=first, heads=heads, bodies=apsw.carray(tuple(bodies)))
            self._write_rows("insert_origins", self._origin_rows())
            self._write_rows("move_populations", self._population_rows())
            execute(self._db, _sql["renew_records"], first=first)
        self._write_rows("observe_records", self._observed_rows())
        keys = sorted(
            pack_key(effects.parcel.connection_id, key, content, delivery_id=effects.parcel.delivery_id)
            for effects in self._merged
            for key, content in effects.keys.items()
        )
        if keys:
            execute(self._db, _sql["upsert_keys"], packed=apsw.carray(tuple(keys)))
        self._write_figures()
        for effects in self._merged:
            self._set_aside(effects.parcel)

    def stream_id(self, connection_id: int, key: str, partition: str, at: int) -> int:
        """The row of the stream that an emission names."""
        found = self._streams.get((connection_id, key, partition))
        if found is None:
            asked: dict[str, Any] = {"connection_id": connection_id, "key": key}
            found = value(self._db, _sql["stream_id"], **asked, partition=partition)
            if found is None:
                found = value(self._db, _sql["insert_undeclared_stream"], **asked, at=at)
            self._streams[connection_id, key, partition] = found
        return found

    def _look_up(self, parcels: Sequence[Parcel]) -> None:
        asked: dict[tuple[int, str], list[Emission]] = {}
        keys: dict[int, dict[bytes, None]] = {}
        for parcel in parcels:
            connection_id = parcel.connection_id
            for type_name in {emission.type for emission in parcel.emissions}:
                found = asked.setdefault((connection_id, type_name), [])
                found += [emission for emission in parcel.emissions if emission.type == type_name]
            if given := [e.key for e in parcel.emissions if e.key is not None]:
                keys.setdefault(connection_id, {}).update(dict.fromkeys(given))
        for (connection_id, type_name), emissions in asked.items():
            self._look_up_records(connection_id, type_name, emissions)
        for connection_id, wanted in keys.items():
            self._keys[connection_id] = self._known_keys(connection_id, wanted)

    def _look_up_records(self, connection_id: int, type: str, emissions: Sequence[Emission]) -> None:
        bodies = apsw.carray(tuple([emission.body for emission in emissions]))
        parameters = {"bodies": bodies, "connection_id": connection_id, "type_id": self._type_id(type)}
        places, differing = _decode_differing(self._db.execute(_sql["differing_records"], parameters).get)
        self._absent[connection_id, type] = {emissions[place - 1].source_id for place in places}
        self._known[connection_id, type] = {known.source_id: known for known in differing}

    def _known_keys(self, connection_id: int, keys: Iterable[bytes]) -> dict[bytes, Content]:
        found = table(self._db, _sql["known_keys"], keys=apsw.carray(tuple(keys)), connection_id=connection_id)
        return {bytes.fromhex(key): Content(content, bool(deleted)) for key, content, deleted in found}

    def _at_once(self, effects: Effects) -> list[Outcome] | None:
        """The outcomes of a page of records that are all new, or all as stored, as most pages are; None for another."""
        emissions = effects.parcel.emissions
        if len({(one.type, one.stream, one.as_of, one.key, one.deleted) for one in emissions}) != 1:
            return None
        first = emissions[0]
        if first.key is not None or first.deleted:
            return None
        home = effects.parcel.connection_id, first.type
        source_ids = [one.source_id for one in emissions]
        distinct = set(source_ids)
        if self._absent[home].issuperset(distinct) and len(distinct) == len(source_ids):
            effects.heads = [self._head(first, effects, number=1, previous=0)] * len(emissions)
            effects.bodies = [one.body for one in emissions]
            effects.records[first.type] = dict(zip(source_ids, zip(emissions, count(self._next)), strict=False))
            effects.births[first.type] = len(emissions)
            return [_CREATED] * len(emissions)
        if self._absent[home].isdisjoint(distinct) and self._known[home].keys().isdisjoint(distinct):
            return [_DUPLICATE] * len(emissions)
        return None

    def _one_by_one(self, effects: Effects) -> list[Outcome]:
        outcomes: list[Outcome] = []
        type_name = ""
        for emission in effects.parcel.emissions:
            if emission.type != type_name:
                type_name = emission.type
                home = effects.parcel.connection_id, type_name
                known, absent = self._known[home], self._absent[home]
                changed = effects.records.setdefault(type_name, {})
            source_id = emission.source_id
            standing = changed.get(source_id) or known.get(source_id)
            if standing is None and source_id not in absent:
                outcomes.append(_DUPLICATE)  # it is as stored, under the key that names it
            else:
                known_one = _became(*standing, 1) if isinstance(standing, tuple) else standing
                outcomes.append(self._settle(emission, known_one, effects))
        return outcomes

    def _settle(self, emission: Emission, known: Known | None, effects: Effects) -> Outcome:
        key = emission.key
        outcome = decide(emission, known, None if key is None else self._seen(key, effects))
        if outcome is _DUPLICATE:
            return outcome
        if key is not None:
            effects.keys[key] = Content(emission.hash.hex(), emission.deleted)
        if known is None:
            self._append_first(emission, effects)
        elif outcome is _UNCHANGED:
            # A keyed observation is written anyway: that it was still true then keeps a late, older one out
            # (Invariant 8). A page of known objects writes nothing.
            if key is not None and emission.as_of > known.as_of:
                self._observe(emission, known, effects)
        elif outcome is not Outcome.STALE or not self._is_kept(emission, known, effects):
            self._append(emission, known, effects, stale=outcome is Outcome.STALE)
        return outcome

    def _observe(self, emission: Emission, known: Known, effects: Effects) -> None:
        observed = msgspec.structs.replace(known, as_of=emission.as_of)
        effects.records[emission.type][emission.source_id] = observed
        effects.observed.append((emission.type, emission.source_id, emission.as_of))

    def _seen(self, key: bytes, effects: Effects) -> Content | None:
        return effects.keys.get(key) or self._keys[effects.parcel.connection_id].get(key)

    def _is_kept(self, emission: Emission, known: Known, effects: Effects) -> bool:
        # An old page that is committed again must not grow the history (Invariant 2).
        if known.latest == known.sequence:
            return False
        content = (
            effects.contents.get(known.latest)
            or self._contents.get(known.latest)
            or value(self._db, _sql["version_content"], sequence=known.latest)
        )
        return bool(content == _content_text(emission))

    def _append_first(self, emission: Emission, effects: Effects) -> None:
        sequence = effects.first_sequence + len(effects.bodies)
        effects.heads.append(self._head(emission, effects, number=1, previous=0))
        effects.bodies.append(emission.body)
        effects.records[emission.type][emission.source_id] = emission, sequence
        if not emission.deleted:
            effects.births[emission.type] += 1

    def _append(self, emission: Emission, known: Known, effects: Effects, *, stale: bool) -> None:
        sequence = effects.first_sequence + len(effects.bodies)
        number = known.version + 1
        effects.heads.append(self._head(emission, effects, number=number, previous=known.latest, stale=stale))
        effects.bodies.append(emission.body)
        if stale:
            effects.contents[sequence] = _content_text(emission)
            after = msgspec.structs.replace(known, latest=sequence, version=number)
        else:
            after = _became(emission, sequence, number)
            effects.births[emission.type] += known.deleted - emission.deleted
            if emission.deleted and not known.deleted:
                effects.buried[emission.type] += 1
        effects.records[emission.type][emission.source_id] = after

    def _head(self, emission: Emission, effects: Effects, *, number: int, previous: int, stale: bool = False) -> bytes:
        parcel = effects.parcel
        return version_head(
            emission,
            origin_id=effects.first_sequence,
            connection_id=parcel.connection_id,
            type_id=self._type_id(emission.type),
            stream_id=self.stream_id(parcel.connection_id, emission.stream, parcel.partition, parcel.at),
            number=number,
            previous=previous,
            stale=stale,
        )

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
            for effects in self._merged
            for type_name, source_id, as_of in effects.observed
        ]

    def _origin_rows(self) -> list[tuple[Any, ...]]:
        return [
            (
                effects.first_sequence, effects.first_sequence + len(effects.bodies) - 1,
                effects.parcel.connection_id, effects.parcel.origin, effects.parcel.run_id, effects.parcel.page,
                effects.parcel.delivery_id, self._connector_version_id(effects.parcel.connector_version),
                effects.parcel.at,
            )
            for effects in self._merged
            if effects.bodies
        ]  # fmt: skip

    def _population_rows(self) -> list[tuple[int, int, int]]:
        # Types without a live record have a row too: listings find by it what a connection has ever held.
        moved: dict[tuple[int, str], int] = {}
        for effects in self._merged:
            for type_name, records in effects.records.items():
                if records:
                    home = effects.parcel.connection_id, type_name
                    moved[home] = moved.get(home, 0) + effects.births.get(type_name, 0)
        return [(connection_id, self._type_id(name), born) for (connection_id, name), born in moved.items()]

    def _write_figures(self) -> None:
        hours: dict[tuple[int, int], list[int]] = {}
        seen: dict[int, int] = {}
        for effects in self._merged:
            parcel = effects.parcel
            for key, counts in _by_stream(effects):
                stream_id = self.stream_id(parcel.connection_id, key, parcel.partition, parcel.at)
                figures = hours.setdefault((stream_id, parcel.at - parcel.at % HOUR_MICROSECONDS), [0] * 9)
                changed = counts.changed
                for index, figure in enumerate(
                    (
                        *msgspec.structs.astuple(counts),
                        changed if parcel.origin in _POLLED else 0,
                        changed if parcel.origin in _PUSHED else 0,
                    )
                ):
                    figures[index] += figure
                seen[stream_id] = max(parcel.at, seen.get(stream_id, 0))
        self._write_rows("count_hours", [(*key, *figures) for key, figures in hours.items()])
        self._write_rows("note_records", list(seen.items()))

    def _set_aside(self, parcel: Parcel) -> None:
        for record in parcel.quarantined:
            execute(
                self._db,
                _sql["set_aside"],
                connection_id=parcel.connection_id,
                stream_id=self.stream_id(parcel.connection_id, record.stream, parcel.partition, parcel.at),
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


def _tally(outcomes: Sequence[Outcome], quarantined: int) -> Counts:
    counts = Counts(quarantined=quarantined)
    left = len(outcomes)
    for outcome in _OUTCOMES:
        if not left:
            break
        count = outcomes.count(outcome)
        setattr(counts, outcome.value, count)
        left -= count
    return counts


def _by_stream(effects: Effects) -> list[tuple[str, Counts]]:
    parcel = effects.parcel
    keys = {emission.stream for emission in parcel.emissions} | {record.stream for record in parcel.quarantined}
    if len(keys) == 1:
        return [(keys.pop(), effects.result.counts)]
    pairs = list(zip(parcel.emissions, effects.result.outcomes, strict=True))
    return [
        (
            key,
            _tally(
                [outcome for emission, outcome in pairs if emission.stream == key],
                sum(record.stream == key for record in parcel.quarantined),
            ),
        )
        for key in sorted(keys)
    ]


def _became(emission: Emission, sequence: int, number: int) -> Known:
    return Known(
        emission.source_id, sequence, sequence, number, emission.hash.hex(), emission.as_of, int(emission.deleted),
        int(emission.key is None),
    )  # fmt: skip


def _content_text(emission: Emission) -> str:
    return f"{emission.hash.hex()}:{emission.as_of}:{int(emission.deleted)}"
