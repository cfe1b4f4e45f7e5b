"""`headwater demo`: the whole platform against a fake provider, with nothing to set up."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headwater.cli import output
from headwater.cli.main import FAILED

if TYPE_CHECKING:
    from headwater.application import Application
    from headwater.clock import SystemClock
    from headwater.config import Config
    from headwater.server import Beside


@click.command("demo")
@click.option("--once", is_flag=True, help="Stop when every stream has succeeded once.")
@click.option("--json", "as_json", is_flag=True, help="With --once: answer in JSON on stdout.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Default 8700, or any free one; with --once any.")
def demo(once: bool, as_json: bool, port: int | None) -> int:
    """Show the whole platform: a fake provider with faults, the Stripe connector, webhooks and a live dashboard.

    The data are in .headwater/demo.db, which each demo begins anew; `--config .headwater/demo.toml` makes any other
    command speak of it. With --once, nothing is left afterwards.
    """
    if as_json and not once:
        raise click.UsageError("--json answers at the end: say --once with it.")
    if not once:
        from headwater.demo import fresh_database

        return _live(fresh_database(Path(".headwater") / "demo.db"), _port_or_any() if port is None else port)
    with tempfile.TemporaryDirectory(prefix="headwater-demo-") as folder:
        return _once(Path(folder) / "demo.db", port or 0, as_json=as_json)


def _live(database: Path, port: int) -> int:
    from headwater.cli.serve import who_may_come
    from headwater.demo import CONNECTION, Demo, write_config

    shown, file, config = Demo(_clock(), output.say), database.with_suffix(".toml"), _config(database, port)

    def ready(application: Application, first_link: str | None) -> None:
        _configure_log(application, "error")
        output.say(f"dashboard   {application.platform.config.base_url}/")
        output.say(f"database    {database}")
        output.say(f"connection  {CONNECTION}: `headwater streams --config {file}` shows it elsewhere")
        output.say(f"first admin {first_link}")
        output.say(f"            try it or leave it: until then {who_may_come(application.platform.config)}")
        output.say("Ctrl-C stops.")

    write_config(config, file)
    return _served(config, ready, shown.live)


def _once(database: Path, port: int, *, as_json: bool) -> int:
    from headwater.demo import Demo

    shown = Demo(_clock(), output.note)
    code = _served(_config(database, port), lambda application, _: _configure_log(application, "critical"), shown.once)
    summary = shown.summary
    if summary is None:
        return code or FAILED
    if as_json:
        output.print_json_line(dataclasses.asdict(summary))
    else:
        output.say(f"{len(summary.streams)} streams, {summary.records} records, {summary.deliveries} deliveries")
    late = [str(stream["stream"]) for stream in summary.streams if not stream["succeeded"]]
    if late:
        output.note(f"In time, these did not succeed: {', '.join(late)}.")
    return FAILED if late else code


def _served(config: Config, ready: Callable[[Application, str | None], None], beside: Beside) -> int:
    from headwater.server import only_server, run, run_loop

    with only_server(config.database) as note_url:
        return run_loop(run(config, _clock(), note_url=note_url, ready=ready, beside=beside))


def _config(database: Path, port: int) -> Config:
    from headwater.config import Config
    from headwater.demo import config_for

    return config_for(Config(port=port), database)


def _configure_log(application: Application, level: str) -> None:
    from headwater.cli import logs

    logs.configure(level, "text", application.platform.live.connections.redactor)


def _port_or_any() -> int:
    from headwater.config import Config
    from headwater.errors import StartError
    from headwater.server import bind

    try:
        bind(Config.host, Config.port).close()
    except StartError:
        return 0
    return Config.port


def _clock() -> SystemClock:
    from headwater.clock import SystemClock

    return SystemClock()
