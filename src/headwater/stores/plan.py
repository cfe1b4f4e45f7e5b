"""What a batch of parcels comes to, decided in memory: pure, for any dialect that looks up first and writes after.

    parcels ──> (the store looks up) ──> Found ──> Plan ── weigh, merge ──> what to write

A parcel is the emissions of one page, one delivery or one release. Later parcels see the effects of merged earlier
ones; one that is not merged leaves no trace. This is the hot path of every store: most pages are decided as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TypeAlias

import msgspec

from headwater.intention import CommitResult
from headwater.record import COUNT_NAMES, Counts, Emission, Origin, Outcome, Quarantined
from headwater.stores.outcome import Content, Known, decide

HOUR_MICROSECONDS = 3_600_000_000

_OUTCOMES = tuple(Outcome(name) for name in COUNT_NAMES)
_CREATED, _DUPLICATE, _UNCHANGED = Outcome.CREATED, Outcome.DUPLICATE, Outcome.UNCHANGED
_UNDECIDED = CommitResult(counts=Counts(), outcomes=())
_POLLED: frozenset[Origin] = frozenset({"poll"})
_PUSHED: frozenset[Origin] = frozenset({"webhook", "replay"})

TypeKey = tuple[int, str]  # connection id, type
RecordKey = tuple[int, str, str]  # connection id, type, source id
KeyKey = tuple[int, bytes]  # connection id, hash of an idempotency key
StreamKey = tuple[int, str, str]  # connection id, stream key, partition
Told = tuple[Counts, Origin, int]  # what a parcel came to in a stream, and when

# A record as it stands, or the first version that this batch brings of it, with its sequence.
Standing: TypeAlias = Known | tuple[Emission, int]


class Parcel(msgspec.Struct, frozen=True, gc=False, kw_only=True):
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

    def stream(self, key: str) -> StreamKey:
        """The stream that it means by `key`."""
        return self.connection_id, key, self.partition


class NewVersion(msgspec.Struct, gc=False):
    """A version to write."""

    emission: Emission
    sequence: int
    number: int
    previous: int | None
    stale: bool


class Effects(msgspec.Struct, kw_only=True):
    """What a parcel comes to, until it is merged into the plan."""

    parcel: Parcel
    first_sequence: int
    result: CommitResult = _UNDECIDED
    records: dict[str, dict[str, Standing]] = msgspec.field(default_factory=dict)  # by type and source id
    observed: list[tuple[str, str, int]] = msgspec.field(default_factory=list)  # type, source id, newer instant
    keys: dict[KeyKey, Content] = msgspec.field(default_factory=dict)
    firsts: Sequence[Emission] = ()  # alike and all new: the first versions of their records, or else …
    versions: list[NewVersion] = msgspec.field(default_factory=list)  # … the new versions, one by one
    births: dict[str, int] = msgspec.field(default_factory=dict)  # live records gained, by type
    buried: dict[str, int] = msgspec.field(default_factory=dict)  # live records deleted, by type

    @property
    def size(self) -> int:
        """How many versions there are to write; their sequences follow each other."""
        return len(self.firsts) or len(self.versions)

    def each_version(self) -> Iterator[NewVersion]:
        """The versions to write, one by one in either case."""
        for sequence, emission in enumerate(self.firsts, self.first_sequence):
            yield NewVersion(emission, sequence, 1, None, False)
        yield from self.versions


class Hour(msgspec.Struct):
    """What a batch adds to the figures of a stream's hour."""

    stream_id: int
    start: int
    figures: Sequence[int]  # the counts in their order, changes that were polled, changes that were pushed
    last_at: int  # the newest of its parcels


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a plan for some parcels has to know."""

    records: Sequence[RecordKey]
    keys: Sequence[KeyKey]
    types: Sequence[str]
    connector_versions: Sequence[str]
    streams: Sequence[StreamKey]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a store knows of that. A record that is neither among `records` nor `absent` holds just what its emission
    says, under the key that names the object; other things that are missing are not there.
    """

    records: Mapping[TypeKey, dict[str, Known]] = field(default_factory=dict)  # by source id
    absent: Mapping[TypeKey, set[str]] = field(default_factory=dict)  # source ids without a record
    keys: Mapping[KeyKey, Content] = field(default_factory=dict)
    stale_contents: Mapping[int, tuple[Content, int]] = field(default_factory=dict)  # of newest versions that are stale
    live: Mapping[TypeKey, int] = field(default_factory=dict)  # live records; wanted where anything is deleted


def wanted(parcels: Sequence[Parcel]) -> Wanted:
    """What to look up for these parcels, each thing once and in a fixed order."""
    records: set[RecordKey] = set()
    keys: set[KeyKey] = set()
    streams: set[StreamKey] = set()
    for parcel in parcels:
        home = parcel.connection_id
        records.update([(home, emission.type, emission.source_id) for emission in parcel.emissions])
        keys.update([(home, emission.key) for emission in parcel.emissions if emission.key is not None])
        named = {emission.stream for emission in parcel.emissions} | {one.stream for one in parcel.quarantined}
        streams.update(map(parcel.stream, named))
    return Wanted(
        records=sorted(records),
        keys=sorted(keys),
        types=sorted({type_name for _, type_name, _ in records}),
        connector_versions=sorted({parcel.connector_version for parcel in parcels}),
        streams=sorted(streams),
    )


