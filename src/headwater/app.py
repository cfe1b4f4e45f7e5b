"""The one place where store, engine and sinks are chosen, opened and closed.

A `Platform` is a store with the connector projects beside it: what every command needs. `headwater.application` puts
the loops and the HTTP of `serve` on top.
"""

from __future__ import annotations

import asyncio
import getpass
import logging
import os
from collections.abc import AsyncIterator, Callable, Container, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from headwater.activation import Activations
from headwater.breached import BreachedPasswords
from headwater.canonical.schema import CanonicalType
from headwater.catalog import Connector
from headwater.clock import Clock, SharedClock
from headwater.config import Config, DatabaseUrl
from headwater.declaration import declarations
from headwater.errors import ConfigError, NotFoundError, StartError, UsageError, near_miss
from headwater.intention import StoredConnection, TypeColumn
from headwater.project import MANIFEST, Project, discover, retire, shipped_types
from headwater.run import StreamState, of_partition
from headwater.sink import Sink
from headwater.store import Store

if TYPE_CHECKING:
    from headwater.acts.act import Act, Desk, Done
    from headwater.client import HttpClients
    from headwater.engine import Engine
    from headwater.invoke import HttpFor, LiveConnections
    from headwater.key_ring import KeyRing
    from headwater.node import SharedStore
    from headwater.redaction import Redactor
    from headwater.runtime import Runner
    from headwater.transfer import Report, Transferred
    from headwater.transport import Transport

NAMES_SHOWN_MAX = 10

Through = Callable[["Transport", "Redactor"], "Transport"]

