"""The bundles that this process runs: what is active in the store, loaded and put in place of what ran before.

A page under way, and the whole attempt of its run, ends on the version that it began with: it holds its project. A
bundle that cannot be loaded here leaves the one before in service.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence

from headwater.archive import unpack
from headwater.bundle import Bundle
from headwater.errors import CheckFailedError, NotFoundError, RetryError
from headwater.project import Project, assemble, is_registered, register, retire, unload
from headwater.store import Store

logger = logging.getLogger("headwater.activation")


class Activations:
    """Keeps `projects` in line with the store; `declare` is awaited before a project takes its place."""

    def __init__(
        self,
        store: Store,
        projects: MutableMapping[str, Project],
        declare: Callable[[Project], Awaitable[None]],
    ) -> None:
        self.running: dict[str, str] = {}  # bundle hash by connector key
        self.refused: dict[str, tuple[str, str]] = {}  # those that cannot be loaded here: bundle hash and reason
        self._store = store
        self._projects = projects
        self._declare = declare
        self._looking = asyncio.Lock()

    def is_deployed(self, connector: str) -> bool:
        """Whether the store has an active bundle of it, as last looked at."""
        return connector in self.running or connector in self.refused

    async def look(self) -> Sequence[Project]:
        """Take up what was activated since the last look; the projects that it put in place."""
        async with self._looking:
            active = sorted((await self._store.active_bundles()).items())
            swapped = [await self._take_up(key, bundle) for key, bundle in active if self._is_news(key, bundle)]
        return [project for project in swapped if project is not None]

    def _is_news(self, connector: str, bundle: str) -> bool:
        if self.running.get(connector) == bundle:
            self.refused.pop(connector, None)
            return False
        refused = self.refused.get(connector)
        return refused is None or refused[0] != bundle

    async def _take_up(self, connector: str, bundle: str) -> Project | None:
        try:
            project = await self._load(connector, bundle)
            # A stream that is due before its project is in place waits for the look that is under way.
            await self._declare(project)
        except RetryError:
            raise
        except Exception as error:
            # Every node meets this bundle: none may fall over it.
            self.refused[connector] = (bundle, f"{type(error).__name__}: {error}")
            logger.exception("The bundle %s of %s cannot be loaded.", bundle, connector)
            return None
        before = self._projects.get(connector)
        self._projects[connector] = project
        self.running[connector] = bundle
        self.refused.pop(connector, None)
        if before is not None:
            retire(before)
        return project

    async def _load(self, connector: str, bundle: str) -> Project:
        stored = await self._store.bundle(bundle)
        if stored is None:
            raise NotFoundError(f"There is no bundle {bundle}.")
        files = await asyncio.to_thread(unpack, stored.archive, content_hash=bundle)
        project = await asyncio.to_thread(_loaded, files)
        if project.connector.key != connector:
            raise CheckFailedError(f"Its manifest says that it is {project.connector.key}.")
        return project


def _loaded(files: Bundle) -> Project:
    was_loaded = is_registered(files)
    source = register(files)
    try:
        return assemble(source, files.path)
    except BaseException:
        if not was_loaded:
            unload(source.package)
        raise
