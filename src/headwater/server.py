"""One process that serves: uvicorn in our loop, signals, and the lock that keeps a second one off the same database.

SIGTERM ──> drain: refuse new deliveries, let what runs finish, answer what was asked ──> exit 0
            └── second signal ──> stop at once ──> exit 1
store broken ──> say why ──> exit 1
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import gc
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from headwater.clock import Clock
from headwater.config import Config, DatabaseUrl
from headwater.errors import StartError

if TYPE_CHECKING:
    import uvicorn

    from headwater.application import Application

REQUEST_DRAIN_SECONDS = 10
AT_ONCE_SECONDS_MAX = 5.0
BACKLOG = 2048
DATE_SECONDS = 1.0  # between two looks at the clock for the date of answers
LOCK_BYTES_MAX = 4096
COLLECTION_THRESHOLD = 50_000  # pages are many small objects that die young: the default walks them again and again

Beside = Callable[["Application", asyncio.Event], Coroutine[Any, Any, None]]

T = TypeVar("T")

logger = logging.getLogger("headwater.server")


class AlreadyServedError(StartError):
    """Another process serves this database."""

    code = "start.already_served"


@contextlib.contextmanager
def only_server(database: Path | DatabaseUrl) -> Iterator[Callable[[str], None]]:
    """Hold the right to serve `database`; the function given notes our URL for commands beside us.

    Raises `AlreadyServedError`. The kernel lets the lock go with the process, however that ends. Of a PostgreSQL
    database there may be many servers: nothing is held.
    """
    if isinstance(database, DatabaseUrl):
        yield lambda _: None
        return
    with _locked(database) as file:
        try:
            yield lambda url: _write(file, url)
        finally:
            with contextlib.suppress(OSError):  # the lock goes with the process
                file.truncate(0)


def running_url(database: Path | DatabaseUrl) -> str | None:
    """The URL of the process that serves `database` now; None when there is none, or nothing says which."""
    if isinstance(database, DatabaseUrl):
        return None
    try:
        with lock_path(database).open("r", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                url = _read(file).get("url")
                return str(url) if url else None
    except OSError:
        pass
    return None


def lock_path(database: Path) -> Path:
    """The lock file of a database."""
    return database.with_name(database.name + ".serve")


def _locked(database: Path) -> IO[str]:
    path = lock_path(database)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
        try:
            _lock(file, database)
            _write(file, "")
        except BaseException:
            file.close()
            raise
    except OSError as error:
        raise StartError(f"The lock file {path} cannot be used: {error.strerror or error}.") from error
    return file


def _lock(file: IO[str], database: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        holder = _read(file)
        raise AlreadyServedError(
            f"Process {holder.get('pid', '?')} serves {database} already, at {holder.get('url') or 'some URL'}.",
            hint="Stop it first, or give this one another --database.",
        ) from error


def _read(file: IO[str]) -> dict[str, object]:
    file.seek(0)
    try:
        holder = json.loads(file.read(LOCK_BYTES_MAX))
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _write(file: IO[str], url: str) -> None:
    file.truncate(0)
    file.write(json.dumps({"pid": os.getpid(), "url": url}))
    file.flush()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; `StartError` when the address cannot be had. Port 0 takes any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise StartError(
            f"Cannot listen on {host} port {port}: {error.strerror or error}.",
            hint="Give another --port, or stop what uses this one." if error.errno == errno.EADDRINUSE else "",
        ) from error
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def run_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on the fastest event loop there is, and with a garbage collector that does not look too often."""
    gc.freeze()
    gc.set_threshold(COLLECTION_THRESHOLD)
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)


async def run(
    config: Config,
    clock: Clock,
    *,
    note_url: Callable[[str], None],
    ready: Callable[[Application, str | None], None],
    beside: Beside | None = None,
) -> int:
    """Open everything, serve, close everything; the exit code.

    `ready` is called once requests are accepted, with the link that makes the first admin where there is none. `beside`
    runs along until the end, and may ask for it.
    """
    from headwater.app import install_engine, open_platform
    from headwater.application import Application

    listener = bind(config.host, config.port)
    # Signals are ours from before anybody is told that we serve until all is closed, however it ends.
    with contextlib.closing(listener), contextlib.ExitStack() as held:
        config = replace(config, port=listener.getsockname()[1])
        async with open_platform(config, clock, with_projects=True) as platform:
            await install_engine(
                config
            )  # whoever answers has all that it works with: from here on no database is missed
            application = Application(platform, version=version("headwater"))
            signals = held.enter_context(_Signals().installed())
            note_url(config.local_url)
            ready(application, await application.first_link())
            along = asyncio.create_task(beside(application, signals.stop)) if beside else None
            try:
                return await _serve(application, listener, signals)
            finally:
                if along is not None:
                    along.cancel()
                    await asyncio.gather(along, return_exceptions=True)


