"""Bundles, and which of each connector runs: compared and set in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from headwater.clock import to_micros
from headwater.deployment import Act, Deployment, StoredBundle
from headwater.errors import ConflictError, NotFoundError
from headwater.failpoint import failpoint
from headwater.intention import LIST_LIMIT, LIST_LIMIT_MAX
from headwater.stores.postgres.database import Connection, document, execute, queries, row, rows
from headwater.stores.postgres.system import audit
from headwater.stores.row import as_bundle, as_deployment

_sql = queries("bundles.sql")


async def add_bundle(db: Connection, bundle: StoredBundle) -> bool:
    """See `BundleStore.add_bundle`."""
    added = await execute(
        db,
        _sql["insert_bundle"],
        hash=bundle.hash,
        connector=bundle.connector,
        version=bundle.version,
        outline=bundle.outline,
        archive=bundle.archive,
        archive_bytes=bundle.archive_bytes,
        created_at=to_micros(bundle.created_at),
        actor=bundle.actor,
    )
    if added:
        detail = {"bundle": bundle.hash, "version": bundle.version}
        await audit(
            db, at=bundle.created_at, actor=bundle.actor, act="bundles.add", target=bundle.connector, detail=detail
        )
    return added > 0


async def bundle(db: Connection, hash: str) -> StoredBundle | None:
    """See `BundleStore.bundle`."""
    found = await row(db, _sql["bundle"], hash=hash)
    return None if found is None else as_bundle(found)


async def bundles(
    db: Connection, *, connector: str | None = None, after: str | None = None, limit: int = LIST_LIMIT
) -> Sequence[StoredBundle]:
    """See `BundleStore.bundles`."""
    found = await rows(db, _sql["bundles"], connector=connector, after=after, limit=min(limit, LIST_LIMIT_MAX))
    return [as_bundle(one) for one in found]


async def activate_bundle(
    db: Connection,
    hash: str,
    *,
    expected: str | None,
    act: Act,
    plan: Sequence[Any],
    actor: str,
    at: datetime,
) -> Deployment:
    """See `BundleStore.activate_bundle`."""
    wanted = await row(db, _sql["bundle"], hash=hash)
    if wanted is None:
        raise NotFoundError(f"There is no bundle {hash}.", hint="`headwater deploy` brings one.")
    connector = wanted["connector"]
    await execute(db, _sql["hold"], connector=connector)
    active = await row(db, _sql["active"], connector=connector)
    current = active["bundle"] if active else None
    if active is not None and current == hash:
        found = await row(db, _sql["deployment"], deployment_id=active["deployment_id"])
        assert found is not None, "an activation has its entry"
        return as_deployment(found)
    if current != expected:
        raise ConflictError(
            f"Another bundle of {connector} was activated meanwhile: {current}.", hint="Look at the plan again."
        )
    detail = {"bundle": hash, "version": wanted["version"], "previous": current, "plan": list(plan)}
    await audit(db, at=at, actor=actor, act=act, target=connector, detail=detail)
    made = await row(
        db, _sql["insert_deployment"],
        connector=connector, hash=hash, version=wanted["version"], previous=current, act=act, at=to_micros(at),
        actor=actor, plan=document(list(plan)),
    )  # fmt: skip
    assert made is not None
    await execute(db, _sql["activate"], connector=connector, hash=hash, deployment_id=made["id"])
    failpoint("deploy.before_commit")
    return as_deployment(made)


async def deployments(
    db: Connection, *, connector: str | None = None, after: int | None = None, limit: int = LIST_LIMIT
) -> Sequence[Deployment]:
    """See `BundleStore.deployments`."""
    found = await rows(db, _sql["deployments"], connector=connector, after=after, limit=min(limit, LIST_LIMIT_MAX))
    return [as_deployment(one) for one in found]


async def active_bundles(db: Connection) -> Mapping[str, str]:
    """See `BundleStore.active_bundles`."""
    return {found["connector"]: found["bundle"] for found in await rows(db, _sql["active_bundles"])}
