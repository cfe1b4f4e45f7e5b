"""What an exception of a route or a commit means for the work that met it: what happens next, and what is told to whom.

The operator's message is one sentence without secrets; the detail is for the connector's author.
"""

from __future__ import annotations

import traceback as tracebacks
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

from headwater.errors import (
    HandlerError,
    HeadwaterError,
    InvalidPayloadError,
    OperatorError,
    ProviderError,
    RateLimitedError,
    RequestError,
    RetryError,
    RunEndedError,
    StopError,
)
from headwater.redaction import one_line, redact

MESSAGE_CHARACTERS_MAX = 2_000
TRACEBACK_CHARACTERS_MAX = 32_000

# An operating-system error that says something about the machine's files, not about the provider: a bug to mend.
_LOCAL_ERRORS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)


class Next(StrEnum):
    """What the platform does next."""

    RETRY = "retry"  # the same work may succeed later
    PAUSE = "pause"  # the connection needs its operator
    STOP = "stop"  # a bug, or a record that does not fit: no retry would help
    NOTHING = "nothing"  # the work is no longer ours


_GRAVEST_FIRST = (Next.NOTHING, Next.PAUSE, Next.STOP, Next.RETRY)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An exception, judged."""

    next: Next
    error: HeadwaterError
    code: str
    message: str  # for the operator; redacted
    traceback: str | None  # for the author; redacted; None where it would tell nothing
    retry_after_seconds: float | None = None  # the provider's own word
    is_rate_limit: bool = False  # nothing of this connection or stream should be asked before then


def judge(raised: BaseException, *, secrets: Collection[str] = ()) -> Failure:
    """What `raised` means; `secrets` appear in none of its texts."""
    error = translate(raised)
    following = _next(error)
    told = following in (Next.STOP, Next.RETRY)
    return Failure(
        next=following,
        error=error,
        code=error.code,
        message=one_line(redact(str(error), secrets))[:MESSAGE_CHARACTERS_MAX],
        traceback=redact(_detail(error, raised), secrets)[-TRACEBACK_CHARACTERS_MAX:] if told else None,
        retry_after_seconds=error.retry_after_seconds if isinstance(error, RetryError) else None,
        is_rate_limit=isinstance(error, RateLimitedError),
    )


def translate(raised: BaseException) -> HeadwaterError:
    """`raised` as one of our errors: a fault of the network is the provider's, everything unknown the handler's.

    Of a group, as a handler's `TaskGroup` raises it, the error that asks for most counts.
    """
    if isinstance(raised, BaseExceptionGroup):
        return min(map(translate, _leaves(raised)), key=lambda error: _GRAVEST_FIRST.index(_next(error)))
    if isinstance(raised, (RetryError, OperatorError, InvalidPayloadError, StopError, RunEndedError, RequestError)):
        return raised
    if isinstance(raised, OSError) and not isinstance(raised, _LOCAL_ERRORS):
        # TimeoutError and ConnectionError are kinds of OSError.
        return ProviderError(f"The provider could not be reached: {_words(raised)}.")
    return HandlerError(f"The handler raised {_words(raised)}{_place(raised)}.")


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _next(error: HeadwaterError) -> Next:
    if isinstance(error, RetryError):
        return Next.RETRY
    if isinstance(error, OperatorError):
        return Next.PAUSE
    if isinstance(error, RunEndedError):
        return Next.NOTHING
    return Next.STOP


def _words(raised: BaseException) -> str:
    text = str(raised).strip().removesuffix(".")
    return f"{type(raised).__name__}: {text}" if text else type(raised).__name__


def _place(raised: BaseException) -> str:
    frames = tracebacks.extract_tb(raised.__traceback__)
    if not frames:
        return ""
    name = "/".join(frames[-1].filename.replace("\\", "/").rsplit("/", 3)[-3:])
    return f" at {name}:{frames[-1].lineno}"


def _detail(error: HeadwaterError, raised: BaseException) -> str:
    lines = "".join(tracebacks.format_exception(raised))
    return f"{error.detail}\n{lines}" if error.detail else lines