class Plan:
    """Decides the emissions of a batch of parcels over what was found."""

    def __init__(self, found: Found, *, first_sequence: int) -> None:
        self._known: dict[TypeKey, dict[str, Standing]] = {home: {**records} for home, records in found.records.items()}
        self._absent = found.absent
        self._keys = dict(found.keys)
        self._stale = dict(found.stale_contents)
        self._live = dict(found.live)
        self._first = self._next = first_sequence
        self.merged: list[Effects] = []

    def weigh(self, parcel: Parcel) -> Effects:
        """Decide every emission of a parcel; the plan does not change."""
        effects = Effects(parcel=parcel, first_sequence=self._next)
        outcomes = self._at_once(effects) or self._one_by_one(effects)
        effects.result = CommitResult(counts=tally(outcomes, len(parcel.quarantined)), outcomes=outcomes)
        return effects

    def merge(self, effects: Effects) -> None:
        """Take a parcel's effects into the batch: later ones see them, and they are to be written."""
        connection_id = effects.parcel.connection_id
        self.merged.append(effects)
        self._next += effects.size
        for type_name, records in effects.records.items():
            self._known.setdefault((connection_id, type_name), {}).update(records)
            self._absent[connection_id, type_name].difference_update(records)
        self._keys.update(effects.keys)
        for version in effects.versions:
            if version.stale:
                self._stale[version.sequence] = _content(version.emission), version.emission.as_of
        for type_name, born in effects.births.items():
            home = connection_id, type_name
            self._live[home] = self.live(*home) + born

    def live(self, connection_id: int, type: str) -> int:
        """The live records of a type, those of this batch included."""
        return self._live.get((connection_id, type), 0)

    @property
    def size(self) -> int:
        """How many versions there are to write."""
        return self._next - self._first

    def births(self) -> dict[TypeKey, int]:
        """Live records gained, by connection and type; zero for a type that has a first record of any kind."""
        # Types without a live record have a row too: listings find by it what a connection has ever held.
        moved: dict[TypeKey, int] = {}
        for effects in self.merged:
            for type_name, records in effects.records.items():
                if records:
                    home = effects.parcel.connection_id, type_name
                    moved[home] = moved.get(home, 0) + effects.births.get(type_name, 0)
        return moved

    def hours(self, stream_id: Callable[[StreamKey, int], int]) -> Sequence[Hour]:
        """What to add to the figures, each stream's hours in their order; `stream_id` is asked for each of them."""
        told: dict[tuple[StreamKey, int], list[Told]] = {}
        for effects in self.merged:
            parcel = effects.parcel
            for key, counts in _by_stream(effects):
                told.setdefault((parcel.stream(key), hour_of(parcel.at)), []).append((counts, parcel.origin, parcel.at))
        rows: dict[tuple[int, int], list[Told]] = {}  # of streams without partitions, one row for all of them
        for (stream, start), many in told.items():
            rows.setdefault((stream_id(stream, many[0][2]), start), []).extend(many)
        return [_hour(*row, many) for row, many in sorted(rows.items())]

    def records(self) -> dict[RecordKey, Known]:
        """The records that changed, as they stand after the batch."""
        return {
            (effects.parcel.connection_id, type_name, source_id): _known(standing)
            for effects in self.merged
            for type_name, records in effects.records.items()
            for source_id, standing in records.items()
        }

    def _at_once(self, effects: Effects) -> list[Outcome] | None:
        """The outcomes of a page of records that are all new, or all as stored, as most pages are; None for another."""
        emissions = effects.parcel.emissions
        if not emissions or emissions[0].key is not None:
            return None
        if len({(one.type, one.stream, one.as_of, one.key, one.deleted) for one in emissions}) != 1:
            return None
        first = emissions[0]
        if first.deleted:
            return None
        home = effects.parcel.connection_id, first.type
        source_ids = [one.source_id for one in emissions]
        distinct = set(source_ids)
        absent = self._absent[home]
        if absent.issuperset(distinct) and len(distinct) == len(source_ids):
            effects.firsts = emissions
            effects.records[first.type] = dict(zip(source_ids, zip(emissions, count(self._next)), strict=False))
            effects.births[first.type] = len(emissions)
            return [_CREATED] * len(emissions)
        if absent.isdisjoint(distinct) and self._known.get(home, {}).keys().isdisjoint(distinct):
            return [_DUPLICATE] * len(emissions)
        return None

    def _one_by_one(self, effects: Effects) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for emission in effects.parcel.emissions:
            home = effects.parcel.connection_id, emission.type
            changed = effects.records.setdefault(emission.type, {})
            source_id = emission.source_id
            standing = changed.get(source_id) or self._known.get(home, {}).get(source_id)
            if standing is None and source_id not in self._absent[home]:
                outcomes.append(_DUPLICATE)
            else:
                outcomes.append(self._settle(emission, None if standing is None else _known(standing), effects))
        return outcomes

    def _settle(self, emission: Emission, known: Known | None, effects: Effects) -> Outcome:
        key = None if emission.key is None else (effects.parcel.connection_id, emission.key)
        outcome = decide(emission, known, (effects.keys.get(key) or self._keys.get(key)) if key else None)
        if outcome is _DUPLICATE:
            return outcome
        if key is not None:
            effects.keys[key] = _content(emission)
        if outcome is _UNCHANGED:
            # A keyed observation is written anyway: that it was still true then keeps a late, older one out
            # (Invariant 8). A page of known objects writes nothing.
            if key is not None and known is not None and emission.as_of > known.as_of:
                effects.records[emission.type][emission.source_id] = msgspec.structs.replace(
                    known, as_of=emission.as_of
                )
                effects.observed.append((emission.type, emission.source_id, emission.as_of))
        elif known is None or outcome is not Outcome.STALE:
            _append(emission, known, effects)
        elif not self._is_kept(emission, known, effects):
            _append_stale(emission, known, effects)
        return outcome

    def _is_kept(self, emission: Emission, known: Known, effects: Effects) -> bool:
        # An old page that is committed again must not grow the history (Invariant 2).
        if known.latest == known.sequence:
            return False
        if known.latest >= effects.first_sequence:
            newest = effects.versions[known.latest - effects.first_sequence].emission
            return (_content(newest), newest.as_of) == (_content(emission), emission.as_of)
        return self._stale.get(known.latest) == (_content(emission), emission.as_of)


