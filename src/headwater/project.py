"""A folder (or an installed package) → a loaded connector with its routes.

Each project is loaded under a private package name made of its path and content, so that two projects that both own
`src/lib` live in one process, a new version of a project loads beside the old one, and relative imports reach only the
project's own files. Nothing is added to `sys.path` and no byte code is written.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from hashlib import blake2b
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from headwater import bundle as bundles
from headwater.bundle import Bundle
from headwater.canonical.schema import Canonical, CanonicalType, from_json_schema, from_struct
from headwater.catalog import Connector
from headwater.errors import CheckFailedError, HeadwaterError

RouteFunction = Callable[[Any], Any]

ENTRY_POINT_GROUP = "headwater.connectors"
MANIFEST = "connector.py"
RECORDS = "src/records.py"
SYNC_FOLDER = "src/api/sync"
WEBHOOKS_FOLDER = "src/api/webhooks"
API_FOLDER = "src/api"
ROUTE_NAME = "post"

NOT_LOADED_HINT = "Is its folder among the `projects` of the configuration, and does `headwater check` pass it?"

_ROOT = "_headwater_projects"


@dataclass(frozen=True, kw_only=True)
class Project:
    """A connector with its code in memory, ready to be invoked."""

    path: Path
    connector: Connector
    content_hash: str  # of all its files: the version that a run is bound to
    types: Mapping[str, CanonicalType]  # the shipped canonical types and the connector's own
    sync_routes: Mapping[str, RouteFunction]  # by stream key
    webhook_route: RouteFunction | None
    test_route: RouteFunction | None
    package: str = ""  # private name under which its code is loaded

    @property
    def version(self) -> str:
        """Manifest version and content, as noted on every record version: `0.1.0+3f2a9c1e`."""
        return f"{self.connector.version}+{self.content_hash[:8]}"

    @cached_property
    def stream_keys(self) -> frozenset[str]:
        """The streams that an emission may name."""
        return frozenset(stream.key for stream in self.connector.streams)

    def module(self, name: str) -> ModuleType:
        """A module of the project by its path below `src`, such as `lib.stripe`."""
        return importlib.import_module(f"{self.package}.src.{name}")


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A connector that an installed package names."""

    name: str  # of its entry point
    path: Path | None  # the project's folder; None: the package it names is not there
    distribution: str  # name and version of the package that names it


def load(path: Path) -> Project:
    """Load a project that has passed its check; `CheckFailedError` names the first thing in the way."""
    return assemble(register(bundles.read(path)), path)


def discover() -> list[Installed]:
    """The connectors that installed packages name under `headwater.connectors`, without importing any of them.

    An entry point names the package that is the project's folder, or its `connector` module.
    """
    found = []
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        distribution = f"{entry.dist.name} {entry.dist.version}" if entry.dist else ""
        found.append(Installed(name=entry.name, path=_installed_folder(entry.module), distribution=distribution))
    return sorted(found, key=lambda installed: (installed.name, installed.distribution))


def register(bundle: Bundle) -> Source:
    """Make the modules of `bundle` importable under its private package name; the same bundle twice is one source."""
    package = _package(bundle)
    source = _finder.sources.get(package)
    if source is None:
        source = Source(package=package, bundle=bundle)
        _finder.sources[package] = source
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
    return source


def is_registered(bundle: Bundle) -> bool:
    """Whether the modules of this very bundle are importable already."""
    return _package(bundle) in _finder.sources


def unload(package: str) -> None:
    """Forget a project's modules; functions already taken from them go on working."""
    _finder.sources.pop(package, None)
    for name in [name for name in list(sys.modules) if name == package or name.startswith(package + ".")]:
        del sys.modules[name]


def retire(project: Project) -> None:
    """Forget a project's modules once nobody holds it: a run under way may import more of them until its end."""
    weakref.finalize(project, _unload_unless_held, project.package).atexit = False