logger = logging.getLogger("headwater.app")


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A connector project that did not pass its check, or bears the key of another; the others go on without it."""

    path: Path
    lines: Sequence[str]  # its diagnostics, or the one reason

    def __str__(self) -> str:
        return f"the connector project {self.path} is refused:\n  " + "\n  ".join(self.lines)


@dataclass(frozen=True, kw_only=True)
class Live:
    """What invokes connectors: only where their projects are loaded."""

    key_ring: KeyRing
    connections: LiveConnections
    runner: Runner
    clients: HttpClients
    transport: Transport  # of requests that no connector makes

    def prepare(self) -> None:
        """Load what the first request would stop the whole process for; to be called before work begins."""
        from headwater.transport import PooledTransport

        PooledTransport.load()


@dataclass(kw_only=True)
class Platform:
    """A store, the projects beside it, and words resolved to what they mean."""

    config: Config
    clock: Clock
    store: Store
    breached: BreachedPasswords | None = None  # that no account may take
    projects: dict[str, Project] = field(default_factory=dict)  # by connector key; replaced in place
    refused: list[Refused] = field(default_factory=list)
    passed_over: dict[str, Path] = field(default_factory=dict)  # folders of connectors that are deployed, by key
    brought_to_life: Live | None = None

    def __post_init__(self) -> None:
        self.activations = Activations(self.store, self.projects, self.declare)

    @property
    def live(self) -> Live:
        """What invokes connectors."""
        assert self.brought_to_life is not None, "the platform was opened without projects"
        return self.brought_to_life

    @property
    def shared(self) -> SharedStore | None:
        """The store, where other nodes may be at work on it too."""
        return cast("SharedStore", self.store) if isinstance(self.config.database, DatabaseUrl) else None

    async def set_clock_right(self) -> None:
        """Where other machines work on the database, tell the time by its clock, which is the same for all of them."""
        if self.shared is not None:
            shared = self.clock if isinstance(self.clock, SharedClock) else SharedClock(self.clock)
            shared.set_right(await self.shared.clock_offset_seconds())
            self.clock = shared

    def redactor(self) -> Redactor:
        """Knows every secret of this process: those of live connections, and the database's own."""
        from headwater.redaction import Redactor

        config = self.config
        own = config.database.secrets if isinstance(config.database, DatabaseUrl) else ()
        return Redactor([*self.live.connections.redactor().secrets, *own, *config.alert_secrets])

    async def find_connection(self, word: str) -> StoredConnection:
        """The connection of that key, or the only one of the connector of that key."""
        known = await self.store.connections()
        for one in known:
            if one.key == word:
                return one
        of_connector = [one for one in known if one.connector == word]
        if len(of_connector) == 1:
            return of_connector[0]
        if of_connector:
            keys = ", ".join(one.key for one in of_connector)
            raise UsageError(f"The connector `{word}` has {len(of_connector)} connections.", hint=f"Name one: {keys}.")
        hint = near_miss(word, [one.key for one in known])
        if not known:
            hint = "There is none yet: `headwater connections add CONNECTOR` makes one."
        raise NotFoundError(f"There is no connection `{word}`.", hint=hint)

    async def find_stream(self, connection: str | None, stream: str, partition: str = "") -> StreamState:
        """A declared stream of a connection, named as `find_connection` takes it; None for the only one that has it."""
        stored = await self.find_connection(connection or await self._only_connection_with(stream))
        states = await self.store.streams(at=self.clock.now(), connection=stored.key)
        of_key = [one for one in states if one.stream == stream]
        if of_key:
            return of_partition(of_key, partition)
        hint = near_miss(stream, {one.stream for one in states})
        raise NotFoundError(f"The connection {stored.key} has no stream `{stream}`.", hint=hint)

    async def _only_connection_with(self, stream: str) -> str:
        states = await self.store.streams(at=self.clock.now())
        found = sorted({one.connection for one in states if one.stream == stream})
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(
                f"{len(found)} connections have a stream `{stream}`.",
                hint=f"Say which: {', '.join(found[:NAMES_SHOWN_MAX])}.",
            )
        hint = near_miss(stream, {one.stream for one in states}) or "`headwater streams` lists them."
        raise NotFoundError(f"No connection has a stream `{stream}`.", hint=hint)

    async def project_of(self, connection: str) -> Project:
        """The loaded project of a connection's connector."""
        return self.project((await self.find_connection(connection)).connector)

    def project(self, connector: str) -> Project:
        """The loaded project of that connector key."""
        found = self.projects.get(connector)
        if found is None:
            names = f"Loaded: {', '.join(sorted(self.projects))}. " if self.projects else ""
            how = "Name its folder in `projects` of headwater.toml, or in HEADWATER_PROJECTS."
            hint = near_miss(connector, self.projects) or names + how
            raise NotFoundError(f"No connector `{connector}` is loaded.", hint=hint)
        return found

    def origin(self, connector: str) -> str:
        """Where the version that runs came from, in words."""
        bundle = self.activations.running.get(connector)
        if bundle is not None:
            return f"bundle {bundle}"
        project = self.projects.get(connector)
        return str(project.path) if project else "a bundle that cannot be loaded"

    def webhook_url(self, stored: StoredConnection, base_url: str | None = None) -> str | None:
        """The URL that its provider sends deliveries to; None where its connector takes none, or is not loaded."""
        project = self.projects.get(stored.connector)
        if project is None or project.connector.webhooks is None:
            return None
        return f"{base_url or self.config.base_url}{project.connector.webhooks.endpoint}/{stored.endpoint_id}"

    async def add_connection(
        self, connector: str, values: Mapping[str, Any], *, key: str, tenant: str | None = None, paused: bool = False
    ) -> StoredConnection:
        """Connect an account of a loaded connector; `values` are its settings, secret ones among them.

        Raises `SettingsError` that names every problem with them, and `UsageError` when the key is taken.
        """
        from headwater.acts.setup import AddConnection

        declared = self.project(connector).connector
        secrets = {name: value for name, value in values.items() if name in declared.secret_fields}
        plain = {name: value for name, value in values.items() if name not in secrets}
        await self.perform(
            AddConnection(connector=connector, key=key, tenant=tenant, settings=plain, secrets=secrets, paused=paused)
        )
        return await self.find_connection(key)

    async def audit(self, act: str, target: str, detail: Mapping[str, Any] | None = None) -> None:
        """Write down what the person at the command line did."""
        await self.store.audit(at=self.clock.now(), actor=person(), act=act, target=target, detail=detail or {})

    def desk(self, actor: str | None = None, *, tenant: str | None = None) -> Desk:
        """What acts work with, on behalf of whoever is at the command line unless another is named."""
        from headwater.acts.act import Desk, Workshop

        live = self.brought_to_life
        return Desk(
            store=self.store,
            clock=self.clock,
            actor=actor or person(),
            tenant=tenant,
            projects=self.projects,
            base_url=self.config.base_url,
            workshop=Workshop(connections=live.connections, runner=live.runner, key_ring=live.key_ring)
            if live
            else None,
        )

    async def perform(self, act: Act) -> Done:
        """Carry out an act of the person at the command line."""
        from headwater.acts.act import perform

        return await perform(act, self.desk())

    def file_sink(
        self, path: Path, *, format: str | None, request: Mapping[str, str], type: str | None, continues: bool
    ) -> Sink:
        """A sink that writes a file, in the format that is named or that its name stands for."""
        from headwater.sinks.format import file_sink, format_of

        columns = self._columns(type) if type is not None else None
        return file_sink(path, format=format or format_of(path), request=request, columns=columns, continues=continues)

    def _columns(self, type: str) -> list[TypeColumn]:
        known = {**shipped_types(), **{name: one for p in self.projects.values() for name, one in p.types.items()}}
        if type not in known:
            raise NotFoundError(f"There is no canonical type `{type}`.", hint=near_miss(type, known))
        return _type_columns(known[type])

    async def load_projects(self, paths: Sequence[Path] | None = None) -> None:
        """Load the active bundles, then check and load the projects at `paths`, or wherever the configuration says.

        Those that are refused are noted; a bundle comes before a folder of the same connector.
        """
        if self.config.bundles:
            await self.activations.look()
            for bundle, reason in self.activations.refused.values():
                self.refused.append(Refused(path=Path(f"bundle:{bundle}"), lines=(reason,)))
        for path in project_paths(self.config) if paths is None else paths:
            await self.load_project(path)

    async def load_project(self, path: Path) -> Project | None:
        """Check and load one project, in place of the version that was loaded before; None when it is refused."""
        from headwater.check.check import check

        report = await asyncio.to_thread(check, path)
        if report.project is None:
            self.refused.append(Refused(path=path, lines=report.lines()))
            return None
        key = report.project.connector.key
        if self.activations.is_deployed(key):
            self.passed_over[key] = path
            retire(report.project)
            return None
        before = self.projects.get(key)
        if before is not None and before.path != report.project.path:
            reason = f"its key `{key}` is that of {before.path}, which was loaded before"
            self.refused.append(Refused(path=path, lines=(reason,)))
            return None
        self.projects[key] = report.project
        await self.declare(report.project)
        if before is not None:
            retire(before)
        return report.project

    async def declare(self, project: Project) -> None:
        """Bring the types and the streams of each connection in line with a project's catalog."""
        await self.store.declare_types({name: _type_columns(one) for name, one in project.types.items()})
        own = [stored for stored in await self.store.connections() if stored.connector == project.connector.key]
        states = await self.store.streams(at=self.clock.now()) if own else ()
        polled = {(one.connection_id, one.stream, one.partition) for one in states if one.mode == "poll"}
        for stored in own:
            await self.declare_streams(stored, project.connector, polled=polled)

    async def declare_streams(
        self, stored: StoredConnection, connector: Connector, *, polled: Container[tuple[int, str, str]] = ()
    ) -> None:
        """Bring the streams of one connection in line with its catalog; a new poll stream is due at once, one that was
        `polled` before (by connection, stream and partition) at the next tick of its new schedule.
        """
        at = self.clock.now()
        declared = declarations(stored, connector, at, polled=polled)
        await self.store.declare_streams(stored.id, declared, at=at)