async def _serve(application: Application, listener: socket.socket, signals: _Signals) -> int:
    """Serve until a signal or a failure of the store; the exit code.

    The first signal (or whoever sets `signals.stop`) drains, the second ends the process's work at once: what was under
    way is fenced and taken up again at the next start.
    """
    server = _uvicorn(application)
    http = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    work = asyncio.create_task(application.run(), name="work")
    asked = asyncio.create_task(signals.stop.wait(), name="stop")
    at_once = asyncio.create_task(signals.at_once.wait(), name="stop at once")
    try:
        await asyncio.wait({http, work, asked, at_once}, return_when=asyncio.FIRST_COMPLETED)
        if asked.done() and not work.done():
            logger.info("Draining: what runs may finish; signal again to stop at once.")
            application.drain()
            await asyncio.wait({work, at_once}, return_when=asyncio.FIRST_COMPLETED)
        return await _ended(server, http, work)
    finally:
        for task in (http, work, asked, at_once):
            task.cancel()
        await asyncio.gather(http, work, asked, at_once, return_exceptions=True)


async def _ended(server: uvicorn.Server, http: asyncio.Task[None], work: asyncio.Task[None]) -> int:
    server.should_exit = True
    if http.done() and not work.done():
        logger.critical("Stopping: the HTTP server ended by itself.", exc_info=http.exception())
        return 1
    if not work.done():
        logger.warning("Stopped at once; what was under way is taken up again at the next start.")
        server.force_exit = True
        return 1
    failure = work.exception()
    if failure is not None:
        server.force_exit = True
        logger.critical("Stopping: %s", failure, exc_info=None if _is_ours(failure) else failure)
        return 1
    await asyncio.wait({http})
    return 0


def _is_ours(error: BaseException) -> bool:
    from headwater.errors import HeadwaterError

    return isinstance(error, HeadwaterError)


class _Signals:
    """SIGTERM and SIGINT as two events: the first asks, the second insists."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.at_once = asyncio.Event()

    def _received(self) -> None:
        if self.stop.is_set() and not self.at_once.is_set():
            self.at_once.set()
            # A plain `def` route may hold its thread for long, and the interpreter would wait for it.
            last = threading.Timer(AT_ONCE_SECONDS_MAX, os._exit, (1,))
            last.daemon = True
            last.start()
        self.stop.set()

    @contextlib.contextmanager
    def installed(self) -> Iterator[_Signals]:
        loop = asyncio.get_running_loop()
        caught = (signal.SIGTERM, signal.SIGINT)
        for one in caught:
            loop.add_signal_handler(one, self._received)
        try:
            yield self
        finally:
            for one in caught:
                loop.remove_signal_handler(one)


def _uvicorn(application: Application) -> uvicorn.Server:
    import uvicorn

    from headwater.corked import CorkedProtocol

    class Server(uvicorn.Server):
        def __init__(self, config: uvicorn.Config) -> None:
            self._exit = asyncio.Event()
            super().__init__(config)

        @property
        def should_exit(self) -> bool:
            """Whether it is to end: an attribute of uvicorn's, told here, so that nobody has to look for it."""
            return self._exit.is_set()

        @should_exit.setter
        def should_exit(self, value: bool) -> None:
            (self._exit.set if value else self._exit.clear)()

        async def main_loop(self) -> None:
            """Keep the date of answers right until the end; uvicorn's own looks ten times a second."""
            while not await self.on_tick(0):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(DATE_SECONDS):
                        await self._exit.wait()

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Signals are ours: the work is drained before the listener closes."""
            yield

    return Server(
        uvicorn.Config(
            application.asgi,
            http=CorkedProtocol,
            interface="asgi3",
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            date_header=True,
            proxy_headers=False,
            timeout_graceful_shutdown=REQUEST_DRAIN_SECONDS,
        )
    )