@dataclass(frozen=True, kw_only=True)
class Source:
    """The code of a bundle, importable under a private package name."""

    package: str
    bundle: Bundle
    codes: Mapping[str, CodeType] = field(default_factory=dict)  # compiled already, by path

    def import_file(self, path: str) -> ModuleType:
        """The module of a file of the project, such as `src/api/sync/customers.py`; raises what its code raises."""
        return importlib.import_module(f"{self.package}.{path.removesuffix('.py').replace('/', '.')}")

    def substitute(self, path: str, code: CodeType) -> Source:
        """This source with other code for one file; what it imports is no part of this one."""
        package = f"{self.package}_substitute"
        source = Source(package=package, bundle=self.bundle, codes={**self.codes, path: code})
        _finder.sources[package] = source
        return source

    def locate(self, name: str) -> tuple[str, bool] | None:
        """File and package-ness of the module `name` below the private package; an empty file name: a bare folder."""
        stem = name.replace(".", "/")
        if f"{stem}/__init__.py" in self.bundle.files:
            return f"{stem}/__init__.py", True
        if f"{stem}.py" in self.bundle.files:
            return f"{stem}.py", False
        folder = f"{stem}/"
        return ("", True) if any(file.startswith(folder) for file in self.bundle.files) else None

    def module_names(self) -> list[str]:
        """Every module of the project, below its private package."""
        stems = (file.removesuffix(".py") for file in self.bundle.files if file.endswith(".py"))
        return [stem.removesuffix("/__init__").replace("/", ".") for stem in stems]


class _Finder(MetaPathFinder):
    """Serves the modules of every registered project from memory."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002  the names are `importlib`'s
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname == _ROOT:
            return ModuleSpec(fullname, _Loader(b"", None), is_package=True)
        if not fullname.startswith(_ROOT + "."):
            return None
        _, label, *names = fullname.split(".")
        source = self.sources.get(f"{_ROOT}.{label}")
        found = ("", True) if not names else source.locate(".".join(names)) if source else None
        if source is None or found is None:
            # Falling through would let Python look on the disk, where the version may be another by now.
            missing = ".".join(names) or fullname
            raise ModuleNotFoundError(f"No module named '{missing}' in this project", name=fullname)
        return _spec(source, fullname, "/".join(names), *found)


class _Loader(InspectLoader):
    def __init__(self, content: bytes, file: str | None, code: CodeType | None = None) -> None:
        self._content = content
        self._file = file
        self._code = code

    def get_source(self, fullname: str) -> str:  # noqa: ARG002  the name is bound to the loader
        return importlib.util.decode_source(self._content)

    def get_code(self, fullname: str) -> CodeType:
        if self._code is None:
            file = self._file or f"<{fullname}>"
            try:
                self._code = compile(self._content, file, "exec", dont_inherit=True)
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                if isinstance(error, SyntaxError) and error.filename:
                    raise
                raise SyntaxError(str(error) or type(error).__name__, (file, 1, None, None)) from error
        return self._code


def _spec(source: Source, fullname: str, stem: str, file: str, is_package: bool) -> ModuleSpec:
    on_disk = str(source.bundle.path / file) if file else None
    loader = _Loader(source.bundle.files[file] if file else b"", on_disk, source.codes.get(file))
    spec = ModuleSpec(fullname, loader, origin=on_disk, is_package=is_package)
    spec.has_location = on_disk is not None
    if is_package:
        spec.submodule_search_locations = [str(source.bundle.path / stem)]
    return spec


_finder = _Finder()
_held: weakref.WeakValueDictionary[int, Project] = weakref.WeakValueDictionary()  # every project that somebody holds


def assemble(source: Source, path: Path) -> Project:
    """The project of a registered source; `CheckFailedError` names the first thing in the way."""
    connector = _manifest(source, path)
    sync_routes = {
        stream.key: _route(source, path, f"{SYNC_FOLDER}/{stream.key}.py")
        for stream in connector.streams
        if stream.mode != "webhook"
    }
    webhooks, test = connector.webhooks, connector.connection.test
    project = Project(
        path=source.bundle.path,
        connector=connector,
        content_hash=source.bundle.content_hash,
        types=_types(source, path),
        sync_routes=sync_routes,
        webhook_route=_route(source, path, webhook_file(webhooks.endpoint)) if webhooks else None,
        test_route=_route(source, path, f"{API_FOLDER}/{test}.py") if test else None,
        package=source.package,
    )
    _held[id(project)] = project
    return project


def _unload_unless_held(package: str) -> None:
    # The same version may have been loaded again meanwhile: its modules are the same ones.
    if not any(project.package == package for project in list(_held.values())):
        unload(package)


def _package(bundle: Bundle) -> str:
    identity = blake2b(f"{bundle.path}\0{bundle.content_hash}".encode(), digest_size=8).hexdigest()
    return f"{_ROOT}.{re.sub(r'[^A-Za-z0-9]', '_', bundle.path.name)}_{identity}"


def webhook_file(endpoint: str) -> str:
    """The route file of a manifest's endpoint: `/webhooks/stripe` → `src/api/webhooks/stripe.py`."""
    return f"{API_FOLDER}{endpoint}.py"


