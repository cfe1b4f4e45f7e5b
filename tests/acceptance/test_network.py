"""A short form of the network faults: `make nightly-network` runs the long one."""

import asyncio
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "network"))

import proxy
import scenarios

SEEDS, ACCOUNTS = [1, 2, 3, 4], 2
SAID, ANSWERED = b"one two three", b"four five six"
LIMIT_SECONDS = 30


def test_whatever_the_network_does_records_equal_the_ledger_in_the_end(tmp_path):
    figures = asyncio.run(scenarios.programme(tmp_path, seeds=SEEDS, accounts=ACCOUNTS))
    assert figures.problems == []
    assert figures.scenarios == len(SEEDS)
    assert figures.acked > 0
    assert figures.polled > 0
    assert figures.records > 0
    assert figures.struck


async def _through(kind):
    """What a server heard on each connection, and what the client was answered, with one fault of the requests."""
    heard: list[bytes] = []
    ended = asyncio.Event()

    async def served(reader, writer):
        place = len(heard)
        heard.append(b"")
        try:
            while data := await reader.read(100):
                heard[place] += data
                if heard[place] == SAID:
                    writer.write(ANSWERED)
        except ConnectionResetError:
            pass
        finally:
            writer.close()
            ended.set()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    between = proxy.Proxy(server.sockets[0].getsockname()[1])
    between._fault = lambda: proxy.Fault(kind=kind, upward=True, after_bytes=4, seconds=0.01)
    await between.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", between.port)
    try:
        writer.write(SAID)
        try:
            answer = await reader.read(100)
        except ConnectionResetError:
            answer = b""
        await ended.wait() if not answer else None
    finally:
        writer.close()
        await between.stop()
        server.close()
    return heard, answer, between.struck


@pytest.mark.parametrize("kind", proxy.KINDS)
def test_a_fault_is_what_its_name_says(kind):
    heard, answer, struck = asyncio.run(asyncio.wait_for(_through(kind), LIMIT_SECONDS))
    assert struck == {kind: 1}
    if kind in ("reset", "half_close", "truncation"):
        assert answer == b""
        assert heard[0] in (b"", SAID[:4])
    else:
        assert answer == ANSWERED
        assert sorted(heard) == ([SAID, SAID] if kind == "duplicate" else [SAID])


def test_the_weather_of_a_seed_is_the_same_each_time():
    assert proxy.drawn(random.Random(3)) == proxy.drawn(random.Random(3))
    assert {kind for seed in range(20) for kind in proxy.drawn(random.Random(seed)).kinds} == set(proxy.KINDS)
