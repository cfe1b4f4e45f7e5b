"""One HTTP request in, one answer out: the contract of a transport, and the real one on pooled sockets.

Redirects, retries and permissions by name are not its work. Judging addresses is: a name is resolved once, each of its
addresses is judged, and the socket is opened to no other (so a name that changes its mind afterwards gains nothing).
The library's exceptions end here.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Protocol

from headwater.errors import HandlerError, HeadwaterError, ProviderError, ResponseError
from headwater.permission import Reach, check_address, check_host

if TYPE_CHECKING:
    import aiohttp

CONNECT_SECONDS_MAX = 10.0
TOTAL_SECONDS_MAX = 60.0
BODY_BYTES_MAX = 64 * 1024 * 1024  # of an answer, after decompression
HEADER_BYTES_MAX = 32 * 1024  # of one header, or of the status line
SOCKETS_MAX = 256  # of one process, for each reach
SOCKET_IDLE_SECONDS = 30.0
DNS_SECONDS = 30  # how long a judged answer of the resolver is used again
READ_BUFFER_BYTES = 256 * 1024
INLINE_BYTES_MAX = 256 * 1024  # a compressed body beyond this is decompressed in a thread
ACCEPT_ENCODING = "gzip, deflate"

Resolve = Callable[[str, int], Awaitable[list[str]]]  # host, port → its addresses


class Headers(Mapping[str, str]):
    """Headers of an answer: names in any case, iterated in lower case; repeated ones are joined by a comma."""

    __slots__ = ("_values",)

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        values: dict[str, str] = {}
        for name, value in pairs:
            key = name.lower()
            values[key] = f"{values[key]}, {value}" if key in values else value
        self._values = values

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Headers({', '.join(self._values)})"


@dataclass(frozen=True, kw_only=True, slots=True)
class TransportRequest:
    """A request as it goes out. It may carry secrets anywhere, so its repr shows the method alone."""

    method: str
    url: str = field(repr=False)  # in normal form
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    reach: Reach = "public"
    total_seconds: float = TOTAL_SECONDS_MAX
    body_bytes_max: int = BODY_BYTES_MAX


@dataclass(frozen=True, kw_only=True, slots=True)
class TransportResponse:
    """An answer as it came in, decompressed."""

    status: int
    headers: Headers = field(default_factory=Headers, repr=False)
    body: bytes = field(default=b"", repr=False)


class Transport(Protocol):
    """Whatever answers requests: sockets, a cassette, a test's function."""

    async def __call__(self, request: TransportRequest) -> TransportResponse:
        """The answer, whatever its status; `ProviderError` when there was none."""
        ...


class PooledTransport:
    """The transport of one process: sockets are kept open and shared, cookies are not kept at all.

    Sockets are pooled apart by reach: one that was opened for a connector with private permissions must not serve
    another that has none. Opened with the first request, on the loop that makes it.
    """

    def __init__(self, *, resolve: Resolve | None = None) -> None:
        self._resolve = resolve or resolve_by_system
        self._sessions: dict[Reach, aiohttp.ClientSession] = {}
        self._closed = False

    async def __call__(self, request: TransportRequest) -> TransportResponse:
        """See `Transport`."""
        import aiohttp
        from aiohttp.http_exceptions import HttpProcessingError
        from yarl import URL

        url = URL(request.url, encoded=True)
        check_host(url.raw_host or "", request.reach)
        session = self._sessions.get(request.reach) or self._open(request.reach)
        try:
            async with session.request(
                request.method,
                url,
                headers=request.headers,
                data=request.body or None,
                allow_redirects=False,
                timeout=_timeout(request.total_seconds),
            ) as response:
                headers = Headers(response.headers.items())
                body = await _read(response, request.body_bytes_max)
                status = response.status
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError, TypeError) as error:
            # `from None`: the library's words may repeat the URL with what it carries.
            raise translate(error, host=url.raw_authority, seconds=request.total_seconds) from None
        if body and "content-encoding" in headers:
            body = await _decoded(body, headers["content-encoding"], request.body_bytes_max, status)
        return TransportResponse(status=status, headers=headers, body=body)

    @staticmethod
    def load() -> None:
        """Load the client library now, before there is work: a first request would stop the whole loop for it."""
        import aiohttp  # noqa: F401

    async def close(self) -> None:
        """Close every socket; a request after this is refused."""
        self._closed = True
        sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            await session.close()

    def _open(self, reach: Reach) -> aiohttp.ClientSession:
        import aiohttp

        if self._closed:
            raise ProviderError("The HTTP client is closed: the platform is stopping.")
        connector = aiohttp.TCPConnector(
            resolver=_resolver(self._resolve, reach),
            limit=SOCKETS_MAX,
            keepalive_timeout=SOCKET_IDLE_SECONDS,
            ttl_dns_cache=DNS_SECONDS,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            read_bufsize=READ_BUFFER_BYTES,
        )
        self._sessions[reach] = session
        return session


