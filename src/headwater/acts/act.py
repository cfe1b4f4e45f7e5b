"""An act: one thing that an operator does, as a value. Pages, API and command line carry out the same ones.

form ─┐             ┌── plan(desk) ────> what it would do: a sentence, a count, a sample
API  ─┼── an act ───┤
CLI  ─┘             └── perform(desk) ─> what it did, written into the audit beside the command that does the same
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol
from urllib.parse import quote, urlencode

import msgspec

from headwater.clock import Clock
from headwater.errors import ConflictError, NotFoundError, UsageError, near_miss
from headwater.intention import StoredConnection
from headwater.project import NOT_LOADED_HINT, Project
from headwater.run import Backfill, Run, StreamState, of_partition
from headwater.store import Store

if TYPE_CHECKING:
    from headwater.invoke import LiveConnection, LiveConnections
    from headwater.key_ring import KeyRing
    from headwater.runtime import Runner

SAMPLE_MAX = 10  # entries shown of what an act is about
NAME_CHARACTERS_MAX = 500
INTEGER_MAX = 2**63 - 1


@dataclass(frozen=True)
class Place:
    """Where something can be seen: a page of the dashboard, and a resource of the API."""

    parts: Sequence[str | int]  # of the path
    query: Mapping[str, str] = field(default_factory=dict)  # what is empty is left out

    @property
    def path(self) -> str:
        """Each part escaped: `/connections/acme/streams/customers?partition=eu`."""
        query = urlencode({name: value for name, value in self.query.items() if value})
        return "/" + "/".join(quote(str(part), safe="") for part in self.parts) + (f"?{query}" if query else "")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an act would do, told before it is done."""

    sentence: str
    consequences: Sequence[str] = ()  # what somebody should know before they say yes
    count: int | None = None  # of what it is about; None: it is about one thing
    columns: Sequence[str] = ()  # of the sample
    sample: Sequence[Sequence[Any]] = ()  # at most `SAMPLE_MAX` rows
    is_possible: bool = True  # False: there is nothing to do


@dataclass(frozen=True, kw_only=True)
class Done:
    """What an act did."""

    sentence: str
    value: Mapping[str, Any] = field(default_factory=dict)  # the same for programs
    target: str = ""  # what was acted on, for the audit
    place: Place | None = None  # where it can be followed; None: the sentence is all there is
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    ok: bool = True  # False: it was carried out, and what it tried did not succeed


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What brings connectors to life, for acts that ask a provider."""

    connections: LiveConnections
    runner: Runner
    key_ring: KeyRing


class TakeIn(Protocol):
    """Hands a request to the ingress, as if it had come from the provider of a connection."""

    async def __call__(self, stored: StoredConnection, headers: Mapping[str, str], body: bytes) -> int:
        """The status that it was answered with."""
        ...


def _nobody() -> None:
    """Nothing works beside this process."""


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What acts work with, and on whose behalf; nothing of another tenant is found (Invariant 10)."""

    store: Store
    clock: Clock
    actor: str
    tenant: str | None = None  # acts on the connections of this tenant alone; None: on all
    projects: Mapping[str, Project] = field(default_factory=dict)  # by connector key
    workshop: Workshop | None = None  # None: this process loads no connectors
    wake: Callable[[], None] = _nobody  # look for work now
    base_url: str = ""  # of the pages, for links in messages
    take_in: TakeIn | None = None  # None: this process has no ingress

    async def connection(self, key: str) -> StoredConnection:
        """The connection of that key."""
        found = await self.store.connection(key)
        if found is None or not self.may_see(found):
            own = [one.key for one in await self.store.connections() if self.may_see(one)]
            raise NotFoundError(f"There is no connection `{key}`.", hint=near_miss(key, own))
        return found

    async def stream(self, connection: str, stream: str, partition: str) -> StreamState:
        """A declared stream of a connection."""
        stored = await self.connection(connection)
        states = await self.store.streams(at=self.clock.now(), connection=stored.key)
        if of_key := [one for one in states if one.stream == stream]:
            return of_partition(of_key, partition)
        hint = near_miss(stream, {one.stream for one in states})
        raise NotFoundError(f"The connection {stored.key} has no stream `{stream}`.", hint=hint)

    async def run(self, run_id: int) -> Run:
        """The run of that id."""
        found = await self.store.run(run_id)
        if found is None or not await self._is_own(found.connection):
            raise NotFoundError(f"There is no run {run_id}.", hint="`headwater runs` lists them.")
        return found

    async def backfill(self, backfill_id: int) -> Backfill:
        """The backfill of that id."""
        found = await self.store.backfill(backfill_id)
        if found is None or not await self._is_own(found.connection):
            raise NotFoundError(f"There is no backfill {backfill_id}.", hint="`headwater backfill list` shows them.")
        return found

    async def own_connections(self, connection: str | None = None) -> Sequence[str | None]:
        """The connections that an act over many is about: the one named, or those of the tenant; `[None]` for all."""
        if connection is not None:
            return [(await self.connection(connection)).key]
        if self.tenant is None:
            return [None]
        return [one.key for one in await self.store.connections() if self.may_see(one)]

    def may_see(self, stored: StoredConnection) -> bool:
        """Whether a connection is one of those that this desk acts on."""
        return self.tenant is None or stored.tenant == self.tenant

    def project(self, connector: str) -> Project:
        """The loaded project of a connector."""
        found = self.projects.get(connector)
        if found is None:
            raise NotFoundError(f"The connector `{connector}` is not loaded here.", hint=NOT_LOADED_HINT)
        return found

    async def live(self, key: str) -> LiveConnection:
        """A connection ready to work."""
        stored = await self.connection(key)
        return await self.at_work().connections.get(stored.id)

    def at_work(self) -> Workshop:
        """The workshop; `UsageError` where there is none."""
        if self.workshop is None:
            raise UsageError("This process loads no connectors.", hint="Ask a node that does, or the command line.")
        return self.workshop

    async def _is_own(self, connection: str) -> bool:
        if self.tenant is None:
            return True
        found = await self.store.connection(connection)
        return found is not None and self.may_see(found)


