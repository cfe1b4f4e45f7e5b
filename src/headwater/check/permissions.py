"""Permissions: what a URL pattern may be, and whether a URL of the code can fit one."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from headwater.check import code
from headwater.check.facts import DYNAMIC
from headwater.check.manifest import is_texts
from headwater.check.places import Places
from headwater.check.subject import Subject
from headwater.errors import near_miss
from headwater.permission import Pattern
from headwater.project import MANIFEST

_PATTERN: Final = re.compile(
    r"(?P<scheme>https?|\*)://(?P<host>[^/:\[\]\s]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}|\*))?(?:/\S*)?"
)
_SETTING: Final = re.compile(r"\{settings\.(?P<name>[^}]*)\}(?P<path>.*)", re.DOTALL)
_URL: Final = re.compile(
    rf"(?P<scheme>https?)://(?P<host>[A-Za-z0-9.{DYNAMIC}_-]+|\[[0-9A-Fa-f:.]+\])"
    rf"(?::(?P<port>[0-9{DYNAMIC}]+))?(?=[/?#{DYNAMIC}]|$)"
)


@dataclass(frozen=True, kw_only=True)
class Address:
    """The part of a URL, or of a pattern, that says who is called."""

    scheme: str
    host: str  # lower case; in a URL of the code, DYNAMIC stands for what only a run can know
    port: str


def check_permissions(subject: Subject, places: Places) -> None:
    """Note the permissions that are no URL patterns, or that can never be used."""
    assert subject.connector is not None, "the manifest was read"
    permissions = subject.connector.permissions
    for pattern in permissions.http if is_texts(permissions.http) else ():
        line = places.line("Permissions", "http", pattern)
        address = _address(_PATTERN.fullmatch(pattern))
        setting = _SETTING.fullmatch(pattern)
        if setting is not None:
            _check_setting(subject, line, pattern, setting["name"], setting["path"])
        elif address is None or not address.host.strip("*.") or Pattern.of(pattern) is None:
            hint = _pattern_hint(pattern)
            subject.found.add(code.PERMISSION_BAD, MANIFEST, line, f"`{pattern}` is no URL pattern.", hint)
        elif _is_private(address.host) and permissions.private is False:
            subject.found.add(
                code.PERMISSION_PRIVATE,
                MANIFEST,
                line,
                f"`{pattern}` is a private address.",
                "say Permissions(private=True) as well, if the provider is on the operator's own network.",
            )


def _check_setting(subject: Subject, line: int, pattern: str, name: str, path: str) -> None:
    plain = [one for one in subject.settings() if one not in subject.secrets()]
    schema = subject.settings().get(name)
    if name not in plain or not isinstance(schema, Mapping) or schema.get("type") != "string":
        subject.found.add(
            code.PERMISSION_BAD,
            MANIFEST,
            line,
            f"`{pattern}` names no plain string setting.",
            near_miss(name, plain) or f"declare the setting `{name}`.",
        )
    elif not path.startswith("/"):
        hint = f"write `{{settings.{name}}}/*`."
        subject.found.add(code.PERMISSION_BAD, MANIFEST, line, f"`{pattern}` has no path after its setting.", hint)


def patterns(subject: Subject) -> Sequence[str] | None:
    """The permitted URL patterns, settings at their defaults; None where the manifest has no usable list of them."""
    if subject.connector is None or "permissions" in subject.unusable:
        return None
    permissions = subject.connector.permissions
    defaults = {name: of.get("default") for name, of in subject.settings().items() if isinstance(of, Mapping)}
    return permissions.patterns(defaults) if is_texts(permissions.http) else None


def url_address(text: str) -> Address | None:
    """Whom a URL of the code calls; None where it is no absolute HTTP URL."""
    address = _address(_URL.match(text))
    if address is None or not re.search(rf"[A-Za-z0-9]{DYNAMIC}+\Z", address.host):
        return address
    # In f"{API}{path}" what follows the host is its path, as far as anybody can tell.
    return replace(address, host=address.host.rstrip(DYNAMIC))


def is_permitted(address: Address, permitted: Sequence[str]) -> bool:
    """Whether a URL to `address` can fit any pattern, whatever its unknown parts come to be."""
    return any(_fits(address, _address(_PATTERN.fullmatch(pattern))) for pattern in permitted)


def _fits(address: Address, pattern: Address | None) -> bool:
    if pattern is None or pattern.scheme not in (address.scheme, "*"):
        return False
    return _may_equal(address.host, pattern.host) and _may_equal(address.port, pattern.port)


def _may_equal(text: str, pattern: str) -> bool:
    """Whether a text with unknown parts and a pattern with wildcards have a value in common."""
    reachable = {0}
    for sign in text:
        if sign == DYNAMIC:
            reachable = set(range(min(reachable), len(pattern) + 1)) if reachable else reachable
            continue
        following = set()
        for at in _past_wildcards(reachable, pattern):
            if at < len(pattern) and pattern[at] in (sign, "*"):
                following.add(at if pattern[at] == "*" else at + 1)
        reachable = following
    return len(pattern) in _past_wildcards(reachable, pattern)


def _past_wildcards(places: set[int], pattern: str) -> set[int]:
    reachable = set(places)
    for at in sorted(places):
        step = at
        while step < len(pattern) and pattern[step] == "*":
            step += 1
            reachable.add(step)
    return reachable


def _address(match: re.Match[str] | None) -> Address | None:
    if match is None:
        return None
    port = match["port"] or ("80" if match["scheme"] == "http" else "443")
    return Address(scheme=match["scheme"], host=match["host"].lower(), port=port)


def _is_private(host: str) -> bool:
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        return not ipaddress.ip_address(host.strip("[]")).is_global
    except ValueError:
        return False


def _pattern_hint(pattern: str) -> str:
    if "://" not in pattern and _PATTERN.fullmatch(f"https://{pattern}"):
        return f"did you mean `https://{pattern}`?"
    return "write scheme, host and path, such as `https://api.example.com/*`."
