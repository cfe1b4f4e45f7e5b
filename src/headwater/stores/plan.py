"""What a batch of parcels comes to, decided in memory: pure, for any dialect that looks up first and writes after.

    parcels ──> wanted ──> (the store looks up) ──> Plan ── weigh, merge ──> what to write

A parcel is the emissions of one page, one delivery or one release. Later parcels see the effects of merged earlier
ones. Sequences are provisional until the store has taken real ones: `PROVISIONAL` and up, in the order of writing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from headwater.intention import CommitResult
from headwater.record import COUNT_NAMES, Counts, Emission, Origin, Outcome, Quarantined
from headwater.stores.sqlite.outcome import Content, Known, decide

HOUR_MICROSECONDS = 3_600_000_000
PROVISIONAL = 1 << 60  # beyond any sequence that was ever given out

_NAMES = {Outcome(name): name for name in COUNT_NAMES}
_POLLED: frozenset[Origin] = frozenset({"poll"})
_PUSHED: frozenset[Origin] = frozenset({"webhook", "replay"})

RecordKey = tuple[int, str, str]  # connection id, type, source id
KeyKey = tuple[int, bytes]  # connection id, hash of an idempotency key
StreamKey = tuple[int, str, str]  # connection id, stream key, partition


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


class NewVersion(msgspec.Struct, gc=False):
    """A version to write."""

    emission: Emission
    sequence: int  # provisional
    number: int
    previous: int | None  # provisional, where it is of this batch
    stale: bool


@dataclass(kw_only=True)
class Effects:
    """What a parcel comes to, until it is merged into the plan."""

    parcel: Parcel
    first_sequence: int
    result: CommitResult
    records: dict[RecordKey, Known] = field(default_factory=dict)
    keys: dict[KeyKey, Content] = field(default_factory=dict)
    versions: list[NewVersion] = field(default_factory=list)
    births: dict[str, int] = field(default_factory=dict)  # live records gained, by type
    buried: dict[str, int] = field(default_factory=dict)  # live records deleted, by type


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
    """What a store knows of that; what is missing here is not there."""

    records: Mapping[RecordKey, Known]
    keys: Mapping[KeyKey, Content]
    stale_contents: Mapping[int, tuple[Content, int]]  # content and `as_of` of newest versions that are stale
    live: Mapping[tuple[int, str], int]  # live records by connection and type


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
        streams.update((home, stream, parcel.partition) for stream in named)
    return Wanted(
        records=sorted(records),
        keys=sorted(keys),
        types=sorted({type_name for _, type_name, _ in records}),
        connector_versions=sorted({parcel.connector_version for parcel in parcels}),
        streams=sorted(streams),
    )


class Plan:
    """Decides the emissions of a batch of parcels over what was found."""

    def __init__(self, found: Found) -> None:
        self._known = dict(found.records)
        self._keys = dict(found.keys)
        self._stale = dict(found.stale_contents)
        self._live = dict(found.live)
        self._next = PROVISIONAL
        self.merged: list[Effects] = []
        self.records: dict[RecordKey, Known] = {}  # to write

    def weigh(self, parcel: Parcel) -> Effects:
        """Decide every emission of a parcel; the plan does not change."""
        effects = Effects(parcel=parcel, first_sequence=self._next, result=CommitResult(counts=Counts(), outcomes=()))
        outcomes = [self._settle(emission, effects) for emission in parcel.emissions]
        effects.result = CommitResult(counts=tally(outcomes, len(parcel.quarantined)), outcomes=outcomes)
        return effects

    def merge(self, effects: Effects) -> None:
        """Take a parcel's effects into the batch: later ones see them, and they are to be written."""
        self.merged.append(effects)
        self._next += len(effects.versions)
        self._known.update(effects.records)
        self.records.update(effects.records)
        self._keys.update(effects.keys)
        for version in effects.versions:
            if version.stale:
                self._stale[version.sequence] = _content(version.emission), version.emission.as_of
        for type_name, born in effects.births.items():
            self._live[effects.parcel.connection_id, type_name] = (
                self.live(effects.parcel.connection_id, type_name) + born
            )

    def live(self, connection_id: int, type: str) -> int:
        """The live records of a type, those of this batch included."""
        return self._live.get((connection_id, type), 0)

    @property
    def versions(self) -> int:
        """How many versions there are to write."""
        return self._next - PROVISIONAL

    def births(self) -> dict[tuple[int, str], int]:
        """Live records gained, by connection and type; zero for a type that has a first record of any kind."""
        # Types without a live record have a row too: listings find by it what a connection has ever held.
        moved = {(connection_id, type_name): 0 for connection_id, type_name, _ in self.records}
        for effects in self.merged:
            for type_name, born in effects.births.items():
                moved[effects.parcel.connection_id, type_name] += born
        return moved

    def figures(self) -> Iterator[tuple[StreamKey, int, tuple[int, ...]]]:
        """(stream, instant, nine figures of its hour) of each merged parcel."""
        for effects in self.merged:
            parcel = effects.parcel
            for stream, counts in _by_stream(effects):
                changed = counts.changed
                polled = changed if parcel.origin in _POLLED else 0
                pushed = changed if parcel.origin in _PUSHED else 0
                figures = (*msgspec.structs.astuple(counts), polled, pushed)
                yield (parcel.connection_id, stream, parcel.partition), parcel.at, figures

    def _settle(self, emission: Emission, effects: Effects) -> Outcome:
        home = effects.parcel.connection_id
        place = (home, emission.type, emission.source_id)
        known = effects.records.get(place) or self._known.get(place)
        seen = None
        if emission.key is not None:
            seen = effects.keys.get((home, emission.key)) or self._keys.get((home, emission.key))
        outcome = decide(emission, known, seen)
        if outcome is Outcome.DUPLICATE:
            return outcome
        if emission.key is not None:
            effects.keys[home, emission.key] = _content(emission)
        if outcome is Outcome.UNCHANGED:
            # A keyed observation is written anyway: that it was still true then keeps a late, older one out
            # (Invariant 8). A page of known objects writes nothing.
            if emission.key is not None and known is not None and emission.as_of > known.as_of:
                effects.records[place] = msgspec.structs.replace(known, as_of=emission.as_of)
        elif outcome is not Outcome.STALE:
            _append(emission, known, effects, stale=False)
            _count_life(emission, known, effects)
        elif known is not None and not self._is_kept(emission, known, effects):
            _append(emission, known, effects, stale=True)
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
    for outcome in set(outcomes):
        setattr(counts, _NAMES[outcome], outcomes.count(outcome))
    return counts


