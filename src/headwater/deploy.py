"""Bring a version of a connector into service: receive its bundle, plan, activate, return to the one before.

    archive ──> unpacked, checked apart ──> stored ──> plan ──> compared and set ──> every node takes it up

Nothing of this touches the version that runs until it is set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import msgspec

from headwater.archive import unpack
from headwater.check.apart import Verdict, check_apart
from headwater.clock import Clock
from headwater.deployment import Act, Deployment, StoredBundle
from headwater.difference import Change, compare
from headwater.errors import CheckFailedError, DestructiveError, NotFoundError, RetryError, UsageError, near_miss
from headwater.failpoint import failpoint
from headwater.intention import LIST_LIMIT_MAX
from headwater.outline import Outline, decode, encode, outline
from headwater.project import Project
from headwater.store import Store

CHECKS_MAX = 4  # under way or waiting, in one process; whoever comes then is asked to come again
HASH_CHARACTERS_MIN = 6  # of a beginning that stands for the whole


class BundleRefusedError(CheckFailedError):
    """The bundle did not pass its check."""

    def __init__(self, message: str | None = None, *, lines: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.lines = tuple(lines)  # its diagnostics


@dataclass(frozen=True, kw_only=True)
class Received:
    """A bundle that is stored now."""

    bundle: StoredBundle
    is_new: bool
    lines: tuple[str, ...] = ()  # warnings of its check


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the activation of a bundle would change."""

    connector: str
    bundle: str  # hash
    version: str
    active: str | None  # hash of the bundle that runs: what the activation is to expect
    active_version: str | None  # also of a folder's
    changes: tuple[Change, ...]

    @property
    def destructive(self) -> tuple[Change, ...]:
        """The changes that take something away."""
        return tuple(change for change in self.changes if change.destructive)


