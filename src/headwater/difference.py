"""What a deploy changes: two outlines of a connector compared, the changes that take something away marked.

Pure: it is given values and returns values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from headwater.outline import Outline

Area = Literal["stream", "permission", "setting", "webhooks", "record", "field"]
Kind = Literal["added", "removed", "changed", "rescheduled", "retyped"]

TEXT_CHARACTERS_MAX = 200

_SCHEDULE = ("schedule", "timezone")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One difference between two versions."""

    area: Area
    kind: Kind
    name: str  # stream key, URL pattern, settings field, `type` or `type.field`
    before: str | None = None
    after: str | None = None
    destructive: bool = False  # takes away something that somebody may rely on


def compare(before: Outline | None, after: Outline) -> tuple[Change, ...]:
    """The changes from one version to another, by area; `before` is None where nothing runs yet."""
    old = before or Outline(connector=after.connector, version="", streams={})
    return (
        *_streams(old, after),
        *_permissions(old, after),
        *_webhooks(old, after),
        *_settings(old, after),
        *(_records(old.types, after.types or {}) if old.types is not None else ()),
    )


def _streams(old: Outline, new: Outline) -> Iterator[Change]:
    for key in sorted({*old.streams, *new.streams}):
        was, now = old.streams.get(key), new.streams.get(key)
        if was is None:
            yield Change(area="stream", kind="added", name=key, after=_cadence(now or {}))
        elif now is None:
            yield Change(area="stream", kind="removed", name=key, before=_cadence(was), destructive=True)
        else:
            if _cadence(was) != _cadence(now):
                yield Change(area="stream", kind="rescheduled", name=key, before=_cadence(was), after=_cadence(now))
            rest = [one for one in now if one in was and one not in (*_SCHEDULE, "mode") and was[one] != now[one]]
            for one in rest:
                yield Change(
                    area="stream", kind="changed", name=key,
                    before=f"{one} = {_text(was[one])}", after=f"{one} = {_text(now[one])}",
                )  # fmt: skip


def _cadence(stream: Mapping[str, Any]) -> str:
    words = [str(stream.get("mode"))]
    if stream.get("schedule"):
        words.append(f"{stream['schedule']} {stream.get('timezone', 'UTC')}")
    return ", ".join(words)


def _permissions(old: Outline, new: Outline) -> Iterator[Change]:
    was = {*old.permissions, *(["private addresses"] if old.private else [])}
    now = {*new.permissions, *(["private addresses"] if new.private else [])}
    for pattern in sorted(was ^ now):
        yield Change(area="permission", kind="added" if pattern in now else "removed", name=pattern)


def _webhooks(old: Outline, new: Outline) -> Iterator[Change]:
    was, now = old.webhooks or {}, new.webhooks or {}
    if not was:
        if now:
            yield Change(area="webhooks", kind="added", name="endpoint", after=f"{now['endpoint']}, {now['auth']}")
        return
    for name in sorted({*was, *now}):
        if was.get(name) != now.get(name):
            yield Change(
                area="webhooks",
                kind=_kind(name in was, name in now),
                name=name,
                before=_text(was[name]) if name in was else None,
                after=_text(now[name]) if name in now else None,
                # Every provider was given the URL that ends here.
                destructive=name == "endpoint" and name in was,
            )


def _settings(old: Outline, new: Outline) -> Iterator[Change]:
    for name in sorted({*old.settings, *new.settings}):
        was, now = _setting(old, name), _setting(new, name)
        if was != now:
            yield Change(
                area="setting",
                kind=_kind(was is not None, now is not None),
                name=name,
                before=was and _text(was[0]) + was[1],
                after=now and _text(now[0]) + now[1],
            )


def _setting(of: Outline, name: str) -> tuple[Any, str] | None:
    return (of.settings[name], ", required" if name in of.required else "") if name in of.settings else None


def _records(old: Mapping[str, Mapping[str, str]], new: Mapping[str, Mapping[str, str]]) -> Iterator[Change]:
    for record in sorted({*old, *new}):
        was, now = old.get(record), new.get(record)
        if was is None or now is None:
            kind = _kind(was is not None, now is not None)
            yield Change(area="record", kind=kind, name=record, destructive=now is None)
            continue
        for name in sorted({*was, *now}):
            if was.get(name) != now.get(name):
                yield Change(
                    area="field",
                    kind="added" if name not in was else "removed" if name not in now else "retyped",
                    name=f"{record}.{name}",
                    before=was.get(name),
                    after=now.get(name),
                    destructive=name in was,
                )


def _kind(was_there: bool, is_there: bool) -> Kind:
    return "changed" if was_there and is_there else "added" if is_there else "removed"


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= TEXT_CHARACTERS_MAX else text[: TEXT_CHARACTERS_MAX - 1] + "…"
