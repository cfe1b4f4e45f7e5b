"""What authors test with: driving a route in three lines, and a suite that finds each defect that it is for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from headwater.errors import CheckFailedError, CredentialsError, InvalidPayloadError, NotFoundError, SettingsError
from headwater.project import load
from headwater.testing.answering import Provider, SentEvent, answering, pages
from headwater.testing.clock import FakeClock
from headwater.testing.drive import deliver, drive
from headwater.testing.provider import API_KEY, FakeStripe, seed_account
from headwater.testing.suite import cases_of, standard_suite
from headwater.transport import TransportRequest, TransportResponse
from loopback import shop_project

STRIPE = Path(__file__).parent.parent / "connectors" / "stripe"
SECRETS = {"api_key": "canary-key-1234", "webhook_secret": "whsec_Y2FuYXJ5LXdlYmhvb2s="}
CUSTOMERS = [
    {"id": f"c_{number}", "name": f"Customer {number}", "email": None, "created": 1767225600, "updated": 1767225600}
    for number in range(1, 6)
]
EVENTS = [
    SentEvent(
        body=json.dumps(
            {"id": f"e_{number}", "type": "customer.updated", "at": 1767225600 + number, "data": CUSTOMERS[number]}
        ).encode()
    )
    for number in range(3)
]


async def shop_app(request: TransportRequest) -> TransportResponse:
    """The provider of the scaffolded project, two customers a page."""
    if request.headers.get("Authorization") != f"Bearer {SECRETS['api_key']}":
        return TransportResponse(status=401, body=b"{}")
    after = request.url.partition("after=")[2].partition("&")[0]
    start = next((place + 1 for place, one in enumerate(CUSTOMERS) if one["id"] == after), 0)
    page = CUSTOMERS[start : start + 2]
    following = page[-1]["id"] if start + 2 < len(CUSTOMERS) else None
    return TransportResponse(status=200, body=msgspec.json.encode({"data": page, "next": following}))


def shop_provider() -> Provider:
    return Provider(transport=shop_app, secrets=SECRETS, events=EVENTS)


def stripe_provider() -> Provider:
    clock = FakeClock()
    fake = FakeStripe(3, clock)
    seed_account(fake, customers=130)
    told: list[bytes] = []
    fake.ledger.listeners.append(lambda event: told.append(msgspec.json.encode(event)))

    async def live() -> None:
        for _ in range(40):
            await clock.advance(30)
            fake.activity.step()
        await clock.advance(3600)

    asyncio.run(live())
    return Provider(
        transport=answering(fake),
        secrets={"api_key": API_KEY, "webhook_secret": "whsec_Y2FuYXJ5LXN0cmlwZQ=="},
        events=[SentEvent(body=body) for body in told],
        at=clock.now(),
    )


test_the_stripe_connector = standard_suite(STRIPE, stripe_provider)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return shop_project(tmp_path / "shop")


def edited(shop: Path, file: str, *changes: tuple[str, str]) -> Path:
    path = shop / file
    text = path.read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    path.write_text(text)
    return shop


def outcome(project: Path, case: str, provider: Callable[[], Provider] = shop_provider) -> None:
    """Carry out the one case of the suite whose name begins so."""
    suite = standard_suite(project, provider)
    (mark,) = suite.pytestmark
    (found,) = [one for one, name in zip(mark.args[1], mark.kwargs["ids"], strict=True) if name.startswith(case)]
    suite(found)


def test_a_sync_route_is_driven_in_three_lines(shop: Path) -> None:
    transport = pages({"/customers": {"data": CUSTOMERS[:1], "next": "c_1"}})
    result = drive(shop, "customers", transport=transport, secrets=SECRETS)
    assert (result.records[0]["id"], result.page.has_more, len(result.requests)) == ("c_1", True, 1)


def test_pages_are_answered_one_after_the_other_and_the_last_one_again(shop: Path) -> None:
    answers = pages({"/customers": [{"data": CUSTOMERS[:1], "next": "c_1"}, {"data": [], "next": None}]})
    told = [drive(shop, "customers", transport=answers, secrets=SECRETS).page.has_more for _ in range(3)]
    assert told == [True, False, False]


def test_a_webhook_route_is_driven_with_a_delivery_that_is_signed_and_proved(shop: Path) -> None:
    result = deliver(shop, EVENTS[0], secrets=SECRETS)
    assert result.of_type("customer")[0]["id"] == "c_1"
    assert result.emissions[0].as_of == 1767225600 * 1_000_000
    assert deliver(shop, b'{"type": "ping"}').response.ignored


def test_a_signing_secret_that_is_none_is_told(shop: Path) -> None:
    with pytest.raises(SettingsError, match="not base64"):
        deliver(shop, EVENTS[0], secrets={**SECRETS, "webhook_secret": "whsec_no base64!"})


def test_what_a_route_raises_is_raised_to_the_test(shop: Path) -> None:
    with pytest.raises(CredentialsError):
        drive(shop, "customers", transport=shop_app, secrets={"api_key": "wrong"})
    with pytest.raises(NotFoundError, match="Did you mean `customers`"):
        drive(shop, "custmers", transport=shop_app, secrets=SECRETS)
    with pytest.raises(InvalidPayloadError):
        deliver(shop, b"not json")


def test_the_suite_has_a_case_for_each_thing_a_connector_must_bear(shop: Path) -> None:
    names = [case.name for case in cases_of(load(shop), shop_provider)]
    assert len(names) == len(set(names)) == 9
    without_webhooks = [case.name for case in cases_of(load(shop), lambda: Provider(transport=shop_app))]
    assert len(without_webhooks) == 5


@pytest.mark.parametrize(
    "case",
    [
        "passes its check", "customers is polled", "customers goes on", "polled again", "429", "secrets",
        "a wrong signature", "repeated", "reordered", "polls and webhooks",
    ],
)  # fmt: skip
def test_a_sound_project_passes_every_case(shop: Path, case: str) -> None:
    outcome(shop, case)


def test_a_project_that_fails_its_check_fails_the_first_case(shop: Path) -> None:
    (shop / "src/api/sync/customers.py").unlink()
    with pytest.raises(CheckFailedError, match=r"connector\.py"):
        outcome(shop, "passes its check")


SYNC = "src/api/sync/customers.py"
WEBHOOK = "src/api/webhooks/shop.py"
LIB = "src/lib/shop.py"


def test_a_poll_that_fails_is_found(shop: Path) -> None:
    edited(shop, SYNC, ("page = await", "raise KeyError('gone')\n    page = await"))
    with pytest.raises(AssertionError, match="gone"):
        outcome(shop, "customers is polled")


def test_a_record_that_is_quarantined_is_found(shop: Path) -> None:
    edited(shop, LIB, ('"name": customer.get("name")', '"name": 7'))
    with pytest.raises(AssertionError, match="quarantined"):
        outcome(shop, "customers is polled")


def test_a_cursor_that_is_kept_in_memory_is_found(shop: Path) -> None:
    edited(
        shop,
        SYNC,
        ("@route", "place = {}\n\n\n@route"),
        ('"after": request.cursor', '"after": place.get("after")'),
        ("    # The last page", '    place["after"] = page["next"]\n    # The last page'),
    )
    with pytest.raises(AssertionError, match="killed at page"):
        outcome(shop, "customers goes on")


def test_a_payload_that_changes_by_itself_is_found(shop: Path) -> None:
    edited(
        shop,
        LIB,
        ("async def get", "asked = []\n\n\nasync def get"),
        ('"name": customer.get("name")', '"name": f"{len(asked)}"'),
        ("    given =", "    asked.append(path)\n    given ="),
    )
    with pytest.raises(AssertionError, match="polled again"):
        outcome(shop, "polled again")


def test_a_handler_that_swallows_faults_is_found(shop: Path) -> None:
    edited(
        shop,
        LIB,
        ("headers=headers)", "headers=headers, ok={429, 503})"),
        (
            "    return response.json()",
            '    return response.json() if response.status == 200 else {"data": [], "next": None}',
        ),
    )
    with pytest.raises(AssertionError, match="records are missing"):
        outcome(shop, "429")


def test_a_secret_that_is_logged_through_another_logger_is_found(shop: Path) -> None:
    edited(
        shop,
        LIB,
        ("from datetime", "import logging\nfrom datetime"),
        (
            "    response = await",
            '    logging.getLogger("headwater.shop").info("sending %s", headers)\n    response = await',
        ),
    )
    with pytest.raises(AssertionError, match="the secret `api_key` is told"):
        outcome(shop, "secrets")


def test_an_event_key_that_changes_is_found_by_repetition(shop: Path) -> None:
    edited(
        shop,
        WEBHOOK,
        ("    event = request.json()", "    event = request.json()\n    seen.append(1)"),
        ("@route", "seen = []\n\n\n@route"),
        ('customer_record(event["data"])', '{**customer_record(event["data"]), "name": f"{len(seen)}"}'),
    )
    with pytest.raises(AssertionError, match="every event delivered twice"):
        outcome(shop, "repeated")


def test_an_event_without_its_own_instant_is_found_by_disorder(shop: Path) -> None:
    edited(
        shop,
        WEBHOOK,
        ('            stream="customers",\n', '            stream="customers",\n'),
        ("as_of=happened_at,\n            deleted", "deleted"),
    )

    def provider() -> Provider:
        renamed = [
            SentEvent(
                body=json.dumps(
                    {"id": f"n_{turn}", "type": "customer.updated", "at": 1767225600 + turn,
                     "data": {**CUSTOMERS[0], "name": f"Name {turn}"}}
                ).encode()
            )
            for turn in range(3)
        ]  # fmt: skip
        return Provider(transport=shop_app, secrets=SECRETS, events=renamed)

    with pytest.raises(AssertionError, match="does each emission say its event's `as_of`"):
        outcome(shop, "reordered", provider)


def test_a_webhook_that_maps_otherwise_than_the_poll_is_found(shop: Path) -> None:
    edited(shop, WEBHOOK, ('customer_record(event["data"])', '{**customer_record(event["data"]), "name": "other"}'))
    with pytest.raises(AssertionError, match="differs by poll and by webhook"):
        outcome(shop, "polls and webhooks")
