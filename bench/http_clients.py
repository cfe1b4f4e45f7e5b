"""Measure HTTP clients on what bounds a poll: pages of 100 records, fetched one after the other by cursor and parsed.

    python bench/http_clients.py http://127.0.0.1:9931 --rounds 5

The server is `bench/provider.py`, or any that answers `GET /v1/customers` as Stripe does. Every client is run
`--rounds` times, in turn, so that a busy moment of the machine falls on all of them; the medians are printed.
`headwater` is the project's own client: the transport alone, then with everything that it adds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import uvloop

Get = Callable[[str], Awaitable[bytes]]


class Customer(msgspec.Struct, gc=False):
    """As little of a record as paging needs, and one field more."""

    id: str
    email: str | None = None


class CustomerPage(msgspec.Struct, gc=False):
    """A page of Stripe's list."""

    data: list[Customer]
    has_more: bool


@asynccontextmanager
async def aiohttp_client() -> AsyncIterator[Get]:
    import aiohttp

    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def get(url: str) -> bytes:
            async with session.get(url) as response:
                return await response.read()

        yield get


@asynccontextmanager
async def httpx2_client() -> AsyncIterator[Get]:
    import httpx2

    async with httpx2.AsyncClient() as client:

        async def get(url: str) -> bytes:
            return (await client.get(url)).content

        yield get


@asynccontextmanager
async def pyreqwest_client() -> AsyncIterator[Get]:
    from pyreqwest.client import ClientBuilder

    async with ClientBuilder().build() as client:

        async def get(url: str) -> bytes:
            response = await client.get(url).build().send()
            return (await response.bytes()).to_bytes()

        yield get


@asynccontextmanager
async def headwater_transport() -> AsyncIterator[Get]:
    from headwater.transport import PooledTransport, TransportRequest

    transport = PooledTransport()

    async def get(url: str) -> bytes:
        return (await transport(TransportRequest(method="GET", url=url, reach="private"))).body

    try:
        yield get
    finally:
        await transport.close()


@asynccontextmanager
async def headwater_client() -> AsyncIterator[Get]:
    from headwater.client import HttpClient
    from headwater.clock import SystemClock
    from headwater.permission import AllowList
    from headwater.quota import Quota
    from headwater.redaction import Redactor
    from headwater.transport import PooledTransport

    clock, transport = SystemClock(), PooledTransport()
    client = HttpClient(
        transport=transport,
        clock=clock,
        allowed=AllowList(["http://127.0.0.1:*/*"], private=True),
        quota=Quota(clock),
        redactor=Redactor(["sk_test_of_the_bench"]),
    )

    async def get(url: str) -> bytes:
        return (await client.request("GET", url)).body

    try:
        yield get
    finally:
        await transport.close()


CLIENTS = {
    "aiohttp": aiohttp_client,
    "httpx2": httpx2_client,
    "pyreqwest": pyreqwest_client,
    "headwater, transport": headwater_transport,
    "headwater": headwater_client,
}


async def every_page(get: Get, base: str) -> tuple[int, int]:
    """Fetch the whole list; tell the records and the requests."""
    decode = msgspec.json.Decoder(CustomerPage).decode
    cursor, records, requests = "", 0, 0
    while True:
        after = f"&starting_after={cursor}" if cursor else ""
        page = decode(await get(f"{base}/v1/customers?limit=100{after}"))
        records += len(page.data)
        requests += 1
        if not page.has_more:
            return records, requests
        cursor = page.data[-1].id


async def measure(name: str, base: str) -> dict[str, float]:
    async with CLIENTS[name]() as get:
        await get(f"{base}/v1/customers?limit=100")
        started, cpu = time.perf_counter(), _cpu_seconds()
        records, requests = await every_page(get, base)
        seconds, cpu = time.perf_counter() - started, _cpu_seconds() - cpu
    return {
        "records_per_second": records / seconds,
        "request_us": seconds / requests * 1e6,
        "cpu_us": cpu / requests * 1e6,
    }


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", choices=sorted(CLIENTS))
    options = parser.parse_args()
    names = [name for name in options.only or CLIENTS if name.startswith("headwater") or importlib.util.find_spec(name)]
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            rounds[name].append(uvloop.run(measure(name, options.base)))
    for name, results in rounds.items():
        medians = {key: round(statistics.median(result[key] for result in results)) for key in results[0]}
        print(json.dumps({"client": name, **medians}))


if __name__ == "__main__":
    main()
