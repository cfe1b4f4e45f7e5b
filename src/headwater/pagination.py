"""What holds between the pages of one run: they go forward, they do not repeat, and a windowed poll keeps its window.

Pure: a `Guard` is told of each page and raises; nothing here knows of a store or a clock.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

import msgspec

from headwater.clock import EPOCH
from headwater.errors import CursorStuckError, HandlerError, PageLimitError, RepeatedPageError, StopError
from headwater.jsonvalue import HASH_BYTES
from headwater.record import Emission
from headwater.run import CURSOR_BYTES_MAX, Page, Window

PAGES_REMEMBERED_MAX = 10_000  # a longer circle of pages is ended by the page limit


def checked_page(returned: object) -> Page:
    """`returned` if it is a usable `Page`; else a `HandlerError` that says what came instead."""
    if not isinstance(returned, Page):
        raise HandlerError(
            f"The sync route returned {_kind(returned)}, not a Page.",
            hint="End it with `return Page(cursor=…, has_more=…)`.",
        )
    cursor: object = returned.cursor
    if cursor is not None and not isinstance(cursor, str):
        raise HandlerError(
            f"The cursor of the returned Page is {_kind(cursor)}, not text.", hint="Turn it into text with `str(…)`."
        )
    if not isinstance(returned.has_more, bool):
        raise HandlerError(f"`has_more` of the returned Page is {_kind(returned.has_more)}, not True or False.")
    if cursor is not None and len(cursor.encode("utf-8", "surrogatepass")) > CURSOR_BYTES_MAX:
        raise HandlerError(f"The cursor of the returned Page is longer than {CURSOR_BYTES_MAX} bytes.")
    return returned


class Guard:
    """Sees to it that the pages of one run come to an end: each way not to has its own error."""

    def __init__(self, *, pages_max: int, pages_before: int = 0) -> None:
        self._pages_max = pages_max
        self._pages = pages_before
        self._cursors: dict[bytes, None] = {}
        self._fingerprints: dict[bytes, None] = {}

    def before_page(self) -> None:
        """Raise `PageLimitError` when the run has had all the pages that it may."""
        if self._pages >= self._pages_max:
            raise PageLimitError(
                f"The run reached its limit of {self._pages_max} pages and the provider still has more.",
                hint="Raise `pages_max` of the stream if it is that large.",
            )

    def after_page(self, asked: str | None, page: Page, emissions: Sequence[Emission]) -> None:
        """Raise if `page`, answered to the cursor `asked`, leads nowhere or was seen before in this run."""
        self._pages += 1
        if page.has_more:
            self._check_cursor(asked, page.cursor)
        if emissions and _seen(self._fingerprints, _fingerprint(emissions)):
            raise RepeatedPageError(
                f"Page {self._pages} holds the same {len(emissions)} records as a page before it in this run.",
                hint="The provider may have ignored or forgotten the cursor: see how the route passes it on.",
            )

    def _check_cursor(self, asked: str | None, cursor: str | None) -> None:
        if cursor is None or cursor == asked:
            raise CursorStuckError(
                f"Page {self._pages} said that there is more, and its cursor stayed at {_quoted(cursor)}.",
                hint="Return the cursor of the next page, or `has_more=False`.",
            )
        if asked is not None:
            _seen(self._cursors, _hash(asked))
        if _seen(self._cursors, _hash(cursor)):
            raise RepeatedPageError(
                f"Page {self._pages} leads back to {_quoted(cursor)}, where this run has been before.",
                hint="The provider may have forgotten the cursor and begun again: see how the route passes it on.",
            )


def _seen(memory: dict[bytes, None], mark: bytes) -> bool:
    if mark in memory:
        return True
    memory[mark] = None
    if len(memory) > PAGES_REMEMBERED_MAX:
        del memory[next(iter(memory))]
    return False


def _fingerprint(emissions: Sequence[Emission]) -> bytes:
    ids = hash(tuple([emission.source_id for emission in emissions]))  # kept for this run only: any hash will do
    contents = b"".join([emission.body[:HASH_BYTES] for emission in emissions])
    return blake2b(contents, digest_size=HASH_BYTES, salt=ids.to_bytes(8, "little", signed=True)).digest()


def _hash(cursor: str) -> bytes:
    return blake2b(cursor.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type `{type(value).__name__}`"


def _quoted(cursor: str | None) -> str:
    if cursor is None:
        return "None"
    return f"`{cursor[:80]}{'…' if len(cursor) > 80 else ''}`"


@dataclass(frozen=True, kw_only=True)
class WindowedCursor:
    """The checkpoint of a windowed poll.

    Between runs it is the end of the last window, an RFC 3339 instant. While pages of a window are under way it is a
    small JSON object of the window and the provider's cursor, so that after a crash the same window goes on.
    """

    window: Window
    cursor: str | None  # the provider's, inside the window

    def saved(self, page: Page) -> str:
        """The checkpoint after `page`."""
        if not page.has_more:
            return _instant(self.window.end)
        progress = _Progress(start=_instant(self.window.start), end=_instant(self.window.end), cursor=page.cursor)
        return msgspec.json.encode(progress).decode()


def windowed_cursor(checkpoint: str | None, *, at: datetime, lookback_seconds: int) -> WindowedCursor:
    """Where a windowed poll goes on at `at`: its unfinished window, or a new one from the last one's end, less the
    lookback, to `at`. The first window begins in 1970.

    Raises `StopError` for a checkpoint that is neither.
    """
    if checkpoint is None:
        return WindowedCursor(window=Window(EPOCH, at), cursor=None)
    try:
        if checkpoint.startswith("{"):
            progress = msgspec.json.decode(checkpoint, type=_Progress)
            return WindowedCursor(window=Window(_read(progress.start), _read(progress.end)), cursor=progress.cursor)
        ended = _read(checkpoint)
        start = ended - timedelta(seconds=lookback_seconds)
    except (ValueError, OverflowError, msgspec.ValidationError, msgspec.DecodeError) as error:
        raise StopError(
            f"The checkpoint {_quoted(checkpoint)} is none of a windowed stream.",
            hint="Set it to an instant such as `2026-01-31T00:00:00Z`, or reset it.",
        ) from error
    # A checkpoint in the future, from a clock that was set back, keeps its place.
    return WindowedCursor(window=Window(start, max(ended, at)), cursor=None)


class _Progress(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    start: str = msgspec.field(name="from")
    end: str = msgspec.field(name="to")
    cursor: str | None = None


_OFFSET = re.compile(r"(?:[Zz]|[+-]\d\d:\d\d)$")


def _instant(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _read(text: str) -> datetime:
    if not _OFFSET.search(text):
        raise ValueError("no RFC 3339 instant with an offset")
    return datetime.fromisoformat(text).astimezone(UTC)
