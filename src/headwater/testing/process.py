"""A simulated process: the whole of `serve`, unmodified, on the virtual loop, until it ends or dies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from headwater import failpoint
from headwater.app import open_platform
from headwater.application import Application
from headwater.config import Config
from headwater.errors import StoreUnavailableError
from headwater.project import Project
from headwater.testing.answering import ASGIApp
from headwater.testing.history import History
from headwater.testing.network import Network
from headwater.testing.virtual import Crash, Owner, VirtualClock, VirtualLoop, owner

COMMITS = frozenset(
    f"{what}.{when}_commit" for what in ("delivery", "dispatch", "page", "tick") for when in ("before", "after")
)
SERVE_FAILPOINTS = tuple(
    sorted(name for name in failpoint.NAMES if not name.startswith(("copy.", "deploy.", "replay.")))
)


class Process:
    """One life of the installation's process: its memory dies with it, its file stays."""

    def __init__(
        self,
        name: str,
        *,
        loop: VirtualLoop,
        config: Config,
        clock: VirtualClock,
        network: Network,
        load: Callable[[], Sequence[Project]],
        history: History,
    ) -> None:
        self.owner = Owner(name)
        self.asgi: ASGIApp | None = None
        self.application: Application | None = None
        self._loop = loop
        self._config = config
        self._clock = clock
        self._network = network
        self._load = load
        self._history = history
        self._died = asyncio.Event()
        self._gone = asyncio.Event()
        self._listening = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self.error: BaseException | None = None  # what it ended by, unless it was killed or drained

    async def live(self) -> None:
        """Serve until drained or killed; returns when nothing of it is left."""
        self._history.note(self.owner.name, "starts")
        self._network.process = self
        self._serving = self._loop.create_task(self._serve(), context=self.owner.context)
        died = asyncio.ensure_future(self._died.wait())
        await asyncio.wait({self._serving, died}, return_when=asyncio.FIRST_COMPLETED)
        died.cancel()
        ended = not self.owner.is_dead
        self.owner.is_dead = True
        self._network.process = None
        self._network.cut_off(self)
        self._loop.thaw(self.owner)
        await self._loop.bury(self.owner)
        self._gone.set()
        error = None if self._serving.cancelled() else self._serving.exception()
        if ended:
            self._history.note(self.owner.name, f"ended: {error!r}" if error else "ended in order")
            self.error = error

    def die(self, where: str) -> None:
        """Kill it at this instant."""
        if not self.owner.is_dead:
            self._history.note(self.owner.name, f"killed {where}")
            self.owner.is_dead = True
            self._died.set()

    def freeze(self) -> None:
        """Stop it as SIGSTOP does."""
        self.owner.is_frozen = True

    def thaw(self) -> None:
        """Let it go on."""
        self._loop.thaw(self.owner)

    def drain(self) -> None:
        """End it in order, as SIGTERM does."""
        if self.application is not None and self.is_here:
            self.owner.context.copy().run(self.application.drain)

    async def drained(self) -> None:
        """Drain it as soon as it listens, and wait for its end."""
        await self._listening.wait()
        self.drain()
        await self._gone.wait()

    @property
    def is_here(self) -> bool:
        """It runs, and answers."""
        return self.application is not None and not self.owner.is_dead and not self.owner.is_frozen

    async def _serve(self) -> None:
        config, clock, network = self._config, self._clock, self._network
        async with open_platform(config, clock, loaded=self._load(), transport=network.transport) as platform:
            self.application = Application(platform, version="0")
            self.asgi = self.application.asgi
            self._listening.set()
            await self.application.run()


class Killer:
    """Kills the process that passes a drawn failpoint for the nth time; arms every failpoint."""

    def __init__(self, chance: random.Random, history: History) -> None:
        self._chance = chance
        self._history = history
        self.process: Process | None = None  # the one that lives now
        self._process: Process | None = None  # the one that is aimed at; None: whichever lives
        self._name = ""
        self._left = 0
        self.store_fails = 0.0  # share of the transactions that fail, or say so although they were committed
        self.kills: dict[str, int] = {}
        self.passed: dict[str, int] = {}  # how often each failpoint was passed by a living process
        for name in SERVE_FAILPOINTS:
            failpoint.arm(name, lambda name=name: self._passed(name))  # type: ignore[misc]

    def aim(self, process: Process, *, share: float) -> None:
        """Draw where `process` is to die, or, but for that share, nowhere."""
        self._process = process
        self._name = self._chance.choice(SERVE_FAILPOINTS) if self._chance.random() < share else ""
        self._left = self._chance.choice((1, 1, 2, 3, 5, 8))

    def aim_at(self, name: str, nth: int) -> None:
        """Whatever process passes `name` for the nth time from now on dies there, once."""
        self._process, self._name, self._left = None, name, nth

    def spare(self) -> None:
        """Kill nobody any more, and let every transaction succeed."""
        self._name, self.store_fails = "", 0.0

    def close(self) -> None:
        """Disarm every failpoint."""
        failpoint.disarm()

    def _passed(self, name: str) -> None:
        holder = owner()
        if holder is None:
            return
        holder.live()
        self._history.note(holder.name, name)
        self.passed[name] = self.passed.get(name, 0) + 1
        if name in COMMITS and self._chance.random() < self.store_fails:
            raise StoreUnavailableError(f"The simulated disk fails at {name}.")
        process = self.process if self._process is None else self._process
        if process is None or process.owner is not holder or name != self._name:
            return
        self._left -= 1
        if self._left == 0:
            self._name = ""
            self.kills[name] = self.kills.get(name, 0) + 1
            process.die(f"at {name}")
            raise Crash(name)
