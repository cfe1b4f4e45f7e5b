"""What a command prints: tables for people, JSON for programs, progress on stderr.

What a provider sent is printed without control characters: it must not drive the operator's terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import click
import msgspec

if TYPE_CHECKING:
    from headwater.record import Counts

CELL_CHARACTERS_MAX = 72
PROGRESS_EVERY_SECONDS = 2.0

_STATE_COLOURS = {
    "fresh": "green", "succeeded": "green", "done": "green", "ok": "green", "running": "cyan", "on track": "yellow",
    "late": "yellow", "retrying": "yellow", "pending": "yellow", "failing": "red", "failed": "red", "dead": "red",
    "needs attention": "red", "paused": "blue",
}  # fmt: skip


def colour_wanted() -> bool:
    """Stdout is a terminal, and nobody asked for plain text (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def say(text: str = "") -> None:
    """A line for people on stdout."""
    click.echo(printable(text, keep_lines=True))


def note(text: str) -> None:
    """A line for people on stderr: beside `--json`, and for progress."""
    click.echo(printable(text, keep_lines=True), err=True)


def print_json(value: Any) -> None:
    """One JSON value on stdout, indented."""
    click.echo(msgspec.json.format(msgspec.json.encode(value, enc_hook=_plain), indent=2).decode())


def print_json_line(value: Any) -> None:
    """One JSON value on one line of stdout."""
    click.echo(msgspec.json.encode(value, enc_hook=_plain).decode())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    return str(value)


def print_table(
    heads: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str = "", widest: str | None = None
) -> None:
    """Columns under their heads; `empty` is said instead of a table without rows. The column `widest` is not cut."""
    limits = [None if head == widest else CELL_CHARACTERS_MAX for head in heads]
    cells = [[_cell(value, limit) for value, limit in zip(row, limits, strict=True)] for row in rows]
    if not cells:
        say(empty)
        return
    widths = [max(len(row[index]) for row in [list(heads), *cells]) for index in range(len(heads))]
    colour = colour_wanted()
    click.echo(_line(heads, widths, _bold if colour else _as_it_is))
    for row in cells:
        click.echo(_line(row, widths, _coloured if colour else _as_it_is))


def _line(cells: Sequence[str], widths: Sequence[int], style: Callable[[str, str], str]) -> str:
    padded = [cell if last else cell.ljust(width) for cell, width, last in _with_last(cells, widths)]
    return "  ".join(style(text, cell) for text, cell in zip(padded, cells, strict=True)).rstrip()


def _with_last(cells: Sequence[str], widths: Sequence[int]) -> Iterator[tuple[str, int, bool]]:
    for index, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        yield cell, width, index == len(cells) - 1


def _as_it_is(text: str, word: str) -> str:  # noqa: ARG001  of the same form as its neighbours
    return text


def _bold(text: str, word: str) -> str:  # noqa: ARG001  of the same form as its neighbours
    return click.style(text, bold=True)


def _coloured(text: str, word: str) -> str:
    colour = _STATE_COLOURS.get(word)
    return click.style(text, fg=colour) if colour else text


def _cell(value: Any, characters_max: int | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = instant(value) if isinstance(value, datetime) else printable(str(value))
    return text if characters_max is None or len(text) <= characters_max else text[: characters_max - 1] + "…"


def print_facts(facts: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one a line, those that are None left out."""
    known = [(name, value) for name, value in facts if value is not None]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        text = instant(value) if isinstance(value, datetime) else str(value)
        say(f"{name.ljust(width)}  {text}")


def printable(text: str, *, keep_lines: bool = False) -> str:
    """`text` without control characters."""
    kept = "\n\t" if keep_lines else ""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in kept else "\ufffd" if one != "\n" else " " for one in text)


def instant(at: datetime) -> str:
    """An instant to the second, in UTC."""
    return f"{at:%Y-%m-%d %H:%M:%S}Z"


def ago(at: datetime | None, now: datetime) -> str | None:
    """How long before `now`, in the two words that a person would use; "in …" for what is to come."""
    if at is None:
        return None
    seconds = int((now - at).total_seconds())
    return f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"


def until(at: datetime | None, now: datetime) -> str | None:
    """How far ahead of `now`; "due" for what is past."""
    return None if at is None else ago(at, now) if at > now else "due"


def duration(seconds: float) -> str:
    """A span in its largest unit, or its two largest below an hour."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 2 * 86_400:
        return f"{whole // 3600} h"
    return f"{whole // 86_400} d"


def counted(count: int, thing: str) -> str:
    """`1 page`, `2,000 pages`."""
    from headwater.acts.act import counted as words  # loaded late: asking for help costs nothing

    return words(count, thing)


def counts(value: Counts) -> str:
    """`+3 ~1 -0` for what was created, updated and deleted, then whatever else there was."""
    text = f"+{value.created} ~{value.updated} -{value.deleted}"
    others = ("unchanged", "duplicate", "stale", "quarantined")
    return ", ".join([text, *(f"{getattr(value, name)} {name}" for name in others if getattr(value, name))])


class Progress(Protocol):
    """Told of what was reached; shows it to whoever waits."""

    def update(self, done: float, total: float | None, text: str) -> None:
        """So much of so much is done."""
        ...


class _Lines:
    """Progress where no terminal redraws: a line whenever the text changed."""

    def __init__(self) -> None:
        self._last = ""

    def update(self, done: float, total: float | None, text: str) -> None:
        share = f"{done / total:4.0%} " if total else ""
        line = f"{share}{text}"
        if line != self._last:
            self._last = line
            note(line)


class _Bar:
    def __init__(self, progress: Any, task: Any) -> None:
        self._progress = progress
        self._task = task

    def update(self, done: float, total: float | None, text: str) -> None:
        self._progress.update(self._task, completed=done, total=total, description=printable(text))


@contextmanager
def progress(text: str) -> Iterator[Progress]:
    """A progress bar on a terminal's stderr, lines elsewhere; nothing of it on stdout."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        lines = _Lines()
        lines.update(0, None, text)
        yield lines
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar, bar.add_task(text, total=None))
