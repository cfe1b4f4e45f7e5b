"""The declared streams: their keys, modes, schedules, limits and partitions."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping
from dataclasses import MISSING, fields

from headwater import cron
from headwater.catalog import MODES, Stream
from headwater.check import code
from headwater.check.manifest import KEY, STREAM_BOUNDS, check_bounds, check_types, key_hint
from headwater.check.places import Places
from headwater.check.subject import Subject, is_secret
from headwater.errors import ConfigError, near_miss
from headwater.project import MANIFEST

_DEFAULTS = {one.name: one.default for one in fields(Stream) if one.default is not MISSING}
_OF_POLLS = ("windowed", "lookback_seconds", "timezone")
_OF_PAGES = (*_OF_POLLS, "partitions", "page_records", "pages_max", "run_seconds_max", "backfill_window_days")


def check_streams(subject: Subject, places: Places) -> None:
    """Note every problem of a stream by itself; how streams and routes fit is `routes`' work."""
    assert subject.connector is not None, "the manifest was read"
    seen: Counter[str | None] = Counter()
    for stream in declared(subject):
        key = stream.key if isinstance(stream.key, str) else None
        call = places.stream_call(key, seen[key])
        seen[key] += 1
        _StreamCheck(subject, places, stream, call).run(is_twice=seen[key] > 1)


def declared(subject: Subject) -> list[Stream]:
    """The streams of the manifest."""
    return list(subject.connector.streams) if subject.connector else []


class _StreamCheck:
    def __init__(self, subject: Subject, places: Places, stream: Stream, call: ast.Call | None) -> None:
        self.subject = subject
        self.places = places
        self.stream = stream
        self.call = call
        self.typed: frozenset[str] = frozenset()

    def run(self, *, is_twice: bool) -> None:
        self.typed = check_types(self.subject, self.places, "Stream", self.stream, self.line)
        check_bounds(self.subject, "Stream", self.stream, STREAM_BOUNDS, self.line)
        self.check_key(is_twice)
        if "mode" in self.typed and self.stream.mode not in MODES:
            wanted = near_miss(self.stream.mode, MODES)
            self.add(
                code.MODE_UNKNOWN,
                "mode",
                f"There is no mode `{self.stream.mode}`.",
                wanted or "the modes are poll, webhook and backfill.",
            )
        elif "mode" in self.typed:
            self.check_schedule()
            self.check_effects()
        if "partitions" in self.typed and self.stream.partitions is not None:
            self.check_partitions(self.stream.partitions)

    def line(self, field: str = "") -> int:
        return self.places.stream_line(self.call, field)

    def add(self, what: code.Code, field: str, message: str, *hints: str) -> None:
        self.subject.found.add(what, MANIFEST, self.line(field), message, *hints)

    def check_key(self, is_twice: bool) -> None:
        if "key" not in self.typed:
            return
        key = self.stream.key
        if not KEY.fullmatch(key):
            self.add(code.STREAM_KEY, "key", f"The stream key `{key}` is ill-formed.", key_hint(key))
        if is_twice:
            self.add(
                code.STREAM_TWICE, "key", f"The stream `{key}` is declared twice.", "rename or remove one of them."
            )

    def check_schedule(self) -> None:
        stream = self.stream
        if "schedule" not in self.typed:
            return
        if stream.mode != "poll":
            if stream.schedule is not None:
                self.add(
                    code.SCHEDULE_REFUSED,
                    "schedule",
                    f"The stream `{stream.key}` is a {stream.mode} stream and has a schedule.",
                    'remove it, or say mode="poll".',
                )
        elif stream.schedule is None and self.line() in self.places.misnamed:
            return  # the schedule may be the field that is misnamed
        elif stream.schedule is None:
            self.add(
                code.SCHEDULE_MISSING,
                "",
                f"The poll stream `{stream.key}` has no schedule.",
                'say when, such as schedule="*/15 * * * *".',
            )
        else:
            self.check_cron(code.SCHEDULE_BAD, "schedule", stream.schedule, "UTC")
        if "timezone" in self.typed:
            self.check_cron(code.ZONE_UNKNOWN, "timezone", "0 0 * * *", stream.timezone)

    def check_cron(self, what: code.Code, field: str, line: str, zone: str) -> None:
        try:
            cron.validate(line, zone)
        except ConfigError as error:
            self.add(what, field, error.message, error.hint)
        except ValueError:
            self.add(what, field, f"The schedule `{line[:80]}` is no cron line.")

    def check_effects(self) -> None:
        stream = self.stream
        idle = {"webhook": _OF_PAGES, "backfill": _OF_POLLS, "poll": () if stream.windowed else ("lookback_seconds",)}
        for name in idle[stream.mode]:
            if getattr(stream, name) != _DEFAULTS[name]:
                reason = "a poll that is not windowed" if stream.mode == "poll" else f"a {stream.mode} stream"
                hint = "say windowed=True as well, or remove it." if stream.mode == "poll" else "remove it."
                self.add(code.NO_EFFECT, name, f"`{name}` has no effect on {reason}.", hint)

    def check_partitions(self, name: str) -> None:
        settings = self.subject.settings()
        schema = settings.get(name)
        lists = [one for one, of in settings.items() if _is_list_of_texts(of)]
        if schema is None:
            problem = f"`partitions` names the setting `{name}`, which is not declared."
        elif not _is_list_of_texts(schema):
            problem = f"`partitions` names the setting `{name}`, which is no array of strings."
        else:
            return
        self.add(
            code.PARTITIONS,
            "partitions",
            problem,
            near_miss(name, lists) or 'declare it as {"type": "array", "items": {"type": "string"}}.',
        )


def _is_list_of_texts(schema: object) -> bool:
    if not isinstance(schema, Mapping) or schema.get("type") != "array" or is_secret(schema):
        return False
    items = schema.get("items")
    return isinstance(items, Mapping) and items.get("type") == "string"
