"""The generic scheme: an HMAC-SHA256 of the body in a header, described by the manifest's `options`.

Webhooks(endpoint="/webhooks/acme", auth="hmac_sha256",
         options={"header": "X-Acme-Signature", "timestamp_header": "X-Acme-Time", "signed": "{timestamp}.{body}"})
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from headwater.errors import ConfigError, SignatureError
from headwater.signature import SignedRequest, Verified
from headwater.signatures import identity, proof

ENCODINGS = {"hex": proof.hex_digest, "base64": proof.base64_digest}
OPTIONS = frozenset(
    {
        "header",  # the signature's header; the only one required
        "encoding",  # hex (lower case), the default, or base64
        "prefix",  # what stands before the signature, such as `sha256=`
        "signed",  # what is signed: text with {body}, {timestamp}, {id}; `{body}` by default
        "timestamp_header",  # whole seconds since 1970; must be signed
        "tolerance_seconds",  # of that timestamp, on either side
        "id_header",  # the delivery's id; without it the body's hash serves
        "event_header",  # the event's type
    }
)
_TEXTS = OPTIONS - {"tolerance_seconds"}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PLACEHOLDER = re.compile(r"(\{[^{}]*\})")
_PLACEHOLDERS = ("{body}", "{timestamp}", "{id}")


@dataclass(frozen=True, kw_only=True)
class _Shape:
    header: str
    encoding: str
    prefix: str
    signed: tuple[str, ...]  # literals and placeholders, in order
    timestamp_header: str
    id_header: str
    event_header: str


class HmacSha256:
    """HMAC-SHA256 of what `signed` says, in the header that `header` names."""

    name = "hmac_sha256"
    headers: frozenset[str] = frozenset()  # the options name it

    def verify(self, request: SignedRequest, secrets: Sequence[str], options: Mapping[str, Any]) -> Verified:
        """See `Scheme`."""
        keys = proof.text_keys(secrets)
        shape = _shape(options)
        if shape is None:
            raise SignatureError("The options of hmac_sha256 are not usable.", hint="Run `headwater check`.")
        given = proof.required(request, shape.header)
        if not given.startswith(shape.prefix):
            raise SignatureError(f"The header {shape.header} does not begin with `{shape.prefix}`.")
        values = {"{body}": request.body}
        if shape.timestamp_header:
            timestamp = proof.required(request, shape.timestamp_header)
            proof.check_timestamp(timestamp, request.received_at, proof.tolerance(options))
            values["{timestamp}"] = timestamp.encode()
        delivery_id = identity.from_header(request, shape.id_header) if shape.id_header else None
        if "{id}" in shape.signed:
            values["{id}"] = _signed_id(shape, delivery_id)
        parts = [values[part] if part in values else part.encode() for part in shape.signed]
        proof.prove([given.removeprefix(shape.prefix)], keys, parts, ENCODINGS[shape.encoding])
        event_type = identity.from_header(request, shape.event_header) if shape.event_header else None
        return Verified(provider_id=delivery_id, event_type=event_type)

    def sign(
        self, body: bytes, secret: str, *, at: datetime, provider_id: str, options: Mapping[str, Any]
    ) -> dict[str, str]:
        """See `Scheme`; `ConfigError` for options that describe no signature."""
        shape = _shape(options)
        if shape is None:
            raise ConfigError(f"The options of hmac_sha256 are not usable: {' '.join(self.problems(options))}")
        timestamp = str(int(at.timestamp()))
        values = {"{body}": body, "{timestamp}": timestamp.encode(), "{id}": provider_id.encode()}
        parts = [values[part] if part in values else part.encode() for part in shape.signed]
        signature = proof.digest_of(secret.encode(), parts, ENCODINGS[shape.encoding]).decode()
        headers = {shape.header: shape.prefix + signature}
        if shape.timestamp_header:
            headers[shape.timestamp_header] = timestamp
        if shape.id_header:
            headers[shape.id_header] = provider_id
        return headers

    def problems(self, options: Mapping[str, Any]) -> Sequence[str]:
        """What is wrong with the options of a manifest, one sentence each."""
        problems = proof.option_problems(options, OPTIONS)
        not_text = [name for name in sorted(_TEXTS & set(options)) if not isinstance(options[name], str)]
        if not_text:
            return [*problems, *(f"The option `{name}` must be a text." for name in not_text)]
        names = [name for name in ("header", "timestamp_header", "id_header", "event_header") if name in options]
        problems += [
            f"The option `{name}` is no name of a header."
            for name in names
            if not _HEADER_NAME.fullmatch(options[name])
        ]
        if "header" not in options:
            problems.append("The option `header` is missing: the header that carries the signature.")
        if options.get("encoding", "hex") not in ENCODINGS:
            problems.append("The option `encoding` must be hex or base64.")
        if not options.get("prefix", "").isascii():
            problems.append("The option `prefix` must be ASCII.")
        return problems + _template_problems(options)


def _template_problems(options: Mapping[str, str]) -> list[str]:
    parts = _split(options.get("signed", "{body}"))
    problems = [
        f"The option `signed` knows no {part}; it may hold {', '.join(_PLACEHOLDERS)}."
        for part in parts
        if _PLACEHOLDER.fullmatch(part) and part not in _PLACEHOLDERS
    ]
    problems += [f"The option `signed` holds {name} more than once." for name in _PLACEHOLDERS if parts.count(name) > 1]
    if "{body}" not in parts:
        problems.append("The option `signed` must hold {body}.")
    if ("{timestamp}" in parts) != bool(options.get("timestamp_header")):
        problems.append(
            "`timestamp_header` and {timestamp} in `signed` need each other: an unsigned time proves nothing."
        )
    if "{id}" in parts:
        if not options.get("id_header"):
            problems.append("{id} in `signed` needs `id_header`.")
        if not _literal_after_id(parts) and parts[-1] != "{id}":
            problems.append("{id} in `signed` needs a separator after it.")
    return problems


def _shape(options: Mapping[str, Any]) -> _Shape | None:
    try:
        return _compiled(tuple(sorted(options.items())))
    except TypeError:  # an unhashable value is no usable option
        return None


@lru_cache(maxsize=256)
def _compiled(items: tuple[tuple[str, Any], ...]) -> _Shape | None:
    options = dict(items)
    if HmacSha256().problems(options):
        return None
    return _Shape(
        header=options["header"],
        encoding=options.get("encoding", "hex"),
        prefix=options.get("prefix", ""),
        signed=_split(options.get("signed", "{body}")),
        timestamp_header=options.get("timestamp_header", ""),
        id_header=options.get("id_header", ""),
        event_header=options.get("event_header", ""),
    )


def _split(template: str) -> tuple[str, ...]:
    return tuple(part for part in _PLACEHOLDER.split(template) if part)


def _literal_after_id(parts: Sequence[str]) -> str:
    following = parts[parts.index("{id}") + 1 :][:1]
    return following[0] if following and following[0] not in _PLACEHOLDERS else ""


def _signed_id(shape: _Shape, delivery_id: str | None) -> bytes:
    # With its separator inside, bytes could move between the id and what follows it under one signature.
    separator = _literal_after_id(shape.signed)
    if delivery_id is None or (separator and separator in delivery_id):
        raise SignatureError(f"The header {shape.id_header} is not usable as an id.")
    return delivery_id.encode()
