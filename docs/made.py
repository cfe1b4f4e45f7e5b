"""The pages of the reference that are made of the code: `make docs` writes them, and a test holds them to it."""

from collections.abc import Iterator
from pathlib import Path

import click
from prometheus_client.core import Metric

from headwater.cli.main import root
from headwater.metrics import StoreCollector

REFERENCE = Path(__file__).parent / "reference"
EVERYWHERE = {"config_file", "database", "as_json"}  # told once, at the top

CLI = """\
# The command line

Made of the commands themselves by `make docs`. Each with `--help` says the same.

Commands that open an installation take `--config PATH` (its configuration file), `--database TEXT` (a SQLite file, by
default `.headwater/headwater.db`, or a `postgresql://` URL) and `--json` (answer in JSON); they are marked `…` below. A
family alone lists: `headwater runs` is `headwater runs list`. An unknown word is told with its near miss.

Answers go to stdout, what happens meanwhile to stderr.
"""

METRICS = """\
# Metrics

Made of the metrics themselves by `make docs`. `GET /metrics` answers in Prometheus' text form, reckoned from the store
at each scrape: every node of one store shows the same figures, and none is lost with a process. Alert rules and a
Grafana dashboard made for them are in `deploy/`.

| name | type | what | labels |
|---|---|---|---|
"""


def cli() -> str:
    """The page of the command line."""
    return "\n".join([CLI, *_command(root, ["headwater"])])


def metrics() -> str:
    """The page of the metrics; those of the process are Prometheus' own."""
    collector = StoreCollector((), high_water=0, version="")
    return METRICS + "".join(sorted(_metric(one) for one in collector.collect()))


def _metric(one: Metric) -> str:
    labels = ", ".join(f"`{name}`" for name in getattr(one, "_labelnames", ()))
    name = f"{one.name}_info" if one.type == "info" else one.name
    return f"| `{name}` | {one.type} | {one.documentation} | {labels} |\n"


def _command(command: click.Command, path: list[str]) -> Iterator[str]:
    context = click.Context(command, info_name=" ".join(path))
    shown = [one for one in command.params if one.name not in EVERYWHERE]
    if len(path) > 1:
        words = [*path, *(one.make_metavar(context) for one in shown if isinstance(one, click.Argument))]
        common = " …" if len(shown) < len(command.params) else ""
        yield f"{'#' * len(path)} `{' '.join(words)}`{common}\n"
        yield f"{_unfolded(command.help or '')}\n"
        options = [one.get_help_record(context) for one in shown if isinstance(one, click.Option)]
        if rows := [f"| `{_cell(names)}` | {_cell(what)} |" for names, what in filter(None, options)]:
            yield "\n".join(["| option | what |", "|---|---|", *rows, ""])
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _command(inner, [*path, name])


def _unfolded(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.replace("\b", "").split("\n\n"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


PAGES = {REFERENCE / "cli.md": cli, REFERENCE / "metrics.md": metrics}

if __name__ == "__main__":
    for page, made in PAGES.items():
        page.write_text(made())
