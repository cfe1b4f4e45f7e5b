"""The API of a server somewhere else, asked with a key that never stands on a command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import msgspec

from headwater.deploy import BundleRefusedError
from headwater.errors import ConflictError, HeadwaterError, NotFoundError, ProviderError, UsageError

KEY_VARIABLE = "HEADWATER_API_KEY"
KEY_CHARACTERS_MAX = 256
SECONDS_MAX = 180.0  # of a request: a check may wait for another one
ANSWER_BYTES_MAX = 16 * 1024 * 1024
_CHECK_FAILED = 422


class RemoteError(HeadwaterError):
    """The server refused."""

    code = "remote"


def read_key(*, from_stdin: bool) -> str:
    """The API key, from stdin or the environment; `UsageError` where there is none."""
    key = sys.stdin.readline(KEY_CHARACTERS_MAX + 1) if from_stdin else os.environ.get(KEY_VARIABLE, "")
    key = key.strip()
    if not key or len(key) > KEY_CHARACTERS_MAX or not key.isascii() or not key.isprintable():
        raise UsageError(
            "There is no usable API key.",
            hint=f"Put it into {KEY_VARIABLE}, or give it with --key-stdin; `headwater keys create` makes one.",
        )
    return key


class Remote:
    """One server; `ask` raises what it refuses as one of our errors."""

    def __init__(self, url: str, key: str) -> None:
        self._url = _base(url)
        self._key = key

    async def ask(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, value: Any = None, body: bytes = b""
    ) -> dict[str, Any]:
        """The JSON answer to a request with a JSON value, or with bytes as its body."""
        import aiohttp

        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/octet-stream"}
        if value is not None:
            headers["Content-Type"], body = "application/json", msgspec.json.encode(value)
        limit = aiohttp.ClientTimeout(total=SECONDS_MAX)
        try:
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.request(
                    method, f"{self._url}/api/v1{path}",
                    params=query, headers=headers, data=body, allow_redirects=False,
                ) as answer,
            ):  # fmt: skip
                data = await answer.content.read(ANSWER_BYTES_MAX)
                while (more := await answer.content.read(ANSWER_BYTES_MAX)) and len(data) <= ANSWER_BYTES_MAX:
                    data += more
                return _settled(answer.status, data, self._url)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ProviderError(
                f"{self._url} could not be reached.", hint=str(error) or "It gave no answer."
            ) from error


def _base(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f"`{url}` is no URL such as https://headwater.example.com.")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise UsageError("A key is not sent over a network in the clear.", hint="Use https.")
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _settled(status: int, data: bytes, url: str) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer = None
    if not isinstance(answer, dict):
        raise RemoteError(f"{url} answered {status}, and not as Headwater does.", hint="Is the URL right?")
    if 200 <= status < 300:
        return answer
    detail = str(answer.get("detail") or f"{url} answered {status}.")
    if status == _CHECK_FAILED:
        raise BundleRefusedError(detail, lines=[str(line) for line in answer.get("errors", ())])
    kinds: dict[int, type[HeadwaterError]] = {400: UsageError, 404: NotFoundError, 409: ConflictError}
    raise kinds.get(status, RemoteError)(detail)
