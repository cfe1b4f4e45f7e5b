"""Words to other nodes: the first is sent at once, those that come a moment after it as one, and none is lost."""

import asyncio
from types import SimpleNamespace

from headwater.errors import StoreUnavailableError
from headwater.node import TOPICS
from headwater.stores.postgres.signals import SEND_PAUSE_SECONDS, Signals
from headwater.testing.clock import FakeClock, settle

TOPIC, OTHER = sorted(TOPICS)[:2]


class Heard:
    """A database that notes the words; `words` are the topics of each NOTIFY."""

    def __init__(self):
        self.words = []

    async def read(self, work):
        return await work(self)

    async def execute(self, sql, *given, **named):
        self.words.append(sql.decode().split("'")[1])
        return SimpleNamespace(rowcount=0)


def signalling(main):
    async def run():
        heard, clock = Heard(), FakeClock()
        await main(Signals(heard, clock), heard, clock)

    asyncio.run(run())


def test_the_first_word_is_sent_at_once_and_later_ones_together_after_a_pause():
    async def main(signals, heard, clock):
        signals.send(TOPIC)
        await settle()
        assert heard.words == [TOPIC]
        for _ in range(5):
            signals.send(TOPIC)
            await settle()
        assert heard.words == [TOPIC]
        await clock.advance(SEND_PAUSE_SECONDS)
        assert heard.words == [TOPIC, TOPIC]

    signalling(main)


def test_a_word_after_a_pause_does_not_wait():
    async def main(signals, heard, clock):
        for _ in range(3):
            signals.send(TOPIC)
            await settle()
            await clock.advance(SEND_PAUSE_SECONDS)
        signals.send(TOPIC)
        await settle()
        assert heard.words == [TOPIC] * 4

    signalling(main)


def test_another_topic_waits_for_no_pause():
    async def main(signals, heard, clock):
        for topic in (TOPIC, TOPIC, OTHER):
            signals.send(topic)
            await settle()
        assert heard.words == [TOPIC, OTHER]
        await clock.advance(SEND_PAUSE_SECONDS)
        assert heard.words == [TOPIC, OTHER, TOPIC]

    signalling(main)


def test_a_word_that_came_while_another_was_lost_is_sent_with_the_next():
    async def main(signals, heard, clock):
        async def lost(work):
            signals.send(OTHER)
            raise StoreUnavailableError("The database is away.")

        read, heard.read = heard.read, lost
        signals.send(TOPIC)
        await settle()
        heard.read = read
        signals.send(OTHER)
        await settle()
        assert heard.words == [OTHER]

    signalling(main)


def test_what_waits_for_the_pause_is_sent_before_the_end():
    async def main(signals, heard, clock):
        for _ in range(2):
            signals.send(TOPIC)
            await settle()
        await signals.close()
        assert heard.words == [TOPIC, TOPIC]

    signalling(main)
