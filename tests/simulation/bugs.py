"""Deliberate bugs, and what catches each: a promise of "nothing lost, nothing twice" is worth as much as these.

Each bug is planted into the running platform, or into the connector, and then a level must fail, with the promise that
it breaks. Usage: python tests/simulation/bugs.py [--only NAME,NAME] [--brief]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import one_shop
import pytest
import two_accounts
from histories import Told

from headwater import client, dispatch, ingest, ingress
from headwater.backoff import Backoff
from headwater.context import current
from headwater.delivery import DeliveryState
from headwater.errors import RetryError
from headwater.gather import Gather
from headwater.invoke import LiveConnections
from headwater.quota import Quota
from headwater.record import Outcome
from headwater.run import RunState
from headwater.signatures import proof
from headwater.stores import lease, plan
from headwater.stores.sqlite import database, inbox, pages, ticks
from headwater.stores.sqlite.store import SQLiteStore
from headwater.stores.sqlite.writer import SINGLE
from headwater.testing.simulation import Plan
from headwater.testing.virtual import owner

SEEDS = range(1, 21)  # tried one after the other until the bug is caught
BRIEF_SEEDS = range(1, 101)
BEYOND_BRIEF = {"dead letters vanish", "connections are mixed up"}  # of them nothing dies, and they have one connection
PLAN = Plan(seconds=240.0, pause_seconds=15.0, liveness_seconds=1000.0)

Patch = pytest.MonkeyPatch


@dataclass(frozen=True, kw_only=True)
class Bug:
    """One bug."""

    name: str
    breaks: str  # how the violation begins, in the simulator's words; of another level, the test that fails
    plant: Callable[[Patch], None]
    level: Callable[[], None] | None = None  # None: the simulator


@dataclass(frozen=True, kw_only=True)
class Caught:
    """What caught it."""

    by: str
    said: str


def ack_before_commit(patch: Patch) -> None:
    class Early(Gather):
        def add(self, item):
            super().add(item).add_done_callback(lambda answer: answer.cancelled() or answer.exception())
            now = asyncio.get_running_loop().create_future()
            now.set_result(None)
            return now

    patch.setattr(ingress, "Gather", Early)


def ack_of_a_failed_commit(patch: Patch) -> None:
    patch.setattr(ingress, "UNAVAILABLE", ingress.ACCEPTED)


def checkpoint_before_records(patch: Patch) -> None:
    commit_page = SQLiteStore.commit_page

    async def early(store, page):
        await statement(store, "UPDATE streams SET cursor = ? WHERE id = ?", page.cursor, page.ref.stream_id)
        return await commit_page(store, page)

    patch.setattr(SQLiteStore, "commit_page", early)


def records_without_checkpoint(patch: Patch) -> None:
    patch.setattr(pages, "_stream_rows", lambda pairs: [])


def checkpoint_forgotten_at_a_failure(patch: Patch) -> None:
    finish_run = SQLiteStore.finish_run

    async def forgetful(store, end):
        await finish_run(store, end)
        if end.state is RunState.RETRYING:
            await statement(store, "UPDATE streams SET cursor = NULL WHERE id = ?", end.ref.stream_id)

    patch.setattr(SQLiteStore, "finish_run", forgetful)


def dedupe_in_memory(patch: Patch) -> None:
    seen = {}

    def forgets(one, _):
        mine = seen.setdefault(id(owner()), set())
        key = one.connection_id, one.provider_id
        is_new = key not in mine
        mine.add(key)
        return is_new

    append_again(patch, forgets)


def dedupe_with_a_limit(patch: Patch) -> None:
    append_again(patch, lambda one, known_at: known_at < one.received_at - 20_000_000)


def append_again(patch: Patch, forgets) -> None:
    """A known delivery that is forgotten is stored again: the unique index must not stand in its way."""
    append, numbers = inbox._append_many, itertools.count()

    def again(db, batches):
        for one in (one for batch in batches for one in batch):
            key = one.connection_id, one.provider_id.encode()
            known_at = db.execute("SELECT received_at FROM deliveries WHERE (connection_id, dedupe) = (?, ?)", key).get
            if forgets(one, known_at or one.received_at) and known_at is not None:
                aside = b"%s %d" % (key[1], next(numbers))
                db.execute("UPDATE deliveries SET dedupe = ? WHERE (connection_id, dedupe) = (?, ?)", (aside, *key))
        return append(db, batches)

    patch.setattr(inbox, "_append_many", again)


def no_epoch_check(patch: Patch) -> None:
    def lenient(guard, ref):
        assert guard is not None
        if guard.state != "running":
            raise lease.FencedError(f"Run {ref.run_id} is over.")
        return guard

    patch.setattr(lease, "check_lease", lenient)


def leases_overlap(patch: Patch) -> None:
    early = ticks._sql["expire_leases"].replace("lease_until <= :at", "lease_until <= :at + 50000000")
    patch.setattr(ticks, "_sql", {**ticks._sql, "expire_leases": early})


def crashed_runs_never_resume(patch: Patch) -> None:
    never = {name: f"{ticks._sql[name].rstrip().rstrip(';')} AND 0" for name in ("expire_leases", "readmit")}
    patch.setattr(ticks, "_sql", {**ticks._sql, **never})


def claims_never_lapse(patch: Patch) -> None:
    never = f"{ticks._sql['readmit_deliveries'].rstrip().rstrip(';')} AND 0"
    patch.setattr(ticks, "_sql", {**ticks._sql, "readmit_deliveries": never})
    held = inbox._sql["claimable"].replace(
        "d.state = 'pending' AND", "d.state = 'pending' AND d.lease_until IS NULL AND", 1
    )
    patch.setattr(inbox, "_sql", {**inbox._sql, "claimable": held})


def older_replaces_newer(patch: Patch) -> None:
    decide = plan.decide

    def latest(emission, known, seen):
        outcome = decide(emission, known, seen)
        return Outcome.UPDATED if outcome is Outcome.STALE else outcome

    patch.setattr(plan, "decide", latest)


def known_key_hides_a_change(patch: Patch) -> None:
    decide = plan.decide

    def once(emission, known, seen):
        if emission.key is None and known is not None and not emission.deleted:
            return Outcome.DUPLICATE
        return decide(emission, known, seen)

    patch.setattr(plan, "decide", once)


def deletions_are_dropped(patch: Patch) -> None:
    decide = plan.decide
    patch.setattr(
        plan, "decide",
        lambda emission, known, seen: Outcome.DUPLICATE if emission.deleted else decide(emission, known, seen),
    )  # fmt: skip


def true_when_it_arrives(patch: Patch) -> None:
    patch.setattr(ingest, "_as_of_micros", lambda as_of: current("ingest").as_of)


def done_before_its_emissions(patch: Patch) -> None:
    finish = SQLiteStore.finish_deliveries

    async def early(store, done):
        for one in done:
            await statement(store, "UPDATE deliveries SET state = 'done' WHERE id = ?", one.claim.id)
        return await finish(store, done)

    patch.setattr(SQLiteStore, "finish_deliveries", early)


def keys_before_their_work(patch: Patch) -> None:
    finish = SQLiteStore.finish_deliveries

    async def early(store, done):
        for one in done:
            for emission in one.emissions:
                await statement(
                    store, "INSERT OR IGNORE INTO emission_keys VALUES (?, ?, ?, ?, ?)",
                    one.claim.connection_id, emission.key, bytes(emission.hash), int(emission.deleted), one.claim.id,
                )  # fmt: skip
        return await finish(store, done)

    patch.setattr(SQLiteStore, "finish_deliveries", early)


def a_replay_takes_effect_again(patch: Patch) -> None:
    replay = SQLiteStore.replay_deliveries

    async def anew(store, which, **given):
        await statement(store, "DELETE FROM emission_keys WHERE delivery_id IS NOT NULL")
        return await replay(store, which, **given)

    patch.setattr(SQLiteStore, "replay_deliveries", anew)


def dead_letters_vanish(patch: Patch) -> None:
    fail = SQLiteStore.fail_delivery

    async def forgetful(store, failure):
        await fail(store, failure)
        if failure.state is DeliveryState.DEAD:
            await statement(store, "DELETE FROM deliveries WHERE id = ?", failure.claim.id)

    patch.setattr(SQLiteStore, "fail_delivery", forgetful)


def a_passing_fault_is_final(patch: Patch) -> None:
    begin = dispatch.Dispatcher.__init__
    patch.setattr(
        dispatch.Dispatcher, "__init__",
        lambda self, *given, **named: begin(self, *given, **{**named, "attempts_max": 1}),
    )  # fmt: skip


def handler_errors_are_swallowed(patch: Patch) -> None:
    invoke = dispatch.invoke

    async def calm(route, request, invocation):
        try:
            return await invoke(route, request, invocation)
        except Exception:
            return None

    patch.setattr(dispatch, "invoke", calm)


def signatures_are_not_compared(patch: Patch) -> None:
    patch.setattr(proof, "prove", lambda *given, **named: None)


def connections_are_mixed_up(patch: Patch) -> None:
    get = LiveConnections.get
    patch.setattr(LiveConnections, "get", lambda self, connection_id: get(self, 1))


def silence_is_not_kept(patch: Patch) -> None:
    patch.setattr(Quota, "refused", lambda self, **given: None)


def retries_storm(patch: Patch) -> None:
    async def at_once(self, problem: RetryError, attempt: int, trace: object) -> None:
        return None

    patch.setattr(Backoff, "delay_seconds", lambda self, attempt, **given: 0.0)
    patch.setattr(client.HttpClient, "_pause", at_once)
    silence_is_not_kept(patch)


def the_disk_is_not_waited_for(patch: Patch) -> None:
    connect = database.connect_writer

    def fast(path):
        db = connect(path)
        db.execute("PRAGMA synchronous = OFF")
        return db

    patch.setattr(database, "connect_writer", fast)


def in_connector(change: Callable[[object], None]) -> Callable[[Patch], None]:
    """A bug of the connector's author: `change` is given each project as it is loaded."""
    return lambda patch: patch.setattr(two_accounts, "altered", change)


