"""The first page as values: which streams it shows, in which order, under which sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from headwater import health
from headwater.dashboard.picture import BarPicture, StripPicture, bar_picture, strip_picture
from headwater.dashboard.strip import Cell, summary
from headwater.dashboard.tone import tone
from headwater.health import J, Standing, StreamReport
from headwater.intention import StoredConnection
from headwater.verdict import Status

ROWS_MAX = 50  # streams on one page


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What the URL asks for; every part of the page's state is in it."""

    status: str | None = None
    connection: str | None = None
    tenant: str | None = None
    mode: str | None = None
    search: str | None = None
    page: int = 1

    def url(self, **changes: Any) -> str:
        """The query string of these filters with some changed; the first page is implied."""
        changed = replace(self, **({"page": 1} | changes))
        given: dict[str, str | int | None] = {
            "status": changed.status,
            "connection": changed.connection,
            "tenant": changed.tenant,
        }
        given |= {"mode": changed.mode, "q": changed.search, "page": changed.page if changed.page > 1 else None}
        return "?" + urlencode({name: value for name, value in given.items() if value is not None})

    @property
    def are_set(self) -> bool:
        """Something is hidden."""
        return any((self.status, self.connection, self.tenant, self.mode, self.search))

    def take(self, one: Standing, *, any_status: bool = False) -> bool:
        """Whether they let a stream through."""
        return (
            (any_status or self.status in (None, one.status.value))
            and self.connection in (None, one.connection)
            and self.tenant in (None, one.tenant)
            and self.mode in (None, one.mode)
            and (self.search is None or self.search.lower() in f"{one.connection} {one.name}".lower())
        )


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One filter with its count."""

    word: str
    count: int
    url: str
    is_on: bool
    css: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One stream with its pictures."""

    one: StreamReport
    bar: BarPicture | None
    strip: StripPicture | None
    reason: str  # the sentence without the status word that stands before it


@dataclass(frozen=True, kw_only=True)
class Group:
    """One connection with the streams that are shown."""

    key: str
    connector: str
    tenant: str | None
    summary: str
    rows: Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The page."""

    at: datetime
    sentence: str
    filters: Filters
    chips: Sequence[Chip]
    groups: Sequence[Group]
    connections: Sequence[str]  # to choose from
    tenants: Sequence[str]
    shown: int
    matching: int
    total: int
    warnings: Sequence[str] = ()  # of the installation as a whole

    @property
    def pages(self) -> int:
        """How many pages the matching streams take."""
        return max(1, -(-self.matching // ROWS_MAX))


def matching(standings: Iterable[Standing], filters: Filters) -> list[Standing]:
    """The streams that the filters let through, worst connection first, within it worst first."""
    found = _by_connection(health.worst_first(one for one in standings if filters.take(one)))
    return [one for streams in found.values() for one in streams]


def _by_connection(streams: Iterable[J]) -> dict[str, list[J]]:
    found: dict[str, list[J]] = {}
    for one in streams:
        found.setdefault(one.connection, []).append(one)
    return found


def page_of(streams: Sequence[Standing], filters: Filters) -> Sequence[Standing]:
    """The slice of these that the page shows."""
    start = (filters.page - 1) * ROWS_MAX
    return streams[start : start + ROWS_MAX]


def overview(
    standings: Sequence[Standing],
    filters: Filters,
    *,
    shown: Sequence[StreamReport],
    matching: int,
    at: datetime,
    connections: Mapping[str, StoredConnection],
    connector_names: Mapping[str, str],
    strips: Mapping[int, tuple[Cell, ...]],
) -> Overview:
    """The page for these filters: of all streams, those `shown` with their `strips`, of so many that match."""
    groups, everything = _by_connection(shown), _by_connection(standings)
    return Overview(
        at=at,
        sentence=_sentence(standings),
        filters=filters,
        chips=_chips(standings, filters),
        groups=[_group(key, own, everything[key], connector_names, strips) for key, own in groups.items()],
        connections=sorted({one.connection for one in standings} | set(connections)),
        tenants=sorted({one.tenant for one in connections.values() if one.tenant is not None}),
        shown=len(shown),
        matching=matching,
        total=len(standings),
    )


def twin(page: Overview, strips: Mapping[int, tuple[Cell, ...]]) -> dict[str, Any]:
    """The same page for programs."""
    return {
        "at": page.at,
        "summary": page.sentence,
        "warnings": page.warnings,
        "filters": page.filters,
        "statuses": {chip.word: chip.count for chip in page.chips},
        "matching": page.matching,
        "pages": page.pages,
        "connections": [
            {
                "key": group.key,
                "connector": group.connector,
                "tenant": group.tenant,
                "summary": group.summary,
                "streams": [
                    {"health": row.one, "strip": _strip_twin(strips.get(row.one.id, ()))} for row in group.rows
                ],
            }
            for group in page.groups
        ],
    }


def _strip_twin(cells: Sequence[Cell]) -> dict[str, Any] | None:
    return {"summary": summary(cells), "cells": cells} if cells else None


def _group(
    key: str,
    own: Sequence[StreamReport],
    everything: Sequence[Standing],
    connector_names: Mapping[str, str],
    strips: Mapping[int, tuple[Cell, ...]],
) -> Group:
    first = own[0]
    name = connector_names.get(first.connector) or first.connector.replace("_", " ").capitalize()
    return Group(
        key=key,
        connector=first.connector,
        tenant=first.tenant,
        summary=health.connection_summary(name, key, everything),
        rows=rows_of(own, strips),
    )


def rows_of(streams: Sequence[StreamReport], strips: Mapping[int, tuple[Cell, ...]]) -> list[Row]:
    """Streams with their pictures, in the order given."""
    return [_row(one, strips.get(one.id)) for one in streams]


def _row(one: StreamReport, cells: tuple[Cell, ...] | None) -> Row:
    _, _, reason = one.sentence.partition(": ")
    return Row(
        one=one,
        bar=bar_picture(one),
        strip=strip_picture(cells) if cells else None,
        reason=reason[:1].upper() + reason[1:],
    )


def _chips(standings: Sequence[Standing], filters: Filters) -> list[Chip]:
    """Every status that a stream has, counted under the other filters; the chosen one even without any."""
    inside = [one for one in standings if filters.take(one, any_status=True)]
    counted = health.status_counts(inside)
    chosen = [one for one in Status if one in counted or filters.status == one.value]
    everything = Chip(
        word="all", count=len(inside), url=filters.url(status=None), is_on=filters.status is None, css="all"
    )
    return [
        everything,
        *(
            Chip(
                word=status.value,
                count=counted.get(status, 0),
                url=filters.url(status=status.value),
                is_on=filters.status == status.value,
                css=tone(status.value),
            )
            for status in chosen
        ),
    ]


def _sentence(standings: Sequence[Standing]) -> str:
    if not standings:
        return "Nothing is ingested yet."
    number = len({one.connection for one in standings})
    counted = health.status_counts(standings)
    head = f"{number} connection ingests" if number == 1 else f"{number} connections ingest"
    noun = "stream" if len(standings) == 1 else "streams"
    if set(counted) == {Status.FRESH}:
        return f"{head} {len(standings)} {noun}, all fresh."
    parts = ", ".join(f"{counted[status]} {status}" for status in Status if status in counted)
    return f"{head} {len(standings)} {noun}: {parts}."
