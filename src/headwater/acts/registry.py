"""Every act, by its name."""

from __future__ import annotations

from collections.abc import Mapping

from headwater.acts.act import Act
from headwater.acts.alerts import AddAlertRule, MuteStream, RemoveAlertRule, SendTestMessage, Unmute
from headwater.acts.backfills import CancelBackfill, PauseBackfill, ResumeBackfill, RetryWindows, StartBackfill
from headwater.acts.connections import ForgetRecords, PauseConnection, ResumeConnection, TestConnection
from headwater.acts.deliveries import CancelReplay, ReplayDeliveries
from headwater.acts.events import SendEvent
from headwater.acts.quarantine import DropQuarantined, ReleaseQuarantined, RepairQuarantined
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

ACTS: Mapping[str, type[Act]] = {
    one.name: one
    for one in (
        TriggerRun, TryRun, PauseStream, ResumeStream, CancelRun, SetCheckpoint, ResetCheckpoint,
        PauseConnection, ResumeConnection, TestConnection, ForgetRecords,
        AddConnection, ChangeSettings, SetSecret, Disconnect, RemoveConnection,
        StartBackfill, PauseBackfill, ResumeBackfill, CancelBackfill, RetryWindows,
        SendEvent, ReplayDeliveries, CancelReplay, ReleaseQuarantined, RepairQuarantined, DropQuarantined, ExamineStore,
        AddAlertRule, RemoveAlertRule, MuteStream, Unmute, SendTestMessage,
    )
}  # fmt: skip
