"""A thread and the virtual loop in turn: while one is at work the other waits, so that a seed stays one history.

loop: begin ──> waits ··················· goes on ── the answer is there ──> waits ···> goes on
thread:         works ── asks the loop ──> waits ·························· works ──> ends
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Semaphore, Thread, get_ident
from typing import Any

TURN_SECONDS_MAX = 60.0  # real ones: a route that works longer without asking for anything hangs


class Turns:
    """Whose turn it is, among one loop and the threads that it began."""

    def __init__(self) -> None:
        self._loops = Semaphore(0)  # released when a thread gives its turn to the loop
        self._threads: set[int] = set()
        self._ended: deque[Callable[[], None]] = deque()

    def begin(self, future: asyncio.Future[Any], func: Callable[..., Any], args: Sequence[Any]) -> None:
        """Begin a thread that carries `func` out, and wait until it asks for something or ends."""
        if future.done():
            return

        def work() -> None:
            self._threads.add(get_ident())
            try:
                result = func(*args)
            except BaseException as error:  # it is the future's
                self._ended.append(lambda error=error: None if future.done() else future.set_exception(error))  # type: ignore[misc]
            else:
                self._ended.append(lambda: None if future.done() else future.set_result(result))
            finally:
                self._threads.discard(get_ident())
                self._loops.release()

        Thread(target=work, name="headwater-simulated-route", daemon=True).start()
        self._wait()

    def give_up(self, callback: Callable[..., Any]) -> None:
        """Called by whoever gave `callback` to the loop: a thread of ours now waits for the answer to it."""
        if get_ident() not in self._threads:
            return
        for cell in callback.__closure__ or ():
            if isinstance(cell.cell_contents, Future):
                # Called on the loop, once the thread was told its answer: it is the thread's turn.
                cell.cell_contents.add_done_callback(lambda _: self._wait())
        self._loops.release()

    def _wait(self) -> None:
        assert self._loops.acquire(timeout=TURN_SECONDS_MAX), "a plain route neither ends nor asks for anything"
        while self._ended:
            self._ended.popleft()()