@lru_cache(maxsize=64)
def _timeout(seconds: float) -> aiohttp.ClientTimeout:
    import aiohttp

    return aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS_MAX)


async def resolve_by_system(host: str, port: int) -> list[str]:
    """The addresses of a host, as the machine's resolver knows them."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


def _resolver(resolve: Resolve, reach: Reach) -> Any:
    from aiohttp.abc import AbstractResolver, ResolveResult

    class JudgingResolver(AbstractResolver):
        async def resolve(
            self,
            host: str,
            port: int = 0,
            family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  the library's signature
        ) -> list[ResolveResult]:
            addresses = [ip_address(text.split("%", 1)[0]) for text in await resolve(host, port)]
            for address in addresses:
                check_address(address, reach, host=host)
            if not addresses:
                raise OSError(f"no address for {host}")
            return [
                ResolveResult(
                    hostname=host,
                    host=str(address),
                    port=port,
                    family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                    proto=0,
                    flags=socket.AI_NUMERICHOST,
                )
                for address in addresses
            ]

        async def close(self) -> None:
            return None

    return JudgingResolver()


async def _read(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """The whole body, given up as soon as it is over the limit."""
    announced = response.content_length
    if response.method == "HEAD":
        return b""
    if announced is not None:
        if announced > bytes_max:
            raise _too_large(response.status, bytes_max)
        return await response.read()
    chunks, size = [], 0
    while chunk := await response.content.readany():
        size += len(chunk)
        if size > bytes_max:
            raise _too_large(response.status, bytes_max)
        chunks.append(chunk)
    return b"".join(chunks)


async def _decoded(body: bytes, encoding: str, bytes_max: int, status: int) -> bytes:
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return body
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise ProviderError(f"The provider's answer is encoded in a way that was not asked for: {encoding[:40]!r}.")
    try:
        if len(body) > INLINE_BYTES_MAX:
            decoded = await asyncio.to_thread(decompress, body, bytes_max)
        else:
            decoded = decompress(body, bytes_max)
    except (zlib.error, EOFError):
        raise ProviderError("The provider's answer is compressed and damaged.") from None
    if decoded is None:
        raise _too_large(status, bytes_max)
    return decoded


def decompress(body: bytes, bytes_max: int) -> bytes | None:
    """The content of a gzip or deflate body, or None as soon as it is longer than `bytes_max`.

    No more than that is ever in memory, whatever the body claims to hold. `zlib.error` and `EOFError` for damage.
    """
    try:
        return _inflate(body, bytes_max, zlib.MAX_WBITS | 32)
    except zlib.error:
        # Some servers send "deflate" without the zlib frame that its definition asks for.
        return _inflate(body, bytes_max, -zlib.MAX_WBITS)


def _inflate(body: bytes, bytes_max: int, window_bits: int) -> bytes | None:
    parts, room = [], bytes_max
    while body:
        member = zlib.decompressobj(window_bits)
        part = member.decompress(body, room + 1)
        if len(part) > room:
            return None
        if not member.eof:
            raise EOFError
        parts.append(part)
        room -= len(part)
        body = member.unused_data
    return b"".join(parts)


def _too_large(status: int, bytes_max: int) -> ResponseError:
    return ResponseError(
        f"The provider's answer is larger than {bytes_max // 1024} KiB.", status=status, hint="Ask for smaller pages."
    )


def translate(error: Exception, *, host: str, seconds: float) -> HeadwaterError:
    """The library's exception as ours; its own words are left out, for they may hold the URL."""
    import aiohttp
    from aiohttp.http_exceptions import HttpProcessingError

    kind = type(error).__name__
    if isinstance(error, TimeoutError):
        return ProviderError(f"`{host}` did not answer within {seconds:g} s.", detail=kind)
    if isinstance(error, (aiohttp.ClientConnectorDNSError, socket.gaierror)):
        return ProviderError(f"The name `{host}` could not be resolved.", detail=kind)
    if isinstance(error, (ssl.SSLError, aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
        return ProviderError(
            f"`{host}` could not prove who it is (TLS).", hint="Is its certificate valid?", detail=kind
        )
    if isinstance(error, (aiohttp.ClientPayloadError, aiohttp.ClientResponseError, HttpProcessingError)):
        return ProviderError(f"`{host}` gave an answer that is broken or not HTTP.", detail=kind)
    if isinstance(error, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError, TypeError)):
        return HandlerError(f"The request to `{host}` cannot be sent as it is.", detail=kind)
    return ProviderError(f"`{host}` could not be reached, or hung up.", detail=kind)
