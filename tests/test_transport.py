"""The real transport, against servers on loopback: addresses, limits, compression, and every error of the library."""

import asyncio
import gzip
import random
import re
import ssl
import traceback
import zlib
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import client_exceptions, http_exceptions
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import ForbiddenHostError, HandlerError, HeadwaterError, ProviderError, ResponseError
from headwater.transport import PooledTransport, TransportRequest, decompress, translate


def gzipped(content):
    # Without the time of day: test ids are made of it, and workers must agree on them.
    return gzip.compress(content, mtime=0)


def response(body=b"", *headers, status="200 OK", length=True):
    lines = [f"HTTP/1.1 {status}".encode(), *(header.encode() for header in headers)]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@asynccontextmanager
async def serving(*answers):
    """A server that gives the raw answers in turn, one for each request; it keeps requests and counts connections."""
    server_requests, connections, waiting = [], [], list(answers)

    async def serve(reader, writer):
        connections.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                server_requests.append(head + await reader.readexactly(int(length[1]) if length else 0))
                given = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                if given is None:
                    break
                writer.write(given)
                await writer.drain()
                if b"Connection: close" in given:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.requests, server.connections = server_requests, connections
    server.port = server.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        server.close()
        for writer in connections:
            writer.close()


async def to_loopback(host, port):
    return ["127.0.0.1"]


def fetch(*answers, host="api.example", resolve=to_loopback, after=None, **fields):
    """What one request of a private reach is answered."""

    async def main():
        transport = PooledTransport(resolve=resolve)
        try:
            async with serving(*answers) as server:
                fields.setdefault("reach", "private")
                request = TransportRequest(
                    **({"method": "GET", "url": f"http://{host}:{server.port}/v1?a=%5B"} | fields)
                )
                answer = await transport(request)
                return after(answer, server) if after else answer
        finally:
            await transport.close()

    return asyncio.run(main())


def test_a_request_goes_out_as_it_is_and_its_answer_comes_back():
    answer, sent = fetch(
        response(b'{"a": 1}', "X-Page: 2", "Set-Cookie: a=b", status="404 Not Found"),
        method="POST",
        body=b"hello",
        headers={"X-Key": "k"},
        after=lambda answer, server: (answer, server.requests[0]),
    )
    assert (answer.status, answer.body, answer.headers["x-page"]) == (404, b'{"a": 1}', "2")
    assert sent.startswith(b"POST /v1?a=%5B HTTP/1.1\r\n")
    assert b"X-Key: k\r\n" in sent
    assert b"\r\nHost: api.example:" in sent
    assert sent.endswith(b"\r\n\r\nhello")


def test_sockets_are_kept_open_and_cookies_are_not_kept():
    async def main():
        transport = PooledTransport(resolve=to_loopback)
        async with serving(response(b"", "Set-Cookie: session=1")) as server:
            for _ in range(3):
                await transport(TransportRequest(method="GET", url=f"http://a.example:{server.port}/", reach="private"))
            await transport.close()
            return len(server.connections), server.requests

    connections, requests = asyncio.run(main())
    assert connections == 1
    assert not any(b"session" in request for request in requests)


def test_a_socket_of_a_wider_reach_serves_no_narrower_one():
    async def main():
        transport = PooledTransport(resolve=to_loopback)
        async with serving(response()) as server:
            url = f"http://a.example:{server.port}/"
            await transport(TransportRequest(method="GET", url=url, reach="private"))
            with pytest.raises(ForbiddenHostError):
                await transport(TransportRequest(method="GET", url=url, reach="public"))
            await transport(TransportRequest(method="GET", url=url, reach="loopback"))
            await transport.close()
            return len(server.connections)

    assert asyncio.run(main()) == 2


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::ffff:127.0.0.1"], ["fe80::1%eth0"]])
def test_a_name_is_judged_by_all_of_its_addresses(addresses):
    async def resolve(host, port):
        return addresses

    with pytest.raises(ForbiddenHostError, match=r"api\.example"):
        fetch(response(), resolve=resolve, reach="public")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "127.1", "169.254.169.254"])
