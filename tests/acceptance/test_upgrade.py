"""Two versions of the code at work on one PostgreSQL: nodes are renewed one after the other, without a pause."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from served import headwater, serving, until
from test_nodes import endpoint_path, listed, send, types

from headwater.stores.postgres.migrate import known

# The next version: this code, whose schema goes on by so many migrations, each with a table and a column of its own.
NEXT = """
import sys
from headwater.stores.postgres import store
from headwater.stores.query import Migration

def later(known=store.known):
    steps = list(known())
    for number in range(steps[-1].number + 1, steps[-1].number + 1 + int(sys.argv.pop(1))):
        sql = f"CREATE TABLE later_{number} (id bigint); ALTER TABLE connections ADD COLUMN later_{number} text"
        steps.append(Migration(number=number, name=f"{number:04}_later", sql=sql))
    return lambda: steps

store.known = later()
from headwater.cli.main import main
main()
"""


def newer_by(versions: int) -> list[str]:
    return [sys.executable, "-c", NEXT, str(versions)]


def test_nodes_of_two_versions_work_side_by_side_and_one_that_is_too_old_says_so(postgres_folder: Path) -> None:
    folder = postgres_folder
    newest, path = known()[-1].number, endpoint_path(folder)
    with serving(folder) as old:
        assert send(old.url + path, 1) == 200
        until(lambda: types(folder) == ["customer", "event"])
        with serving(folder, program=newer_by(1)) as new:
            # The schema is the next version's now, and the old node has been at work all the while.
            assert [send(node.url + path, number) for number, node in ((2, old), (3, new), (4, old))] == [200] * 3
            until(lambda: [one["state"] for one in listed(folder, "deliveries")] == ["done"] * 4)
            assert headwater(folder, "run", "acme", "customers").code == 0
            with serving(folder) as again:  # a node of the old version may even start
                assert send(again.url + path, 5) == 200
                again.says(f"schema {newest + 1}; this version knows {newest}, and may still run on it")
            old.process.send_signal(signal.SIGTERM)
            assert old.ended() == 0
            until(lambda: [one["state"] for one in listed(folder, "deliveries")] == ["done"] * 5)
        with serving(folder, program=newer_by(2)) as newest_of_all:
            assert send(newest_of_all.url + path, 6) == 200
            refused = headwater(folder, "serve", "--port", "0")
            assert (refused.code, refused.out) == (1, "")
            assert f"The database has schema {newest + 2}; this version knows {newest}." in refused.err
            assert "Start the version of Headwater that wrote it, or a newer one." in refused.err
            assert send(newest_of_all.url + path, 7) == 200