@asynccontextmanager
async def open_platform(
    config: Config,
    clock: Clock,
    *,
    with_projects: bool = False,
    loaded: Sequence[Project] = (),
    transport: Transport | None = None,
    through: Through | None = None,
) -> AsyncIterator[Platform]:
    """Open the store, and with `with_projects` load every connector project; close all of it afterwards.

    A project that does not pass its check is in `refused`, and the others go on. In tests, `loaded` projects are taken
    as they are, and `transport` takes the place of sockets; `through` wraps it, such as a cassette's recorder.
    """
    passwords = config.breached_passwords
    breached = None if passwords is None else await asyncio.to_thread(BreachedPasswords.at, passwords)
    store = await asyncio.to_thread(_make_store, config, clock)
    await store.open()
    try:
        platform = Platform(config=config, clock=clock, store=store, breached=breached)
        await platform.set_clock_right()
        if not with_projects and not loaded:
            yield platform
            return
        async with _brought_to_life(platform, transport, through):
            for project in loaded:
                platform.projects[project.connector.key] = project
                await platform.declare(project)
            if with_projects:
                await platform.load_projects()
            yield platform
    finally:
        await store.close()


def _make_store(config: Config, clock: Clock) -> Store:
    if isinstance(config.database, DatabaseUrl):
        return _postgres_store(config.database, clock, allow_unsafe=config.database_unsafe)
    from headwater.stores.sqlite.store import SQLiteStore

    config.database.parent.mkdir(parents=True, exist_ok=True)
    return SQLiteStore(str(config.database), clock)


