"""A small Stripe account for `headwater test`: a past, a day with its events, and more life while it is read."""

from datetime import UTC, datetime, timedelta

import msgspec

from headwater.clock import Clock
from headwater.testing.answering import Provider, SentEvent, answering
from headwater.testing.provider import API_KEY, FakeStripe, seed_account

SEED = 3
CUSTOMERS = 40
ACTS = 25
ACT_SECONDS = 30
SECRETS = {"api_key": API_KEY, "webhook_secret": "whsec_of-the-tests"}


class ToldClock(Clock):
    """A clock that goes as it is told, and never back."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self._now

    def go_to(self, instant: datetime) -> None:
        self._now = max(self._now, instant)


def provider() -> Provider:
    """The account, with what it told of by webhook; something happens in it at each `shift`."""
    clock = ToldClock()
    fake = FakeStripe(SEED, clock)
    seed_account(fake, customers=CUSTOMERS)
    told: list[bytes] = []
    fake.ledger.listeners.append(lambda event: told.append(msgspec.json.encode(event)))
    for _ in range(ACTS):
        clock.go_to(clock.now() + timedelta(seconds=ACT_SECONDS))
        fake.activity.step()
    fake.ledger.listeners.clear()
    clock.go_to(clock.now() + timedelta(hours=1))
    return Provider(
        transport=answering(fake),
        secrets=SECRETS,
        events=[SentEvent(body=body) for body in told],
        at=clock.now(),
        shift=fake.activity.step,
        tell_time=clock.go_to,
    )
