"""The Stripe connector against localstripe, a server we did not write: polled and heard over loopback HTTP."""

import asyncio
from contextlib import suppress
from pathlib import Path

import msgspec
from localstripe_server import API_KEY, running

from headwater import server
from headwater.clock import SystemClock
from headwater.config import Config
from headwater.delivery import DeliveryFilter, DeliveryState

PROJECT = Path(__file__).parent.parent.parent / "connectors" / "stripe"
SECRET = "whsec_localstripe"
SECONDS_MAX = 60
# What localstripe lists: it knows no prices, disputes or credit notes.
LISTED = ("customers", "products", "charges", "refunds", "balance_transactions", "invoices", "payouts", "subscriptions")


async def fill(local, name):
    """Objects of every kind that it can make; the ids of the customers."""
    product = await local.post("/v1/products", name=f"{name} boat", type="service")
    plan = await local.post(
        "/v1/plans", id=f"plan-{name}", amount=1500, currency="eur", interval="month", product=product["id"]
    )
    made = []
    for number in range(6):
        customer = await local.post(
            "/v1/customers",
            email=f"{name}{number}@example.com",
            description=f"{name} {number}",
            metadata={"n": str(number)},
        )
        made.append(customer["id"])
    card = {"object": "card", "number": "4242424242424242", "exp_month": 12, "exp_year": 2050, "cvc": "123"}
    await local.post(f"/v1/customers/{made[0]}/sources", source=card)
    await local.post("/v1/subscriptions", customer=made[0], items=[{"plan": plan["id"]}])
    charge = await local.post("/v1/charges", customer=made[0], amount=1000, currency="eur")
    await local.post("/v1/refunds", charge=charge["id"], amount=300)
    await local.post("/v1/payouts", amount=400, currency="eur")
    return made


async def until(condition):
    """Wait for a condition of the world outside; the test as a whole has a limit."""
    while not (found := await condition()):
        await asyncio.sleep(0.05)
    return found


class Scene:
    """The platform at work beside localstripe."""

    def __init__(self, application, local):
        self.platform = application.platform
        self.store = application.platform.store
        self.local = local

    async def connect(self):
        settings = {"api_key": API_KEY, "webhook_secret": SECRET, "api_base": self.local.url}
        stored = await self.platform.add_connection("stripe", settings, key="stripe")
        return self.platform.webhook_url(stored)

    async def polled(self):
        """The states of the listed streams, once each has succeeded."""
        states = await self.store.streams(at=self.platform.clock.now())
        states = [state for state in states if state.stream in LISTED]
        return states if all(state.last_success_at for state in states) else None

    async def delivered(self, ids):
        """Whether the deliveries of these provider ids are done."""
        done = await self.store.deliveries(DeliveryFilter(state=DeliveryState.DONE), limit=1000)
        return ids <= {one.provider_id for one in done}

    async def quiet(self):
        """No run is under way, so that a page may be asked for."""
        states = await self.store.streams(at=self.platform.clock.now())
        return not [state for state in states if state.running_run_id is not None and state.stream in LISTED]

    async def records(self):
        found = await self.store.records(limit=1000)
        return {(one.type, one.source_id): one for one in found}

    async def page(self, stream):
        live = self.platform.live
        return await live.runner.one_page(await live.connections.by_key("stripe"), stream, limit=100)


async def scenario(scene):
    early = await fill(scene.local, "early")
    url = await scene.connect()
    await until(scene.polled)
    records = await scene.records()
    assert {("customer", identity) for identity in early} <= records.keys()
    assert {kind for kind, _ in records} == {
        "customer", "product", "payment", "refund", "balance_transaction", "invoice", "payout", "subscription",
    }  # fmt: skip
    assert {one.current.origin for one in records.values()} == {"poll"}
    assert {(await scene.local.get(f"/v1/customers/{early[2]}"))["email"]} == {
        msgspec.json.decode(records["customer", early[2]].current.payload)["email"]
    }

    await scene.local.send_webhooks_to(url, SECRET)
    late = await fill(scene.local, "late")
    await scene.local.post(f"/v1/customers/{late[1]}", description="changed")
    await scene.local.delete(f"/v1/customers/{late[2]}")
    events = [one for one in (await scene.local.get("/v1/events?limit=100"))["data"] if is_of(one, late)]
    assert {event["type"] for event in events} >= {"customer.created", "customer.updated", "customer.deleted"}
    await until(lambda: scene.delivered({event["id"] for event in events}))
    assert not await scene.store.rejections()

    records = await scene.records()
    for identity in late:
        assert records["customer", identity].current.origin == "webhook"
    assert records["customer", late[2]].deleted
    assert msgspec.json.decode(records["customer", late[1]].current.payload)["description"] == "changed"

    await until(scene.quiet)
    before = {key: one.version for key, one in records.items() if key[0] in {"customer", "product"}}
    for stream in ("customers", "products"):
        page = await scene.page(stream)
        assert (page.imported, page.failed) == (0, 0), f"{stream}: the poll agrees with the webhooks"
        assert page.unchanged >= 2
    after = await scene.records()
    assert {key: after[key].version for key in before} == before


def is_of(event, identities):
    item = event["data"]["object"]
    return item.get("id") in identities or item.get("customer") in identities


def test_localstripe_is_polled_and_heard_and_both_ways_agree(tmp_path):
    ended = []

    async def beside(local, application, stop):
        try:
            await scenario(Scene(application, local))
            ended.append(None)
        except Exception as error:
            ended.append(error)
        finally:
            stop.set()

    async def main():
        config = Config(
            directory=tmp_path,
            database=tmp_path / "headwater.db",
            key_file=tmp_path / "key",
            port=0,
            projects=(PROJECT,),
        )
        async with running(tmp_path) as local:
            await asyncio.wait_for(
                server.run(
                    config, SystemClock(), note_url=lambda url: None, ready=lambda application, link: None,
                    beside=lambda application, stop: beside(local, application, stop),
                ),
                SECONDS_MAX,
            )  # fmt: skip

    with suppress(TimeoutError):
        asyncio.run(main())
    assert ended, "it took too long"
    if ended[0] is not None:
        raise ended[0]
