"""An installation with a row in every table, and what its store answers to everything that can be asked of it."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

from headwater import bundle
from headwater.account import LoginLimit
from headwater.alert import AlertChanges, Message, Subject
from headwater.archive import pack
from headwater.connection import secret_aad
from headwater.delivery import DeliveryFilter, DeliveryState
from headwater.deployment import StoredBundle
from headwater.grant import Authorization
from headwater.intention import AuditNote, DeliveryFailure
from headwater.key_ring import KeyRing
from headwater.log_line import LogFilter, NewLogLine
from headwater.run import RequestLog, RunState, Window
from headwater.second_factor import factor_aad
from headwater.testing.clock import START
from headwater.testing.conformance.world import LEASE_SECONDS, at, broken, done, emission, grave, new_delivery
from worlds import opened

DAY = 86_400.0
ODD = "nul \0 one \1 snowman \u2603 astral \U0001f600"
KEY_HASH, SESSION_HASH = b"k" * 32, b"s" * 32
KEY = "0" * 64  # of the secrets
STRIPE = bundle.read(Path(__file__).parent.parent / "connectors" / "stripe")
BUNDLES = ("a" * 64, STRIPE.content_hash)  # the second one runs
ASKED = RequestLog(at=START, method="GET", url="https://shop/x", status=503, milliseconds=7, retries=2, note=ODD)
LOGGED = NewLogLine(at=START, level="error", message=ODD)


def build(path):
    """Make it."""
    asyncio.run(_build(path))


async def _build(path):
    async with opened(path) as world:
        acme = await world.connect(streams=("customers", "invoices"), due=at(0), tenant="t1")
        other = await world.connect("other", mode="webhook")
        ring, aad = KeyRing.from_text(KEY), secret_aad(acme.key, "api_key")
        for plain, until in (("old", None), ("new", at(DAY))):
            ciphertext = ring.encrypt(plain, aad=aad)
            await world.store.put_secret(acme.id, name="api_key", ciphertext=ciphertext, keep_previous_until=until)
        await world.store.update_settings(acme.id, {"account": ODD, "n": 1})
        await _poll(world)
        await _backfill(world)
        await _deliver(world, acme.id, other.id)
        await _manage(world, other.id)
        await _deploy(world.store)
        # The newest of everything is gone: no number of it may be given out again.
        gone = await world.connect("gone")
        await world.ingest(emission("g", "x"), emission("h", "x"), connection="gone")
        await world.deliver(gone.id, "gone")
        await world.store.remove_connection(gone.id)


async def _poll(world):
    ref = await world.admit()
    odd = emission(ODD, "odd", 10, payload=json.dumps({"id": ODD, "name": "odd"}).encode())
    await world.commit(
        ref,
        *(emission(f"r{n:02}", "x" * n, 10) for n in range(20)),
        odd,
        cursor="c1",
        has_more=True,
        quarantined=[broken("bad"), broken(ODD, payload=b"\0\xff")],
        requests=[ASKED],
        log=[LOGGED],
    )
    big = emission("big", "x", 10, payload=b'{"id":"big","name":"' + b"y" * 3_000_000 + b'"}')
    await world.commit(ref, emission("r01", "new", 20), emission("r02", "late", 5), grave("r03", 20), big, cursor="c2")
    await world.end(ref, now=at(30))
    failing = await world.admit(stream="invoices", now=at(40))
    await world.end(
        failing, RunState.RETRYING, now=at(41), due_at=at(100), error_code="retry.provider", error=ODD,
        traceback="Traceback", requests=[ASKED], blocked_until=at(90),
    )  # fmt: skip


async def _backfill(world):
    state = await world.state()
    spans = [Window(start=at(-DAY * n), end=at(-DAY * (n - 1))) for n in (3, 2, 1)]
    await world.store.add_backfill(state.id, span=Window(start=at(-3 * DAY), end=at(0)), windows=spans, at=at(50))
    result = await world.tick(at(95))
    assert len(result.admitted) == 4
    for ref in result.admitted[:2]:
        await world.store.begin_run(ref, at=at(95), lease_seconds=LEASE_SECONDS)


async def _deliver(world, acme, other):
    for seconds in (-40 * DAY, -DAY, 0, 100):
        await world.deliver(other, f"d{seconds}", seconds=seconds)
    await world.deliver(acme, "a1", "a2")
    odd = new_delivery(other, ODD, 200, event_type=None, body=bytes(range(256)), headers=b"{}")
    await world.store.append_deliveries([odd, new_delivery(other, "d0", 300)])
    claims = {one.provider_id: one for one in await world.claim(at(400))}
    old, first, second = claims[f"d{-40 * DAY}"], claims[f"d{-DAY}"], claims["d0"]
    await world.store.finish_delivery(done(old, emission("e0", "x", key="evt_0"), now=at(-39 * DAY), log=[LOGGED]))
    await world.store.finish_delivery(
        done(
            first,
            emission("e1", "x", 50, key="evt_1"),
            emission("e1", "older", 10, key="evt_2"),
            now=at(401),
            quarantined=[broken("q", stream="events")],
        )
    )
    await world.store.fail_delivery(
        DeliveryFailure(
            claim=second, at=at(402), state=DeliveryState.DEAD, due_at=None, error_code="stop.handler", error=ODD,
            traceback="Traceback", log=[LOGGED],
        )
    )  # fmt: skip
    await world.store.reject_delivery(other, reason="bad signature", at=at(403), sample=ODD)
    # The oldest delivery is past its retention: what it brought stays, and still names it.
    await world.store.purge(deliveries_before=at(-30 * DAY), runs_before=at(-30 * DAY))


async def _deploy(store):
    archives = (bytes(range(256)), pack(STRIPE))
    for number, (name, archive) in enumerate(zip(BUNDLES, archives, strict=True)):
        stored = StoredBundle(
            hash=name, connector="stripe", version=f"1.{number}", outline=f'{{"odd":"{ODD}"}}', archive=archive,
            archive_bytes=len(archive), created_at=at(600 + number), actor="cli:me",
        )  # fmt: skip
        await store.add_bundle(stored)
        before = BUNDLES[number - 1] if number else None
        await store.activate_bundle(
            name, expected=before, act="deploy", plan=[{"stream": ODD}], actor="cli:me", at=at(610 + number)
        )


async def _manage(world, other):
    acme = await world.store.connection("acme")
    begun = Authorization(connection_id=acme.id, sealed=ODD)
    await world.store.begin_authorization(KEY_HASH, begun, at=at(500), expires_at=at(900))
    assert await world.store.lease_grant(acme.id, at=at(500), lease_seconds=60) == 1
    rule = await world.store.add_alert_rule(
        conditions=["late"], connection="acme", stream=ODD, threshold=0.5, hold_seconds=60, targets=[ODD], at=at(500)
    )
    subject = Subject(rule_id=rule.id, condition="late", connection="acme", stream=ODD)
    await world.store.change_alerts(AlertChanges(begin=[(subject, ODD)]), at=at(500), keep_after=at(0))
    await world.store.add_notification(Message(target=ODD, body=ODD), at=at(500))
    await world.store.add_mute(connection="acme", stream=ODD, until=None, reason=ODD, actor="ann", at=at(500))
    await world.store.claim_answer(KEY_HASH, SESSION_HASH, at=at(500), kept_after=at(-1), silent_since=at(0))
    await world.store.keep_answer(KEY_HASH, status=201, location=ODD, body=b"{}")
    (waiting, *_) = await world.store.quarantined(connection="acme")
    await world.store.drop_quarantined([waiting.id])
    await world.store.set_position("warehouse", 7, at=at(500))
    await world.store.set_position("Zebra", 3, at=at(500))
    await world.store.audit(at=at(501), actor="cli:me", act="connections.add", target="acme", detail={"odd": ODD})
    await world.store.add_api_key(
        name=ODD, hash=KEY_HASH, scopes=["read"], tenant="t1", at=at(502), expires_at=at(900 * DAY)
    )
    note = AuditNote(at=at(502), actor="cli:me", act="accounts.add", target=ODD)
    account = await world.store.add_account(email="ann@x", name=ODD, role="admin", password="", note=note)
    sealed = KeyRing.from_text(KEY).encrypt("JBSWY3DPEHPK3PXP", aad=factor_aad(account.id))
    await world.store.begin_factor(account.id, sealed=sealed)
    await world.store.confirm_factor(account.id, step=7, recovery=[b"r" * 32], keep=b"", note=note)
    await world.store.add_invitation(b"i" * 32, account_id=account.id, expires_at=at(DAY), note=note)
    await world.store.add_session(
        account.id, hash=SESSION_HASH, address="::1", agent=ODD, replaced=None, forgiven=(), note=note
    )
    limits = [LoginLimit(subject=f"account {ODD}", attempts_max=1)]
    assert await world.store.count_login(limits, at=at(502), span_seconds=DAY) is None
    await world.store.pause_connection(other, reason=ODD, needs_attention=True, at=at(503))


async def told(store):
    """All answers of a store, apart from the ids of deliveries."""
    connections = await store.connections()
    runs = await store.runs(limit=200)
    records = await store.records(limit=200)
    backfills = await store.backfills()
    deliveries = [await store.delivery(one.id) for one in await store.deliveries(DeliveryFilter(), limit=200)]
    return {
        "connections": connections,
        "secrets": await store.all_secrets(),
        "streams": await store.streams(at=at(600)),
        "runs": runs,
        "pages": [await store.pages(run.id) for run in runs],
        "requests": [await store.requests(run.id) for run in runs],
        "log": [replace(one, delivery_id=None) for one in await store.log_lines(LogFilter())],
        "logged for": {
            one.provider_id: [line.message for line in await store.log_lines(LogFilter(delivery_id=one.id))]
            for one in deliveries
        },
        "backfills": backfills,
        "windows": [await store.windows(one.id) for one in backfills],
        "records": [_unnumbered(one) for one in records],
        "versions": [
            [_unnumbered(one) for one in await store.versions(record.connection, record.type, record.source_id)]
            for record in records
        ],
        "brought": {
            one.provider_id: [_unnumbered(version) for version in await store.versions_of_delivery(one.id)]
            for one in deliveries
        },
        "populations": await store.populations(),
        "feed": [_unnumbered(one) for one in (await store.changes(after=0, limit=200)).changes],
        "high water": (await store.changes(after=0)).high_water,
        "quarantined": [_unnumbered(one) for one in await store.quarantined(state=None, limit=200)],
        "deliveries": sorted((replace(one, id=0) for one in deliveries), key=lambda one: one.provider_id),
        "rejections": await store.rejections(),
        "positions": [await store.position(name) for name in ("warehouse", "Zebra", "none")],
        "bundles": [await store.bundle(name) for name in BUNDLES],
        "bundles in order": await store.bundles(),
        "deployments": await store.deployments(),
        "active": await store.active_bundles(),
        "audit": await store.audit_log(),
        "key": await store.api_key(KEY_HASH, at=at(600)),
        "accounts": await store.accounts(),
        "recovery codes": [await store.recovery_codes_left(one.id) for one in await store.accounts()],
        "session": await store.session(SESSION_HASH, created_after=at(0), seen_after=at(0)),
        "invitation": await store.invitation(b"i" * 32, at=at(600)),
    }


def _unnumbered(value):
    fields = getattr(value, "__dataclass_fields__", {})
    changes = {"delivery_id": None} if "delivery_id" in fields else {}
    if "current" in fields:
        changes["current"] = _unnumbered(value.current)
    return replace(value, **changes) if changes else value
