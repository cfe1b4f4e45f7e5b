"""Life on the fake provider's account: a past to begin with, and a stream of small acts, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from headwater.clock import Clock
from headwater.testing.provider_account import Account
from headwater.testing.provider_ledger import State

DAY_SECONDS = 86_400
FIRST_NAMES = ("Ada", "Bo", "Chen", "Dara", "Efe", "Femi", "Gus", "Hana", "Ines", "Jun", "Kofi", "Lena", "Mio", "Nia")
LAST_NAMES = ("Abara", "Brandt", "Costa", "Duarte", "Eriksen", "Fontaine", "Grant", "Holm", "Ito", "Jansen", "Kaya")
CITIES = (
    {"city": "Lisbon", "country": "PT", "postal_code": "1100-148"},
    {"city": "Nairobi", "country": "KE", "postal_code": "00100"},
    {"city": "Osaka", "country": "JP", "postal_code": "530-0001"},
    {"city": "Utrecht", "country": "NL", "postal_code": "3511 AB"},
)
PLANS = (("Starter", 900), ("Team", 4900), ("Studio", 12_900), ("Harbour", 49_000))


class Activity:
    """Does one small thing after another to an account."""

    def __init__(self, account: Account, *, seed: int) -> None:
        self._account = account
        self._ledger = account.ledger
        self._random = random.Random(f"activity {seed}")  # noqa: S311  reproducible
        self._is_stopped = False
        self._acts: tuple[tuple[int, Callable[[], State | None]], ...] = (
            (10, self.join),
            (10, self.rename),
            (2, self.leave),
            (6, self.subscribe),
            (2, self.unsubscribe),
            (12, self.buy),
            (4, self.refund),
            (1, self.dispute),
            (2, self.credit),
            (2, self.pay_out),
            (2, self.reprice),
            (2, self.unrelated),
        )

    def step(self) -> State | None:
        """Do one thing, drawn by weight; None where there was nothing to do it to."""
        weights = [weight for weight, _ in self._acts]
        return self._random.choices(self._acts, weights)[0][1]()

    async def serve(self, clock: Clock, *, per_second: float) -> None:
        """Step at about that rate until `stop`."""
        self._is_stopped = False
        while not self._is_stopped:
            await clock.sleep(self._random.expovariate(per_second))
            self.step()

    def stop(self) -> None:
        """Let `serve` return."""
        self._is_stopped = True

    def offer(self) -> None:
        """The products of the shop, with two prices each."""
        for name, amount in PLANS:
            product = self._account.create_product({"name": name, "metadata": {"tier": name.lower()}})
            for interval, factor in (("month", 1), ("year", 10)):
                self._account.create_price({
                    "product": product["id"], "currency": "usd", "unit_amount": amount * factor,
                    "nickname": f"{name}, a {interval}", "recurring": {"interval": interval},
                })  # fmt: skip

    def join(self) -> State:
        """A new customer."""
        first, last = self._random.choice(FIRST_NAMES), self._random.choice(LAST_NAMES)
        number = self._random.randrange(10_000)
        return self._account.create_customer({
            "name": f"{first} {last}", "email": f"{first}.{last}.{number}@example.com".lower(),
            "phone": f"+1555{number:07d}", "description": f"Account {number}",
            "address": {**self._random.choice(CITIES), "line1": f"{number % 200 + 1} Quay Street"},
            "metadata": {"segment": self._random.choice(("small", "mid", "large")), "order": str(number)},
        })  # fmt: skip

    def rename(self) -> State | None:
        """A customer moves to another address."""
        customer = self._any("customers")
        address = {**self._random.choice(CITIES), "line1": f"{self._random.randrange(200) + 1} Mill Lane"}
        return customer and self._account.change("customers", customer["id"], {"address": address})

    def leave(self) -> State | None:
        """A customer is deleted."""
        customer = self._any("customers")
        return customer and self._account.delete("customers", customer["id"])

    def subscribe(self) -> State | None:
        """A customer subscribes, is invoiced and pays."""
        customer, price = self._any("customers"), self._any("prices")
        if not customer or not price:
            return None
        items = [{"price": price["id"], "quantity": self._random.randrange(1, 4)}]
        return self._account.create_subscription({"customer": customer["id"], "items": items})

    def unsubscribe(self) -> State | None:
        """A subscription ends."""
        found = self._any("subscriptions", lambda state: state["status"] != "canceled")
        return found and self._account.cancel_subscription(found["id"])

    def buy(self) -> State | None:
        """A customer pays for something, or the card is declined."""
        customer = self._any("customers")
        return customer and self._account.create_charge({
            "amount": self._random.randrange(100, 50_000), "currency": "usd", "customer": customer["id"],
            "description": "Order", "declined": self._random.random() < 0.1,
        })  # fmt: skip

    def refund(self) -> State | None:
        """Part of a charge goes back."""
        charge = self._any("charges", lambda state: state["amount_captured"] > state["amount_refunded"])
        if not charge:
            return None
        amount = self._random.randint(1, charge["amount_captured"] - charge["amount_refunded"])
        return self._account.create_refund({"charge": charge["id"], "amount": amount})

    def dispute(self) -> State | None:
        """A charge is disputed, or a dispute is decided."""
        waiting = self._any("disputes", lambda state: state["status"] == "needs_response")
        if waiting and self._random.random() < 0.5:
            return self._account.close_dispute(waiting["id"], won=self._random.random() < 0.5)
        charge = self._any("charges", lambda state: state["paid"] and not state["disputed"])
        return charge and self._account.create_dispute({"charge": charge["id"]})

    def credit(self) -> State | None:
        """A paid invoice is lessened."""
        invoice = self._any("invoices", lambda state: state["status"] == "paid")
        if not invoice:
            return None
        return self._account.create_credit_note({"invoice": invoice["id"], "amount": 1 + invoice["amount_paid"] // 10})

    def pay_out(self) -> State | None:
        """Money goes to the bank, or arrives there."""
        waiting = self._any("payouts", lambda state: state["status"] == "pending")
        if waiting and self._random.random() < 0.6:
            return self._account.settle_payout(waiting["id"], failed=self._random.random() < 0.2)
        return self._account.create_payout({"amount": self._random.randrange(1000, 100_000)})

    def reprice(self) -> State | None:
        """A price or its product gets another name."""
        price = self._any("prices")
        if not price:
            return None
        note = f"Catalogue {self._random.randrange(100)}"
        self._account.change("products", price["product"], {"description": note})
        return self._account.change("prices", price["id"], {"nickname": note})

    def unrelated(self) -> None:
        """Something happens that belongs to no resource of the fake."""
        identity = self._ledger.new_id("pi")
        self._account.happen("payment_intent.created", {"id": identity, "object": "payment_intent", "amount": 1200})

    def _any(self, kind: str, wanted: Callable[[State], bool] | None = None) -> Any:
        found = [state for state in self._ledger.current(kind).values() if wanted is None or wanted(state)]
        return self._random.choice(found) if found else None


def seed_past(account: Account, *, seed: int, customers: int) -> None:
    """Fill an empty account with `customers` and what they bought over the year before the events log begins."""
    activity = Activity(account, seed=seed)
    now = account.ledger.now_seconds()
    account.is_quiet = True
    try:
        account.created = now - 400 * DAY_SECONDS
        activity.offer()
        for number in range(customers):
            account.created = now - 31 * DAY_SECONDS - (customers - number) * 334 * DAY_SECONDS // customers
            activity.join()
            for act, every in ((activity.buy, 2), (activity.subscribe, 5), (activity.refund, 9), (activity.credit, 17),
                               (activity.pay_out, 13), (activity.dispute, 41)):  # fmt: skip
                if number % every == 0:
                    act()
    finally:
        account.is_quiet = False
        account.created = None
    account.settle_balance()
