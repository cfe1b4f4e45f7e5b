"""What an operator does: told beforehand, carried out once, written down, the same by page, API and command line."""

import shlex

import click
import pytest

from desk import DAY, THIS, at_desk, set_aside, state_of
from headwater.acts.act import Desk, Place, command_line, perform
from headwater.acts.alerts import AddAlertRule, MuteStream, RemoveAlertRule, SendTestMessage, Unmute
from headwater.acts.backfills import CancelBackfill, PauseBackfill, ResumeBackfill, RetryWindows, StartBackfill
from headwater.acts.connections import ForgetRecords, PauseConnection, ResumeConnection, TestConnection
from headwater.acts.deliveries import CancelReplay, ReplayDeliveries
from headwater.acts.events import SendEvent
from headwater.acts.quarantine import DropQuarantined, ReleaseQuarantined, RepairQuarantined
from headwater.acts.registry import ACTS
from headwater.acts.setup import AddConnection, ChangeSettings, Disconnect, RemoveConnection, SetSecret
from headwater.acts.streams import (
    CancelRun,
    PauseStream,
    ResetCheckpoint,
    ResumeStream,
    SetCheckpoint,
    TriggerRun,
    TryRun,
)
from headwater.acts.system import ExamineStore
from headwater.cli.main import root
from headwater.dashboard.acts import FieldsError, inputs, read
from headwater.delivery import DeliveryState
from headwater.errors import ConflictError, HeadwaterError, NotFoundError, UsageError
from headwater.run import Window
from stored import begin, deliver, dispatch, emit, ingest
from stream_states import NOON


def test_a_run_is_triggered_once_told_and_written_down():
    async def story(desk, _):
        act = TriggerRun(**THIS, pages_limit=3)
        assert (await act.plan(desk)).sentence == "acme customers runs now, from the beginning."
        done = await perform(act, desk)
        run_id = done.value["run_id"]
        assert (await desk.store.run(run_id)).state == "scheduled"
        assert done.place == Place(("runs", run_id))
        (entry,) = await desk.store.audit_log()
        assert (entry.actor, entry.act, entry.target) == ("ada", "runs.trigger", "acme customers")
        assert entry.detail["command"] == "headwater run acme customers --pages 3"
        assert entry.detail["run_id"] == run_id
        assert not (await act.plan(desk)).is_possible, "it is under way"
        with pytest.raises(UsageError):
            await perform(act, desk)
        assert len(await desk.store.audit_log()) == 1, "what was not done is not written down"
        with pytest.raises(UsageError, match="webhook stream has no runs"):
            await TriggerRun(connection="acme", stream="events").plan(desk)

    at_desk(story)


def test_a_stream_and_a_connection_are_paused_and_resumed():
    async def story(desk, _):
        await perform(PauseStream(**THIS), desk)
        assert (await state_of(desk)).paused_at is not None
        await perform(ResumeStream(**THIS), desk)
        resumed = await state_of(desk)
        assert (resumed.paused_at, resumed.next_tick_at) == (None, desk.clock.now())
        assert "2 streams of acme" in (await PauseConnection(connection="acme").plan(desk)).sentence
        await perform(PauseConnection(connection="acme", reason="maintenance"), desk)
        assert (await desk.store.connection("acme")).paused_reason == "maintenance"
        await perform(ResumeConnection(connection="acme"), desk)
        assert (await desk.store.connection("acme")).paused_at is None

    at_desk(story)


def test_a_checkpoint_is_set_reset_and_a_run_under_way_fenced():
    async def story(desk, _):
        await ingest(desk.store, desk.clock, emit("c1", desk.clock))
        assert (await state_of(desk)).cursor == "c1"
        plan = await SetCheckpoint(**THIS, cursor="b0").plan(desk)
        assert plan.sentence == "acme customers goes on at `b0`. It stands at `c1`."
        assert not (await SetCheckpoint(**THIS, cursor="c1").plan(desk)).is_possible
        done = await perform(SetCheckpoint(**THIS, cursor="b0"), desk)
        assert (done.value["before"], done.value["after"]) == ("c1", "b0")
        await perform(ResetCheckpoint(**THIS), desk)
        assert (await state_of(desk)).cursor is None
        with pytest.raises(UsageError, match="at most"):
            await perform(SetCheckpoint(**THIS, cursor="é" * 40_000), desk)

    at_desk(story)


