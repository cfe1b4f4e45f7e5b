"""Of the lines of a connection a purge leaves the newest, on either store."""

import asyncio

import pytest

from headwater.log_line import LogFilter, NewLogLine
from headwater.stores.postgres import log_lines as in_postgres
from headwater.stores.sqlite import log_lines as in_sqlite
from headwater.testing.clock import START
from headwater.testing.conformance.world import at
from worlds import opened

KEPT = 5


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_purge_leaves_the_newest_lines_of_each_connection(kind, request, monkeypatch):
    for module in (in_sqlite, in_postgres):
        monkeypatch.setattr(module, "LINES_OF_CONNECTION_MAX", KEPT)

    url = request.getfixturevalue("postgres_url") if kind == "postgres" else ":memory:"

    async def main():
        async with opened(url) as world:
            for connection, lines in (("acme", 8), ("other", 3)):
                await world.connect(connection)
                ref = await world.admit(connection)
                said = [NewLogLine(at=START, level="info", message=f"{connection} {n}") for n in range(lines)]
                await world.commit(ref, log=said)
                await world.end(ref)
            purged = await world.store.purge(deliveries_before=at(-1), runs_before=at(-1))
            assert purged.log_lines == 3
            kept = [one.message for one in reversed(await world.store.log_lines(LogFilter()))]
            assert kept == [f"acme {n}" for n in range(3, 8)] + [f"other {n}" for n in range(3)]

    asyncio.run(main())
