"""The page of the command line, made of the commands."""

from collections.abc import Iterator

import click

from headwater.cli.main import root

EVERYWHERE = {"config_file", "database", "as_json"}  # told once, at the top

CLI = """\
# The command line

Made of the commands themselves by `make docs`. Each with `--help` says the same.

Commands that open an installation take `--config PATH` (its configuration file), `--database TEXT` (a SQLite file, by
default `.headwater/headwater.db`, or a `postgresql://` URL) and `--json` (answer in JSON); they are marked `…` below. A
family alone lists: `headwater runs` is `headwater runs list`. An unknown word is told with its near miss.

Answers go to stdout, what happens meanwhile to stderr.
"""


def cli() -> str:
    """The page of the command line."""
    return "\n".join([CLI, *_command(root, ["headwater"])])


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
