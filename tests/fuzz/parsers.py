"""What reads bytes or text that a stranger wrote, each as a function of bytes that must not be surprised.

A parser either reads its input or refuses it with the error that it promises; whatever else it raises, and every broken
property, is a fault. `fuzz.py` drives them by coverage, `tests/test_parsers.py` for a moment by chance.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

from headwater import archive, bundle, cron, form, grant, jsonvalue, pagination
from headwater.answer import refusal
from headwater.api.query import parse_instant
from headwater.canonical.registry import shipped
from headwater.errors import (
    CheckFailedError,
    ConfigError,
    ForbiddenHostError,
    HandlerError,
    HeadwaterError,
    InvalidPayloadError,
    SignatureError,
    StopError,
)
from headwater.front import forwarded
from headwater.permission import AllowList, parse
from headwater.redaction import Redactor
from headwater.second_factor import step_of
from headwater.signature import SignedRequest
from headwater.signatures import registry
from headwater.testing.signer import signed

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BODY = b'{"id":"evt_1","type":"a.b","data":{"id":"c_1"}}'
CANARY = "canary-4111-1111"
TRUSTED = (ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8"))
FILES = {"connector.py": b"connector = None\n", "src/api/sync/customers.py": b"pass\n"}

TIMED = {"header": "X-Sig", "timestamp_header": "X-Time", "id_header": "X-Id", "signed": "{id}.{timestamp}.{body}"}
# scheme, secret, options
SCHEMES: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("stripe_signature", "whsec_0123456789abcdef", {}),
    ("github_signature", "hush hush", {}),
    ("shopify_hmac", "hush hush", {}),
    ("slack_signature", "8f742231b10e8888abcd99yyyzzz85a5", {}),
    ("standard_webhooks", "whsec_" + base64.b64encode(b"k" * 32).decode(), {}),
    ("hmac_sha256", "hush hush", TIMED),
)


def lines_of(data: bytes) -> list[tuple[bytes, bytes]]:
    """Headers as a server hands them on: names in lower case, no line breaks."""
    pairs = [line.partition(b":") for line in data.split(b"\n")]
    return [(name.strip().lower(), value.strip()) for name, _, value in pairs if name.strip()]


def signature(data: bytes) -> None:
    """Of each scheme: nothing is accepted but the body that was signed."""
    head, _, body = data.partition(b"\n\n")
    headers = lines_of(head)
    for name, secret, options in SCHEMES:
        scheme = registry.scheme(name)
        assert scheme is not None
        request = SignedRequest(method="POST", url="", headers=headers, body=body, received_at=AT)
        try:
            scheme.verify(request, [secret], options)
        except SignatureError:
            continue
        assert body == BODY, f"{name} accepts what was never signed"


def json_text(data: bytes) -> None:
    """What is read has one canonical form, which is read again as itself."""
    try:
        found = jsonvalue.decode(data)
    except InvalidPayloadError:
        return
    form_of_it = jsonvalue.canonical_bytes(found)
    assert jsonvalue.canonical_bytes(jsonvalue.decode(form_of_it)) == form_of_it


def record(data: bytes) -> None:
    """A payload of each canonical type is settled, or refused by name."""
    try:
        payload = jsonvalue.decode(data)
    except InvalidPayloadError:
        return
    for one in shipped().values():
        try:
            content = one.encode(payload)
        except InvalidPayloadError:
            continue
        assert one.encode(jsonvalue.decode(content)) == content, f"{one.name} is not what it was when it is read again"


def schedule(data: bytes) -> None:
    """A cron line ticks in the future and in the past, and has words."""
    line, _, zone = data.decode("utf-8", "replace").partition("\n")
    try:
        cron.validate(line, zone or "UTC")
    except ConfigError:
        return
    following = cron.next_tick(line, zone or "UTC", AT)
    (last,) = cron.previous_ticks(line, zone or "UTC", following, 1)
    assert last <= AT < following
    assert cron.describe(line, zone or "UTC")


def packed(data: bytes) -> None:
    """An archive holds the bundle of its name, whose files stay in their folder."""
    try:
        found = archive.unpack(data, content_hash=bundle.stored(FILES).content_hash)
    except CheckFailedError:
        return
    assert dict(found.files) == FILES


def names(data: bytes) -> None:
    """A bundle's name of a file leads nowhere else."""
    name = data.decode("utf-8", "surrogateescape")
    if not bundle.name_problems([name]):
        parts = name.split("/")
        assert ".." not in parts
        assert not name.startswith("/")
        assert "\\" not in name
        assert "\0" not in name


def url(data: bytes) -> None:
    """A URL of a handler goes to the host that is named, or nowhere."""
    try:
        found = parse(data.decode("utf-8", "replace"))
        AllowList(["https://api.example.com/*"]).reach(found)
    except (HandlerError, ForbiddenHostError):
        return
    assert (found.scheme, found.host, found.port) == ("https", "api.example.com", 443)


def permission(data: bytes) -> None:
    """A pattern of a manifest is one, or none."""
    AllowList([data.decode("utf-8", "replace")])