def test_a_run_is_cancelled():
    async def story(desk, _):
        ref = await begin(desk.store, desk.clock)
        plan = await CancelRun(run=ref.run_id).plan(desk)
        assert "0 pages of it are committed, and what they brought stays." in plan.consequences
        assert (await perform(CancelRun(run=ref.run_id), desk)).ok
        assert not (await CancelRun(run=ref.run_id).plan(desk)).is_possible
        assert not (await perform(CancelRun(run=ref.run_id), desk)).ok

    at_desk(story)


def test_a_backfill_is_paused_resumed_retried_and_cancelled():
    async def story(desk, _):
        state = await state_of(desk)
        spans = [Window(NOON - DAY * n, NOON - DAY * (n - 1)) for n in (3, 2, 1)]
        made = await desk.store.add_backfill(
            state.id, span=Window(NOON - DAY * 3, NOON), windows=spans, at=desk.clock.now()
        )
        assert not (await RetryWindows(backfill=made.id).plan(desk)).is_possible
        with pytest.raises(UsageError, match="No window"):
            await perform(RetryWindows(backfill=made.id), desk)
        assert (await RetryWindows(backfill=made.id, number=2).plan(desk)).count == 1
        for act, now in ((PauseBackfill, "paused"), (ResumeBackfill, "running"), (CancelBackfill, "cancelled")):
            assert (await act(backfill=made.id).plan(desk)).is_possible
            await perform(act(backfill=made.id), desk)
            assert (await desk.store.backfill(made.id)).state == now
            assert not (await act(backfill=made.id).plan(desk)).is_possible
        await perform(RetryWindows(backfill=made.id, number=1), desk)
        assert (await desk.store.windows(made.id))[0].state == "todo"

    at_desk(story)


def test_deliveries_are_replayed_as_many_as_were_shown():
    async def story(desk, acme):
        for name in ("one", "two", "three"):
            await deliver(desk.store, desk.clock, acme, name)
            await dispatch(desk.store, desk.clock, dead=True)
        act = ReplayDeliveries(state=DeliveryState.DEAD)
        plan = await act.plan(desk)
        assert (plan.count, len(plan.sample), plan.sentence) == (3, 3, "3 deliveries are dispatched again.")
        with pytest.raises(ConflictError, match="3 deliveries match now, and not 2"):
            await perform(ReplayDeliveries(state=DeliveryState.DEAD, expected=2), desk)
        assert len(await desk.store.audit_log()) == 0
        done = await perform(ReplayDeliveries(state=DeliveryState.DEAD, expected=3), desk)
        assert done.value["replayed"] == 3
        (entry,) = await desk.store.audit_log()
        assert entry.detail["filter"] == {"state": "dead", "expected": 3}
        assert not (await act.plan(desk)).is_possible
        with pytest.raises(UsageError, match="every delivery"):
            await ReplayDeliveries().plan(desk)

    at_desk(story)


def test_stored_records_are_forgotten_and_the_checkpoint_stays():
    async def story(desk, _):
        await ingest(desk.store, desk.clock, *[emit(f"c{n}", desk.clock) for n in range(5)])
        await ingest(desk.store, desk.clock, emit("x", desk.clock), connection="other")
        plan = await ForgetRecords(connection="acme").plan(desk)
        assert plan.sentence == "5 live records of acme and all their versions are removed."
        assert plan.sample == [("customer", 5)]
        with pytest.raises(UsageError, match=r"no records of the type `custom`.*customer"):
            await ForgetRecords(connection="acme", type="custom").plan(desk)
        with pytest.raises(ConflictError):
            await perform(ForgetRecords(connection="acme", expected=4), desk)
        await perform(ForgetRecords(connection="acme", type="customer", expected=5), desk)
        assert await desk.store.populations() == [("acme", "customer", 0), ("other", "customer", 1)]
        assert (await state_of(desk)).cursor == "c1"

    at_desk(story)