def test_an_address_is_judged_without_being_resolved(host):
    async def resolve(host, port):
        raise AssertionError("nothing is to be resolved")

    with pytest.raises(ForbiddenHostError):
        fetch(response(), host=host, resolve=resolve, reach="public")


def test_a_name_is_resolved_once_and_the_socket_goes_to_the_judged_address():
    asked = []

    async def resolve(host, port):
        # A name that changes its mind: what is asked twice would be judged once and called once.
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["203.0.113.1"]

    assert fetch(response(b"ok"), resolve=resolve).body == b"ok"
    assert asked == ["api.example"]


def test_a_name_without_an_address_is_the_networks_fault():
    async def resolve(host, port):
        return []

    with pytest.raises(ProviderError, match="could not be resolved"):
        fetch(response(), resolve=resolve)


def test_the_systems_resolver_knows_localhost():
    async def main():
        transport = PooledTransport()
        async with serving(response(b"ok")) as server:
            url = f"http://localhost:{server.port}/"
            answer = await transport(TransportRequest(method="GET", url=url, reach="loopback"))
            await transport.close()
            return answer.body

    assert asyncio.run(main()) == b"ok"


def chunked(*chunks):
    parts = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + parts + b"0\r\n\r\n"


def test_a_chunked_body_is_put_together():
    assert fetch(chunked(b"one", b"two")).body == b"onetwo"


@pytest.mark.parametrize(
    "answer",
    [
        response(b"x" * 2000),
        chunked(b"x" * 800, b"x" * 800),
        response(gzipped(bytes(1_000_000)), "Content-Encoding: gzip"),
        chunked(gzipped(bytes(500_000))).replace(b"\r\nT", b"\r\nContent-Encoding: gzip\r\nT", 1),
        response(b"x" * 2000, "Connection: close", length=False),
    ],
    ids=["announced", "chunked", "bomb", "chunked bomb", "until the end"],
)
def test_a_body_over_the_limit_is_refused(answer):
    with pytest.raises(ResponseError, match="larger than 1 KiB"):
        fetch(answer, body_bytes_max=1024)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzipped(b"hello"), "gzip"), (gzipped(b"hello"), "X-GZIP"), (zlib.compress(b"hello"), "deflate"),
        (zlib.compress(b"hello")[2:-4], "deflate"), (gzipped(b"hel") + gzipped(b"lo"), "gzip"),
        (b"hello", "identity"), (gzipped(b"hello"), " gzip"),
    ],
)  # fmt: skip
def test_a_compressed_body_is_decompressed(body, encoding):
    assert fetch(response(body, f"Content-Encoding: {encoding}")).body == b"hello"


def test_a_large_compressed_body_is_decompressed_too():
    content = random.Random(1).randbytes(600_000)
    assert fetch(response(gzipped(content), "Content-Encoding: gzip")).body == content


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(gzipped(b"hello")[:-6], "gzip"), (b"not gzip", "gzip"), (b"x", "br"), (gzipped(b"x"), "gzip, gzip")],
)
def test_a_damaged_or_unknown_encoding_is_the_providers_fault(body, encoding):
    with pytest.raises(ProviderError):
        fetch(response(body, f"Content-Encoding: {encoding}"))


def test_members_of_a_body_share_one_limit():
    assert decompress(gzipped(bytes(60)) * 2, 120) == bytes(120)
    assert decompress(gzipped(bytes(60)) * 2, 119) is None


@given(st.binary(max_size=200), st.integers(1, 100))
def test_decompression_never_gives_more_than_the_limit(content, bytes_max):
    decoded = decompress(gzipped(content), bytes_max)
    assert decoded == (content if len(content) <= bytes_max else None)


def test_a_redirect_is_not_followed_here():
    answer, requests = fetch(
        response(b"", "Location: /elsewhere", status="302 Found"),
        after=lambda answer, server: (answer, len(server.requests)),
    )
    assert (answer.status, answer.headers["location"], requests) == (302, "/elsewhere", 1)


