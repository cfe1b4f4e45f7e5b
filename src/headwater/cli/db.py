"""`headwater db`: the database as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from headwater.cli import output
from headwater.cli.main import NearMissGroup
from headwater.cli.session import Options, platform_options

if TYPE_CHECKING:
    from headwater.clock import Clock
    from headwater.config import Config, DatabaseUrl
    from headwater.transfer import Report, Transferred


@click.group(cls=NearMissGroup)
def db() -> None:
    """Carry this installation over to PostgreSQL."""


@db.command("copy")
@platform_options
@click.option("--to", required=True, metavar="URL", help="An empty database: postgresql://user@host/database.")
def copy(options: Options, to: str) -> None:
    """Copy everything into an empty PostgreSQL database, prove it equal, and only then let it be used.

    Stop `headwater serve` first. Cut off and given again, the same command goes on where it was. The file is left as
    it is. A password is better kept in ~/.pgpass or PGPASSWORD than in the URL.
    """
    from headwater.app import copy_store
    from headwater.clock import SystemClock
    from headwater.server import only_server, run_loop

    config, clock, target = options.config(), SystemClock(), _target(to)
    _require_rest(config.database)
    with only_server(config.database), output.progress("copying") as shown:
        done = run_loop(copy_store(config, clock, to=target, report=_now_and_then(shown, clock)))
    if options.json:
        output.print_json({"database": str(config.database), "key": _key(config), "copy": done})
    else:
        _tell(config, done)


def _target(word: str) -> DatabaseUrl:
    from headwater.config import DatabaseUrl, database_named
    from headwater.errors import UsageError

    target = database_named(word)
    if not isinstance(target, DatabaseUrl):
        raise UsageError("A store is copied to PostgreSQL.", hint="Name it as postgresql://user@host/database.")
    return target


def _require_rest(database: Path | DatabaseUrl) -> None:
    from headwater.config import DatabaseUrl
    from headwater.errors import NotFoundError, StartError, UsageError
    from headwater.server import running_url

    if isinstance(database, DatabaseUrl):
        raise UsageError("Only the embedded database is copied.", hint="`--database` names its file.")
    if not database.is_file():
        raise NotFoundError(f"There is no database {database}.", hint="`--database` names another.")
    if url := running_url(database):
        raise StartError(f"`headwater serve` runs on {database}, at {url}.", hint="Stop it: nothing may change now.")


def _now_and_then(shown: output.Progress, clock: Clock) -> Report:
    """Show progress as often as people read, and at the end."""
    last = clock.monotonic()

    def report(done: int, total: int, words: str) -> None:
        nonlocal last
        now = clock.monotonic()
        if done == total or now - last >= output.PROGRESS_EVERY_SECONDS:
            last = now
            shown.update(done, total, words)

    return report


def _key(config: Config) -> str:
    return "HEADWATER_KEY" if config.key is not None else str(config.key_file)


def _tell(config: Config, done: Transferred) -> None:
    if done.already:
        output.say("The copy was complete before; nothing was done.")
    else:
        output.say(f"{done.rows:,} rows of {len(done.tables)} tables copied and verified in {done.seconds:.1f} s.")
    output.say(
        f"Secrets came over as they are, encrypted: the new installation needs the same key, {_key(config)}.\n"
        f"Serve from PostgreSQL alone now. {config.database} was left as it is: keep it as a backup."
    )
