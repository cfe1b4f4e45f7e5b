"""Virtual time: an event loop on which nothing is waited for and everything happens in an order drawn from a seed.

    ready? ──yes──> one of the ready callbacks, drawn ──> run it
      └──no──> time jumps to the next timer

One seed is one history: no socket and no real clock takes part. What the platform gives to a thread is carried out on
the loop, a drawn moment later; a plain `def` route has a thread, and either it or the loop is at work (`turns.py`).
"""

from __future__ import annotations

import asyncio
import heapq
import random
from asyncio import events
from collections import deque
from collections.abc import Callable, Generator
from contextvars import Context, ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar, cast

from headwater import invoke
from headwater.testing.turns import Turns

T = TypeVar("T")

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
THREAD_SECONDS_MAX = 0.004  # what is given to a thread takes up to so long
TASKS_SWEPT = 256  # tasks made between two looks for ended ones
CALLBACKS_MAX = 2_000_000  # of one history, which has some 100,000


class StillError(AssertionError):
    """Nothing is ready and nothing waits for a time: the history cannot go on."""


class EndlessError(AssertionError):
    """More callbacks ran than any history has: something goes round for ever."""


class Crash(BaseException):
    """The process died here: no code of it that runs afterwards reaches anything outside."""


class Owner:
    """What callbacks belong to, by their context: a process, which may be frozen or dead."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.is_frozen = False
        self.held: list[asyncio.Handle] = []  # what became ready while it was frozen
        self.tasks: dict[int, asyncio.Task[Any]] = {}  # by their number, in the order in which they began
        self.on_death: list[Callable[[], None]] = []  # lets go of what the system takes back from a dead process
        self.context = copy_context()
        self.context.run(_owner.set, self)

    def live(self) -> None:
        """Raise `Crash` where the process is dead: called wherever it would reach outside."""
        if self.is_dead:
            raise Crash(self.name)


_owner: ContextVar[Owner | None] = ContextVar("headwater_simulated_owner", default=None)


def owner() -> Owner | None:
    """The process that the present code belongs to; None for the world around it."""
    return _owner.get()


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop in virtual time. `on_error` is told of exceptions that nobody took."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _timer_cancelled_count: int

    def __init__(self, chance: random.Random, *, shuffled: bool = True) -> None:
        super().__init__()
        self._chance = chance
        self._shuffled = shuffled
        self._now = 0.0
        self._tasks_made = 0
        self._turns = Turns()
        self._agens: list[Any] = []
        self._owners: dict[int, Owner] = {}  # every process that ever was, by its identity
        self.callbacks = 0
        self.on_error: Callable[[dict[str, Any]], None] = lambda context: None  # noqa: ARG005
        self.set_task_factory(self._make_task)
        self.set_exception_handler(lambda _, context: self._uncaught(context))

    def time(self) -> float:
        """Seconds since the history began."""
        return self._now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Carry `func` out on the loop, a drawn moment later; a route in a thread of its own, in turn with the loop."""
        future: asyncio.Future[Any] = self.create_future()
        if executor is invoke._threads:  # noqa: SLF001  those of plain routes
            carry_out_in_turn = partial(self._turns.begin, future, func, args)
            self.call_later(self._chance.random() * THREAD_SECONDS_MAX, carry_out_in_turn)
            return future

        def carry_out() -> None:
            if future.done():
                return
            try:
                result = func(*args)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_later(self._chance.random() * THREAD_SECONDS_MAX, carry_out)
        return future

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """As asyncio's; a thread that calls it waits for the loop, which goes on."""
        handle = super().call_soon_threadsafe(callback, *args, context=context)
        self._turns.give_up(callback)
        return handle

    async def bury(self, dead: Owner, *, turns_max: int = 10_000) -> None:
        """Let every task of a dead process end, at this instant; what it still tries to do outside fails."""
        for _ in range(turns_max):
            left = [task for task in dead.tasks.values() if not task.done()]
            if not left:
                for let_go in dead.on_death:
                    let_go()
                return
            for task in left:
                task.cancel()
            await asyncio.sleep(0)
        raise AssertionError(f"tasks of the dead {dead.name} go on: {left[:3]}")

    def thaw(self, frozen: Owner) -> None:
        """Let a frozen process go on."""
        frozen.is_frozen = False
        self._ready.extend(frozen.held)
        frozen.held.clear()

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Generator[Any, None, T] | Any, context: Context | None = None
    ) -> asyncio.Task[T]:
        task: asyncio.Task[T] = asyncio.Task(coroutine, loop=loop, context=context)
        holder = _owner.get() if context is None else context.get(_owner)
        if holder is not None:
            self._owners[id(holder)] = holder
            self._tasks_made += 1
            holder.tasks[self._tasks_made] = task
            if self._tasks_made % TASKS_SWEPT == 0:
                holder.tasks = {number: one for number, one in holder.tasks.items() if not one.done()}
        return task

    def _run_once(self) -> None:
        if not self._ready:
            self._jump()
        place = self._chance.randrange(len(self._ready)) if self._shuffled and len(self._ready) > 1 else 0
        handle = self._ready[place]
        del self._ready[place]
        if handle._cancelled:  # noqa: SLF001  this is an event loop
            return
        holder = handle._context.get(_owner)  # type: ignore[attr-defined]  # noqa: SLF001
        if holder is not None and holder.is_frozen:
            holder.held.append(handle)
            return
        self.callbacks += 1
        if self.callbacks > CALLBACKS_MAX:
            raise EndlessError(f"more than {CALLBACKS_MAX} callbacks by {self._now:.0f} s")
        handle._run()  # noqa: SLF001

    def _jump(self) -> None:
        while self._scheduled and self._scheduled[0]._cancelled:  # noqa: SLF001
            self._timer_cancelled_count -= 1
            self._next_timer()
        if not self._scheduled:
            raise StillError("nothing is ready, and nothing waits for a time")
        self._now = max(self._now, self._scheduled[0].when())
        while self._scheduled and self._scheduled[0].when() <= self._now:
            self._ready.append(self._next_timer())

    def _next_timer(self) -> asyncio.TimerHandle:
        handle: Any = heapq.heappop(self._scheduled)
        handle._scheduled = False  # noqa: SLF001
        return cast("asyncio.TimerHandle", handle)

    def _uncaught(self, context: dict[str, Any]) -> None:
        holder = owner()
        if isinstance(context.get("exception"), Crash) or (holder is not None and holder.is_dead):
            return
        self.on_error(context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:  # noqa: ARG002  they are dropped when due
        self._timer_cancelled_count += 1

    def _asyncgen_firstiter_hook(self, agen: Any) -> None:
        # Kept until the loop closes: when the collector comes to one that was left behind is nobody's seed.
        self._agens.append(agen)

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


class VirtualClock:
    """A `Clock` on a virtual loop: its process's, which a machine may set wrongly; `offset_seconds` says how much."""

    def __init__(self, loop: VirtualLoop, chance: random.Random, *, start: datetime = START) -> None:
        self._loop = loop
        self._chance = chance
        self._start = start
        self.offset_seconds = 0.0

    def now(self) -> datetime:
        """See `Clock`."""
        return self._start + timedelta(microseconds=round((self._loop.time() + self.offset_seconds) * 1e6))

    def monotonic(self) -> float:
        """See `Clock`."""
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        if (holder := owner()) is not None:
            holder.live()
        await asyncio.sleep(seconds)

    def random(self) -> float:
        """See `Clock`."""
        return self._chance.random()


def run_virtual(
    main: Callable[[VirtualLoop], Any],
    *,
    chance: random.Random,
    shuffled: bool = True,
    on_error: Callable[[dict[str, Any]], None] | None = None,
) -> Any:
    """What `main`, an `async def` that is given the loop, returns after its history in virtual time."""
    loop = VirtualLoop(chance, shuffled=shuffled)
    loop.on_error = on_error or loop.on_error
    before = events._get_running_loop()  # noqa: SLF001
    assert before is None, "a virtual loop does not run inside another one"
    try:
        return loop.run_until_complete(main(loop))
    finally:
        try:
            _end(loop)
        finally:
            loop.close()


def _end(loop: VirtualLoop) -> None:
    loop.callbacks = 0

    async def end() -> None:
        for process in loop._owners.values():  # noqa: SLF001
            process.is_dead = True
            loop.thaw(process)
            await loop.bury(process)
        left = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for agen in loop._agens:  # noqa: SLF001
            await agen.aclose()

    loop.run_until_complete(end())
