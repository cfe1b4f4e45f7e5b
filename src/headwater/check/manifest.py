"""The manifest's values: a connector whose fields have their types, keys and limits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Final

from headwater.catalog import Connection, Connector, Permissions, Stream, Webhooks
from headwater.check import code
from headwater.check.facts import Facts
from headwater.check.isolation import import_file
from headwater.check.places import Places, mended, read_places
from headwater.check.subject import Subject
from headwater.errors import near_miss
from headwater.project import MANIFEST, Source, unload

KEY_CHARACTERS_MAX = 63
TEXT_CHARACTERS_MAX = 200
KEY: Final = re.compile(rf"[a-z][a-z0-9_]{{0,{KEY_CHARACTERS_MAX - 1}}}")
_VERSION: Final = re.compile(r"[0-9]+(\.[0-9]+){0,3}([-+.]?[0-9A-Za-z]+([-+.][0-9A-Za-z]+)*)?")

Bounds = tuple[float, float]
STREAM_BOUNDS: Mapping[str, Bounds] = {
    "lookback_seconds": (0, 366 * 86_400),
    "page_records": (1, 10_000),
    "pages_max": (1, 1_000_000),
    "run_seconds_max": (1, 86_400),
    "delete_share_max": (0, 1),
    "backfill_window_days": (1, 3_660),
    "expect_within_seconds": (1, 366 * 86_400),
}
WEBHOOKS_BOUNDS: Mapping[str, Bounds] = {"body_bytes_max": (1, 64 * 1024 * 1024)}


def is_texts(value: object) -> bool:
    """Whether a value is a sequence of strings, and not one string."""
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, str) for one in value)


def _is_streams(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, Stream) for one in value)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# What each annotation of the catalog's classes promises, and how a message says it.
KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "str": (lambda value: isinstance(value, str), "a string"),
    "str | None": (lambda value: value is None or isinstance(value, str), "a string"),
    "Mode": (lambda value: isinstance(value, str), "a string"),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "int": (_is_int, "a whole number"),
    "int | None": (lambda value: value is None or _is_int(value), "a whole number"),
    "float": (lambda value: _is_int(value) or isinstance(value, float), "a number"),
    "Mapping[str, Any]": (lambda value: isinstance(value, Mapping), "a mapping"),
    "Mapping[str, Any] | None": (lambda value: value is None or isinstance(value, Mapping), "a mapping"),
    "Sequence[str]": (is_texts, "a list of strings"),
    "Sequence[Stream]": (_is_streams, "a list of Stream(...)"),
    "Connection": (lambda value: isinstance(value, Connection), "a Connection(...)"),
    "Permissions": (lambda value: isinstance(value, Permissions), "a Permissions(...)"),
    "Webhooks | None": (lambda value: value is None or isinstance(value, Webhooks), "a Webhooks(...)"),
}


_EMPTY: Mapping[str, Any] = {
    "streams": (),
    "connection": Connection(),
    "permissions": Permissions(),
    "webhooks": None,
}


def check_manifest(subject: Subject) -> Places | None:
    """Import the manifest and check its own values; gives the places of its parts where it has any."""
    if MANIFEST not in subject.bundle.files:
        named = near_miss(MANIFEST, [path for path in subject.bundle.files if "/" not in path])
        subject.found.add(
            code.NO_MANIFEST,
            MANIFEST,
            1,
            "There is no `connector.py` in this folder.",
            named,
            "`headwater init` makes a new project.",
        )
        return None
    facts = subject.facts.get(MANIFEST)
    if facts is None:
        return None
    _check_environment(facts, subject)
    places = read_places(facts, subject.found)
    subject.connector = _connector(subject, facts, places)
    if subject.connector is None:
        return None
    _check_fields(subject, places, subject.connector)
    return places


def _connector(subject: Subject, facts: Facts, places: Places) -> Connector | None:
    misnamed = any(one.code == code.FIELD_UNKNOWN.name for one in subject.found.sorted())
    source = subject.source
    if misnamed:
        module: object = _import_mended(source, facts, subject)
    else:
        module = subject.import_file(MANIFEST)
    if module is None:
        return None
    value = getattr(module, "connector", None)
    if isinstance(value, Connector):
        return value
    what = f"`connector` is a {type(value).__name__}" if hasattr(module, "connector") else "There is no `connector`"
    near = next((name for name, one in vars(module).items() if isinstance(one, Connector)), "")
    subject.found.add(
        code.NO_CONNECTOR,
        MANIFEST,
        places.line("Connector") if facts.bound("connector") else 1,
        f"{what}: the manifest must hold a value `connector = Connector(...)`.",
        f"did you mean to name `{near}` `connector`?" if near else "",
    )
    return None


def _import_mended(source: Source, facts: Facts, subject: Subject) -> object:
    """The manifest without what stops its import, so that its other problems are found as well."""
    try:
        mended_code = compile(mended(facts), str(source.bundle.path / MANIFEST), "exec")
    except (SyntaxError, ValueError, RecursionError) as error:
        subject.found.add(code.SYNTAX, MANIFEST, getattr(error, "lineno", 1), f"This is not Python: {error}.")
        return None
    substitute = source.substitute(MANIFEST, mended_code)
    try:
        return import_file(substitute, MANIFEST, subject.found)
    finally:
        unload(substitute.package)


def _check_environment(facts: Facts, subject: Subject) -> None:
    for name, line in facts.uses:
        if name in ("os.environ", "os.getenv", "os.environb"):
            subject.found.add(
                code.SECRETS_AT_IMPORT,
                MANIFEST,
                line,
                "The manifest reads the environment.",
                "declare a setting instead: each connection has its own.",
            )


def _check_fields(subject: Subject, places: Places, connector: Connector) -> None:
    typed = check_types(subject, places, "Connector", connector)
    subject.unusable = frozenset(one.name for one in fields(connector)) - typed
    connector = replace(connector, **{name: empty for name, empty in _EMPTY.items() if name in subject.unusable})
    subject.connector = connector
    for part in (connector.connection, connector.permissions, connector.webhooks):
        if part is not None:
            check_types(subject, places, type(part).__name__, part)
    if connector.webhooks is not None:
        check_bounds(
            subject, "Webhooks", connector.webhooks, WEBHOOKS_BOUNDS, lambda name: places.line("Webhooks", name)
        )
    if "key" in typed and not KEY.fullmatch(connector.key):
        subject.found.add(
            code.CONNECTOR_KEY,
            MANIFEST,
            places.line("Connector", "key"),
            f"The connector's key `{connector.key}` is ill-formed.",
            key_hint(connector.key),
        )
    _check_texts(subject, places, connector, typed)
    if "streams" in typed and not connector.streams:
        subject.found.add(
            code.NO_STREAMS,
            MANIFEST,
            places.line("Connector", "streams"),
            "The connector declares no stream.",
            "a stream is what the platform schedules, routes and shows.",
        )


def _check_texts(subject: Subject, places: Places, connector: Connector, typed: frozenset[str]) -> None:
    if "name" in typed and not 0 < len(connector.name.strip()) <= TEXT_CHARACTERS_MAX:
        subject.found.add(
            code.CONNECTOR_TEXT,
            MANIFEST,
            places.line("Connector", "name"),
            f"The connector's name must have 1 to {TEXT_CHARACTERS_MAX} characters.",
        )
    if "version" in typed and not _VERSION.fullmatch(connector.version):
        subject.found.add(
            code.CONNECTOR_TEXT,
            MANIFEST,
            places.line("Connector", "version"),
            f"`{connector.version}` is no version.",
            "write numbers with dots between them, such as 0.1.0.",
        )


def check_types(
    subject: Subject, places: Places, part: str, value: object, line: Callable[[str], int] | None = None
) -> frozenset[str]:
    """Note the fields of a part that have the wrong type; gives the names of those that have the right one."""
    right = set()
    locate = line or (lambda name: places.line(part, name))
    for one in fields(value):  # type: ignore[arg-type]
        given = getattr(value, one.name)
        fits, words = KINDS[str(one.type)]
        if fits(given):
            right.add(one.name)
        elif not (given is None and locate("") in places.misnamed):
            subject.found.add(
                code.FIELD_TYPE,
                MANIFEST,
                locate(one.name),
                f"`{one.name}` of `{part}` must be {words}, not {_article(given)}.",
                "put it in a list." if words.startswith("a list") and isinstance(given, (str, Stream)) else "",
            )
    return frozenset(right)


def check_bounds(
    subject: Subject, part: str, value: object, bounds: Mapping[str, Bounds], line: Callable[[str], int]
) -> None:
    """Note the numbers of a part that are out of their range."""
    for name, (lowest, highest) in bounds.items():
        given = getattr(value, name)
        if isinstance(given, (int, float)) and not isinstance(given, bool) and not lowest <= given <= highest:
            subject.found.add(
                code.LIMIT_RANGE,
                MANIFEST,
                line(name),
                f"`{name}` of `{part}` is {given}; it must be {lowest:,} to {highest:,}.",
            )


def key_hint(key: str) -> str:
    """What to write instead of an ill-formed key."""
    better = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower()
    better = re.sub(r"[^a-z0-9]+", "_", better).strip("_0123456789")[:KEY_CHARACTERS_MAX]
    rule = f"a key is a lower-case letter, then letters, digits and underscores, {KEY_CHARACTERS_MAX} at most."
    return f"did you mean `{better}`? A{rule[1:]}" if better and KEY.fullmatch(better) else rule


def _article(value: object) -> str:
    if value is None:
        return "None"
    if isinstance(value, (list, tuple)):
        odd = next((one for one in value if not isinstance(one, (str, Stream))), None)
        inside = f" that holds a {type(odd).__name__}" if odd is not None else ""
        return f"a {type(value).__name__}{inside}"
    return f"a {type(value).__name__}"
