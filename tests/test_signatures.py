"""Schemes held against their providers' own libraries and documented vectors, in both directions."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
import slack_sdk.signature
import standardwebhooks
import stripe
import svix.webhooks
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from headwater.errors import ConfigError, SettingsError
from headwater.signature import Verified
from headwater.signatures import registry
from headwater.testing.signer import signed
from signing import (
    AT,
    EVENT,
    OTHER_STANDARD_SECRET,
    SCHEMES,
    STANDARD_SECRET,
    STRIPE_SECRET,
    TEMPLATED,
    every_scheme,
    refused,
    verify,
)


@every_scheme
def test_what_a_scheme_signs_it_verifies(scheme: str, secret: str, other: str, options: dict[str, Any]) -> None:
    headers = signed(scheme, EVENT, secret, at=AT, provider_id="d-1", event_type="customer.updated", options=options)
    assert isinstance(verify(scheme, headers, [secret], options=options), Verified)


@every_scheme
def test_either_secret_of_a_rotation_proves(scheme: str, secret: str, other: str, options: dict[str, Any]) -> None:
    for signer in (secret, other):
        headers = signed(scheme, EVENT, signer, at=AT, options=options)
        verify(scheme, headers, [secret, other], options=options)
        verify(scheme, headers, [other, secret], options=options)


@every_scheme
def test_every_secret_is_compared_even_after_a_match(
    scheme: str, secret: str, other: str, options: dict[str, Any]
) -> None:
    headers = signed(scheme, EVENT, secret, at=AT, options=options)
    with mock.patch("headwater.signatures.proof.hmac.compare_digest", wraps=hmac.compare_digest) as compare:
        verify(scheme, headers, [secret, other, "whsec_dGhpcmQ="], options=options)
    assert compare.call_count == 3
    assert all(isinstance(argument, bytes) for call in compare.call_args_list for argument in call.args)


@every_scheme
def test_no_secret_is_a_refusal(scheme: str, secret: str, other: str, options: dict[str, Any]) -> None:
    blank = signed("hmac_sha256", EVENT, "", at=AT, options={"header": "X-Acme-Signature"})
    headers = {**signed(scheme, EVENT, secret, at=AT, options=options), **blank}
    for secrets in ([], [""], ["  "]):
        assert "signing secret" in refused(scheme, headers, secrets, options=options)


@every_scheme
def test_a_wrong_secret_or_body_is_a_refusal(scheme: str, secret: str, other: str, options: dict[str, Any]) -> None:
    headers = signed(scheme, EVENT, secret, at=AT, options=options)
    assert "No signature matches" in refused(scheme, headers, [other], options=options)
    assert "No signature matches" in refused(scheme, headers, [secret], EVENT + b" ", options=options)


@every_scheme
def test_a_missing_doubled_or_garbled_header_is_a_refusal(
    scheme: str, secret: str, other: str, options: dict[str, Any]
) -> None:
    headers = signed(scheme, EVENT, secret, at=AT, provider_id="d-1", options=options)
    proving = [name for name in headers if "sign" in name.lower() or "hmac" in name.lower() or "time" in name.lower()]
    assert proving
    for name in proving:
        without = {key: value for key, value in headers.items() if key != name}
        refused(scheme, without, [secret], options=options)
        assert "2 times" in refused(scheme, [*headers.items(), (name, headers[name])], [secret], options=options)
        assert "ASCII" in refused(scheme, {**headers, name: headers[name] + "\xe9"}, [secret], options=options)
        for garbage in (
            "",
            " ",
            ",",
            "=",
            "v1",
            "t=",
            "٣",
            "0" * 64,
            "a" * 5000,
            headers[name] + "=",
            " " + headers[name],
        ):
            refused(scheme, {**headers, name: garbage}, [secret], options=options)


TIMED = [row for row in SCHEMES if row[0] in ("stripe_signature", "slack_signature", "standard_webhooks")]
TIMED.append(SCHEMES[-1])


@pytest.mark.parametrize(("scheme", "secret", "other", "options"), TIMED)
def test_the_tolerance_holds_on_both_sides(scheme: str, secret: str, other: str, options: dict[str, Any]) -> None:
    headers = signed(scheme, EVENT, secret, at=AT, options=options)
    for seconds in (-300, 300):
        verify(scheme, headers, [secret], at=AT + timedelta(seconds=seconds), options=options)
    for seconds in (-301, 301):
        message = refused(scheme, headers, [secret], at=AT + timedelta(seconds=seconds), options=options)
        assert "300 s" in message
    shorter = {**options, "tolerance_seconds": 5}
    refused(scheme, headers, [secret], at=AT + timedelta(seconds=6), options=shorter)


@pytest.mark.parametrize(("scheme", "secret", "other", "options"), TIMED)
@pytest.mark.parametrize("seconds", [0, -1, True, "300", float("inf"), float("nan"), None])
def test_a_tolerance_that_is_none_refuses_everything(
    scheme: str, secret: str, other: str, options: dict[str, Any], seconds: object
) -> None:
    headers = signed(scheme, EVENT, secret, at=AT, options=options)
    refused(scheme, headers, [secret], options={**options, "tolerance_seconds": seconds})


@pytest.mark.parametrize(
    "text", ["1772366400.0", " 1772366400", "1_772_366_400", "+1772366400", "١٧٧٢", "1" * 13, "-1"]
)
def test_a_timestamp_is_ascii_digits_alone(text: str) -> None:
    # Python's int() takes most of these; Stripe's library would too.
    body_signed = hmac.new(STRIPE_SECRET.encode(), text.encode() + b"." + EVENT, hashlib.sha256).hexdigest()
    refused("stripe_signature", {"Stripe-Signature": f"t={text},v1={body_signed}"}, [STRIPE_SECRET])


# Stripe


def test_stripes_own_library_accepts_our_signature() -> None:
    header = signed("stripe_signature", EVENT, STRIPE_SECRET, at=AT)["Stripe-Signature"]
    with mock.patch.object(time, "time", return_value=AT.timestamp()):
        event = stripe.Webhook.construct_event(EVENT, header, STRIPE_SECRET)
    assert event["id"] == "evt_1"


def test_we_accept_the_signature_of_stripes_own_library() -> None:
    header = stripe.WebhookSignature.generate_signature_header(
        EVENT.decode(), STRIPE_SECRET, timestamp=int(AT.timestamp())
    )
    verified = verify("stripe_signature", {"Stripe-Signature": header}, [STRIPE_SECRET])
    assert verified == Verified(provider_id="evt_1", event_type="customer.updated")


def test_stripe_and_we_refuse_the_same() -> None:
    good = signed("stripe_signature", EVENT, STRIPE_SECRET, at=AT)["Stripe-Signature"]
    late = AT + timedelta(seconds=301)
    for header, secret, at in [
        (good, "whsec_other", AT),
        (good[:-1] + ("0" if good[-1] != "0" else "1"), STRIPE_SECRET, AT),
        (good.upper(), STRIPE_SECRET, AT),
        (good.replace("v1=", "v0="), STRIPE_SECRET, AT),
        (good, STRIPE_SECRET, late),
    ]:
        refused("stripe_signature", {"Stripe-Signature": header}, [secret], at=at)
        with (
            mock.patch.object(time, "time", return_value=at.timestamp()),
            pytest.raises(stripe.SignatureVerificationError),
        ):
            stripe.WebhookSignature.verify_header(EVENT.decode(), header, secret, tolerance=300)


def test_one_of_several_stripe_signatures_suffices() -> None:
    good = signed("stripe_signature", EVENT, STRIPE_SECRET, at=AT)["Stripe-Signature"]
    stamp, _, signature = good.partition(",")
    header = f"{stamp},v1={'0' * 64},{signature},v0=ignored,new=too"
    assert verify("stripe_signature", {"Stripe-Signature": header}, [STRIPE_SECRET]).provider_id == "evt_1"


def test_two_stripe_timestamps_are_a_refusal() -> None:
    good = signed("stripe_signature", EVENT, STRIPE_SECRET, at=AT)["Stripe-Signature"]
    assert "form" in refused("stripe_signature", {"Stripe-Signature": f"t=1,{good}"}, [STRIPE_SECRET])


def test_a_header_of_endless_signatures_is_a_refusal() -> None:
    header = "t=1772366400," + ",".join(["v1=0"] * 33)
    assert "too many" in refused("stripe_signature", {"Stripe-Signature": header}, [STRIPE_SECRET])


# GitHub


def test_githubs_documented_vector_is_accepted() -> None:
    # https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation
    vector = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    secret, body = "It's a Secret to Everybody", b"Hello, World!"
    headers = {"X-Hub-Signature-256": vector, "X-GitHub-Delivery": "72d3162e", "X-GitHub-Event": "push"}
    assert verify("github_signature", headers, [secret], body) == Verified(provider_id="72d3162e", event_type="push")
    assert signed("github_signature", body, secret, at=AT)["X-Hub-Signature-256"] == vector


def test_githubs_sha1_signature_proves_nothing() -> None:
    sha1 = hmac.new(b"s", EVENT, hashlib.sha1).hexdigest()
    assert "missing" in refused("github_signature", {"X-Hub-Signature": f"sha1={sha1}"}, ["s"])
    assert "form" in refused("github_signature", {"X-Hub-Signature-256": f"sha1={sha1}"}, ["s"])


def test_githubs_ping_is_answered_once_it_is_proved() -> None:
    headers = signed("github_signature", EVENT, "s", at=AT, event_type="ping")
    assert verify("github_signature", headers, ["s"]).reply == (200, "text/plain; charset=utf-8", b"pong")
    refused("github_signature", headers, ["other"])


# Shopify


def test_shopifys_documented_computation_is_accepted() -> None:
    # https://shopify.dev/docs/apps/build/webhooks/subscribe/https: base64 of HMAC-SHA256 over the raw body.
    # The vector was accepted by the npm package @shopify/shopify-api 13.1.0 (`webhooks.validate`).
    body = b'{"id":820982911946154508,"email":"jon@example.com"}'
    vector = "D0UMXmhjwBRi4y66TmhJrDlhQABD7zI2fm3p6/QLMo8="
    assert base64.b64encode(hmac.new(b"hush", body, hashlib.sha256).digest()).decode() == vector
    headers = {"X-Shopify-Hmac-Sha256": vector, "X-Shopify-Topic": "orders/create", "X-Shopify-Webhook-Id": "b54557e4"}
    expected = Verified(provider_id="b54557e4", event_type="orders/create")
    assert verify("shopify_hmac", headers, ["hush"], body) == expected
    newer = {name.removeprefix("X-"): value for name, value in headers.items()}
    assert verify("shopify_hmac", newer, ["hush"], body) == expected
    assert "both" in refused("shopify_hmac", {**headers, **newer}, ["hush"], body)
    assert signed("shopify_hmac", body, "hush", at=AT)["X-Shopify-Hmac-Sha256"] == vector


def test_base64_has_one_spelling() -> None:
    good = signed("shopify_hmac", EVENT, "hush", at=AT)["X-Shopify-Hmac-Sha256"]
    # The last character before the padding carries two bits that decoders ignore.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    stray = good[:-2] + alphabet[alphabet.index(good[-2]) ^ 1] + "="
    assert base64.b64decode(stray) == base64.b64decode(good)
    for spelling in (stray, good.rstrip("="), good + "\n", good[:10] + "!" + good[10:], good + "===="):
        refused("shopify_hmac", {"X-Shopify-Hmac-Sha256": spelling}, ["hush"])


# Slack


def test_slack_and_we_accept_each_others_signatures_and_refuse_the_same() -> None:
    secret = "8f742231b10e8888abcd99yyyzzz85a5"
    oracle = slack_sdk.signature.SignatureVerifier(secret, mock.Mock(now=AT.timestamp))
    ours = signed("slack_signature", EVENT, secret, at=AT)
    assert oracle.is_valid_request(EVENT, ours)
    stamp = str(int(AT.timestamp()))
    theirs = oracle.generate_signature(timestamp=stamp, body=EVENT)
    assert theirs is not None
    verify("slack_signature", {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": theirs}, [secret])
    for change in (
        {"X-Slack-Signature": "v0=" + "0" * 64},
        {"X-Slack-Request-Timestamp": "1"},
        {"X-Slack-Signature": theirs[3:]},
    ):
        assert not oracle.is_valid_request(EVENT, {**ours, **change})
        refused("slack_signature", {**ours, **change}, [secret])


def test_slacks_documented_vector_is_accepted() -> None:
    # https://docs.slack.dev/authentication/verifying-requests-from-slack
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
        b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
        b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
        b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    headers = {
        "X-Slack-Request-Timestamp": "1531420618",
        "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }
    at = datetime.fromtimestamp(1531420618, UTC)
    verified = verify("slack_signature", headers, ["8f742231b10e8888abcd99yyyzzz85a5"], body, at=at)
    assert verified == Verified(provider_id=None, event_type=None)


def test_slacks_handshake_is_answered_once_it_is_proved() -> None:
    body = b'{"type":"url_verification","token":"t","challenge":"3eZbrw1aB"}'
    headers = signed("slack_signature", body, "s", at=AT)
    assert verify("slack_signature", headers, ["s"], body).reply == (200, "text/plain; charset=utf-8", b"3eZbrw1aB")
    refused("slack_signature", headers, ["other"], body)
    refused("slack_signature", {}, ["s"], body)
    event = b'{"type":"event_callback","event_id":"Ev1","challenge":"3eZbrw1aB"}'
    headers = signed("slack_signature", event, "s", at=AT)
    assert verify("slack_signature", headers, ["s"], event).reply is None


def test_a_slack_event_is_named_by_its_id_and_inner_type() -> None:
    body = b'{"type":"event_callback","event_id":"Ev1","event":{"type":"reaction_added","user":"U1"}}'
    headers = signed("slack_signature", body, "s", at=AT)
    assert verify("slack_signature", headers, ["s"], body) == Verified(provider_id="Ev1", event_type="reaction_added")


# Standard Webhooks


@pytest.mark.parametrize(("oracle", "prefix"), [(standardwebhooks.Webhook, "webhook"), (svix.webhooks.Webhook, "svix")])
def test_standard_webhooks_libraries_and_we_accept_each_other(oracle: Any, prefix: str) -> None:
    at = datetime.now(UTC)  # the libraries ask the machine's clock
    options = {"header_prefix": prefix}
    ours = signed("standard_webhooks", EVENT, STANDARD_SECRET, at=at, provider_id="msg_1", options=options)
    oracle(STANDARD_SECRET).verify(EVENT, ours)
    theirs = {**ours, f"{prefix}-signature": oracle(STANDARD_SECRET).sign("msg_1", at, EVENT.decode())}
    verified = verify("standard_webhooks", theirs, [STANDARD_SECRET], at=at, options=options)
    assert verified == Verified(provider_id="msg_1", event_type="customer.updated")
    for change in (
        {f"{prefix}-signature": "v1," + "A" * 43 + "="},
        {f"{prefix}-timestamp": "1"},
        {f"{prefix}-id": "msg_2"},
    ):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            oracle(STANDARD_SECRET).verify(EVENT, {**ours, **change})
        refused("standard_webhooks", {**ours, **change}, [STANDARD_SECRET], at=at, options=options)


def ed25519_secrets() -> tuple[str, str]:
    key = Ed25519PrivateKey.from_private_bytes(b"p" * 32)
    seed, public = key.private_bytes_raw(), key.public_key().public_bytes_raw()
    return "whsk_" + base64.b64encode(seed).decode(), "whpk_" + base64.b64encode(public).decode()


def test_a_v1a_signature_is_proved_by_the_public_key() -> None:
    private, public = ed25519_secrets()
    headers = signed("standard_webhooks", EVENT, private, at=AT, provider_id="msg_1")
    assert headers["webhook-signature"].startswith("v1a,")
    assert verify("standard_webhooks", headers, [public]).provider_id == "msg_1"
    assert verify("standard_webhooks", headers, [STANDARD_SECRET, public]).provider_id == "msg_1"
    refused("standard_webhooks", headers, [public], EVENT + b" ")
    refused("standard_webhooks", headers, [STANDARD_SECRET])


def test_v1_and_v1a_may_stand_in_one_header() -> None:
    private, public = ed25519_secrets()
    asymmetric = signed("standard_webhooks", EVENT, private, at=AT)
    shared = signed("standard_webhooks", EVENT, STANDARD_SECRET, at=AT)
    both = {**shared, "webhook-signature": f"{asymmetric['webhook-signature']} {shared['webhook-signature']} v2,later"}
    for secrets in ([public], [STANDARD_SECRET], [OTHER_STANDARD_SECRET, public]):
        verify("standard_webhooks", both, secrets)
    refused("standard_webhooks", both, [OTHER_STANDARD_SECRET])


def test_a_v1a_signature_does_not_pass_for_v1() -> None:
    _, public = ed25519_secrets()
    # A public key is public: used as an HMAC key, it must prove nothing.
    forged = signed("standard_webhooks", EVENT, "whsec_" + public.removeprefix("whpk_"), at=AT)
    refused("standard_webhooks", forged, [public])


def test_bytes_cannot_move_between_id_timestamp_and_body() -> None:
    stamp = str(int(AT.timestamp()))
    body = f"{stamp}.{{}}".encode()
    headers = signed("standard_webhooks", body, STANDARD_SECRET, at=AT, provider_id="msg_1")
    moved = {**headers, "webhook-id": f"msg_1.{stamp}"}
    # The same signed bytes, split elsewhere: the libraries accept this.
    expected = base64.b64encode(
        hmac.new(b"k" * 32, f"msg_1.{stamp}.{stamp}.{{}}".encode(), hashlib.sha256).digest()
    ).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert "usable" in refused("standard_webhooks", moved, [STANDARD_SECRET], b"{}")


def test_a_secret_that_is_no_key_is_no_secret() -> None:
    headers = signed("standard_webhooks", EVENT, STANDARD_SECRET, at=AT)
    for secret in ("whsec_", "whsec_!!!", "whpk_AAAA", "whsk_AAAA", "whpk_", "é"):
        assert "usable signing secret" in refused("standard_webhooks", headers, [secret])
        verify("standard_webhooks", headers, [secret, STANDARD_SECRET])
    for secret in ("whsec_!!!", "whsk_AAAA"):
        with pytest.raises(SettingsError):
            signed("standard_webhooks", EVENT, secret, at=AT)


# Generic


def test_the_generic_scheme_follows_its_options() -> None:
    headers = signed("hmac_sha256", EVENT, "s", at=AT, provider_id="d-1", event_type="made", options=TEMPLATED)
    stamp = str(int(AT.timestamp()))
    mac = hmac.new(b"s", b"d-1." + stamp.encode() + b"." + EVENT, hashlib.sha256)
    assert headers == {
        "Content-Type": "application/json",
        "X-Acme-Signature": "v1:" + base64.b64encode(mac.digest()).decode(),
        "X-Acme-Time": stamp,
        "X-Acme-Id": "d-1",
        "X-Acme-Event": "made",
    }
    expected = Verified(provider_id="d-1", event_type="made")
    assert verify("hmac_sha256", headers, ["s"], options=TEMPLATED) == expected
    refused("hmac_sha256", {**headers, "X-Acme-Id": "d-2"}, ["s"], options=TEMPLATED)
    assert "usable as an id" in refused("hmac_sha256", {**headers, "X-Acme-Id": "d.1"}, ["s"], options=TEMPLATED)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({}, "`header` is missing"),
        ({"header": "X-Sig", "hedder": "x"}, "no option `hedder`"),
        ({"headr": "X-Sig"}, "Did you mean `header`?"),
        ({"header": "X Sig"}, "no name of a header"),
        ({"header": 1}, "must be a text"),
        ({"header": ["X-Sig"]}, "must be a text"),
        ({"header": "X-Sig", "encoding": "base32"}, "hex or base64"),
        ({"header": "X-Sig", "prefix": "é"}, "ASCII"),
        ({"header": "X-Sig", "signed": "x"}, "must hold {body}"),
        ({"header": "X-Sig", "signed": "{body}{body}"}, "more than once"),
        ({"header": "X-Sig", "signed": "{url}{body}"}, "knows no {url}"),
        ({"header": "X-Sig", "timestamp_header": "X-Time"}, "need each other"),
        ({"header": "X-Sig", "signed": "{timestamp}.{body}"}, "need each other"),
        ({"header": "X-Sig", "signed": "{id}.{body}"}, "needs `id_header`"),
        ({"header": "X-Sig", "id_header": "X-Id", "signed": "{id}{body}"}, "separator"),
        ({"header": "X-Sig", "tolerance_seconds": -1}, "positive number"),
    ],
)
def test_options_that_describe_no_signature_are_told_and_refuse_everything(options: dict[str, Any], word: str) -> None:
    assert word in " ".join(registry.problems("hmac_sha256", options))
    header = options.get("header")
    headers = {header if isinstance(header, str) and " " not in header else "X-Sig": "0" * 64}
    assert refused("hmac_sha256", headers, ["s"], options=options)
    with pytest.raises(ConfigError):
        signed("hmac_sha256", EVENT, "s", at=AT, options=options)