def own_types(records: ModuleType) -> list[tuple[str, Callable[[], CanonicalType]]]:
    """The names in a `records` module that declare canonical types, each with the function that builds its type.

    They are the subclasses of `Canonical` defined there whose name has no leading underscore, and the entries of
    `SCHEMAS`, a mapping of type names to JSON Schemas.
    """
    declared: list[tuple[str, Callable[[], CanonicalType]]] = []
    for name, value in vars(records).items():
        # What the module imported, a shipped type perhaps, it does not declare.
        is_own = isinstance(value, type) and issubclass(value, Canonical) and value.__module__ == records.__name__
        if is_own and not name.startswith("_"):
            declared.append((name, partial(from_struct, value)))
    schemas = getattr(records, "SCHEMAS", {})
    for name, schema in schemas.items() if isinstance(schemas, Mapping) else ():
        declared.append((name, partial(from_json_schema, name, schema)))
    return declared


def shipped_types() -> Mapping[str, CanonicalType]:
    """The canonical types that come with Headwater."""
    from headwater.canonical.registry import shipped

    return shipped()


def _types(source: Source, path: Path) -> Mapping[str, CanonicalType]:
    types = dict(shipped_types())
    if RECORDS not in source.bundle.files:
        return types
    for name, build in own_types(_module(source, path, RECORDS)):
        try:
            own = build()
        except Exception as error:
            raise _failed(path / RECORDS, f"`{name}` is no canonical type: {error}.") from error
        if own.name in types and types[own.name].json_schema() != own.json_schema():
            raise _failed(path / RECORDS, f"`{name}` gives the canonical type `{own.name}` another shape.")
        types.setdefault(own.name, own)
    return types


def _manifest(source: Source, path: Path) -> Connector:
    if MANIFEST not in source.bundle.files:
        raise _failed(path / MANIFEST, "There is no manifest.")
    connector = getattr(_module(source, path, MANIFEST), "connector", None)
    if not isinstance(connector, Connector):
        raise _failed(path / MANIFEST, "It has no value `connector = Connector(...)`.")
    return connector


def _route(source: Source, path: Path, file: str) -> RouteFunction:
    if file not in source.bundle.files:
        raise _failed(path / file, "The manifest needs this route, and there is no such file.")
    function = getattr(_module(source, path, file), ROUTE_NAME, None)
    if not callable(function):
        raise _failed(path / file, f"It has no `{ROUTE_NAME}`.")
    route: RouteFunction = function
    return route


def _module(source: Source, path: Path, file: str) -> ModuleType:
    try:
        return source.import_file(file)
    except (Exception, SystemExit) as error:
        said = str(error) if isinstance(error, HeadwaterError) else f"{type(error).__name__}: {error}"
        raise _failed(path / file, f"It cannot be imported: {said}.") from error


def _failed(file: Path, problem: str) -> CheckFailedError:
    return CheckFailedError(f"{file}: {problem}", hint="`headwater check` names every problem of the project.")


def _installed_folder(module: str) -> Path | None:
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location, *rest)
        # The entry may name the manifest's own module instead of the package around it.
        for candidate in (folder, folder.parent if rest else folder):
            if (candidate / MANIFEST).is_file():
                return candidate
    return None