class Act(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that an operator does."""

    name: ClassVar[str]  # as it is audited, such as `streams.pause`
    title: ClassVar[str]  # on its button
    inputs: ClassVar[Sequence[str]] = ()  # the fields that a person fills in; the others come from where they were
    is_at_once: ClassVar[bool] = False  # a button does it; else its plan is shown first
    is_grave: ClassVar[bool] = False  # it cannot be undone

    async def plan(self, desk: Desk) -> Plan:
        """What it would do. `HeadwaterError` where it cannot be done."""
        raise NotImplementedError

    async def carry_out(self, desk: Desk) -> Done:
        """Do it."""
        raise NotImplementedError

    @classmethod
    async def choices(cls, given: Mapping[str, str], desk: Desk) -> Mapping[str, Sequence[str]]:  # noqa: ARG003
        """What may be chosen for inputs, by field, where something is known; another word may be given, too."""
        return {}

    def command(self) -> list[str]:
        """The words of the command that does the same, without `headwater`."""
        raise NotImplementedError

    def about(self) -> Place:
        """The page of what it is about."""
        raise NotImplementedError


async def perform(act: Act, desk: Desk) -> Done:
    """Carry out an act, and write down who did what, to what, and how many."""
    done = await act.carry_out(desk)
    detail = {"did": done.sentence, "command": command_line(act), **done.value}
    await desk.store.audit(
        at=desk.clock.now(), actor=desk.actor, act=act.name, target=done.target, detail=msgspec.to_builtins(detail)
    )
    desk.wake()
    return done


def command_line(act: Act) -> str:
    """The command that does the same, ready to be pasted into a shell."""
    return shlex.join(["headwater", *act.command()])


def options(**values: object) -> list[str]:
    """`--name value` for each that is given, `--name` for what is true."""
    words: list[str] = []
    for name, value in values.items():
        flag = "--" + name.strip("_").replace("_", "-")
        if value is True:
            words.append(flag)
        elif value not in (None, False, "", ()):
            words += [flag, value.isoformat() if hasattr(value, "isoformat") else str(value)]
    return words


def require_expected(expected: int | None, found: int, what: str) -> None:
    """Refuse an act over another number of things than somebody was shown."""
    if expected is not None and expected != found:
        raise ConflictError(
            f"{found:,} {what} match now, and not {expected:,}.", hint="Nothing was done. Look again, then say yes."
        )


def stream_words(connection: str, stream: str, partition: str) -> str:
    """A stream, by name."""
    return f"{connection} {stream}" + (f"[{partition}]" if partition else "")


def counted(count: int, thing: str, things: str = "") -> str:
    """`1 delivery`, `2,000 deliveries`."""
    return f"{count:,} {thing if count == 1 else things or thing + 's'}"