def later_than_instead_of_from(patch: Patch) -> None:
    def change(project) -> None:
        poll = project.module("lib.poll")
        list_page, since = poll.list_page, poll._since

        async def strict(path, params, **named):
            params = [("created[gt]" if name == "created[gte]" else name, value) for name, value in params]
            return await list_page(path, params, **named)

        poll.list_page = strict
        poll._since = lambda page, request: max([one["created"] for one in page.data] or [since(page, request)])

    in_connector(change)(patch)
    patch.setattr(two_accounts, "ACTS_PER_SECOND", 2.0)  # several in one second, which is what it loses


def an_error_is_an_empty_page(project) -> None:
    poll = project.module("lib.poll")
    list_page = poll.list_page

    async def calm(path, params, **named):
        try:
            return await list_page(path, params, **named)
        except Exception:
            return poll.Listed([], False, None)

    poll.list_page = calm


def a_lost_cursor_ends_the_list(project) -> None:
    poll = project.module("lib.poll")
    list_page = poll.list_page

    async def over(path, params, **named):
        page = await list_page(path, params, **named)
        return poll.Listed([], False, None) if page is None else page

    poll.list_page = over


def own_clock_instead_of_the_providers(project) -> None:
    project.module("lib.api")._provider_instant = lambda response, started_at: None


