"""The small numbers that stand for the names of canonical types and connector versions.

A name is numbered once and for ever, in a transaction of its own before its first use: the commits that need it never
wait for each other over it, and afterwards the process knows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headwater.stores.plan import Wanted
from headwater.stores.postgres.database import Connection, Database, execute, queries, rows

_sql = queries("ingest.sql")


class Numbers:
    """What this process knows of them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.types: dict[str, int] = {}
        self.connector_versions: dict[str, int] = {}

    async def learn(self, wanted: Wanted) -> None:
        """Know the numbers of these names afterwards, giving out new ones."""
        await self.learn_types(wanted.types)
        if missing := [name for name in wanted.connector_versions if name not in self.connector_versions]:
            found = await self._database.transact(
                lambda db: _number(db, "connector_version_numbers", "insert_connector_versions", missing)
            )
            self.connector_versions.update(found)

    async def learn_types(self, names: Iterable[str]) -> None:
        """Know the numbers of these types afterwards."""
        if missing := [name for name in names if name not in self.types]:
            self.types.update(
                await self._database.transact(lambda db: _number(db, "type_numbers", "insert_types", missing))
            )


async def _number(db: Connection, find: str, insert: str, names: list[str]) -> Mapping[str, int]:
    found = await rows(db, _sql[find], names=names)
    if len(found) < len(names):
        await execute(db, _sql[insert], names=names)
        found = await rows(db, _sql[find], names=names)
    return {one["name"]: one["id"] for one in found}