class Wanted(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A bundle that is to run."""

    bundle: str | None = None  # hash; of a rollback also its beginning, or None for the one before
    connector: str | None = None  # of a rollback
    rollback: bool = False
    expected: str | msgspec.UnsetType | None = msgspec.UNSET  # the bundle that a plan found active; None: none was
    allow_destructive: bool = False
    dry_run: bool = False  # answer the plan and change nothing


class Deployer:
    """Deploys to one store; `activated` is awaited after an activation, so that this process takes it up at once."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        projects: Mapping[str, Project],
        activated: Callable[[], Awaitable[object]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._projects = projects
        self._activated = activated
        self._checking = asyncio.Lock()  # a check takes a process and its memory: one at a time
        self._checks = 0

    async def receive(self, archive: bytes, *, content_hash: str, actor: str) -> Received:
        """Check a bundle and store it; one that is stored already is not checked again.

        Raises `CheckFailedError` for what is no bundle of that name, `BundleRefusedError` with the check's lines.
        """
        examined = await self._examined(archive, content_hash, actor)
        is_new = examined.is_new and await self._store.add_bundle(examined.bundle)
        failpoint("deploy.received")
        return replace(examined, is_new=is_new)

    async def rehearse(self, archive: bytes, *, content_hash: str, actor: str) -> dict[str, Any]:
        """Check a bundle and plan its activation, for programs; nothing is written. Raises as `receive` does."""
        examined = await self._examined(archive, content_hash, actor)
        return _answer(await self._plan(examined.bundle), None) | {"warnings": list(examined.lines)}

    async def carry_out(self, wanted: Wanted, *, actor: str) -> dict[str, Any]:
        """Plan and, unless it is a dry run, activate; both for programs, `deployment` None where nothing was done."""
        plan = await self._planned(wanted)
        done = None
        if not wanted.dry_run:
            if not isinstance(wanted.expected, msgspec.UnsetType):
                plan = replace(plan, active=wanted.expected)
            act: Act = "rollback" if wanted.rollback else "deploy"
            done = await self.activate(plan, act=act, actor=actor, allow_destructive=wanted.allow_destructive)
        return _answer(plan, done)

    async def plan(self, content_hash: str) -> Plan:
        """What the activation of a stored bundle would change; `NotFoundError` when it is not stored."""
        return await self._plan(await self._stored(content_hash))

    async def activate(self, plan: Plan, *, act: Act, actor: str, allow_destructive: bool = False) -> Deployment:
        """Carry out a plan, in one transaction; what is active already stays as it is.

        A rollback may take away what the version after it had brought. Raises `DestructiveError` for any other that
        takes something away and was not allowed to, `ConflictError` when another bundle runs by now.
        """
        if plan.destructive and act == "deploy" and not allow_destructive:
            names = ", ".join(f"{change.area} {change.name} ({change.kind})" for change in plan.destructive)
            raise DestructiveError(f"This takes away: {names}.", hint="Allow it with `--allow-destructive`.")
        done = await self._store.activate_bundle(
            plan.bundle,
            expected=plan.active,
            act=act,
            plan=[asdict(change) for change in plan.changes],
            actor=actor,
            at=self._clock.now(),
        )
        failpoint("deploy.after_commit")
        await self._activated()
        return done

    async def plan_rollback(self, connector: str, word: str | None = None) -> Plan:
        """What a return would change: to the bundle that begins with `word`, or to the one before the one that runs."""
        return await self.plan(await (self._previous(connector) if word is None else self._find(connector, word)))

    async def _examined(self, archive: bytes, content_hash: str, actor: str) -> Received:
        known = await self._store.bundle(content_hash)
        if known is not None and known.archive == archive:
            return Received(bundle=known, is_new=False)
        verdict = await self._checked(archive, content_hash)
        if verdict.outline is None:
            raise BundleRefusedError(lines=verdict.lines)
        bundle = StoredBundle(
            hash=content_hash,
            connector=verdict.outline.connector,
            version=verdict.outline.version,
            outline=encode(verdict.outline),
            archive=archive,
            archive_bytes=len(archive),
            created_at=self._clock.now(),
            actor=actor,
        )
        return Received(bundle=bundle, is_new=True, lines=verdict.lines)

    async def _checked(self, archive: bytes, content_hash: str) -> Verdict:
        if self._checks >= CHECKS_MAX:
            raise RetryError(f"{CHECKS_MAX} bundles are being checked.", hint="Send it again.")
        self._checks += 1
        try:
            async with self._checking:
                await asyncio.to_thread(unpack, archive, content_hash=content_hash)
                return await check_apart(archive, content_hash)
        finally:
            self._checks -= 1

    async def _planned(self, wanted: Wanted) -> Plan:
        if wanted.rollback and wanted.connector:
            return await self.plan_rollback(wanted.connector, wanted.bundle)
        if wanted.rollback or not wanted.bundle:
            raise UsageError(f"`{'connector' if wanted.rollback else 'bundle'}` is missing.")
        return await self.plan(wanted.bundle)

    async def _plan(self, wanted: StoredBundle) -> Plan:
        active = (await self._store.active_bundles()).get(wanted.connector)
        before, version = await self._running(wanted.connector, active)
        return Plan(
            connector=wanted.connector,
            bundle=wanted.hash,
            version=wanted.version,
            active=active,
            active_version=version,
            changes=compare(before, decode(wanted.outline)),
        )

    async def _find(self, connector: str, word: str) -> str:
        known = [one.hash for one in await self._store.bundles(connector=connector, limit=LIST_LIMIT_MAX)]
        found = [one for one in known if one == word or (one.startswith(word) and len(word) >= HASH_CHARACTERS_MIN)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"{len(found)} bundles of {connector} begin with {word}.", hint="Write more of it.")
        hint = near_miss(word, known) or f"`headwater deployments {connector}` lists those that ran."
        raise NotFoundError(f"There is no bundle {word} of {connector}.", hint=hint)

    async def _previous(self, connector: str) -> str:
        history = await self._store.deployments(connector=connector, limit=LIST_LIMIT_MAX)
        found = before_newest(history)
        if found is None:
            raise NotFoundError(f"There is nothing to return to: no other bundle of {connector} ran before.")
        return found

    async def _stored(self, content_hash: str) -> StoredBundle:
        found = await self._store.bundle(content_hash)
        if found is None:
            raise NotFoundError(f"There is no bundle {content_hash}.", hint="`headwater deploy` brings one.")
        return found

    async def _running(self, connector: str, active: str | None) -> tuple[Outline | None, str | None]:
        if active is not None:
            stored = await self._stored(active)
            return decode(stored.outline), stored.version
        project = self._projects.get(connector)
        if project is not None:
            return outline(project), project.connector.version
        return await self._declared(connector), None

    async def _declared(self, connector: str) -> Outline | None:
        """What the store knows where nothing of the connector is loaded here: the streams that it last declared."""
        states = await self._store.streams(at=self._clock.now())
        streams = {
            one.stream: {"mode": one.mode, "schedule": one.schedule, "timezone": one.timezone}
            for one in states
            if one.connector == connector
        }
        return Outline(connector=connector, version="", streams=streams, types=None) if streams else None


def before_newest(history: Sequence[Deployment]) -> str | None:
    """The bundle under the one that runs, from a history that is newest first; None where there is none.

    A deploy lays a bundle on top; a rollback takes off what lies on the bundle that it returns to. So a second rollback
    goes one further back, and not forth again to what was wrong.
    """
    pile: list[str] = []
    for one in reversed(history):
        if one.bundle in pile and one.act == "rollback":
            del pile[pile.index(one.bundle) + 1 :]
        else:
            pile.append(one.bundle)
    return next((bundle for bundle in reversed(pile[:-1]) if bundle != pile[-1]), None)


def _answer(plan: Plan, done: Deployment | None) -> dict[str, Any]:
    return {"plan": asdict(plan) | {"destructive": bool(plan.destructive)}, "deployment": done}
