"""Every scheme with secrets and options to try it, a request of it, and how it is verified."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from headwater.errors import SignatureError
from headwater.signature import SignedRequest, Verified
from headwater.signatures import registry

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
STRIPE_SECRET = "whsec_0123456789abcdef"
STANDARD_SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
OTHER_STANDARD_SECRET = "whsec_" + base64.b64encode(b"o" * 32).decode()
EVENT = b'{"id":"evt_1","object":"event","type":"customer.updated","data":{"object":{"id":"cus_1"}}}'

TEMPLATED = {
    "header": "X-Acme-Signature",
    "encoding": "base64",
    "prefix": "v1:",
    "id_header": "X-Acme-Id",
    "event_header": "X-Acme-Event",
    "timestamp_header": "X-Acme-Time",
    "signed": "{id}.{timestamp}.{body}",
}


def make_request(
    headers: Mapping[str, str] | Sequence[tuple[str, str]], body: bytes = EVENT, *, at: datetime = AT
) -> SignedRequest:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    raw = [(name.lower().encode(), value.encode()) for name, value in pairs]
    return SignedRequest(method="POST", url="https://hooks.example.com/x", headers=raw, body=body, received_at=at)


def verify(
    scheme: str,
    headers: Mapping[str, str] | Sequence[tuple[str, str]],
    secrets: Sequence[str],
    body: bytes = EVENT,
    *,
    at: datetime = AT,
    options: Mapping[str, Any] | None = None,
) -> Verified:
    known = registry.scheme(scheme)
    assert known is not None
    return known.verify(make_request(headers, body, at=at), secrets, options or {})


def refused(*args: Any, **named: Any) -> str:
    with pytest.raises(SignatureError) as caught:
        verify(*args, **named)
    return str(caught.value)


# One row a scheme: name, secret, another secret, options.
SCHEMES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("stripe_signature", STRIPE_SECRET, "whsec_other", {}),
    ("github_signature", "It's a Secret to Everybody", "another", {}),
    ("shopify_hmac", "hush", "another", {}),
    ("slack_signature", "8f742231b10e8888abcd99yyyzzz85a5", "another", {}),
    ("standard_webhooks", STANDARD_SECRET, OTHER_STANDARD_SECRET, {}),
    ("standard_webhooks", STANDARD_SECRET, OTHER_STANDARD_SECRET, {"header_prefix": "svix"}),
    ("hmac_sha256", "s3cret", "another", {"header": "X-Acme-Signature"}),
    ("hmac_sha256", "s3cret", "another", TEMPLATED),
]
every_scheme = pytest.mark.parametrize(
    ("scheme", "secret", "other", "options"), SCHEMES, ids=[f"{name}-{len(options)}" for name, _, _, options in SCHEMES]
)
