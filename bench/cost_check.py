"""The CPU of checking a project of so many streams. Usage: cost_check.py FOLDER [--streams 50] [--write-only].

Writes the project into FOLDER; prints the CPU seconds of the second check of a copy, when all imports are done.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

HANDLER = '''"""Sync {key}."""

from headwater import Page, SyncRequest, http, ingest, route, secrets

from ...lib.transform import customer


@route(auth="api_key")
async def post(request: SyncRequest) -> Page:
    """One page."""
    response = await http.get(
        "https://api.quiet.test/v1/{key}",
        params={{"limit": request.limit, "after": request.cursor}},
        headers={{"authorization": "Bearer " + secrets["api_key"]}},
    )
    page = response.json()
    for item in page["data"]:
        ingest.canonical("customer", customer(item), stream="{key}", idempotency_key=f"quiet:customer:{{item['id']}}")
    return Page(cursor=page["next"], has_more=page["next"] is not None)
'''
TRANSFORM = '''"""Provider payloads to canonical ones."""


def customer(item):
    """A customer."""
    return {"id": item["id"], "name": item.get("name"), "email": item.get("email")}
'''
MANIFEST = '''"""A connector with many streams."""

from headwater import Connection, Connector, Permissions, Stream

connector = Connector(
    key="quiet",
    name="Quiet",
    version="0.1.0",
    connection=Connection(
        settings={{"type": "object", "properties": {{"api_key": {{"type": "string", "x-secret": True}}}}}}
    ),
    permissions=Permissions(http=["https://api.quiet.test/*"]),
    streams=[
{streams}
    ],
)
'''


def write(folder: Path, streams: int) -> None:
    """A project of so many poll streams, due once a month."""
    keys = [f"things_{number}" for number in range(streams)]
    lines = [f'        Stream("{key}", mode="poll", schedule="0 0 1 * *"),' for key in keys]
    (folder / "src" / "api" / "sync").mkdir(parents=True)
    (folder / "src" / "lib").mkdir()
    (folder / "connector.py").write_text(MANIFEST.format(streams="\n".join(lines)))
    (folder / "src" / "lib" / "transform.py").write_text(TRANSFORM)
    for key in keys:
        (folder / "src" / "api" / "sync" / f"{key}.py").write_text(HANDLER.format(key=key))


def cpu_of_check(folder: Path) -> float:
    """CPU seconds of one check that finds nothing."""
    from headwater.check.check import check

    before = time.process_time()
    report = check(folder)
    after = time.process_time()
    if report.diagnostics:
        raise RuntimeError(f"the project does not pass: {report.diagnostics[0]}")
    return after - before


def main() -> None:
    """See the module."""
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("--streams", type=int, default=50)
    options.add_argument("--write-only", action="store_true")
    chosen = options.parse_args()
    write(chosen.folder, chosen.streams)
    if chosen.write_only:
        return
    small = chosen.folder.with_name(chosen.folder.name + "-small")
    write(small, 1)
    cpu_of_check(small)
    print(json.dumps({"seconds": cpu_of_check(chosen.folder)}))


if __name__ == "__main__":
    main()
