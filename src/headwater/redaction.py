"""No secret leaves by a side door: logs, errors, URLs and cassettes pass through here.

A secret is found as it is, and as it looks after the encodings that HTTP work puts it through: percent-encoding, JSON
escapes, base64 (alone or inside a longer value, such as Basic credentials) and hexadecimal.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache

MARK = "***"
WHOLE_WORD_CHARACTERS = 6  # a shorter secret is replaced only where it stands alone, or it would eat ordinary words
BASE64_BYTES_MIN = 6  # likewise: fewer bytes are too few characters of base64 to be told from chance

_SENSITIVE_NAME = re.compile(
    r"(^|[_\-.\[])(api[_\-]?key|apikey|key|token|secret|password|passwd|pwd|signature|sig|auth|authorization|credentials?"
    r"|assertion|code|jwt|session)($|[\]])|(token|secret|password|api[_\-]?key|authorization)$",
    re.IGNORECASE,
)
_SENSITIVE_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "www-authenticate"})
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_CONTROL |= {9: "\\t", 10: "\\n", 13: "\\r", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def redact(text: str, secrets: Collection[str]) -> str:
    """`text` with every one of `secrets`, in any of its forms, replaced by `***`."""
    return Redactor(secrets).text(text) if secrets else text


def one_line(text: str) -> str:
    """`text` with line breaks and control characters escaped: what it holds cannot pass for a log line of its own."""
    return text if text.isascii() and text.isprintable() else text.translate(_CONTROL)


@lru_cache(maxsize=1024)
def is_sensitive_name(name: str) -> bool:
    """A parameter or header of this name is taken for a secret, whatever its value."""
    return name.lower() in _SENSITIVE_HEADERS or _SENSITIVE_NAME.search(name) is not None


class Redactor:
    """The secrets of one connection, ready to be found quickly; it shows none of them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = {secret for secret in secrets if secret}
        patterns: set[str] = set()
        for secret in known:
            patterns |= _patterns(secret)
        # Longest first: of two forms that begin alike, the longer one must win.
        alternatives = sorted(patterns, key=lambda pattern: (-len(pattern), pattern))
        self._expression = re.compile("|".join(alternatives)) if alternatives else None
        self.secrets = frozenset(known)

    def __repr__(self) -> str:
        return f"Redactor({len(self.secrets)} secrets)"

    def text(self, text: str) -> str:
        """`text` without the secrets."""
        return self._expression.sub(MARK, text) if self._expression is not None else text

    def line(self, text: str) -> str:
        """`text` without the secrets, on one line."""
        return one_line(self.text(text))

    def url(self, url: str) -> str:
        """`url` without the secrets, without credentials, and without the values of parameters that sound like one."""
        head, mark, query = url.partition("?")
        if "@" in head:
            head = re.sub(r"(?<=://)[^/@]*@", "", head)
        if mark:
            query = "&".join(map(_redacted_pair, query.split("&")))
        return self.line(head + mark + query)

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """`headers` without the secrets and without the values of those that carry credentials."""
        return {
            name: MARK if is_sensitive_name(name) else self.line(value)
            for name, value in headers.items()
        }  # fmt: skip

    def holds_secret(self, text: str) -> bool:
        """Whether a secret is in `text`, in any of its forms."""
        return self._expression is not None and self._expression.search(text) is not None


class RedactingFilter(logging.Filter):
    """Put on a handler: each record that passes is one line, without the secrets known at that moment."""

    def __init__(self, redactor: Callable[[], Redactor]) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact in place; every record passes."""
        redactor = self._redactor()
        record.msg = redactor.line(_message(record))
        record.args = ()
        if record.exc_info and not record.exc_text:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        if record.exc_text:
            record.exc_text = redactor.text(record.exc_text)
        if record.stack_info:
            record.stack_info = redactor.text(record.stack_info)
        return True


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        # A log line whose words do not fit its arguments is still a log line.
        return f"{record.msg} {record.args!r}"


def _redacted_pair(pair: str) -> str:
    name, mark, _ = pair.partition("=")
    return f"{name}={MARK}" if mark and is_sensitive_name(name) else pair


def _patterns(secret: str) -> set[str]:
    """Expressions for the forms of one secret."""
    raw = secret.encode("utf-8", "surrogatepass")
    forms = {
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        one_line(secret),
    }
    if len(raw) >= BASE64_BYTES_MIN:
        forms |= _base64_forms(raw) | {raw.hex()}
    patterns = {re.escape(form) for form in forms} | {"".join(map(_plain_or_percent, secret))}
    if len(secret) < WHOLE_WORD_CHARACTERS:
        return {rf"(?<!\w){pattern}(?!\w)" for pattern in patterns}
    return patterns


def _plain_or_percent(character: str) -> str:
    """The expression of a character, as it is or percent-encoded, whatever the encoder left alone."""
    plain = re.escape(character)
    if character in _UNRESERVED:
        return plain
    encoded = "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
    return f"(?:{plain}|(?i:{encoded}){'|[+]' if character == ' ' else ''})"


def _base64_forms(raw: bytes) -> set[str]:
    """What any base64 that carries `raw` must contain, at each of the three places where it can begin."""
    forms = set()
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + raw)
        # Characters that mix with the neighbouring bytes, at either end, differ from text to text.
        start = (0, 2, 3)[offset]
        whole = (offset + len(raw)) * 8 // 6
        core = encoded[start:whole].decode()
        forms |= {core, core.translate(str.maketrans("+/", "-_"))}
    return forms
