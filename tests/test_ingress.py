"""A delivery on its way in: verified, told apart, stored before it is answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from headwater import failpoint
from headwater.endpoint import ENDPOINT_SECONDS
from headwater.signature import SignedRequest, Verified
from headwater.signatures import registry
from headwater.testing.signer import signed
from receiving import (
    BODY,
    EVERYTHING,
    SECRET,
    World,
    make_project,
    request,
    run,
)


def test_a_delivery_is_stored_before_it_is_answered() -> None:
    async def scenario(world: World) -> None:
        stored_when_answered: list[int] = []

        async def on_start() -> None:
            stored_when_answered.append(await world.count())

        answered = await world.post(on_start=on_start)
        assert (answered.status, answered.body) == (200, b"ok")
        assert answered.headers["content-length"] == "2"
        assert stored_when_answered == [1]
        assert len(world.wakes) == 1
        assert world.ingress.answered == {200: 1}

    run(scenario)


def test_a_delivery_is_stored_as_it_was_received_without_what_unlocks_anything() -> None:
    async def scenario(world: World) -> None:
        headers = [
            ("Authorization", "Bearer hidden"), ("Cookie", "hidden"), ("Proxy-Authorization", "hidden"),
            ("User-Agent", "Stripe/1.0"), ("X-Twice", "a"), ("X-Twice", "b"), ("X-Latin", "caf\xe9"),
        ]  # fmt: skip
        assert (await world.post(headers=headers)).status == 200
        [listed] = await world.store.deliveries(EVERYTHING)
        stored = await world.store.delivery(listed.id)
        assert stored is not None
        assert stored.body == BODY
        assert stored.headers == {
            "content-type": "application/json", "user-agent": "Stripe/1.0", "x-twice": "a, b", "x-latin": "caf\xe9",
        }  # fmt: skip
        assert (stored.provider_id, stored.event_type, stored.connection) == ("evt_1", "customer.updated", "main")
        assert stored.received_at == world.clock.now()

    run(scenario)


def test_a_second_arrival_is_a_visible_duplicate() -> None:
    async def scenario(world: World) -> None:
        for _ in range(3):
            assert (await world.post()).status == 200
        [stored] = await world.store.deliveries(EVERYTHING)
        assert stored.duplicates == 2
        assert len(world.wakes) == 1

    run(scenario)


def test_the_same_id_at_two_connections_is_two_deliveries() -> None:
    async def scenario(world: World) -> None:
        await world.connect("other")
        assert (await world.post()).status == 200
        assert (await world.post("/webhooks/shop/ep-other")).status == 200
        assert {one.connection for one in await world.store.deliveries(EVERYTHING)} == {"main", "other"}

    run(scenario)


def test_a_hundred_arrivals_at_once_are_one_row_and_few_commits() -> None:
    async def scenario(world: World) -> None:
        answers = await asyncio.gather(*(world.post() for _ in range(100)))
        assert {answered.status for answered in answers} == {200}
        [stored] = await world.store.deliveries(EVERYTHING)
        assert stored.duplicates == 99
        assert sum(world.store.appends) == 100
        assert len(world.store.appends) <= 3

    run(scenario)


def test_a_body_without_an_id_is_named_by_its_hash() -> None:
    async def scenario(world: World) -> None:
        for body in (b"not json", b"not json", b"\xff\x00", b'{"a":' + b"[" * 100_000):
            assert (await world.post(body=body)).status == 200
        assert sorted(one.duplicates for one in await world.store.deliveries(EVERYTHING)) == [0, 0, 1]

    run(scenario)


def test_a_bad_signature_is_refused_counted_and_never_stored() -> None:
    async def scenario(world: World) -> None:
        body = b'{"secret":"' + SECRET.encode() + b'","x":"' + b"x" * 5000 + b'"}'
        for _ in range(2):
            answered = await world.post(
                body=body, secret="whsec_wrong", headers={"Authorization": "Bearer tok-hidden", "X-Kept": "kept"}
            )
            assert (answered.status, answered.body) == (401, b"signature refused")
        assert await world.count() == 0
        [rejection] = await world.store.rejections()
        assert (rejection.connection, rejection.count) == ("main", 2)
        assert rejection.reason == "No signature matches a signing secret of this connection."
        assert "x-kept: kept" in rejection.sample
        assert len(rejection.sample) < 1500
        for hidden in (SECRET, "tok-hidden", "v1="):
            assert hidden not in rejection.sample

    run(scenario)


@pytest.mark.parametrize("header", ["", "garbage", "t=1,v1=", "t=\xe9,v1=0", "t=1", "v1=0", "t=1_0,v1=0", "=" * 3000])
def test_a_malformed_signature_header_is_a_401(header: str) -> None:
    async def scenario(world: World) -> None:
        headers = [("Stripe-Signature", header)]
        assert (await request(world.ingress, "/webhooks/shop/ep-main", BODY, headers)).status == 401
        assert (await world.post(headers=headers)).status == 401  # doubled
        assert await world.count() == 0

    run(scenario)


def test_a_scheme_that_stumbles_refuses_the_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stumbling:
        name = "stumbling"
        headers: frozenset[str] = frozenset()

        def verify(self, request: SignedRequest, secrets: Sequence[str], options: Mapping[str, Any]) -> Verified:
            raise IndexError("list index out of range")

        def sign(self, body: bytes, secret: str, **fields: Any) -> dict[str, str]:
            return {}

    monkeypatch.setattr(registry, "_schemes", {**registry._schemes, "stumbling": Stumbling()})

    async def scenario(world: World) -> None:
        await world.connect("odd", make_project(auth="stumbling"))
        assert (await world.post("/webhooks/shop/ep-odd")).status == 401
        [rejection] = await world.store.rejections()
        assert rejection.reason == "The scheme stumbling failed: IndexError."

    run(scenario)


def test_what_does_not_exist_is_not_told_from_what_does() -> None:
    async def scenario(world: World) -> None:
        no_webhooks = make_project()
        connector = replace(no_webhooks.connector, webhooks=None)
        await world.connect("poller", replace(no_webhooks, connector=connector))
        answers = [
            await world.post(path)
            for path in (
                "/webhooks/shop/unknown", "/webhooks/other/ep-main", "/webhooks/shop/ep-poller", "/webhooks/shop/",
                "/webhooks/shop", "/", "", "/webhooks/shop/ep-main/", "/webhooks/shop/ep-main/x",
                "/x/webhooks/shop/ep-main",
                "/webhooks/shop/\xe9", "/webhooks/shop/" + "a" * 500,
            )
        ]  # fmt: skip
        assert all(answer == answers[0] for answer in answers)
        assert answers[0].status == 404
        assert await world.store.rejections() == []
        got = [await world.post(path, method="GET") for path in ("/webhooks/shop/ep-main", "/webhooks/shop/unknown")]
        assert got[0] == got[1]
        assert (got[0].status, got[0].headers["allow"]) == (405, "POST")

    run(scenario)


def test_an_endpoint_below_a_root_path_is_found() -> None:
    async def scenario(world: World) -> None:
        assert (await world.post("/hw/webhooks/shop/ep-main", root_path="/hw")).status == 200

    run(scenario)


def test_a_handshake_is_answered_and_not_stored() -> None:
    async def scenario(world: World) -> None:
        await world.connect("slack", make_project(auth="slack_signature"))
        body = b'{"type":"url_verification","challenge":"c-1"}'
        answered = await world.post("/webhooks/shop/ep-slack", body, scheme="slack_signature")
        assert (answered.status, answered.body) == (200, b"c-1")
        assert answered.headers["content-type"].startswith("text/plain")
        forged = await world.post("/webhooks/shop/ep-slack", body, scheme="slack_signature", secret="wrong")
        assert (forged.status, forged.body) == (401, b"signature refused")
        assert await world.count() == 0

    run(scenario)


def test_a_changed_secret_is_noticed_soon_and_at_once_where_it_is_told() -> None:
    async def scenario(world: World) -> None:
        live = world.receivers.lives["ep-main"]
        assert (await world.post()).status == 200
        live.secrets = ["whsec_new", SECRET]
        assert (await world.post(secret="whsec_new")).status == 401
        await world.clock.advance(ENDPOINT_SECONDS)
        assert (await world.post(secret="whsec_new")).status == 200
        assert (await world.post()).status == 200
        live.secrets = ["whsec_new"]
        world.ingress.forget()
        assert (await world.post()).status == 401
        assert (await world.post(secret="whsec_new")).status == 200

    run(scenario)


def test_an_endpoint_is_looked_up_once_in_a_while() -> None:
    async def scenario(world: World) -> None:
        for _ in range(5):
            await world.post()
        assert world.receivers.looked_up == ["ep-main"]

    run(scenario)


def test_a_look_up_that_fails_asks_for_another_try() -> None:
    async def scenario(world: World) -> None:
        await world.connect("odd", make_project(auth="no_such_scheme"))
        answered = await world.post("/webhooks/shop/ep-odd")
        assert (answered.status, answered.headers["retry-after"]) == (503, "5")

    run(scenario)


def test_a_paused_connection_still_stores_its_deliveries() -> None:
    async def scenario(world: World) -> None:
        stored = world.receivers.lives["ep-main"].stored
        await world.store.pause_connection(stored.id, reason="by hand", needs_attention=False, at=world.clock.now())
        assert (await world.post()).status == 200
        assert await world.count() == 1

    run(scenario)


def test_the_failpoints_of_a_delivery_are_passed_in_their_order() -> None:
    passed: list[str] = []
    names = ("delivery.received", "delivery.before_commit", "delivery.after_commit", "delivery.acked")

    async def scenario(world: World) -> None:
        async def on_start() -> None:
            passed.append("answer")

        for name in names:
            failpoint.arm(name, lambda name=name: passed.append(name))  # type: ignore[misc]
        await world.post(on_start=on_start)
        assert passed == [*names[:3], "answer", names[3]]
        passed.clear()
        await world.post(secret="whsec_wrong")
        assert passed == []

    try:
        run(scenario)
    finally:
        failpoint.disarm()


def test_the_generic_schemes_own_header_is_not_stored() -> None:
    async def scenario(world: World) -> None:
        await world.connect("acme", make_project(auth="hmac_sha256", options={"header": "X-Acme-Proof"}))
        proof = signed("hmac_sha256", BODY, SECRET, at=world.clock.now(), options={"header": "X-Acme-Proof"})
        assert (await request(world.ingress, "/webhooks/shop/ep-acme", BODY, list(proof.items()))).status == 200
        [listed] = await world.store.deliveries(EVERYTHING)
        stored = await world.store.delivery(listed.id)
        assert stored is not None
        assert "x-acme-proof" not in json.dumps(dict(stored.headers))
        assert (await request(world.ingress, "/webhooks/shop/ep-acme", b"else", list(proof.items()))).status == 401
        [rejection] = await world.store.rejections()
        assert "x-acme-proof: (64 characters, not kept)" in rejection.sample

    run(scenario)
