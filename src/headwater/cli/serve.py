"""`headwater serve`: the platform at work, until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headwater.cli import output
from headwater.cli.session import Options, platform_options

if TYPE_CHECKING:
    from headwater.application import Application
    from headwater.config import Config
    from headwater.server import Beside


@click.command("serve")
@platform_options
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1)
@click.option("--host", help="Where to listen (default 127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65_535), help="Default 8700; 0 takes any free one.")
@click.option("--public-url", help="How providers reach us.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(["ingress", "worker", "ticker", "dashboard"]),
    help="What this process does, of several on one PostgreSQL database (default: all; may be repeated).",
)
def serve(options: Options, paths: tuple[Path, ...], roles: tuple[str, ...], **words: Any) -> int:
    """Poll on schedule, receive webhooks, show health: with the connector projects at PATHS.

    The first SIGTERM or Ctrl-C lets what runs finish; the second stops at once.
    """
    if roles:
        words["roles"] = frozenset(roles)
    if paths:
        words["projects"] = tuple(path.resolve() for path in paths)
    return serve_config(options.config(**words), as_json=options.json)


def serve_config(config: Config, *, as_json: bool = False, beside: Beside | None = None) -> int:
    """Serve with this configuration; `beside` runs along."""
    import os
    from importlib.metadata import version

    from headwater import trace
    from headwater.cli import logs
    from headwater.clock import SystemClock
    from headwater.server import only_server, run, run_loop

    def ready(application: Application, first_link: str | None) -> None:
        chosen = application.platform.config
        logs.configure(chosen.log_level, chosen.log_format, application.platform.redactor)
        for refused in application.platform.refused:
            output.note(f"Warning: {refused}")
        for key, path in application.platform.passed_over.items():
            output.note(f"Warning: {path} does not run: {key} runs from {application.platform.origin(key)}")
        _announce(application, first_link, as_json=as_json)

    if trace.set_up(os.environ, version=version("headwater")):
        output.note("Traces are exported by OTLP.")
    with only_server(config.database) as note_url:
        return run_loop(run(config, SystemClock(), note_url=note_url, ready=ready, beside=beside))


def _announce(application: Application, first_link: str | None, *, as_json: bool) -> None:
    from headwater.config import ROLES

    config = application.platform.config
    platform = application.platform
    connectors = sorted(platform.projects)
    if as_json:
        known = {"url": config.base_url, "database": str(config.database), "connectors": connectors}
        output.print_json_line(known | {"bundles": platform.activations.running, "first_admin": first_link})
        return
    output.say(f"dashboard   {config.base_url}/")
    output.say(f"database    {config.database}")
    if len(config.roles) < len(ROLES):
        output.say(f"roles       {', '.join(sorted(config.roles))}")
    output.say(f"connectors  {', '.join(connectors) or 'none: name their folders, or `headwater init` one'}")
    for key in connectors:
        output.say(f"            {key} {platform.projects[key].version} from {platform.origin(key)}")
    if first_link is not None:
        output.say(f"first admin {first_link}")
        output.say(f"            good once, for an hour; until then {who_may_come(config)}")
    output.say("Ctrl-C stops when what runs has finished.")


def who_may_come(config: Config) -> str:
    """Whom pages and API let in while there is no account, in words."""
    if config.is_loopback:
        return "whoever is on this machine may see and act"
    return "pages and API need a key of `headwater keys create`"
