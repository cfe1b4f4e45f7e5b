"""Signature schemes by name: the shipped ones, and those that anybody adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headwater.errors import ConfigError, near_miss, with_hint
from headwater.signature import Scheme
from headwater.signatures.github import GitHubSignature
from headwater.signatures.hmac import HmacSha256
from headwater.signatures.shopify import ShopifyHmac
from headwater.signatures.slack import SlackSignature
from headwater.signatures.standard_webhooks import StandardWebhooks
from headwater.signatures.stripe import StripeSignature

_shipped: tuple[Scheme, ...] = (
    GitHubSignature(),
    HmacSha256(),
    ShopifyHmac(),
    SlackSignature(),
    StandardWebhooks(),
    StripeSignature(),
)
_schemes: dict[str, Scheme] = {scheme.name: scheme for scheme in _shipped}


def scheme(name: str) -> Scheme | None:
    """The scheme of that name."""
    return _schemes.get(name)


def names() -> Sequence[str]:
    """All names, sorted."""
    return sorted(_schemes)


def register(added: Scheme) -> None:
    """Add a scheme, for this process. The same one may be added again; `ConfigError` when another has its name."""
    known = _schemes.get(added.name)
    if known is not None and type(known) is not type(added):
        raise ConfigError(f"There is a signature scheme `{added.name}` already.", hint="Give yours another name.")
    _schemes[added.name] = added


def problems(name: str, options: Mapping[str, Any]) -> Sequence[str]:
    """What is wrong with a manifest's `auth` and its `options`, one sentence each; a scheme may check by `problems`."""
    known = scheme(name)
    if known is None:
        return [with_hint(f"There is no signature scheme `{name}`.", near_miss(name, names()))]
    check = getattr(known, "problems", None)
    return list(check(options)) if check else []


def signature_headers(known: Scheme, options: Mapping[str, Any]) -> frozenset[str]:
    """Lower-case names of the headers that carry signatures: the scheme's own, and the one that its options name."""
    named = options.get("header")
    return known.headers | {named.lower()} if isinstance(named, str) else known.headers
