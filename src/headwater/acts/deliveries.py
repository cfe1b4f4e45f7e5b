"""Replaying deliveries: one, the selected, or all that match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, ClassVar

import msgspec

from headwater.acts.act import INTEGER_MAX, SAMPLE_MAX, Act, Desk, Done, Place, Plan, counted, options, require_expected
from headwater.acts.streams import Id, Name
from headwater.delivery import DeliveryFilter, DeliveryState
from headwater.errors import UsageError

IDS_MAX = 10_000

Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class ReplayDeliveries(Act, frozen=True, kw_only=True):
    """Dispatch deliveries again, done ones too; what was already right does not change."""

    name: ClassVar[str] = "deliveries.replay"
    title: ClassVar[str] = "Replay"

    ids: Annotated[tuple[Id, ...], msgspec.Meta(max_length=IDS_MAX)] | None = None
    connection: Name | None = None
    state: DeliveryState | None = None
    event_type: Name | None = None
    received_from: Instant | None = None
    received_to: Instant | None = None
    error_code: Name | None = None
    expected: Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)] | None = None  # do nothing unless so many match

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        filters = await self._filters(desk)
        count = sum([await desk.store.count_deliveries(which) for which in filters])
        found = [one for which in filters for one in await desk.store.deliveries(which, limit=SAMPLE_MAX)]
        newest = sorted(found, key=lambda one: -one.id)[:SAMPLE_MAX]
        return Plan(
            sentence=f"{counted(count, 'delivery', 'deliveries')} {'is' if count == 1 else 'are'} dispatched again.",
            consequences=(
                "What was already right does not change; records that differ get a new version.",
                "Deliveries that wait already are due at once.",
            ),
            count=count,
            columns=("delivery", "connection", "event", "state", "received", "error"),
            sample=[
                (one.id, one.connection, one.event_type or "", one.state.value, one.received_at, one.error_code or "")
                for one in newest
            ],
            is_possible=count > 0,
        )

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        filters = await self._filters(desk)
        matched = sum([await desk.store.count_deliveries(which) for which in filters])
        require_expected(self.expected, matched, "deliveries")
        at = desk.clock.now()
        replayed = sum([await desk.store.replay_deliveries(which, at=at) for which in filters])
        given = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return Done(
            sentence=f"{counted(replayed, 'delivery waits', 'deliveries wait')} to be dispatched again.",
            value={"matched": matched, "replayed": replayed, "replayed_at": at, "filter": given},
            target=self._target(),
            place=self.about() if self._only is not None else Place(("deliveries",), {"replayed_at": at.isoformat()}),
        )

    def command(self) -> list[str]:
        """See `Act.command`."""
        return [
            "deliveries", "replay", *map(str, self.ids or ()),
            *options(
                connection=self.connection, state=self.state.value if self.state else None,
                event_type=self.event_type, error_code=self.error_code, _from=self.received_from, to=self.received_to,
            ),
            "--yes",
        ]  # fmt: skip

    def about(self) -> Place:
        """See `Act.about`."""
        return Place(("deliveries",) if self._only is None else ("deliveries", self._only))

    @property
    def _only(self) -> int | None:
        return self.ids[0] if self.ids is not None and len(self.ids) == 1 else None

    def _target(self) -> str:
        if self._only is not None:
            return f"delivery {self._only}"
        return f"deliveries of {self.connection}" if self.connection else "deliveries"

    async def _filters(self, desk: Desk) -> Sequence[DeliveryFilter]:
        which = DeliveryFilter(
            ids=self.ids,
            connection=self.connection,
            state=self.state,
            event_type=self.event_type,
            received_from=self.received_from,
            received_to=self.received_to,
            error_code=self.error_code,
        )
        if which == DeliveryFilter():
            raise UsageError("This would replay every delivery.", hint="Give at least one filter, such as state.")
        return [replace(which, connection=key) for key in await desk.own_connections(self.connection)]


class CancelReplay(Act, frozen=True, kw_only=True):
    """Let those of a replay that still wait be what they were before; those dispatched meanwhile stay so."""

    name: ClassVar[str] = "deliveries.cancel"
    title: ClassVar[str] = "Cancel the replay"

    replayed_at: Instant  # which replay
    connection: Name | None = None

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        waiting = DeliveryState.PENDING
        filters = [replace(which, state=waiting) for which in await self._filters(desk)]
        count = sum([await desk.store.count_deliveries(which) for which in filters])
        return Plan(
            sentence=f"{counted(count, 'delivery of this replay waits', 'deliveries of this replay wait')} still.",
            consequences=(
                "They are done or dead again, as they were.",
                "Those under way go on; those that waited before the replay wait on.",
            ),
            count=count,
            is_possible=count > 0,
        )

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        at = desk.clock.now()
        cancelled = sum([await desk.store.cancel_replay(which, at=at) for which in await self._filters(desk)])
        return Done(
            sentence=f"{counted(cancelled, 'delivery is', 'deliveries are')} not dispatched again.",
            value={"cancelled": cancelled, "replayed_at": self.replayed_at},
            target=f"replay of {self.replayed_at.isoformat()}",
            place=self.about(),
        )

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["deliveries", "cancel-replay", self.replayed_at.isoformat(), *options(connection=self.connection)]

    def about(self) -> Place:
        """See `Act.about`."""
        return Place(("deliveries",), {"replayed_at": self.replayed_at.isoformat()})

    async def _filters(self, desk: Desk) -> Sequence[DeliveryFilter]:
        which = DeliveryFilter(replayed_at=self.replayed_at)
        return [replace(which, connection=key) for key in await desk.own_connections(self.connection)]