def test_quarantined_records_are_given_up_those_named_or_all():
    async def story(desk, _):
        await set_aside(desk, "a", "b", "c")
        waiting = await desk.store.quarantined()
        assert (await DropQuarantined(ids=(waiting[0].id,)).plan(desk)).count == 1
        await perform(DropQuarantined(ids=(waiting[0].id,)), desk)
        with pytest.raises(NotFoundError, match="waits"):
            await perform(DropQuarantined(ids=(waiting[0].id,)), desk)
        with pytest.raises(ConflictError):
            await perform(DropQuarantined(connection="acme", expected=3), desk)
        assert (await perform(DropQuarantined(connection="acme", expected=2), desk)).value["dropped"] == 2
        assert not (await ReleaseQuarantined().plan(desk)).is_possible

    at_desk(story)


def test_nothing_of_another_tenant_is_acted_on():
    async def story(desk, acme):
        ref = await begin(desk.store, desk.clock)
        await desk.store.cancel_run(ref.run_id, at=desk.clock.now())
        await set_aside(desk, "a")
        other = Desk(store=desk.store, clock=desk.clock, actor="eve", tenant="two")
        await deliver(desk.store, desk.clock, acme, "one")
        state = await state_of(desk)
        made = await desk.store.add_backfill(
            state.id, span=Window(NOON - DAY, NOON), windows=[Window(NOON - DAY, NOON)], at=desk.clock.now()
        )
        await perform(AddAlertRule(conditions=("late",), connection="acme"), desk)
        await perform(MuteStream(connection="acme"), desk)
        hidden = [
            TriggerRun(**THIS), TryRun(**THIS), PauseStream(**THIS), ResumeStream(**THIS), ResetCheckpoint(**THIS),
            SetCheckpoint(**THIS, cursor="x"), CancelRun(run=ref.run_id), PauseConnection(connection="acme"),
            ResumeConnection(connection="acme"), TestConnection(connection="acme"),
            StartBackfill(**THIS, start=NOON - DAY), PauseBackfill(backfill=made.id), ResumeBackfill(backfill=made.id),
            CancelBackfill(backfill=made.id), RetryWindows(backfill=made.id, number=1),
            ReplayDeliveries(connection="acme"), ReleaseQuarantined(connection="acme"),
            DropQuarantined(connection="acme"), RepairQuarantined(record=1, payload="{}"),
            SendEvent(connection="acme", event_type="a.b"), CancelReplay(replayed_at=NOON, connection="acme"),
            ForgetRecords(connection="acme"), AddAlertRule(conditions=("late",), connection="acme"),
            RemoveAlertRule(rule=1), MuteStream(connection="acme"), Unmute(mute=1),
            ChangeSettings(connection="acme", settings={}), RemoveConnection(connection="acme"),
            SetSecret(connection="acme", field="b", value="c"), Disconnect(connection="acme"),
        ]  # fmt: skip
        apart = {ExamineStore, SendTestMessage, AddConnection}
        assert {type(one) for one in hidden} == set(ACTS.values()) - apart, "every act is tried"
        for act in hidden:
            for attempt in (act.plan, act.carry_out):
                with pytest.raises(NotFoundError):
                    await attempt(other)
        for act in (ExamineStore(), SendTestMessage()):
            with pytest.raises(UsageError, match="every tenant"):
                await act.carry_out(other)
        with pytest.raises(UsageError, match="Name one"):
            await AddAlertRule(conditions=("late",)).plan(other)
        assert (await ReplayDeliveries(state=DeliveryState.PENDING).plan(other)).count == 0
        assert (await perform(ReplayDeliveries(ids=(1,)), other)).value["replayed"] == 0

    at_desk(story)