def _postgres_store(database: DatabaseUrl, clock: Clock, *, allow_unsafe: bool) -> Store:
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict

        from headwater.stores.postgres.store import PostgresStore
    except ImportError as error:
        raise StartError(
            "A PostgreSQL database needs a driver that is not installed.",
            hint="Install it: pip install 'headwater[postgres]'",
            detail=str(error),
        ) from error
    try:
        conninfo_to_dict(database.url)
    except ProgrammingError:
        # libpq tells the part that it stumbled over, which may be the password.
        raise ConfigError(
            "The database URL holds something that PostgreSQL does not know.", hint="Look at the options after its `?`."
        ) from None
    return PostgresStore(database.url, clock, allow_unsafe=allow_unsafe)


@asynccontextmanager
async def _brought_to_life(
    platform: Platform, transport: Transport | None, through: Through | None
) -> AsyncIterator[None]:
    from headwater.http import HttpClients
    from headwater.invoke import LiveConnections
    from headwater.runtime import Runner
    from headwater.transport import PooledTransport

    sockets = PooledTransport()
    key_ring = await open_key_ring(platform.config, platform.store)
    clients = HttpClients(platform.clock, transport or sockets, through=through)
    http_for = cast("HttpFor", clients.client)
    connections = LiveConnections(platform.store, platform.projects, key_ring, platform.clock, http_for)
    runner = Runner(store=platform.store, connections=connections, clock=platform.clock)
    platform.brought_to_life = Live(
        key_ring=key_ring, connections=connections, runner=runner, clients=clients, transport=transport or sockets
    )
    try:
        yield
    finally:
        await sockets.close()


async def copy_store(config: Config, clock: Clock, *, to: DatabaseUrl, report: Report) -> Transferred:
    """Carry the embedded installation over into the PostgreSQL database `to`, and make its typed views there.

    A connector project that is refused has its views made when it is loaded. See `transfer` for what is raised.
    """
    assert isinstance(config.database, Path), "only a file is copied"
    store = _postgres_store(to, clock, allow_unsafe=config.database_unsafe)
    from headwater.stores.postgres import target
    from headwater.stores.sqlite import source
    from headwater.transfer import transfer

    with source.opened(config.database) as ours:
        async with target.opened(to.url, allow_unsafe=config.database_unsafe) as theirs:
            done = await transfer(ours, theirs, clock=clock, report=report)
    await store.open()
    try:
        await store.declare_types(await asyncio.to_thread(_types_of, project_paths(config)))
    finally:
        await store.close()
    return done


def _types_of(paths: Sequence[Path]) -> dict[str, Sequence[TypeColumn]]:
    from headwater.check.check import check
    from headwater.project import unload

    found: dict[str, Sequence[TypeColumn]] = {}
    for path in paths:
        if (project := check(path).project) is not None:
            found |= {name: _type_columns(one) for name, one in project.types.items()}
            unload(project.package)
    return found


def make_engine(config: Config, clock: Clock) -> Engine:
    """The engine of a server: beside PostgreSQL the one whose queue all nodes share."""
    if not isinstance(config.database, DatabaseUrl):
        return local_engine()
    from headwater.engines.procrastinate import ProcrastinateEngine

    return ProcrastinateEngine(config.database.url, clock)


def local_engine() -> Engine:
    """The engine of one process, beside whatever store."""
    from headwater.engines.local import LocalEngine

    return LocalEngine()


async def install_engine(config: Config) -> None:
    """Make or renew the tables that `make_engine`'s engine needs; `StartError` when that fails."""
    if isinstance(config.database, DatabaseUrl):
        from headwater.engines.job_table import install

        await install(config.database.url)


async def open_key_ring(config: Config, store: Store) -> KeyRing:
    """The configured key ring; a new key is made only where no secret is stored: else it would hide a lost one."""
    from headwater.key_ring import KeyRing

    if config.key is not None:
        return KeyRing.from_text(config.key)
    is_needed = await store.all_secrets() or any(one.factor for one in await store.accounts())
    return KeyRing.from_file(config.key_file, create=not is_needed)


def project_paths(config: Config) -> list[Path]:
    """The connector projects: those configured, else the one here or those in folders here; and the installed."""
    paths = list(config.projects)
    here = config.directory
    if not paths and (here / MANIFEST).is_file():
        paths = [here]
    elif not paths:
        paths = sorted(
            manifest.parent for pattern in ("*", "connectors/*") for manifest in here.glob(f"{pattern}/{MANIFEST}")
        )
    return paths + [installed.path for installed in discover() if installed.path is not None]


def person() -> str:
    """Who is at the command line, as the audit names them."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):
        return f"cli:{os.getuid()}"


def _type_columns(canonical: CanonicalType) -> list[TypeColumn]:
    return [TypeColumn(name=column, kind=kind) for column, kind in canonical.columns]
