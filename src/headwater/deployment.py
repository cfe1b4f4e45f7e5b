"""A bundle as it is stored, its activations, and what a store promises of them.

A deploy compares and sets: it names the bundle that it expects to run, and of two that expect the same one, one wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from headwater.intention import LIST_LIMIT

Act = Literal["deploy", "rollback"]


@dataclass(frozen=True, kw_only=True)
class StoredBundle:
    """The files of a version of a connector, named by the hash of their content."""

    hash: str
    connector: str  # connector key
    version: str  # of the manifest
    outline: str  # what it promises: the text of an `Outline`
    archive: bytes = field(repr=False)  # empty in lists
    archive_bytes: int
    created_at: datetime
    actor: str  # who brought it


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One activation of a bundle; the newest of a connector is the one that runs."""

    id: int
    connector: str
    bundle: str  # hash
    version: str  # of its manifest
    previous: str | None  # hash of the bundle that ran before
    act: Act
    activated_at: datetime
    actor: str
    plan: Sequence[Any] = ()  # the changes, as they were shown


class BundleStore(Protocol):
    """Bundles, and which of each connector runs."""

    async def add_bundle(self, bundle: StoredBundle) -> bool:
        """Store a bundle, with its entry in the audit; False, with nothing changed, where it is stored already."""
        ...

    async def bundle(self, hash: str) -> StoredBundle | None:
        """One bundle with its archive."""
        ...

    async def bundles(
        self, *, connector: str | None = None, after: str | None = None, limit: int = LIST_LIMIT
    ) -> Sequence[StoredBundle]:
        """Bundles without their archives, newest first, older than the one of the hash `after`."""
        ...

    async def activate_bundle(
        self,
        hash: str,
        *,
        expected: str | None,
        act: Act,
        plan: Sequence[Any],
        actor: str,
        at: datetime,
    ) -> Deployment:
        """Make a bundle the one that runs, if `expected` still is (None: none is); its entry in history and the audit.

        Raises `ConflictError` when another one is active by now, `NotFoundError` when no such bundle is stored. Where
        it is active already, that activation is returned, whatever was expected, and nothing is written.
        """
        ...

    async def deployments(
        self, *, connector: str | None = None, after: int | None = None, limit: int = LIST_LIMIT
    ) -> Sequence[Deployment]:
        """Activations, newest first, with ids below `after`."""
        ...

    async def active_bundles(self) -> Mapping[str, str]:
        """The hash of the active bundle of each connector that has one; asked every few seconds."""
        ...