def _examples():
    yield from (
        TriggerRun(**THIS, partition="eu", pages_limit=3, allow_deletes=True), TryRun(**THIS, pages_limit=2),
        PauseStream(**THIS), ResumeStream(**THIS, partition="eu"), CancelRun(run=7),
        SetCheckpoint(**THIS, cursor="--it's; odd"), ResetCheckpoint(**THIS, partition="eu"),
        PauseConnection(connection="acme", reason="a b"), ResumeConnection(connection="acme"),
        TestConnection(connection="acme"), StartBackfill(**THIS, start=NOON, end=NOON + DAY, days=2),
        PauseBackfill(backfill=1), ResumeBackfill(backfill=1), CancelBackfill(backfill=1), RetryWindows(backfill=1),
        RetryWindows(backfill=1, number=3), ReplayDeliveries(ids=(1, 2)),
        ReplayDeliveries(
            connection="acme", state=DeliveryState.DEAD, event_type="a.b", received_from=NOON, received_to=NOON + DAY,
            error_code="stop.handler",
        ),
        ReleaseQuarantined(ids=(4,)), ReleaseQuarantined(connection="acme"), DropQuarantined(stream="customers"),
        RepairQuarantined(record=4, payload="{}"), SendEvent(connection="acme", event_type="a.b"),
        CancelReplay(replayed_at=NOON), ForgetRecords(connection="acme", type="customer"), ExamineStore(),
        AddAlertRule(conditions=("late", "needs attention"), targets=("webhook", "a@b.c"), connection="acme"),
        AddAlertRule(conditions=("drift",), threshold=0.5), RemoveConnection(connection="acme"),
        Disconnect(connection="acme"),
        AddConnection(connector="shop", key="acme", settings={"a": 1}, secrets={"b": "c"}, paused=True),
        ChangeSettings(connection="acme", settings={"a": True}), SetSecret(connection="acme", field="b", value="c"),
        SetSecret(connection="acme", field="b", value="c", overlap_hours=2.5),
        AddAlertRule(conditions=("late",), hold_minutes=0), RemoveAlertRule(rule=1), MuteStream(connection="acme"),
        MuteStream(**THIS, hours=2, reason="a b"), Unmute(mute=3), SendTestMessage(target="a@b.c"),
    )  # fmt: skip


@pytest.mark.parametrize("act", list(_examples()), ids=lambda act: type(act).__name__)
def test_the_command_of_an_act_is_one_that_the_command_line_takes(act, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "repaired.json").write_text("{}")
    words = shlex.split(command_line(act))
    assert words[0] == "headwater"
    context, group = click.Context(root), root
    rest = words[1:]
    while isinstance(group, click.Group):
        name, command, rest = group.resolve_command(context, rest)
        context, group = click.Context(command, info_name=name, parent=context), command
    given = group.make_context(words[1], list(rest), parent=context)  # raises for what it does not take
    assert given.args == []


def test_every_act_is_among_the_examples():
    assert {type(one) for one in _examples()} == set(ACTS.values())


def test_a_form_is_read_with_every_problem_at_its_field():
    act = read(StartBackfill, {**THIS, "start": "2026-01-01T10:30", "end": "2026-02-01", "days": ""})
    assert (act.start.isoformat(), act.end.isoformat(), act.days) == (
        "2026-01-01T10:30:00+00:00", "2026-02-01T00:00:00+00:00", None,
    )  # fmt: skip
    with pytest.raises(FieldsError) as refused:
        read(StartBackfill, {**THIS, "start": "soon", "days": "0", "colour": "red"})
    assert set(refused.value.errors) == {"start", "days", "colour"}
    assert "Days in a window" in refused.value.errors["days"]
    assert read(ReplayDeliveries, {"ids": "1,2", "expected": "2"}).ids == (1, 2)
    assert read(TriggerRun, {**THIS, "allow_deletes": "true"}).allow_deletes is True
    with pytest.raises(FieldsError):
        read(ReplayDeliveries, {"ids": "1,x"})
    shown = {one.name: one for one in inputs(StartBackfill, {"start": "2026-01-01"})}
    assert (shown["start"].kind, shown["start"].value, shown["start"].is_required) == (
        "datetime-local", "2026-01-01T00:00", True,
    )  # fmt: skip
    assert shown["days"].help == "Empty: the stream's own."


def test_an_act_that_needs_a_connector_says_where_there_is_none():
    async def story(desk, _):
        for act in (TestConnection(connection="acme"), TryRun(**THIS)):
            with pytest.raises(UsageError, match="loads no connectors"):
                await perform(act, desk)
        with pytest.raises(HeadwaterError, match="not loaded"):
            await StartBackfill(**THIS, start=NOON - DAY).plan(desk)

    at_desk(story)
