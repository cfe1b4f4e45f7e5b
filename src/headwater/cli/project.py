"""`headwater init`, `check` and `dev`: what an author does before anything is deployed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headwater.cli import output
from headwater.cli.main import CHECK_FAILED
from headwater.cli.session import Options, platform_options

if TYPE_CHECKING:
    from headwater.application import Application

WATCHED_SUFFIXES = (".py", ".json", ".toml")
UNWATCHED = {".headwater", ".venv", "__pycache__", "tests"}


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--template", help="poll, or poll+webhook (default).")
@click.option("--key", help="Connector key (default: made of the folder's name).")
@click.option("--name", help="Name for people.")
def init(folder: Path, template: str | None, key: str | None, name: str | None) -> None:
    """Make a new connector project in FOLDER. It passes its check and its own tests as it is."""
    from headwater.scaffold import DEFAULT_TEMPLATE
    from headwater.scaffold import init as write

    files = write(folder, template=template or DEFAULT_TEMPLATE, key=key, name=name)
    for path in files:
        output.say(f"created  {path}")
    output.say(f"\nnext: headwater check {folder} && pytest {folder}/tests && headwater dev {folder}")


@click.command("check")
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def check(paths: tuple[Path, ...], as_json: bool) -> int:
    """Prove the connector projects at PATHS (default: here). Needs no network and no secret.

    Prints every problem as `path:line: code message`; exit code 3 when there is an error.
    """
    from headwater.check.check import check as prove

    reports = [prove(path) for path in paths or (Path(),)]
    failed = any(report.errors for report in reports)
    if as_json:
        output.print_json([report.as_json() for report in reports])
    for report in () if as_json else reports:
        for line in report.lines():
            output.say(line)
        if not report.errors and report.project is not None:
            connector = report.project.connector
            streams = output.counted(len(connector.streams), "stream")
            output.say(f"{report.path}: {connector.key} {report.project.version}, {streams}, ok")
        else:
            errors = output.counted(len(report.errors), "error")
            output.note(f"{report.path}: {errors}. Each code is explained in the documentation.")
    return CHECK_FAILED if failed else 0


@click.command("dev")
@platform_options
@click.argument("path", type=click.Path(path_type=Path, file_okay=False, exists=True), default=".")
@click.option("--port", type=click.IntRange(0, 65_535), help="Default 8700; 0 takes any free one.")
def dev(options: Options, path: Path, port: int | None) -> int:
    """Serve the project at PATH, its schedule included, and load it again when its files change.

    A version that does not pass its check is not loaded: its problems are printed, and the one before goes on.
    What was deployed to the database does not run meanwhile.
    """
    from headwater.cli.serve import serve_config

    project = path.resolve()
    config = options.config(port=port, projects=(project,), bundles=False)

    async def reload(application: Application, stop: asyncio.Event) -> None:
        output.say(f"watching    {path}; its schedule runs")
        _say_connect(application)
        from watchfiles import awatch

        async for changes in awatch(project, stop_event=stop, recursive=True):
            if names := _concerned(changes):
                await _reload(application, project, names)

    return serve_config(config, as_json=options.json, beside=reload)


def _concerned(changes: Iterable[tuple[Any, str]]) -> list[str]:
    paths = {Path(name) for _, name in changes if name.endswith(WATCHED_SUFFIXES)}
    return sorted(path.name for path in paths if not UNWATCHED & set(path.parts))


async def _reload(application: Application, project: Path, changed: list[str]) -> None:
    names = ", ".join(changed)
    loaded = await application.reload(project)
    if loaded is not None:
        output.say(f"reload {names}: check ok, {loaded.connector.key} {loaded.version}")
        return
    output.say(f"reload {names}: check failed, the version before goes on")
    for refused in application.platform.refused:
        for line in refused.lines:
            output.say(f"  {line}")


def _say_connect(application: Application) -> None:
    for key in application.platform.projects:
        output.say(f"connect     headwater connections add {key}   (once; then its streams run)")
