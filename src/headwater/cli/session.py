"""What commands share: the options that say which installation is meant, and the one way into the async core."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from headwater.app import Platform, Through
    from headwater.config import Config

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which installation a command speaks of, and how it answers."""

    config_file: Path | None
    database: str | None
    json: bool

    def config(self, **overrides: Any) -> Config:
        """The configuration that the words of the command line come down to."""
        from headwater import config

        database = config.database_named(self.database) if self.database else None
        return config.load(os.environ, directory=Path.cwd(), file=self.config_file, database=database, **overrides)


def platform_options(function: F) -> F:
    """Give a command `--config`, `--database` and `--json`, as its first argument `options`."""

    @click.option("--config", "config_file", type=click.Path(path_type=Path), help="Configuration file.")
    @click.option("--database", help="SQLite file (default .headwater/headwater.db), or a postgresql:// URL.")
    @click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
    @functools.wraps(function)
    def wrapper(config_file: Path | None, database: str | None, as_json: bool, **words: Any) -> Any:
        return function(Options(config_file=config_file, database=database, json=as_json), **words)

    return wrapper  # type: ignore[return-value]  # the wrapper takes other words than the function


def with_platform(
    options: Options,
    act: Callable[[Platform], Awaitable[T]],
    *,
    projects: bool = False,
    through: Through | None = None,
    warn: bool = True,
) -> T:
    """Open the platform (with its connector projects where asked), act, close it, and give what the act returned."""
    from headwater.app import open_platform
    from headwater.clock import SystemClock
    from headwater.server import run_loop

    chosen = options.config()

    async def main() -> T:
        async with open_platform(chosen, SystemClock(), with_projects=projects, through=through) as platform:
            for refused in platform.refused if warn else ():
                click.echo(f"Warning: {refused}", err=True)
            return await act(platform)

    return run_loop(main())


async def server_url(platform: Platform) -> str | None:
    """The URL of a process on this machine that receives deliveries for the platform's database; None without one."""
    from socket import gethostname

    from headwater.server import running_url

    if platform.shared is None:
        return running_url(platform.config.database)
    nodes = await platform.shared.nodes()
    urls = [node.url for node in nodes if node.is_here and node.host == gethostname() and "ingress" in node.roles]
    return urls[0] if urls else None


async def is_served(platform: Platform) -> bool:
    """Whether some process carries out runs of the platform's database as they become due."""
    from headwater.server import running_url

    if platform.shared is None:
        return running_url(platform.config.database) is not None
    roles = {role for node in await platform.shared.nodes() if node.is_here for role in node.roles}
    return {"worker", "ticker"} <= roles


def instant(value: str | datetime) -> datetime:
    """What an option means by an ISO date or instant; without a zone it is UTC."""
    if isinstance(value, datetime):
        return value
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(f"`{value}` is no date such as 2024-01-31 or 2024-01-31T12:00:00+01:00.") from error
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def confirm(question: str, *, yes: bool) -> None:
    """Go on only with `--yes` or a person's yes; without a terminal to ask on, say how to."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Say --yes to go on without being asked.")
    if not click.confirm(question, err=True):
        raise click.Abort