def test_an_answer_to_head_has_no_body():
    assert fetch(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Encoding: gzip\r\n\r\n", method="HEAD").body == b""


@pytest.mark.parametrize(
    "answer",
    [None, b"not http at all\r\n\r\n", response(b"", "X: " + "y" * 100_000),
     b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nshort",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n"],
    ids=["hangs up", "no http", "endless header", "short body", "broken chunks"],
)  # fmt: skip
def test_a_provider_that_breaks_off_is_an_error_to_retry(answer):
    with pytest.raises(ProviderError):
        fetch(answer)


def test_nobody_there_is_an_error_to_retry():
    async def main():
        async with serving(response()) as server:
            port = server.port
        transport = PooledTransport(resolve=to_loopback)
        try:
            await transport(TransportRequest(method="GET", url=f"http://a.example:{port}/", reach="private"))
        finally:
            await transport.close()

    with pytest.raises(ProviderError, match="could not be reached"):
        asyncio.run(main())


def test_plain_http_where_tls_was_asked_for_is_told_apart():
    async def plain(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async def main():
        transport = PooledTransport(resolve=to_loopback)
        server = await asyncio.start_server(plain, "127.0.0.1", 0)
        try:
            url = f"https://a.example:{server.sockets[0].getsockname()[1]}/"
            await transport(TransportRequest(method="GET", url=url, reach="private"))
        finally:
            await transport.close()
            server.close()

    with pytest.raises(ProviderError, match="TLS"):
        asyncio.run(main())


def test_silence_ends():
    with pytest.raises(ProviderError, match=r"did not answer within 0\.05 s"):
        fetch(b"", total_seconds=0.05)


def test_a_closed_transport_refuses():
    async def main():
        transport = PooledTransport()
        await transport.close()
        await transport(TransportRequest(method="GET", url="https://a.example/"))

    with pytest.raises(ProviderError, match="stopping"):
        asyncio.run(main())


SECRET = "hunter2hunter2"


def instance(kind):
    """One exception of the library, with a secret in whatever it keeps."""
    if issubclass(kind, http_exceptions.HttpProcessingError):
        error = kind.__new__(kind)
        Exception.__init__(error, SECRET)
        return error
    error = kind.__new__(kind)
    error.args = (SECRET,)
    return error


LIBRARY = sorted(
    {
        *(getattr(client_exceptions, name) for name in client_exceptions.__all__),
        *(one for one in vars(http_exceptions).values() if isinstance(one, type) and issubclass(one, Exception)),
    },
    key=lambda kind: kind.__name__,
)
CAUGHT = (aiohttp.ClientError, http_exceptions.HttpProcessingError, OSError, ValueError, TypeError)


@pytest.mark.parametrize("kind", LIBRARY, ids=lambda kind: kind.__name__)
def test_every_exception_of_the_library_is_caught_and_translated(kind):
    assert issubclass(kind, CAUGHT)
    translated = translate(instance(kind), host="api.example", seconds=3)
    assert isinstance(translated, HeadwaterError)
    assert "api.example" in str(translated)
    assert SECRET not in f"{translated} {translated.detail}"
    is_ours = "Url" in kind.__name__ or kind.__name__ in {"InvalidURL", "WSMessageTypeError"}
    assert isinstance(translated, HandlerError if is_ours else ProviderError)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "did not answer within"), (aiohttp.ServerTimeoutError(), "did not answer within"),
        (instance(aiohttp.ClientConnectorDNSError), "could not be resolved"), (ssl.SSLError(1, "x"), "TLS"),
        (ssl.SSLCertVerificationError(1, "x"), "TLS"), (aiohttp.ClientPayloadError(), "broken"),
        (ConnectionResetError(), "hung up"), (aiohttp.ServerDisconnectedError(), "hung up"),
        (ValueError("header"), "cannot be sent"),
    ],
)  # fmt: skip
def test_the_operator_is_told_which_kind_of_fault_it_was(error, words):
    assert words in str(translate(error, host="api.example", seconds=3))


def test_what_the_library_says_does_not_show_in_the_traceback():
    with pytest.raises(ProviderError) as caught:
        fetch(None, headers={"X": SECRET})
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__suppress_context__