def tally(outcomes: Sequence[Outcome], quarantined: int) -> Counts:
    """How many came to what."""
    counts = Counts(quarantined=quarantined)
    left = len(outcomes)
    for outcome in _OUTCOMES:
        if not left:
            break
        found = outcomes.count(outcome)
        setattr(counts, outcome.value, found)
        left -= found
    return counts


def hour_of(micros: int) -> int:
    """The beginning of the hour that an instant lies in."""
    return micros - micros % HOUR_MICROSECONDS


def _append(emission: Emission, known: Known | None, effects: Effects) -> None:
    sequence = effects.first_sequence + len(effects.versions)
    number, previous = (known.version + 1, known.latest) if known else (1, None)
    effects.versions.append(NewVersion(emission, sequence, number, previous, False))
    effects.records[emission.type][emission.source_id] = (
        (emission, sequence) if known is None else _became(emission, sequence, number)
    )
    was_live = known is not None and not known.deleted
    if was_live == emission.deleted:
        effects.births[emission.type] = effects.births.get(emission.type, 0) + (-1 if was_live else 1)
    if was_live and emission.deleted:
        effects.buried[emission.type] = effects.buried.get(emission.type, 0) + 1


def _append_stale(emission: Emission, known: Known, effects: Effects) -> None:
    sequence, number = effects.first_sequence + len(effects.versions), known.version + 1
    effects.versions.append(NewVersion(emission, sequence, number, known.latest, True))
    effects.records[emission.type][emission.source_id] = msgspec.structs.replace(known, latest=sequence, version=number)


def _known(standing: Standing) -> Known:
    return standing if isinstance(standing, Known) else _became(*standing, 1)


def _became(emission: Emission, sequence: int, number: int) -> Known:
    return Known(
        emission.source_id, sequence, sequence, number, emission.hash.hex(), emission.as_of, int(emission.deleted),
        int(emission.key is None),
    )  # fmt: skip


def _content(emission: Emission) -> Content:
    return Content(emission.hash, emission.deleted)


def _hour(stream_id: int, start: int, told: Sequence[Told]) -> Hour:
    polled = sum([counts.changed for counts, origin, _ in told if origin in _POLLED])
    pushed = sum([counts.changed for counts, origin, _ in told if origin in _PUSHED])
    columns = zip(*[msgspec.structs.astuple(counts) for counts, _, _ in told], strict=True)
    return Hour(stream_id, start, (*map(sum, columns), polled, pushed), max([at for _, _, at in told]))


def _by_stream(effects: Effects) -> list[tuple[str, Counts]]:
    parcel = effects.parcel
    if len(parcel.emissions) == 1 and not parcel.quarantined:  # as most deliveries are
        return [(parcel.emissions[0].stream, effects.result.counts)]
    keys = {emission.stream for emission in parcel.emissions} | {record.stream for record in parcel.quarantined}
    if len(keys) == 1:
        return [(keys.pop(), effects.result.counts)]
    pairs = list(zip(parcel.emissions, effects.result.outcomes, strict=True))
    return [
        (
            key,
            tally(
                [outcome for emission, outcome in pairs if emission.stream == key],
                sum(record.stream == key for record in parcel.quarantined),
            ),
        )
        for key in sorted(keys)
    ]
