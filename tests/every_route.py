"""Every route of a server, and each of them asked."""

import re
from pathlib import Path

from starlette.routing import Mount, Route

ROOT = Path(__file__).parent.parent
TEMPLATES = sorted((ROOT / "src/headwater/dashboard/templates").glob("*.html"))
CANARY = "canary-4111-<script>alert(1)</script>"
UNSAFE = {"POST", "PUT", "PATCH", "DELETE"}


def routes_of(house):
    """Every route of API and pages: (path, methods)."""
    found = []

    def walk(routes, prefix):
        for one in routes:
            if isinstance(one, Mount):
                walk(one.routes, prefix + one.path)
            elif isinstance(one, Route):
                found.append((prefix + one.path, set(one.methods or ())))

    walk(house.application._pages._app.routes, "")
    assert len(found) > 30
    return found


def filled(path, **known):
    """A path with its parameters filled in: ids by name where they are known, else 1."""
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda match: str(known.get(match[1], 1)), path)


async def asks_everything(client, house, known):
    """(path, answer) of everything that may be asked, in each format, with the ids of north."""
    for path, methods in routes_of(house):
        if "GET" in methods and not path.startswith(("/static", "/login", "/setup")):
            for query in ("", "?format=json", "?format=csv", "?connection=north", "?tenant=north", "?reveal=true"):
                yield path, await client.get(filled(path, **known) + query)
