"""What the HMAC schemes share: usable keys, comparison in constant time on bytes, strict timestamps.

Everything that a request can get wrong is a `SignatureError` whose message holds nothing of the request: the operator's
list of refusals stays short whatever is sent.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from headwater.errors import SignatureError, near_miss, with_hint
from headwater.signature import TOLERANCE_SECONDS, SignedRequest

SIGNATURES_MAX = 32  # in one header
KEYS_CACHED = 4096

Digest = Callable[[hmac.HMAC], bytes]

_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_NO_SECRET = "This connection has no usable signing secret."  # noqa: S105  a message
_NO_MATCH = "No signature matches a signing secret of this connection."


def text_keys(secrets: Sequence[str]) -> list[bytes]:
    """The secrets as UTF-8; blank ones prove nothing and are left out, and without any other it is an error."""
    keys = [secret.encode() for secret in secrets if secret.strip()]
    if not keys:
        raise SignatureError(_NO_SECRET, hint="Set the signing secret in the connection's settings.")
    return keys


def required(request: SignedRequest, name: str) -> str:
    """The one value of a header that must be there."""
    value = request.header(name)
    if not value:
        raise SignatureError(f"The header {name} is missing.")
    return value


def hex_digest(mac: hmac.HMAC) -> bytes:
    """The digest as lower-case hexadecimal text."""
    return mac.hexdigest().encode()


def base64_digest(mac: hmac.HMAC) -> bytes:
    """The digest as padded base64 text."""
    import binascii

    return binascii.b2a_base64(mac.digest(), newline=False)


def digest_of(key: bytes, parts: Iterable[bytes], digest: Digest) -> bytes:
    """The HMAC-SHA256 of the joined parts, as text."""
    mac = _keyed(key).copy()
    mac.update(b"".join(parts))
    return digest(mac)


def prove(given: Sequence[str], keys: Sequence[bytes], parts: Sequence[bytes], digest: Digest) -> None:
    """Return if one of the given texts is the digest by one of the keys.

    Texts are compared, not what they decode to, so that a signature has exactly one spelling. Every pair is compared:
    the time tells neither which key matched nor which signature.
    """
    if not is_proved(given, keys, parts, digest):
        raise SignatureError(_NO_MATCH)


def is_proved(given: Sequence[str], keys: Sequence[bytes], parts: Sequence[bytes], digest: Digest) -> bool:
    """As `prove`, for a scheme that has another way of proving besides."""
    if len(given) > SIGNATURES_MAX:
        raise SignatureError("The request carries too many signatures.")
    candidates = [text.encode() for text in given]
    proved = False
    for key in keys:
        expected = digest_of(key, parts, digest)
        for candidate in candidates:
            proved |= hmac.compare_digest(expected, candidate)
    return proved


def check_timestamp(text: str, received_at: datetime, tolerance_seconds: float) -> None:
    """Return if `text` is whole seconds since 1970, within the tolerance of `received_at` on either side."""
    if _TIMESTAMP.fullmatch(text) is None:
        raise SignatureError("The timestamp is not a whole number of seconds.")
    if abs(received_at.timestamp() - int(text)) > tolerance_seconds:
        raise SignatureError(f"The timestamp is more than {tolerance_seconds:g} s from the time of arrival.")


def tolerance(options: Mapping[str, Any]) -> float:
    """The option `tolerance_seconds`, or the default; anything but a positive number refuses every delivery."""
    seconds = options.get("tolerance_seconds", TOLERANCE_SECONDS)
    if problem := _tolerance_problem(seconds):
        raise SignatureError(problem)
    return float(seconds)


def option_problems(options: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    """What is wrong with the names of a scheme's options and with `tolerance_seconds`, one sentence each."""
    names = sorted(known)
    problems = [
        with_hint(f"There is no option `{name}`.", near_miss(name, names)) for name in options if name not in names
    ]
    if "tolerance_seconds" in options and (problem := _tolerance_problem(options["tolerance_seconds"])):
        problems.append(problem)
    return problems


def _tolerance_problem(seconds: object) -> str:
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 < seconds < float("inf"):
        return ""
    return "The option `tolerance_seconds` must be a positive number."


@lru_cache(maxsize=KEYS_CACHED)
def _keyed(key: bytes) -> hmac.HMAC:
    # Copying a keyed object spares hashing the key's two blocks for every delivery.
    return hmac.new(key, digestmod="sha256")
