"""What a connector may call: the hosts of its manifest, and which kinds of address those hosts may turn out to be.

A host is judged twice: by name here before a request leaves, and by address in the transport, where the name has been
resolved once and the socket is opened to nothing but the addresses that were judged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote

from headwater.errors import ForbiddenHostError, HandlerError, near_miss

if TYPE_CHECKING:
    from yarl import URL

Reach = Literal["public", "loopback", "private"]  # how far into the operator's own network a request may go

URL_CHARACTERS_MAX = 16 * 1024
TARGETS_KEPT = 256  # judgements that are remembered
PORTS = {"http": 80, "https": 443}
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_PATTERN = re.compile(r"(https?|\*)://(\[[0-9a-fA-F:.]+\]|[^/:\[\]]+)(?::(\d+|\*))?(/.*)?", re.DOTALL)
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|\d+")


def parse(url: str) -> URL:
    """An absolute http(s) URL in normal form, without its fragment; `HandlerError` says what is wrong with it.

    It is the parser that the transport uses too: what was judged is what is called.
    """
    from yarl import URL

    if len(url) > URL_CHARACTERS_MAX:
        raise _unusable(f"it is longer than {URL_CHARACTERS_MAX} characters")
    try:
        parsed = URL(url)
        if parsed.raw_fragment:
            parsed = parsed.with_fragment(None)
        _ = parsed.raw_host, parsed.port  # read at the first look, which may raise
    except (ValueError, TypeError, IndexError) as error:
        raise _unusable("it cannot be parsed") from error
    if parsed.scheme not in PORTS or not parsed.raw_host:
        raise _unusable("it does not begin with https://host or http://host")
    if parsed.raw_user is not None or parsed.raw_password is not None:
        raise _unusable("it holds credentials; send them in a header")
    if ".." in unquote(parsed.raw_path).replace("\\", "/").split("/"):
        raise _unusable("its path climbs with `..`")
    return parsed


def _unusable(reason: str) -> HandlerError:
    # The URL itself may hold a secret, so it is not repeated.
    return HandlerError(f"The URL of a request is not usable: {reason}.")


@dataclass(frozen=True)
class Pattern:
    """One permitted URL: scheme, host, port and path, with `*` for any run of characters within host or path."""

    text: str
    expression: re.Pattern[str] = field(repr=False)

    @classmethod
    def of(cls, text: str) -> Pattern | None:
        """The pattern of a manifest's words, or None where they make none."""
        match = _PATTERN.fullmatch(text)
        if match is None:
            return None
        scheme, host, port, path = match.groups()
        schemes = "https?" if scheme == "*" else scheme
        ports = r"\d+" if port == "*" else port or str(PORTS.get(scheme, PORTS["https"]))
        hosts = _expression(host.lower(), "[^/:]*")
        return cls(text, re.compile(f"{schemes}://{hosts}:{ports}{_expression(path or '/*', '.*')}", re.DOTALL))


def _expression(words: str, star: str) -> str:
    return star.join(re.escape(part) for part in words.split("*"))


class AllowList:
    """The URLs that a connection may call; nothing is allowed but what a pattern names."""

    def __init__(self, patterns: Sequence[str], *, loopback: Sequence[str] = (), private: bool = False) -> None:
        self._texts = tuple(patterns)
        self._patterns = _compiled(patterns)
        self._loopback = _compiled(loopback)
        self._private = private
        self._judge = lru_cache(maxsize=TARGETS_KEPT)(self._judged)  # a poll asks the same path page after page

    def reach(self, url: URL) -> Reach:
        """How far a request to `url` may go; `ForbiddenHostError` with the near miss when it may not be made at all."""
        found = self._judge(f"{url.scheme}://{_bracketed(url.raw_host or '')}:{url.port}{url.raw_path}")
        if found is None:
            raise self._refusal(url)
        return found

    def _judged(self, target: str) -> Reach | None:
        if not any(pattern.expression.fullmatch(target) for pattern in self._patterns):
            return None
        if self._private:
            return "private"
        return "loopback" if any(pattern.expression.fullmatch(target) for pattern in self._loopback) else "public"

    def _refusal(self, url: URL) -> ForbiddenHostError:
        origin = f"{url.scheme}://{url.raw_authority}"
        close = near_miss(f"{origin}/*", self._texts)
        return ForbiddenHostError(
            f"The connector may not call `{origin}{url.raw_path}`: no pattern of its `permissions.http` names it"
            + (f"; {close}" if close else "."),
            hint=f"Add `{origin}/*` to `permissions.http` in the manifest if it should.",
        )


def _compiled(patterns: Sequence[str]) -> list[Pattern]:
    return [pattern for pattern in map(Pattern.of, patterns) if pattern is not None]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def is_loopback_name(host: str) -> bool:
    """Whether a host name or address can only be this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=TARGETS_KEPT)
def check_host(host: str, reach: Reach) -> None:
    """Refuse a host that is an address out of `reach`, or an address in disguise; a name passes, to be resolved.

    Resolvers take `127.1`, `0x7f.1` and `2130706433` for addresses; here they are nothing.
    """
    try:
        address = ip_address(host.split("%", 1)[0])
    except ValueError:
        if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
            raise ForbiddenHostError(
                f"`{host}` is neither a name nor an address in its usual form.",
                hint="Write an IPv4 address as four decimal numbers.",
            ) from None
    else:
        check_address(address, reach, host=host)


def check_address(address: IPv4Address | IPv6Address, reach: Reach, *, host: str) -> None:
    """Refuse an address out of `reach`; link-local ones (a cloud's metadata service) are out of every reach."""
    for inner in _meanings(address):
        kind = _kind(inner)
        if kind == "public" or (reach == "private" and kind != "special") or (reach == kind == "loopback"):
            continue
        raise ForbiddenHostError(
            f"`{host}` is the {kind} address {address}, which a connector may not call.",
            hint="" if kind == "special" else "Set `permissions.private` in the manifest if it should.",
        )


def _meanings(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """The address and every IPv4 address that it carries inside."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    inner: list[IPv4Address | IPv6Address | None] = [address, address.sixtofour]
    inner += address.teredo or ()
    if address in _NAT64:
        inner = [IPv4Address(int(address) & 0xFFFFFFFF)]
    return [one for one in inner if one is not None]


def _kind(address: IPv4Address | IPv6Address) -> Literal["public", "loopback", "private", "special"]:
    if address.is_loopback:
        return "loopback"
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return "special"
    if address.is_reserved and not address.is_global:
        return "special"
    return "public" if address.is_global else "private"
