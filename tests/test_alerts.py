"""Alerts: what is told, to whom, when, how often; and that it arrives, proved and once."""

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import timedelta

import msgspec
import pytest
from aiosmtpd.smtp import SMTP
from msgspec.structs import replace
from standardwebhooks.webhooks import Webhook

from doors import send, served
from headwater.acts.act import Desk, perform
from headwater.acts.alerts import AddAlertRule, MuteStream, SendTestMessage
from headwater.alert import Alert, AlertRule, Message, Mute, Notification, Subject
from headwater.alerter import ATTEMPTS_MAX, Alerter, Channels, email, mailer
from headwater.alerting import weigh
from headwater.errors import ProviderError, UsageError
from headwater.intention import StreamDeclaration
from headwater.testing.clock import FakeClock
from headwater.transport import TransportResponse
from headwater.verdict import Status
from loopback import shop_project
from stored import connect, deliver, dispatch, fail, ingest, open_store, webhook
from stream_states import NOON

SECRET = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
MINUTE = timedelta(minutes=1)


def rule(**changes):
    words = {
        "id": 1, "conditions": ("late",), "connection": None, "stream": None, "threshold": None, "hold_seconds": 60,
        "targets": ("webhook",), "created_at": NOON,
    }  # fmt: skip
    return AlertRule(**(words | changes))


def standing(condition="late", *, fired=None, stream="customers", number=7):
    subject = Subject(rule_id=1, condition=condition, connection="acme", stream=stream)
    return Alert(id=number, subject=subject, sentence="x", began_at=NOON, fired_at=fired, resolved_at=None)


@pytest.fixture(scope="module")
def reports():
    """The reports of a poll stream and two webhook streams of one connection, all well."""
    from headwater import health

    async def main():
        clock = FakeClock(NOON)
        async with open_store(clock=clock) as store:
            await connect(store, clock, streams=["customers", webhook(), webhook("more")])
            await ingest(store, clock)
            return health.reports(await store.streams(at=clock.now()), clock.now())

    return asyncio.run(main())


def changed(reports, stream="customers", **changes):
    return [replace(one, **changes) if one.stream == stream else one for one in reports]


def look(rules, reports, alerts=(), mutes=(), *, after=0):
    return weigh(rules, reports, alerts, mutes, at=NOON + MINUTE * after, base_url="https://hw")


def test_an_alert_begins_and_fires_when_it_was_so_for_long_enough(reports):
    late = changed(reports, status=Status.LATE, sentence="Late: expected 14:00.")
    assert not look([rule()], reports)
    (begun,) = look([rule()], late).begin
    assert begun == (
        Subject(rule_id=1, condition="late", connection="acme", stream="customers"),
        "acme customers: Late: expected 14:00.",
    )
    assert not look([rule()], late, [standing()], after=0.9)
    changes = look([rule()], late, [standing()], after=1)
    (turn,) = changes.fire
    assert not changes.begin
    event = json.loads(turn.messages[0].body)
    assert event["type"] == "alert.firing"
    assert event["data"]["sentence"] == "acme customers: Late: expected 14:00."
    assert event["data"]["url"] == "https://hw/connections/acme/streams/customers"
    assert not look([rule()], late, [standing(fired=NOON)], after=9), "it is told once"


def test_what_is_over_is_told_to_those_who_were_told(reports):
    (turn,) = look([rule()], reports, [standing(fired=NOON)], after=9).resolve
    assert json.loads(turn.messages[0].body)["data"]["sentence"] == "acme customers is no longer late."
    (untold,) = look([rule()], reports, [standing()], after=9).resolve
    assert untold.messages == []


def test_a_mute_keeps_still_what_is_new_and_lets_pass_what_was_told(reports):
    late = changed(reports, status=Status.LATE)
    words = {"id": 1, "until": None, "reason": "", "actor": "ann", "created_at": NOON}
    whole, other = Mute(connection="acme", stream="", **words), Mute(connection="acme", stream="events", **words)
    assert not look([rule()], late, [standing()], [whole], after=5)
    assert look([rule()], late, [standing()], [other], after=5).fire
    assert look([rule()], reports, [standing(fired=NOON)], [whole], after=5).resolve[0].messages