def checkpoint(data: bytes) -> None:
    """A windowed checkpoint goes on where it was."""
    try:
        found = pagination.windowed_cursor(data.decode("utf-8", "replace"), at=AT, lookback_seconds=3600)
    except StopError:
        return
    assert found.window.start.tzinfo is not None
    assert found.window.end.tzinfo is not None


def answer(data: bytes) -> None:
    """A provider's refusal becomes an error with its words, and no secret."""
    head, _, body = data.partition(b"\n\n")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in lines_of(head)}
    for status in (400, 401, 403, 429, 503):
        found = refusal(name="GET x", status=status, headers=headers, body=body, now=AT, redactor=Redactor([CANARY]))
        assert isinstance(found.error, HeadwaterError)
        assert CANARY not in str(found.error)
        assert found.retry_after_seconds is None or found.retry_after_seconds >= 0


def proxy(data: bytes) -> None:
    """Forwarded headers of a trusted proxy are read, whatever is in them."""
    forwarded({"client": ("127.0.0.1", 1), "headers": lines_of(data), "scheme": "http"}, TRUSTED)


def instant(data: bytes) -> None:
    """A filter's instant is one with a zone, or none."""
    found = parse_instant(data.decode("utf-8", "replace"))
    assert found is None or found.tzinfo is not None


def secrets(data: bytes) -> None:
    """A secret is found in whatever stands around it."""
    text = data.decode("utf-8", "replace")
    assert CANARY not in Redactor([CANARY]).text(text)
    assert CANARY not in Redactor([CANARY]).line(text)


def code(data: bytes) -> None:
    """A second factor's code is six digits, or no code."""
    step_of("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", data.decode("utf-8", "replace"), AT)


def oauth(data: bytes) -> None:
    """A declaration of OAuth, from JSON."""
    try:
        declared = jsonvalue.decode(data)
        if isinstance(declared, Mapping):
            grant.oauth_of(declared)
    except (InvalidPayloadError, ValueError):
        return


def encoded(data: bytes) -> None:
    """A form of a handler is encoded, or refused."""
    try:
        value = jsonvalue.decode(data)
    except InvalidPayloadError:
        return
    if isinstance(value, Mapping):
        try:
            form.encode(value)
        except TypeError:
            return


def _signed_seeds() -> list[bytes]:
    seeds = []
    for name, secret, options in SCHEMES:
        headers = signed(name, BODY, secret, at=AT, provider_id="msg_1", options=options)
        seeds.append(b"\n".join(f"{key}: {value}".encode() for key, value in headers.items()) + b"\n\n" + BODY)
    return seeds


# Each parser with inputs to begin with: coverage finds the rest sooner.
PARSERS: Mapping[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "signature": (signature, _signed_seeds()),
    "json": (json_text, [BODY, b'{"a":1e400,"b":[1.10,-0,""],"c":null}', b'"\\ud800"', b"[" * 40 + b"]" * 40]),
    "record": (
        record,
        [b'{"id":"c_1","name":"Ada","created_at":"2026-01-01T00:00:00Z"}', b'{"id":"p_1","amount":"1.10"}'],
    ),
    "schedule": (schedule, [b"*/15 * * * *", b"30 2 * * 1-5\nEurope/Berlin", b"0 0 29 2 *", b"0 0 L * MON#1"]),
    "archive": (packed, [archive.pack(bundle.stored(FILES))]),
    "names": (names, [name.encode() for name in FILES]),
    "url": (url, [b"https://api.example.com/v1?a=b#c", b"https://api.example.com:443@evil/", b"http://[::1]/"]),
    "permission": (permission, [b"https://*.example.com/v1/*", b"*://[::1]:*/"]),
    "checkpoint": (
        checkpoint,
        [b"2026-01-31T00:00:00Z", b'{"from":"2026-01-01T00:00:00Z","to":"2026-01-02T00:00:00Z","cursor":"x"}'],
    ),
    "answer": (
        answer,
        [b"retry-after: 120\n\n" + b'{"error":{"message":"no"}}', b"retry-after: Sun, 01 Mar 2026 12:00:30 GMT\n\n"],
    ),
    "proxy": (
        proxy,
        [
            b"x-forwarded-for: 1.2.3.4, 10.0.0.1\nx-forwarded-proto: https\nx-forwarded-host: a.b",
            b"x-forwarded-for: [::ffff:1.2.3.4]",
        ],
    ),
    "instant": (instant, [b"2026-01-31", b"2026-01-31T12:00:00+02:00", b"0001-01-01T00:00:00+14:00"]),
    "secrets": (secrets, [b"key=" + CANARY.encode(), base64.b64encode(CANARY.encode()), b"canary%2D4111-1111"]),
    "code": (code, [b"123456", b"123 456", "１２３４５６".encode()]),
    "oauth": (oauth, [b'{"authorize_url":"https://a.b/c","token_url":"https://a.b/d","scopes":["x"]}']),
    "form": (encoded, [b'{"a":[1,2],"b":{"c":null,"d":[true]}}']),
}
