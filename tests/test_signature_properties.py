"""Whatever is done to a signed delivery, it is refused unless the bytes that were signed are still the same.

`PROPERTY_EXAMPLES` sets how many cases each property tries of each scheme (see conftest).
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import slack_sdk.signature
import standardwebhooks
import stripe
from hypothesis import assume, given
from hypothesis import strategies as st

from headwater.errors import SignatureError
from headwater.signature import SignedRequest, Verified
from headwater.signatures import registry
from headwater.testing.signer import signed

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

Pairs = list[tuple[bytes, bytes]]

TIMED_OPTIONS = {
    "header": "X-Sig",
    "timestamp_header": "X-Time",
    "id_header": "X-Id",
    "signed": "{id}.{timestamp}.{body}",
}
PRIVATE = "whsk_" + base64.b64encode(b"p" * 32).decode()

# name → scheme, secret, options, whether the time is signed
SCHEMES: dict[str, tuple[str, str, dict[str, Any], bool]] = {
    "stripe": ("stripe_signature", "whsec_0123456789abcdef", {}, True),
    "github": ("github_signature", "It's a Secret to Everybody", {}, False),
    "shopify": ("shopify_hmac", "hush", {}, False),
    "slack": ("slack_signature", "8f742231b10e8888abcd99yyyzzz85a5", {}, True),
    "standard": ("standard_webhooks", "whsec_" + base64.b64encode(b"k" * 32).decode(), {}, True),
    "standard-v1a": ("standard_webhooks", PRIVATE, {}, True),
    "hmac-hex": ("hmac_sha256", "s3cret", {"header": "X-Sig", "prefix": "sha256="}, False),
    "hmac-base64": ("hmac_sha256", "s3cret", {"header": "X-Sig", "encoding": "base64"}, False),
    "hmac-timed": ("hmac_sha256", "s3cret", TIMED_OPTIONS, True),
}
every_scheme = pytest.mark.parametrize("row", SCHEMES.values(), ids=SCHEMES.keys())
timed_scheme = pytest.mark.parametrize("row", [row for row in SCHEMES.values() if row[3]])

bodies = st.binary(max_size=200) | st.just(b'{"id":"evt_1","type":"a.b"}')
secrets = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip)
Row = tuple[str, str, dict[str, Any], bool]


def delivery(row: Row, body: bytes) -> Pairs:
    scheme, secret, options, _ = row
    headers = signed(scheme, body, secret, at=AT, provider_id="msg_1", options=options)
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def verify(row: Row, headers: Pairs, body: bytes, *, keys: list[str] | None = None, at: datetime = AT) -> Verified:
    scheme = registry.scheme(row[0])
    assert scheme is not None
    request = SignedRequest(method="POST", url="", headers=headers, body=body, received_at=at)
    return scheme.verify(request, [row[1]] if keys is None else keys, row[2])


def is_refused(row: Row, headers: Pairs, body: bytes, **named: Any) -> bool:
    # Anything but a SignatureError escapes, and fails the property.
    try:
        verify(row, headers, body, **named)
    except SignatureError:
        return True
    return False


def proving(row: Row, headers: Pairs) -> list[int]:
    """Where the headers stand that take part in the proof."""
    words = (b"sig", b"hmac", b"time", *((b"-id",) if row[3] and row[0] != "slack_signature" else ()))
    return [place for place, (name, _) in enumerate(headers) if any(word in name for word in words)]


@every_scheme
def test_a_signed_body_is_accepted_whatever_it_is(row: Row) -> None:
    @given(bodies)
    def accepted(body: bytes) -> None:
        assert isinstance(verify(row, delivery(row, body), body), Verified)

    accepted()


@every_scheme
def test_a_flipped_bit_in_the_body_is_refused(row: Row) -> None:
    @given(bodies.filter(bool), st.data())
    def refused(body: bytes, data: st.DataObject) -> None:
        bit = data.draw(st.integers(0, len(body) * 8 - 1))
        flipped = bytearray(body)
        flipped[bit // 8] ^= 1 << bit % 8
        assert is_refused(row, delivery(row, body), bytes(flipped))

    refused()


@every_scheme
def test_a_flipped_bit_in_a_proving_header_is_refused(row: Row) -> None:
    @given(bodies, st.data())
    def refused(body: bytes, data: st.DataObject) -> None:
        headers = delivery(row, body)
        place = data.draw(st.sampled_from(proving(row, headers)))
        name, value = headers[place]
        bit = data.draw(st.integers(0, len(value) * 8 - 1))
        flipped = bytearray(value)
        flipped[bit // 8] ^= 1 << bit % 8
        headers[place] = (name, bytes(flipped))
        assert is_refused(row, headers, body)

    refused()


@every_scheme
def test_bytes_added_or_taken_away_are_refused(row: Row) -> None:
    @given(bodies, st.binary(min_size=1, max_size=8), st.booleans())
    def refused(body: bytes, extra: bytes, before: bool) -> None:
        headers = delivery(row, body)
        assert is_refused(row, headers, extra + body if before else body + extra)
        if body:
            assert is_refused(row, headers, body[1:] if before else body[:-1])

    refused()


@every_scheme
def test_any_header_in_the_place_of_a_proving_one_is_refused(row: Row) -> None:
    @given(bodies, st.data())
    def refused(body: bytes, data: st.DataObject) -> None:
        headers = delivery(row, body)
        place = data.draw(st.sampled_from(proving(row, headers)))
        name, value = headers[place]
        pieces = st.sampled_from(
            [b"t=", b"v1=", b"v1,", b"v1a,", b"v0=", b"sha256=", b",", b" ", b"=", b"1772366400", value]
        )
        garbage = st.binary(max_size=80) | st.lists(pieces, max_size=5).map(b"".join)
        replaced = data.draw(garbage)
        assume(value not in replaced)
        headers[place] = (name, replaced)
        assert is_refused(row, headers, body)

    refused()


@every_scheme
def test_a_doubled_or_missing_proving_header_is_refused(row: Row) -> None:
    @given(bodies, st.data())
    def refused(body: bytes, data: st.DataObject) -> None:
        headers = delivery(row, body)
        place = data.draw(st.sampled_from(proving(row, headers)))
        name, value = headers[place]
        second = data.draw(st.just(value) | st.binary(max_size=40))
        assert is_refused(row, [*headers, (name, second)], body)
        assert is_refused(row, headers[:place] + headers[place + 1 :], body)

    refused()


@every_scheme
def test_other_secrets_prove_nothing_and_do_not_stand_in_the_way(row: Row) -> None:
    @given(bodies, st.lists(secrets, max_size=3), st.data())
    def rotated(body: bytes, others: list[str], data: st.DataObject) -> None:
        assume(row[1] not in others)
        headers = delivery(row, body)
        assert is_refused(row, headers, body, keys=others)
        place = data.draw(st.integers(0, len(others)))
        verify(row, headers, body, keys=[*others[:place], row[1], *others[place:]])

    rotated()


@timed_scheme
def test_the_time_decides_and_nothing_else_about_it(row: Row) -> None:
    @given(bodies, st.integers(-100_000, 100_000))
    def judged(body: bytes, seconds: int) -> None:
        at = AT + timedelta(seconds=seconds)
        assert is_refused(row, delivery(row, body), body, at=at) == (abs(seconds) > 300)

    judged()


@every_scheme
def test_no_request_at_all_makes_a_scheme_stumble(row: Row) -> None:
    names = [name for name, _ in delivery(row, b"")]

    @given(
        st.lists(st.tuples(st.sampled_from(names) | st.binary(max_size=20), st.binary(max_size=100)), max_size=8),
        st.binary(max_size=300),
        st.lists(st.text(max_size=20), max_size=3),
    )
    def stumbles(headers: Pairs, body: bytes, keys: list[str]) -> None:
        keys = [key.encode("utf-8", "replace").decode() for key in keys]
        assert is_refused(row, headers, body, keys=keys)

    stumbles()


@every_scheme
def test_no_proved_body_makes_a_scheme_stumble(row: Row) -> None:
    json_like = st.recursive(
        st.sampled_from([b"null", b"1", b'""', b'"\\ud800"', b'"\\u0000"', b"1e999", b"NaN", b'"x"', b"9" * 5000]),
        lambda inner: (
            st.lists(inner, max_size=3).map(lambda parts: b"[" + b",".join(parts) + b"]")
            | st.dictionaries(
                st.sampled_from([b"id", b"type", b"event", b"event_id", b"challenge"]), inner, max_size=4
            ).map(lambda pairs: b"{" + b",".join(b'"%b":%b' % pair for pair in pairs.items()) + b"}")
        ),
        max_leaves=10,
    )

    @given(json_like)
    def named(body: bytes) -> None:
        verified = verify(row, delivery(row, body), body)
        for name in (verified.provider_id, verified.event_type):
            assert name is None or (name and name.isprintable() and name.encode())

    named()


def test_stripes_library_agrees_on_every_signature() -> None:
    row = SCHEMES["stripe"]

    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=100), secrets, st.booleans())
    def agrees(payload: str, secret: str, spoil: bool) -> None:
        theirs = stripe.WebhookSignature.generate_signature_header(payload, secret, timestamp=int(AT.timestamp()))
        header = theirs[:-1] + ("0" if theirs[-1] != "0" else "1") if spoil else theirs
        refused = is_refused(row, [(b"stripe-signature", header.encode())], payload.encode(), keys=[secret])
        try:
            stripe.WebhookSignature.verify_header(payload, header, secret, tolerance=None)
        except stripe.SignatureVerificationError:
            assert refused
        else:
            assert not refused

    agrees()


def test_slacks_library_agrees_on_every_signature() -> None:
    row = SCHEMES["slack"]
    now = type("Now", (slack_sdk.signature.Clock,), {"now": lambda self: AT.timestamp()})()

    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=100), secrets, st.integers(-400, 400))
    def agrees(payload: str, secret: str, seconds: int) -> None:
        oracle = slack_sdk.signature.SignatureVerifier(secret, now)
        stamp = str(int(AT.timestamp()) + seconds)
        theirs = oracle.generate_signature(timestamp=stamp, body=payload)
        assert theirs is not None
        headers = [(b"x-slack-request-timestamp", stamp.encode()), (b"x-slack-signature", theirs.encode())]
        accepted = oracle.is_valid(body=payload, timestamp=stamp, signature=theirs)
        assert is_refused(row, headers, payload.encode(), keys=[secret]) == (not accepted)

    agrees()


def test_the_standard_webhooks_library_agrees_on_every_signature() -> None:
    row = SCHEMES["standard"]

    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=100), st.binary(min_size=1, max_size=64))
    def agrees(payload: str, key: bytes) -> None:
        secret = "whsec_" + base64.b64encode(key).decode()
        theirs = standardwebhooks.Webhook(secret).sign("msg_1", AT, payload)
        ours = signed("standard_webhooks", payload.encode(), secret, at=AT, provider_id="msg_1")
        assert ours["webhook-signature"] == theirs
        headers = [(name.encode(), value.encode()) for name, value in ours.items()]
        assert not is_refused(row, headers, payload.encode(), keys=[secret])

    agrees()