@pytest.mark.parametrize(
    ("condition", "stream", "changes", "is_so"),
    [
        ("late", "customers", {"status": Status.FAILING}, True),
        ("failing", "customers", {"status": Status.LATE}, False),
        ("failing", "customers", {"status": Status.FAILING}, True),
        ("needs attention", "customers", {"status": Status.NEEDS_ATTENTION}, True),
        ("late", "customers", {"status": Status.PAUSED}, False),
        ("dead letters", "events", {"dead": 1}, True),
        ("dead letters", "events", {"dead": 0}, False),
        ("drift", "customers", {"drift": 0.2}, False),
        ("drift", "customers", {"drift": 0.21}, True),
        ("rejected", "events", {"rejected_24h": 10}, False),
        ("rejected", "events", {"rejected_24h": 11}, True),
    ],
)
def test_each_condition(reports, condition, stream, changes, is_so):
    found = look([rule(conditions=(condition,))], changed(reports, stream, **changes))
    assert bool(found.begin) is is_so


def test_what_is_of_a_connection_is_told_once_for_all_its_streams(reports):
    both = changed(changed(reports, "events", dead=3), "more", dead=3)
    (begun,) = look([rule(conditions=("dead letters",))], both).begin
    assert (begun[0].stream, begun[1]) == ("", "acme has 3 dead deliveries.")
    assert not look([rule(conditions=("dead letters",), threshold=3)], both)
    assert not look([rule(conditions=("dead letters",), connection="other")], both)
    assert not look([rule(conditions=("late",), stream="events")], changed(reports, status=Status.LATE))


@asynccontextmanager
async def alerting(*, statuses=(), smtp=None, url="https://alerts.example/hook"):
    """A store, an alerter whose webhook answers these statuses and then 200, and what it was sent."""
    clock, sent, answers = FakeClock(NOON), [], list(statuses)

    async def transport(request):
        sent.append(request)
        return TransportResponse(status=answers.pop(0) if answers else 200)

    async with open_store(clock=clock) as store:
        channels = Channels(url=url, secret=url and SECRET, email_from="hw@example.com", smtp=smtp)
        yield store, clock, Alerter(store, clock, transport, channels, base_url="https://hw"), sent


def test_a_failing_stream_is_told_by_a_webhook_that_proves_itself_and_its_recovery_too():
    async def main():
        async with alerting() as (store, clock, alerter, sent):
            acme = await connect(store, clock, streams=["customers", webhook()])
            desk = Desk(store=store, clock=clock, actor="ada")
            await perform(AddAlertRule(conditions=("dead letters",), hold_minutes=1), desk)
            await deliver(store, clock, acme, "one")
            await dispatch(store, clock, dead=True)
            for _ in range(8):
                await alerter.look()
                await alerter.send()
                await clock.advance(15)
            (request,) = sent
            assert (request.method, request.url, request.reach) == ("POST", "https://alerts.example/hook", "private")
            event = Webhook(SECRET)
            headers = {name.lower(): value for name, value in request.headers.items()}
            stamped = int(headers["webhook-timestamp"])
            assert abs(stamped - clock.now().timestamp()) < 200
            signature = event.sign(
                headers["webhook-id"], NOON.fromtimestamp(stamped, NOON.tzinfo), request.body.decode()
            )
            assert headers["webhook-signature"] == signature
            assert json.loads(request.body)["data"]["sentence"] == "acme has 1 dead delivery."
            await store.remove_connection(acme.id)
            await alerter.look()
            await alerter.send()
            assert json.loads(sent[1].body)["type"] == "alert.resolved"
            assert len(sent) == 2

    asyncio.run(main())


