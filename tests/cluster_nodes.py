"""What tests of many nodes on one PostgreSQL need."""

from __future__ import annotations

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
