"""The ground truth of the fake provider: the present state and the whole history of every object, and the events log.

States are never changed in place: an update puts a new one, so a listing, an event and the history may share them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any

from headwater.clock import Clock

State = Mapping[str, Any]

EVENTS_KEPT_SECONDS = 30 * 86_400  # https://docs.stripe.com/api/events: "going back up to 30 days"
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LETTERS = 24
_NEVER = 1 << 62


class ApiError(Exception):
    """An answer that is an error, in Stripe's shape (https://docs.stripe.com/api/errors)."""

    def __init__(
        self, status: int, message: str, *, kind: str = "invalid_request_error", code: str = "", param: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"type": kind, "message": message, "code": code or None, "param": param or None}}


@dataclass(frozen=True, kw_only=True)
class Change:
    """One moment in an object's history."""

    at: datetime
    state: State | None  # None: deleted


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Which part of a list is asked for."""

    limit: int = 10
    starting_after: str | None = None
    ending_before: str | None = None
    created_from: int = 0  # inclusive
    created_to: int = _NEVER  # exclusive


class Ledger:
    """What is true at the provider."""

    def __init__(self, *, seed: int, clock: Clock) -> None:
        self._seed = seed
        self._clock = clock
        self._count = 0
        self._live: dict[str, dict[str, State]] = {}
        self._order: dict[str, list[tuple[int, int, str]]] = {}
        self._places: dict[str, tuple[int, int, str]] = {}
        self._buried: dict[str, dict[str, State]] = {}
        self._history: dict[str, list[Change]] = {}
        self.listeners: list[Callable[[State], None]] = []  # told of each event

    def now_seconds(self) -> int:
        """The present second, as Stripe dates its objects."""
        return int(self._clock.now().timestamp())

    def new_id(self, prefix: str, letters: int = _ID_LETTERS) -> str:
        """An id like Stripe's, the same for the same seed and place in the sequence."""
        self._count += 1
        digest = blake2b(f"{self._seed}:{prefix}:{self._count}".encode(), digest_size=letters).digest()
        return prefix + "_" + "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest)

    def put(self, kind: str, state: State) -> None:
        """Make `state` the present one of its object."""
        identity = state["id"]
        live = self._live.setdefault(kind, {})
        if identity not in live:
            self._count += 1
            place = (state["created"], self._count, identity)
            insort(self._order.setdefault(kind, []), place)
            self._places[identity] = place
        live[identity] = state
        self._history.setdefault(identity, []).append(Change(at=self._clock.now(), state=state))

    def bury(self, kind: str, identity: str) -> State:
        """Delete an object; its last state."""
        state = self._live[kind].pop(identity)
        order = self._order[kind]
        order.pop(bisect_left(order, self._places.pop(identity)))
        self._buried.setdefault(kind, {})[identity] = state
        self._history[identity].append(Change(at=self._clock.now(), state=None))
        return state

    def tell(self, event: State) -> None:
        """Append `event` to the events log, and to what the listeners know."""
        self.put("events", event)
        for listener in self.listeners:
            listener(event)

    def current(self, kind: str) -> Mapping[str, State]:
        """Every live object of a kind, by id."""
        return self._live.get(kind, {})

    def buried(self, kind: str) -> Mapping[str, State]:
        """The last state of every deleted object of a kind, by id."""
        return self._buried.get(kind, {})

    def history(self, identity: str) -> tuple[Change, ...]:
        """All that an object ever was, oldest first."""
        return tuple(self._history.get(identity, ()))

    def get(self, kind: str, identity: str) -> State:
        """The present state; `ApiError` 404 when there never was such an object or it is gone."""
        state = self.current(kind).get(identity)
        if state is None:
            raise ApiError(404, f"No such {kind[:-1]}: '{identity}'", code="resource_missing", param="id")
        return state

    def page(self, kind: str, part: Slice, wanted: Callable[[State], bool] | None = None) -> tuple[list[State], bool]:
        """The objects of one page, newest first, and whether there are more beyond it.

        A cursor that names no live object is refused: Stripe does not say what it does with one that was deleted
        while its list was read, so the fake does what is hardest for a client.
        """
        order = self._order.get(kind, [])
        created_from = part.created_from
        if kind == "events":
            created_from = max(created_from, self.now_seconds() - EVENTS_KEPT_SECONDS)
        low = bisect_left(order, (created_from,))
        high = bisect_left(order, (part.created_to,))
        if part.starting_after is not None:
            high = min(high, bisect_left(order, self._place(kind, part.starting_after, "starting_after")))
        if part.ending_before is not None:
            low = max(low, bisect_left(order, self._place(kind, part.ending_before, "ending_before")) + 1)
        # Before a cursor, the page is the one next to it: it is read upwards and turned round.
        upwards = part.ending_before is not None
        places = range(low, high) if upwards else range(high - 1, low - 1, -1)
        found = list(self._take(kind, places, part.limit + 1, wanted))
        states = found[: part.limit]
        return (states[::-1] if upwards else states), len(found) > part.limit

    def _take(self, kind: str, places: range, count: int, wanted: Callable[[State], bool] | None) -> Iterator[State]:
        live = self._live.get(kind, {})
        order = self._order.get(kind, [])
        for place in places:
            state = live[order[place][2]]
            if wanted is None or wanted(state):
                yield state
                count -= 1
                if count == 0:
                    return

    def _place(self, kind: str, identity: str, param: str) -> tuple[int, int, str]:
        if identity not in self.current(kind):
            raise ApiError(400, f"No such {kind[:-1]}: '{identity}'", code="resource_missing", param=param)
        return self._places[identity]
