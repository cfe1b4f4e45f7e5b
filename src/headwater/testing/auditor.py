"""Looks into the file after every transaction and says which invariant of `docs/architecture.md` it breaks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import apsw

from headwater.clock import Clock, to_micros
from headwater.errors import StoreUnavailableError
from headwater.intention import CommitResult, DeliveryCommit, PageCommit
from headwater.record import Emission
from headwater.stores.sqlite.writer import SINGLE, Operation
from headwater.testing.history import History
from headwater.testing.virtual import Owner

HASH_BYTES = 16  # an emission's body begins with its content's hash

Place = tuple[int, int, str]  # connection, type, source id
Course = tuple[str, int]  # what has a checkpoint and an epoch: "stream" or "window", and its id


@dataclass
class _Known:
    """A record as its versions so far tell."""

    version: int = 0
    content: tuple[int, bytes] | None = None  # of the current version: deleted, hash
    as_of: int = 0


@dataclass
class _Seen:
    """What the last look saw."""

    data_version: int = -1
    sequence: int = 0
    records: dict[Place, _Known] = field(default_factory=dict)
    epochs: dict[Course, int] = field(default_factory=dict)
    cursors: dict[Course, str | None] = field(default_factory=dict)
    deliveries: int = 0
    delivery_id: int = 0
    pages: set[tuple[int, int]] = field(default_factory=set)  # run, number
    done: set[int] = field(default_factory=set)  # deliveries that ever were
    leases: dict[int, tuple[int, int]] = field(default_factory=dict)  # of running runs: epoch, until


class Auditor:
    """Reads the store's file by a connection of its own; what it finds goes into the history."""

    def __init__(self, path: Path, history: History, clock: Clock) -> None:
        self._path = str(path)
        self._db = apsw.Connection(self._path, flags=apsw.SQLITE_OPEN_READWRITE)
        self._db.execute("PRAGMA query_only = ON")
        self._history = history
        self._clock = clock  # the process's own
        self._latest = 0  # the latest instant that it ever said
        self._seen = _Seen()
        self._acked: dict[str, float] = {}
        self.operator_moves_checkpoints = False  # meanwhile they may move without a page
        self.forged: set[str] = set()  # ids of deliveries with a wrong signature
        self.belongs: Callable[[int, str], bool] = lambda connection_id, source_id: True  # noqa: ARG005
        self._look()

    @property
    def acked(self) -> int:
        """How many deliveries were answered 2xx."""
        return len(self._acked)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def answered(self, provider_id: str, status: int) -> None:
        """Note what a delivery was answered: Invariants 1 and 11."""
        if not 200 <= status < 300:
            return
        if provider_id in self.forged:
            self._history.violated(f"11: the forged delivery {provider_id} was answered {status}")
        self._acked[provider_id] = 0.0
        if not self.rows("SELECT 1 FROM deliveries WHERE provider_id = ?", provider_id):
            self._history.violated(f"1: {provider_id} was answered {status} and is not stored")

    def committed(self, process: Owner | None, batch: Sequence[Operation]) -> None:
        """Look at what a transaction did; it may have died before or after its commit."""
        (version,) = self.rows("PRAGMA data_version")[0]
        if version == self._seen.data_version:
            return
        self._seen.data_version = version
        who = process.name if process else "command"
        before = self._seen
        epochs, cursors, leases = dict(before.epochs), dict(before.cursors), before.leases
        self._look()
        # A commit that says that it failed may have happened all the same.
        may_be_kept = (CommitResult, StoreUnavailableError)
        pages = [one.work for one in batch if isinstance(one.work, PageCommit) and isinstance(one.result, may_be_kept)]
        done = [one for op in batch if isinstance(op.work, Sequence) for one in op.work]
        kept = [page for page in pages if self._is_new(page)]
        for page in kept:
            self._kept_page(page, epochs)
        for commit in done:
            if isinstance(commit, DeliveryCommit) and commit.claim.id in self._seen.done:
                self._emissions(commit.claim.connection_id, commit.emissions, f"delivery {commit.claim.id}")
        self._checkpoints(kept, cursors)
        if not any(one.kind is SINGLE for one in batch):
            self._leases(leases)
        self._history.note(who, f"commit of {len(batch)}: to {self._seen.sequence}, {len(kept)} pages")

    def whole(self) -> None:
        """The slow checks, of all that is stored: Invariants 1, 2, 3, 5."""
        stored = {one for (one,) in self.rows("SELECT provider_id FROM deliveries")}
        if lost := sorted(self._acked.keys() - stored):
            self._history.violated(f"1: {len(lost)} acked deliveries are gone: {lost[:3]}")
        if orphans := self.rows(
            "SELECT hex(key) FROM emission_keys k WHERE NOT EXISTS (SELECT 1 FROM versions v"
            " WHERE v.connection_id = k.connection_id AND v.hash = k.hash) LIMIT 3"
        ):
            self._history.violated(f"3: idempotency keys without their work: {orphans}")
        if early := [
            one
            for (one,) in self.rows("SELECT DISTINCT delivery_id FROM emission_keys WHERE delivery_id IS NOT NULL")
            if one not in self._seen.done
        ]:
            self._history.violated(f"3: keys of deliveries that were never done: {early[:3]}")
        if twice := self.rows(
            "SELECT o.delivery_id, v.source_id FROM versions v JOIN origins o ON o.id = v.origin_id"
            " WHERE o.delivery_id IS NOT NULL GROUP BY o.delivery_id, v.type_id, v.source_id HAVING count(*) > 1"
        ):
            self._history.violated(f"2: deliveries took effect twice: {twice[:3]}")
        if repeated := self.rows(
            "SELECT connection_id, provider_id FROM deliveries GROUP BY 1, 2 HAVING count(*) > 1 LIMIT 3"
        ):
            self._history.violated(f"2: a repeated delivery is stored as another one: {repeated}")
        rows = self.rows("SELECT connection_id, type_id, source_id, version, deleted, hash FROM records")
        found = {(row[0], row[1], row[2]): (row[3], (row[4], row[5])) for row in rows}
        told = {place: (one.version, one.content) for place, one in self._seen.records.items()}
        if found != told:
            odd = [place for place in found.keys() | told.keys() if found.get(place) != told.get(place)]
            first = min(odd)
            self._history.violated(
                f"2: {len(odd)} records are not what their versions made them: {first} is {found.get(first)},"
                f" not {told.get(first)}"
            )

    def newest_run(self) -> int:
        """The id of the newest run; 0 where there is none."""
        return int(self.rows("SELECT coalesce(max(id), 0) FROM runs")[0][0])

    def left(self, after: int) -> dict[str, int]:
        """What waits still: deliveries, windows, and poll streams that no run newer than `after` polled to its end."""
        asked = {
            "deliveries": "SELECT count(*) FROM deliveries WHERE state = 'pending' AND ? > -1",
            "windows": "SELECT count(*) FROM windows WHERE state NOT IN ('done', 'cancelled') AND ? > -1",
            "streams": "SELECT count(*) FROM streams WHERE mode = 'poll' AND NOT EXISTS (SELECT 1 FROM runs"
            " WHERE stream_id = streams.id AND state = 'succeeded' AND runs.id > ?)",
        }
        found = {what: self.rows(sql, after)[0][0] for what, sql in asked.items()}
        return {what: count for what, count in found.items() if count}

    def records(self) -> list[tuple[Any, ...]]:
        """Every record as it stands: connection key, type, source id, deleted, payload, version number, as of."""
        return self.rows(
            "SELECT c.key, t.name, r.source_id, r.deleted, v.payload, r.version, r.as_of FROM records r"
            " JOIN types t ON t.id = r.type_id JOIN connections c ON c.id = r.connection_id"
            " JOIN versions v ON v.sequence = r.sequence ORDER BY 1, 2, 3"
        )

    def dead(self) -> list[tuple[Any, ...]]:
        """Deliveries that were given up: id, event type, error."""
        return self.rows("SELECT id, event_type, error FROM deliveries WHERE state = 'dead'")

    def digest(self) -> str:
        """A hash of what is stored, but for what is random by right (endpoint ids, ciphertexts)."""
        digest = blake2b(digest_size=HASH_BYTES)
        for table in ("records", "versions", "deliveries", "runs", "pages", "emission_keys", "streams"):
            columns = [row[1] for row in self.rows(f"PRAGMA table_info({table})") if row[1] != "traceback"]
            for row in self.rows(f"SELECT {', '.join(columns)} FROM {table} ORDER BY 1, 2, 3"):  # noqa: S608  our own
                digest.update(repr(row).encode())
        return digest.hexdigest()

    def lapse_leases(self) -> None:
        """Let every lease and claim run out."""
        with contextlib.closing(apsw.Connection(self._path)) as db:
            db.execute("UPDATE runs SET lease_until = 0 WHERE state = 'running'")
            db.execute("UPDATE deliveries SET lease_until = 0 WHERE state = 'pending' AND lease_until IS NOT NULL")
        self._seen.leases = {}

    def _look(self) -> None:
        self._versions()
        self._deliveries()
        self._latest = max(self._latest, to_micros(self._clock.now()))
        running = self.rows("SELECT id, epoch, lease_until FROM runs WHERE state = 'running'")
        self._seen.leases = {run_id: (epoch, until or 0) for run_id, epoch, until in running}
        for what, number, epoch, cursor in self.rows(
            "SELECT 'stream', id, epoch, cursor FROM streams UNION ALL SELECT 'window', id, epoch, cursor FROM windows"
        ):
            course = what, number
            if epoch < self._seen.epochs.get(course, 0):
                self._history.violated(f"9: the epoch of {what} {number} fell to {epoch}")
            self._seen.epochs[course], self._seen.cursors[course] = epoch, cursor

    def _versions(self) -> None:
        for sequence, connection, kind, source, number, deleted, stale, as_of, content in self.rows(
            "SELECT sequence, connection_id, type_id, source_id, version, deleted, stale, as_of, hash"
            " FROM versions WHERE sequence > ? ORDER BY sequence",
            self._seen.sequence,
        ):
            self._seen.sequence = sequence
            known = self._seen.records.setdefault((connection, kind, source), _Known())
            if number != known.version + 1:
                self._history.violated(f"2: version {number} of {source} follows {known.version}")
            known.version = number
            if not self.belongs(connection, source):
                self._history.violated(f"10: {source} is not of connection {connection}")
            if stale:
                if as_of > self._record_as_of(connection, kind, source):
                    self._history.violated(f"8: version {number} of {source} is newer than the current one, and stale")
                continue
            if (deleted, content) == known.content:
                self._history.violated(f"2: version {number} of {source} took effect twice")
            if as_of < known.as_of:
                self._history.violated(f"8: version {number} of {source} is older than the one it replaced")
            known.content, known.as_of = (deleted, content), as_of

    def _record_as_of(self, connection_id: int, type_id: int, source_id: str) -> int:
        # Renewed, without a version, when what is known is seen again later.
        ((as_of,),) = self.rows(
            "SELECT as_of FROM records WHERE connection_id = ? AND type_id = ? AND source_id = ?",
            connection_id, type_id, source_id,
        )  # fmt: skip
        return int(as_of)

    def _deliveries(self) -> None:
        ((count,),) = self.rows("SELECT count(*) FROM deliveries")
        if count < self._seen.deliveries:
            self._history.violated(f"5: {self._seen.deliveries - count} deliveries vanished")
        self._seen.deliveries = count
        for delivery_id, provider_id in self.rows(
            "SELECT id, provider_id FROM deliveries WHERE id > ? ORDER BY id", self._seen.delivery_id
        ):
            self._seen.delivery_id = delivery_id
            if provider_id in self.forged:
                self._history.violated(f"11: the forged delivery {provider_id} is stored")
        self._seen.done |= {one for (one,) in self.rows("SELECT id FROM deliveries WHERE state = 'done'")}

    def _leases(self, before: dict[int, tuple[int, int]]) -> None:
        """A tick takes no run from whoever holds it: only a lease that ran out."""
        for run_id, (epoch, until) in before.items():
            if until > self._latest and self._seen.leases.get(run_id, (-1, 0))[0] != epoch:
                self._history.violated(f"9: run {run_id} was taken from its holder while its lease lasted")

    def _is_new(self, page: PageCommit) -> bool:
        """Whether the page is stored since this look; one that is stored already came of an attempt before."""
        key = page.ref.run_id, page.number
        if key in self._seen.pages or not self.rows("SELECT 1 FROM pages WHERE run_id = ? AND number = ?", *key):
            return False
        self._seen.pages.add(key)
        return True

    def _kept_page(self, page: PageCommit, epochs: dict[Course, int]) -> None:
        ref = page.ref
        if ref.epoch < epochs.get(_course(page), 0):
            self._history.violated(
                f"9: page {page.number} of run {ref.run_id} was committed with the lost epoch {ref.epoch}"
            )
        self._emissions(ref.connection_id, page.emissions, f"page {page.number} of run {ref.run_id}")

    def _emissions(self, connection_id: int, emissions: Sequence[Emission], where: str) -> None:
        for one in emissions:
            found = self.rows(
                "SELECT r.as_of, r.hash, r.deleted FROM records r JOIN types t ON t.id = r.type_id"
                " WHERE r.connection_id = ? AND t.name = ? AND r.source_id = ?",
                connection_id, one.type, one.source_id,
            )  # fmt: skip
            if not found:
                if not one.deleted:
                    self._history.violated(f"4: {where} was committed without its {one.type} {one.source_id}")
                continue
            as_of, content, deleted = found[0]
            if as_of < one.as_of and (deleted != one.deleted or (not deleted and content != one.body[:HASH_BYTES])):
                self._history.violated(f"4: {where} says more of {one.type} {one.source_id} than its record")

    def _checkpoints(self, kept: Sequence[PageCommit], before: dict[Course, str | None]) -> None:
        wanted: dict[Course, list[str | None]] = {}
        for page in kept:
            if page.advance:
                wanted.setdefault(_course(page), []).append(page.cursor)
        for course, cursor in self._seen.cursors.items():
            if self.operator_moves_checkpoints:
                continue
            what, number = course
            if cursor != before.get(course) and cursor not in wanted.get(course, []):
                self._history.violated(f"4: the checkpoint of {what} {number} moved without a page")
            if course in wanted and cursor not in wanted[course]:
                self._history.violated(f"4: pages of {what} {number} were committed without their checkpoint")

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return self._db.execute(sql, values).fetchall()


def _course(page: PageCommit) -> Course:
    ref = page.ref
    return ("stream", ref.stream_id) if ref.window_id is None else ("window", ref.window_id)
