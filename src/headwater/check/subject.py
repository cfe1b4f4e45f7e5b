"""A project under check: its files, what they say, what they become when imported, and what was found so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType

from headwater.bundle import Bundle
from headwater.canonical.schema import CanonicalType
from headwater.catalog import Connector
from headwater.check import code
from headwater.check.diagnostic import Findings
from headwater.check.facts import Facts, read
from headwater.check.isolation import import_file
from headwater.project import API_FOLDER, MANIFEST, Source


@dataclass(kw_only=True)
class Subject:
    """Everything that the checks look at; `connector` and `types` stay None where their files do not get that far."""

    source: Source
    found: Findings
    facts: Mapping[str, Facts]  # of every Python file that parses
    modules: dict[str, ModuleType] = field(default_factory=dict)  # of every file that was imported
    connector: Connector | None = None
    types: Mapping[str, CanonicalType] | None = None
    unusable: frozenset[str] = frozenset()  # fields of the connector that had the wrong type, and were emptied

    @property
    def bundle(self) -> Bundle:
        """The files under check."""
        return self.source.bundle

    def import_file(self, path: str) -> ModuleType | None:
        """Import a file that parses; None, with the reason among the findings, where that fails."""
        if path not in self.facts:
            return None
        module = import_file(self.source, path, self.found)
        if module is not None:
            self.modules[path] = module
        return module

    def settings(self) -> Mapping[str, object]:
        """The declared settings by name, whatever state they are in."""
        schema: object = self.connector.connection.settings if self.connector else {}
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        named = properties.items() if isinstance(properties, Mapping) else ()
        return {name: of for name, of in named if isinstance(name, str)}

    def secrets(self) -> list[str]:
        """The settings marked `x-secret: true`."""
        return [name for name, schema in self.settings().items() if is_secret(schema)]


def is_secret(schema: object) -> bool:
    """Whether a setting's schema marks it as a secret."""
    return isinstance(schema, Mapping) and schema.get("x-secret") is True


def read_facts(bundle: Bundle, found: Findings) -> dict[str, Facts]:
    """The facts of every Python file of the project; those that are no Python are among the findings."""
    facts: dict[str, Facts] = {}
    for path, content in bundle.files.items():
        if not path.endswith(".py") or not (path == MANIFEST or path.startswith("src/")):
            continue
        try:
            facts[path] = read(path, content)
        except SyntaxError as error:
            found.add(code.SYNTAX, path, error.lineno or 1, f"This is not Python: {error.msg}.")
        except (ValueError, RecursionError, MemoryError) as error:
            found.add(code.SYNTAX, path, 1, f"This is not Python: {error or type(error).__name__}.")
    return facts


def route_files(bundle: Bundle) -> list[str]:
    """The files that are routes by their place: below `src/api`, no part of their path with a leading underscore."""
    return [
        path
        for path in bundle.files
        if path.startswith(f"{API_FOLDER}/")
        and path.endswith(".py")
        and not any(part.startswith("_") for part in path.split("/"))
    ]