def test_a_message_is_tried_again_with_the_same_id_and_given_up_in_the_end():
    async def main():
        async with alerting(statuses=[503, 500] + [410] * 50) as (store, clock, alerter, sent):
            await perform(SendTestMessage(), Desk(store=store, clock=clock, actor="ada"))
            assert await alerter.send() == 1
            assert await alerter.send() == 0, "not before its time"
            (waiting,) = await store.notifications(limit=5)
            assert (waiting.error, waiting.sent_at) == ("The webhook answered 503.", None)
            for _ in range(ATTEMPTS_MAX + 3):
                await clock.advance(5 * 3600)
                await alerter.send()
            assert len(sent) == ATTEMPTS_MAX
            assert len({request.headers["webhook-id"] for request in sent}) == 1
            (over,) = await store.notifications(limit=5)
            assert over.given_up_at is not None
            assert over.sent_at is None

    asyncio.run(main())


def test_what_is_not_configured_is_said():
    async def main():
        async with alerting(url=None) as (store, clock, alerter, _):
            desk = Desk(store=store, clock=clock, actor="ada")
            await perform(SendTestMessage(), desk)
            await perform(SendTestMessage(target="Ann@Example.com"), desk)
            await alerter.send()
            mail, hook = await store.notifications(limit=5)
            assert hook.error == "No `alert_url` with an `alert_secret` is configured."
            assert (mail.target, mail.error) == ("ann@example.com", "No `smtp_url` is configured.")
            with pytest.raises(UsageError, match="email"):
                await perform(SendTestMessage(target="nobody"), desk)

    asyncio.run(main())


class _Inbox:
    def __init__(self):
        self.envelopes = []

    async def handle_DATA(self, server, session, envelope):
        self.envelopes.append(envelope)
        return "250 OK"