def durable_by_its_settings() -> None:
    """The level of `tests/test_stores_sqlite.py::test_the_file_is_durable_by_its_settings`."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import test_stores_sqlite as level

    # It may have been imported before the bug was planted, and hold the name as it was.
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(level, "connect_writer", database.connect_writer)
        level.test_the_file_is_durable_by_its_settings(f"{folder}/durable.db")


BUGS = (
    Bug(name="a 2xx before the commit", breaks="1:", plant=ack_before_commit),
    Bug(name="a 2xx although the commit failed", breaks="1:", plant=ack_of_a_failed_commit),
    Bug(name="the checkpoint before its records", breaks="4:", plant=checkpoint_before_records),
    Bug(name="records without their checkpoint", breaks="4:", plant=records_without_checkpoint),
    Bug(name="a failure forgets the checkpoint", breaks="4:", plant=checkpoint_forgotten_at_a_failure),
    Bug(name="deliveries deduplicated in memory", breaks="2:", plant=dedupe_in_memory),
    Bug(name="deliveries deduplicated for 20 s", breaks="2:", plant=dedupe_with_a_limit),
    Bug(name="no epoch is checked", breaks="9:", plant=no_epoch_check),
    Bug(name="leases are taken before they end", breaks="9:", plant=leases_overlap),
    Bug(name="a crashed run never resumes", breaks="7:", plant=crashed_runs_never_resume),
    Bug(name="a crashed claim never lapses", breaks="7:", plant=claims_never_lapse),
    Bug(name="an older state replaces a newer one", breaks="8:", plant=older_replaces_newer),
    Bug(name="a known key hides a change", breaks="7:", plant=known_key_hides_a_change),
    Bug(name="deletions are dropped", breaks="4:", plant=deletions_are_dropped),
    Bug(name="an event is true when it arrives", breaks="4:", plant=true_when_it_arrives),
    Bug(name="a delivery is done before its emissions", breaks="4:", plant=done_before_its_emissions),
    Bug(name="keys are stored before their work", breaks="4:", plant=keys_before_their_work),
    Bug(name="a replay takes effect again", breaks="6:", plant=a_replay_takes_effect_again),
    Bug(name="dead letters vanish", breaks="5:", plant=dead_letters_vanish),
    Bug(name="a passing fault is final", breaks="5:", plant=a_passing_fault_is_final),
    Bug(name="handler errors are swallowed", breaks="7:", plant=handler_errors_are_swallowed),
    Bug(name="signatures are not compared", breaks="11:", plant=signatures_are_not_compared),
    Bug(name="connections are mixed up", breaks="10:", plant=connections_are_mixed_up),
    Bug(name="Retry-After is not kept", breaks="silence:", plant=silence_is_not_kept),
    Bug(name="retries come as a storm", breaks="silence:", plant=retries_storm),
    Bug(
        name="commits do not wait for the disk", breaks="test_the_file_is_durable_by_its_settings",
        plant=the_disk_is_not_waited_for, level=durable_by_its_settings,
    ),
    Bug(name="connector: `>` for `>=`", breaks="7:", plant=later_than_instead_of_from),
    Bug(name="connector: an error is an empty page", breaks="7:", plant=in_connector(an_error_is_an_empty_page)),
    Bug(name="connector: a lost cursor ends the list", breaks="7:", plant=in_connector(a_lost_cursor_ends_the_list)),
    Bug(
        name="connector: its own clock for the provider's", breaks="7:",
        plant=in_connector(own_clock_instead_of_the_providers),
    ),
)  # fmt: skip


async def _statement(store, sql, values) -> None:
    await store._writer.submit(SINGLE, lambda db: db.execute(sql, values).fetchall())


def statement(store, sql, *values):
    """A transaction of its own."""
    return _statement(store, sql, values)


def long(seed: int) -> Told:
    """The history of two accounts, to its first violation."""
    return two_accounts.simulate(seed, plan=PLAN, whole=False)


def brief(seed: int) -> Told:
    """The brief history of a shop, to its first violation."""
    return one_shop.simulate(seed, whole=False)


def caught(bug: Bug, history: Callable[[int], Told] = long, seeds: range = SEEDS) -> Caught | None:
    """What catches the bug; None where nothing does."""
    with pytest.MonkeyPatch.context() as patch:
        bug.plant(patch)
        if bug.level is not None:
            try:
                bug.level()
            except AssertionError as error:
                return Caught(by=bug.breaks, said=str(error).splitlines()[0] if str(error) else "it fails")
            return None
        for seed in seeds:
            told = history(seed)
            for violation in told.violations:
                if violation.split(" s: ", 1)[1].startswith(bug.breaks):
                    return Caught(by=f"simulator, seed {seed}", said=violation)
            if told.violations:
                return Caught(by=f"simulator, seed {seed}, as another promise", said=told.violations[0])
    return None


def in_brief(bug: Bug) -> bool:
    """Whether brief histories can catch it: those of the shop's connector, which has none of Stripe's bugs."""
    return bug.level is None and not bug.name.startswith("connector:") and bug.name not in BEYOND_BRIEF


def main() -> int:
    """See the module."""
    options = argparse.ArgumentParser()
    options.add_argument("--only", default="")
    options.add_argument("--brief", action="store_true", help="by brief histories, what they can catch")
    chosen = options.parse_args()
    logging.disable(logging.CRITICAL)
    began, told, missed = time.perf_counter(), {}, []
    for bug in BUGS:
        if not any(word in bug.name for word in chosen.only.split(",")) or (chosen.brief and not in_brief(bug)):
            continue
        started = time.perf_counter()
        found = caught(bug, brief, BRIEF_SEEDS) if chosen.brief else caught(bug)
        said = f"{found.by}: {found.said[:150]}" if found else "NOT CAUGHT"
        print(f"{bug.name:45} {time.perf_counter() - started:5.1f} s  {said}", file=sys.stderr, flush=True)
        if found:
            told[bug.name] = said
        else:
            missed.append(f"{bug.name}: not caught")
    figures = {"bugs": len(told) + len(missed), "caught": told, "seconds": round(time.perf_counter() - began)}
    print(json.dumps({**figures, "problems": missed}, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