def hour_of(micros: int) -> int:
    """The beginning of the hour that an instant lies in."""
    return micros - micros % HOUR_MICROSECONDS


def _append(emission: Emission, known: Known | None, effects: Effects, *, stale: bool) -> None:
    sequence = effects.first_sequence + len(effects.versions)
    number = known.version + 1 if known else 1
    effects.versions.append(NewVersion(emission, sequence, number, known.latest if known else None, stale))
    place = (effects.parcel.connection_id, emission.type, emission.source_id)
    if stale:
        assert known is not None
        effects.records[place] = msgspec.structs.replace(known, latest=sequence, version=number)
        return
    effects.records[place] = Known(
        emission.source_id, sequence, sequence, number, emission.hash.hex(), emission.as_of,
        int(emission.deleted), int(emission.key is None),
    )  # fmt: skip


def _count_life(emission: Emission, known: Known | None, effects: Effects) -> None:
    was_live = known is not None and not known.deleted
    if was_live == emission.deleted:
        effects.births[emission.type] = effects.births.get(emission.type, 0) + (-1 if was_live else 1)
    if was_live and emission.deleted:
        effects.buried[emission.type] = effects.buried.get(emission.type, 0) + 1


def _content(emission: Emission) -> Content:
    return Content(emission.hash.hex(), emission.deleted)


def _by_stream(effects: Effects) -> list[tuple[str, Counts]]:
    parcel = effects.parcel
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
