"""The manifest of a connector as plain values: what it declares, before anything runs.

The values do not check themselves: `headwater check` proves all of a project at once and names every problem, which a
constructor that raises at the first one could not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Literal
from urllib.parse import urlsplit

Mode = Literal["poll", "webhook", "backfill"]
MODES: tuple[Mode, ...] = ("poll", "webhook", "backfill")

PAGES_MAX = 100_000
RUN_SECONDS_MAX = 6 * 3600.0
PAGE_SECONDS_MAX = 300.0
PAGE_RECORDS = 100
DELETE_SHARE_MAX = 0.5
BACKFILL_WINDOW_DAYS = 7

PLACEHOLDER = re.compile(r"\{settings\.([a-z][a-z0-9_]*)\}(?=/)")  # begins a permission: the origin in that setting


@dataclass(frozen=True)
class Stream:
    """One kind of thing that a connector ingests."""

    key: str  # lower-case letters, digits and underscores; the provider's name of the resource
    mode: Mode = field(kw_only=True)  # poll: on its schedule; webhook: on each event; backfill: only on demand
    schedule: str | None = field(
        default=None, kw_only=True
    )  # five-field cron line; required for poll, refused elsewhere
    timezone: str = field(default="UTC", kw_only=True)  # IANA zone of the schedule
    description: str = field(default="", kw_only=True)  # one sentence for the operator
    windowed: bool = field(
        default=False, kw_only=True
    )  # a poll is given `request.window`, from the last one's end to now
    lookback_seconds: int = field(default=0, kw_only=True)  # overlap of a windowed poll with the one before
    partitions: str | None = field(default=None, kw_only=True)  # settings field (array of strings): one checkpoint each
    page_records: int = field(default=PAGE_RECORDS, kw_only=True)  # `request.limit`
    pages_max: int = field(default=PAGES_MAX, kw_only=True)  # a run with more pages is ended with its own error
    run_seconds_max: float = field(default=RUN_SECONDS_MAX, kw_only=True)  # likewise a longer run
    delete_share_max: float = field(
        default=DELETE_SHARE_MAX, kw_only=True
    )  # mass-delete brake, as a share of the stream's records
    backfill_window_days: int = field(default=BACKFILL_WINDOW_DAYS, kw_only=True)  # span of one window of a backfill
    expect_within_seconds: int | None = field(
        default=None, kw_only=True
    )  # late after this silence, where cadence cannot tell


@dataclass(frozen=True, kw_only=True)
class Webhooks:
    """Where a provider's deliveries arrive, and what proves them."""

    endpoint: str  # `/webhooks/<provider>`: handled by `src/api/webhooks/<provider>.py`
    auth: str  # name of a signature scheme
    secret: str = "webhook_secret"  # noqa: S105  settings field that holds the signing secret
    options: Mapping[str, Any] = field(default_factory=dict)  # of the scheme, such as the header of `hmac_sha256`
    ordered: bool = False  # dispatch a connection's deliveries one after the other, in order of arrival
    body_bytes_max: int = 2 * 1024 * 1024  # a longer body is refused with 413 before it is read


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How an account of the provider is connected."""

    settings: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    # a JSON Schema 2020-12 of an object; `x-secret: true` marks a secret field
    test: str | None = None  # route below `src/api` that tries the credentials, such as `setup/test_connection`
    instructions: str = ""  # shown to the operator beside the form
    oauth: Mapping[str, Any] | None = None  # how the account authorises us: see OAuth


@dataclass(frozen=True, kw_only=True)
class Permissions:
    """What a connector may reach."""

    http: Sequence[str] = ()  # `https://api.stripe.com/*`; `*` stands for any run of characters within host or path
    # … or `{settings.api_base}/*`: the origin that the operator set in that field
    private: bool = False  # may call private and loopback addresses, for providers on the operator's own network

    def patterns(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """`http` with `{settings.field}` replaced by the origin in that setting.

        A pattern whose setting is missing, or is anything but an origin, allows nothing and is left out.
        """
        return tuple(pattern for _, pattern in self._expanded(settings))

    def loopback_patterns(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The patterns that may be called on a loopback address although `private` is off: those where the operator's
        setting itself names one, which no provider and no connector could have brought about.
        """
        return tuple(
            pattern for is_setting, pattern in self._expanded(settings) if is_setting and _is_loopback(pattern)
        )

    def _expanded(self, settings: Mapping[str, Any]) -> list[tuple[bool, str]]:
        expanded = []
        for pattern in self.http:
            placeholder = PLACEHOLDER.match(pattern)
            if placeholder is None:
                expanded.append((False, pattern))
            elif (origin := _origin(settings.get(placeholder[1]))) is not None:
                expanded.append((True, origin + pattern[placeholder.end() :]))
        return expanded


@dataclass(frozen=True, kw_only=True)
class Connector:
    """A connector's manifest: the value named `connector` in `connector.py`."""

    key: str  # lower-case letters, digits and underscores; what connections and bundles name it by
    name: str  # for people
    version: str  # of the connector; beside it stands the hash of its files
    streams: Sequence[Stream]  # what it ingests
    connection: Connection = field(default_factory=Connection)  # settings, secrets, and how they are tried
    permissions: Permissions = field(default_factory=Permissions)  # hosts that it may call
    webhooks: Webhooks | None = None  # where its provider's events arrive, and what proves them
    description: str = ""  # one sentence for the operator

    def stream(self, key: str) -> Stream | None:
        """The stream of that key."""
        return next((stream for stream in self.streams if stream.key == key), None)

    @property
    def secret_fields(self) -> frozenset[str]:
        """The settings fields marked `x-secret: true`."""
        properties = self.connection.settings.get("properties", {})
        return frozenset(
            name
            for name, schema in properties.items()
            if isinstance(schema, Mapping) and schema.get("x-secret") is True
        )

    def with_defaults(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """`settings`, and the schema's `default` for each top-level field that is not set."""
        properties = self.connection.settings.get("properties", {})
        defaults = {
            name: schema["default"]
            for name, schema in properties.items()
            if isinstance(schema, Mapping) and "default" in schema
        }
        return {**defaults, **settings}


def _origin(value: object) -> str | None:
    """`value` if it is `https://host[:port]`, or `http://` on a loopback address; a wildcard or a path is neither."""
    if not isinstance(value, str) or "*" in value or not value.isascii():
        return None
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        return None
    is_bare = url.path in {"", "/"} and not (url.query or url.fragment or url.username or url.password)
    if not is_bare or not url.hostname or url.scheme not in {"http", "https"}:
        return None
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    origin = f"{url.scheme}://{host}" + (f":{port}" if port is not None else "")
    return origin if url.scheme == "https" or _is_loopback(origin) else None


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
