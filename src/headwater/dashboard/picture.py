"""Small pictures, drawn on the server as SVG: every state has a shape of its own, so that colour is never needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import groupby
from operator import attrgetter

from headwater.dashboard.strip import Cell, CellState, summary
from headwater.health import StreamReport

CELL_WIDTH = 3
CELL_STEP = 4
STRIP_HEIGHT = 20
BAR_WIDTH = 96
BAR_RATIO_MAX = 2.0  # the bar ends at twice what is expected: there the stream is failing

# (top, height) of each state's mark: what went well is calm and level, what did not sticks out or leaves a hole.
_MARKS: dict[CellState, tuple[int, int]] = {
    CellState.OK: (6, 10),
    CellState.RETRIED: (6, 10),
    CellState.FAILED: (1, 18),
    CellState.RUNNING: (6, 10),
    CellState.SKIPPED: (12, 4),
    CellState.MISSED: (6, 10),
    CellState.NONE: (15, 1),
}


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Ticks in a row that went the same way, where that is worth a word."""

    x: int
    width: int
    title: str


@dataclass(frozen=True, kw_only=True)
class StripPicture:
    """A strip as SVG: one path per state, and a title over what did not simply go well."""

    width: int
    height: int
    label: str  # the whole in words
    paths: tuple[tuple[str, str], ...]  # (class, path)
    marks: tuple[Mark, ...]


@dataclass(frozen=True, kw_only=True)
class BarPicture:
    """Age against what is expected."""

    width: int
    fill: float
    expected_x: float  # where the next success is due
    late_x: float  # where its grace ends
    label: str


def strip_picture(cells: Sequence[Cell]) -> StripPicture:
    """The picture of a strip."""
    found: dict[CellState, list[str]] = {}
    for place, cell in enumerate(cells):
        found.setdefault(cell.state, []).append(_shape(cell.state, place * CELL_STEP))
    return StripPicture(
        width=max(len(cells) * CELL_STEP - (CELL_STEP - CELL_WIDTH), 1),
        height=STRIP_HEIGHT,
        label=summary(cells),
        paths=tuple((state.name.lower(), "".join(shapes)) for state, shapes in found.items()),
        marks=tuple(_marks(cells)),
    )


def legend() -> Iterable[tuple[str, str, str]]:
    """(class, path, word) of each state, for the key below the table."""
    return [(state.name.lower(), _shape(state, 0), state.value) for state in CellState]


def bar_picture(one: StreamReport) -> BarPicture | None:
    """The freshness bar of a stream; None where nothing is expected at any time."""
    if one.age_ratio is None or one.age_seconds is None:
        return None
    scale = BAR_WIDTH / BAR_RATIO_MAX
    span = one.age_seconds / one.age_ratio if one.age_ratio else 0.0
    late_ratio = 1 + (one.grace_seconds or 0.0) / span if span else 1.0
    return BarPicture(
        width=BAR_WIDTH,
        fill=round(scale * min(one.age_ratio, BAR_RATIO_MAX), 1),
        expected_x=round(scale, 1),
        late_x=round(scale * min(late_ratio, BAR_RATIO_MAX), 1),
        label=f"Age: {one.age_ratio:.0%} of what is expected",
    )


def moment(instant: datetime) -> str:
    """An instant in full, for titles: `10 Mar 2026 14:00:05 UTC`."""
    return f"{instant.day} {instant:%b %Y %H:%M:%S} UTC"


def _marks(cells: Sequence[Cell]) -> Iterator[Mark]:
    place = 0
    for state, alike in groupby(cells, key=attrgetter("state")):
        row = list(alike)
        if state not in (CellState.OK, CellState.NONE):
            first, last = moment(row[0].tick), moment(row[-1].tick)
            title = f"{first}: {state}" if len(row) == 1 else f"{first} to {last}: {len(row)} {state}"
            yield Mark(x=place * CELL_STEP, width=len(row) * CELL_STEP, title=title)
        place += len(row)


@cache
def _shape(state: CellState, x: int) -> str:
    top, height = _MARKS[state]
    if state is CellState.MISSED:  # hollow
        return (
            _rectangle(x, top, CELL_WIDTH, height) + f"M{x + 1} {top + 1}v{height - 2}h{CELL_WIDTH - 2}v-{height - 2}z"
        )
    if state is CellState.RETRIED:  # broken in two
        return _rectangle(x, top, CELL_WIDTH, 4) + _rectangle(x, top + 6, CELL_WIDTH, 4)
    if state is CellState.RUNNING:  # stepped
        return _rectangle(x, top + 5, CELL_WIDTH, 5) + _rectangle(x + 1, top, 1, 5)
    return _rectangle(x, top, CELL_WIDTH, height)


def _rectangle(x: int, y: int, width: int, height: int) -> str:
    return f"M{x} {y}h{width}v{height}h-{width}z"