def test_an_alert_is_mailed():
    async def main():
        inbox = _Inbox()
        server = await asyncio.get_running_loop().create_server(lambda: SMTP(inbox), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            async with alerting(smtp=mailer(f"smtp://127.0.0.1:{port}")) as (store, clock, alerter, _):
                await connect(store, clock, streams=["customers"])
                rules = AddAlertRule(conditions=("failing",), hold_minutes=0, targets=("ann@example.com",))
                await perform(rules, Desk(store=store, clock=clock, actor="ada"))
                await fail(store, clock, error="It broke.\r\nBcc: eve@example.com")
                await clock.advance(3600)
                for _ in range(2):
                    await alerter.look()
                await alerter.send()
                (message,) = await store.notifications(limit=5)
                assert message.sent_at is not None, message.error
        finally:
            server.close()
        (envelope,) = inbox.envelopes
        text = envelope.content.decode()
        assert envelope.rcpt_tos == ["ann@example.com"]
        assert "Subject: [Headwater] Alert: acme customers: Failing" in text
        assert "https://hw/connections/acme/streams/customers" in text
        assert "\nBcc:" not in text.partition("\r\n\r\n")[0]
        assert f"Message-ID: <alert-{message.id}@example.com>" in text

    asyncio.run(main())


def test_a_mail_server_that_is_away_is_no_end():
    async def main():
        async with alerting(smtp=mailer("smtp://127.0.0.1:9")) as (store, clock, alerter, _):
            await store.add_notification(message("a@b.c"), at=clock.now())
            await alerter.send()
            (waiting,) = await store.notifications(limit=5)
            assert waiting.error == "The mail server refused it: ConnectionRefusedError."

    def message(target):
        return Message(target=target, body='{"type":"alert.test","data":{"sentence":"x","url":"u"}}')

    asyncio.run(main())


def test_no_header_is_smuggled_into_a_mail():
    body = {"type": "alert.firing", "data": {"sentence": "a\r\nBcc: eve@example.com", "url": "u"}}
    one = Notification(
        id=1, target="ann@example.com", body=msgspec.json.encode(body).decode(), attempts=1, created_at=NOON,
        sent_at=None, given_up_at=None, error=None,
    )  # fmt: skip
    made = email(one, sender="hw@example.com", at=NOON)
    assert made["Bcc"] is None
    assert "\n" not in made["Subject"]


def test_the_page_shows_rules_mutes_and_what_stands(tmp_path):
    async def main():
        shop_project(tmp_path / "shop")
        async with served(tmp_path, alert_url="https://alerts.example/x", alert_secret=SECRET) as house:
            browser = await house.person("operator")
            stored = await connect(house.store, house.clock, connector="shop", streams=["customers"])
            declared = StreamDeclaration(
                stream="customers", partition="", mode="poll", schedule="*/15 * * * *", timezone="UTC",
                expect_within_seconds=None, next_tick_at=None,
            )  # fmt: skip
            await house.store.declare_streams(stored.id, [declared], at=house.clock.now())
            form = (await browser.get("/acts/alerts.add")).text
            assert 'type="checkbox" name="conditions" value="dead letters"' in form
            plan = await browser.get(
                "/acts/alerts.add?conditions=late&conditions=failing&hold_minutes=0&targets=webhook"
            )
            assert "webhook is told when any connection is late or failing." in plan.text
            for one in ("late", "failing"):
                assert f'name="conditions" value="{one}" checked' in plan.text
            added = await send(
                browser, "/account", "/acts/alerts.add", conditions="late,failing", hold_minutes="0",
                targets="webhook, Ann@example.com",
            )  # fmt: skip
            assert added.headers.get("location") == "/alerts", added.text
            await fail(house.store, house.clock)
            await house.clock.advance(7200)
            browser = await house.person("operator")
            await house.application._alerter.look()
            page = (await browser.get("/alerts")).text
            assert "2 things are not as they should be" in page
            assert "late, failing" in page
            assert "webhook, ann@example.com" in page
            muted = await send(
                browser, "/account", "/acts/alerts.mute", connection="acme", stream="customers", hours="2"
            )
            assert muted.headers["location"] == "/alerts"
            await house.application._alerter.look()
            twin = (await browser.get("/alerts?format=json")).json()
            assert [one["fired_at"] for one in twin["standing"]] == [None, None]
            assert [one["stream"] for one in twin["mutes"]] == ["customers"]
            await send(browser, "/account", "/acts/alerts.unmute", mute=str(twin["mutes"][0]["id"]))
            await house.application._alerter.look()
            twin = (await browser.get("/alerts?format=json")).json()
            assert all(one["fired_at"] for one in twin["standing"])
            assert len(twin["messages"]) == 4
            assert len((await browser.get("/alerts?format=csv")).text.splitlines()) == 3
            assert SECRET not in page
            await send(browser, "/account", "/acts/alerts.remove", rule="1")
            assert "Nobody is told of anything" in (await browser.get("/alerts")).text
            assert "/acts/alerts.mute" in (await browser.get("/connections/acme/streams/customers")).text
            log = house.platform.redactor().text(f"posting to https://alerts.example/x with {SECRET}")
            assert SECRET not in log
            assert "alerts.example" not in log

    asyncio.run(main())


def test_a_transport_that_fails_is_a_message_that_waits():
    async def main():
        async with alerting() as (store, clock, alerter, _):

            async def broken(_):
                raise ProviderError("alerts.example could not be reached.")

            alerter._transport = broken
            await perform(SendTestMessage(), Desk(store=store, clock=clock, actor="ada"))
            await alerter.send()
            (waiting,) = await store.notifications(limit=5)
            assert waiting.error == "alerts.example could not be reached."

    asyncio.run(main())


def test_a_mute_needs_a_stream_that_there_is():
    async def main():
        async with alerting() as (store, clock, _, _):
            await connect(store, clock, streams=["customers"])
            with pytest.raises(Exception, match="no stream"):
                await MuteStream(connection="acme", stream="nothing").plan(Desk(store=store, clock=clock, actor="a"))

    asyncio.run(main())
