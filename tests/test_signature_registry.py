"""Around the schemes: how a delivery is named, which schemes there are, and what may be told of them."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pytest

from headwater.errors import ConfigError, SignatureError
from headwater.signature import SignedRequest, Verified
from headwater.signatures import registry
from headwater.testing.signer import signed
from signing import (
    AT,
    EVENT,
    STANDARD_SECRET,
    every_scheme,
    refused,
    verify,
)

# Names


@pytest.mark.parametrize(
    "body",
    [
        b"", b"not json", b"null", b"[1]", b'{"id":7}', b'{"id":""}', b'{"id":"a\\u0000b"}', b'{"id":"\\ud800"}',
        b'{"id":"\xff"}', b'{"a":' + b"[" * 100_000, b'{"a":NaN}', b'{"id":"' + b"x" * 256 + b'"}', b"[" * 100_000,
        b"\xff\xfe", b'{"type":{}, "challenge": 5, "event": "x"}',
    ],
)  # fmt: skip
def test_a_body_without_a_usable_name_is_still_a_delivery(body: bytes) -> None:
    for scheme in ("stripe_signature", "slack_signature"):
        headers = signed(scheme, body, "s", at=AT)
        verified = verify(scheme, headers, ["s"], body)
        assert (verified.provider_id, verified.reply) == (None, None)
    headers = signed("standard_webhooks", body, STANDARD_SECRET, at=AT, provider_id="m")
    assert verify("standard_webhooks", headers, [STANDARD_SECRET], body) == Verified(provider_id="m")


def test_a_long_integer_beside_the_id_does_no_harm() -> None:
    body = b'{"n":' + b"9" * 6000 + b',"id":"evt_2","type":"x"}'
    headers = signed("stripe_signature", body, "s", at=AT)
    assert verify("stripe_signature", headers, ["s"], body) == Verified(provider_id="evt_2", event_type="x")


# Registry


class TokenScheme:
    """A scheme of somebody else."""

    name = "test_token"
    headers = frozenset({"x-token"})

    def verify(self, request: SignedRequest, secrets: Sequence[str], options: Mapping[str, Any]) -> Verified:
        if not any(hmac.compare_digest((request.header("X-Token") or "").encode(), one.encode()) for one in secrets):
            raise SignatureError
        return Verified(provider_id=None)

    def sign(
        self, body: bytes, secret: str, *, at: datetime, provider_id: str, options: Mapping[str, Any]
    ) -> dict[str, str]:
        return {"X-Token": secret}


def test_anybody_can_add_a_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_schemes", dict(registry._schemes))
    assert registry.problems("test_token", {}) == ["There is no signature scheme `test_token`."]
    registry.register(TokenScheme())
    registry.register(TokenScheme())
    assert "test_token" in registry.names()
    assert registry.problems("test_token", {"anything": 1}) == []
    verify("test_token", signed("test_token", b"", "s", at=AT), ["s"], b"")

    class Impostor(TokenScheme):
        name = "stripe_signature"

    with pytest.raises(ConfigError, match="stripe_signature"):
        registry.register(Impostor())


def test_an_unknown_scheme_names_the_near_miss() -> None:
    assert registry.scheme("stripe_signatur") is None
    assert registry.problems("stripe_signatur", {}) == [
        "There is no signature scheme `stripe_signatur`. Did you mean `stripe_signature`?"
    ]


def test_the_shipped_schemes_are_these() -> None:
    assert set(registry.names()) == {
        "github_signature",
        "hmac_sha256",
        "shopify_hmac",
        "slack_signature",
        "standard_webhooks",
        "stripe_signature",
    }


@every_scheme
def test_headers_that_carry_signatures_are_named_so_that_they_are_not_stored(
    scheme: str, secret: str, other: str, options: dict[str, Any]
) -> None:
    known = registry.scheme(scheme)
    assert known is not None
    carrying = registry.signature_headers(known, options)
    headers = signed(scheme, EVENT, secret, at=AT, options=options)
    digests = {name.lower() for name in headers if "signature" in name.lower() or "hmac" in name.lower()}
    assert digests
    assert digests <= carrying


@every_scheme
def test_a_refusal_repeats_nothing_of_the_request(
    scheme: str, secret: str, other: str, options: dict[str, Any]
) -> None:
    marker = "Zq7marker"
    headers = signed(scheme, EVENT, secret, at=AT, options=options)
    for name in headers:
        body = json.dumps({"id": marker}).encode()
        assert marker not in refused(scheme, {**headers, name: marker}, [secret], body, options=options)
