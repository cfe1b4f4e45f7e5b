"""Where `headwater test` finds the provider of a connector: the function of its tests, or what was recorded."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater import cassette
from headwater.errors import HeadwaterError, NotFoundError, UsageError
from headwater.project import Project
from headwater.redaction import Redactor
from headwater.testing.answering import Provider

TESTS = "tests"
CASSETTES = "tests/cassettes"
FUNCTION = "provider"

Factory = Callable[[], Provider]


def find(folder: Path, project: Project, *, cassettes: Sequence[Path] = (), values: Mapping[str, str]) -> Factory:
    """What makes a fresh provider for each history of a project, in this order: the given cassettes, the function
    `provider` of a file in `tests`, the cassettes in `tests/cassettes`.

    `values` are settings and secrets for cassettes; secrets that are not given are made up. `NotFoundError` where there
    is none of all that, and `UsageError` where the tests' own cannot be imported.
    """
    if not cassettes and (factory := _of_tests(folder)) is not None:
        return factory
    recorded = list(cassettes) or sorted((folder / CASSETTES).glob("*.json"))
    if not recorded:
        raise NotFoundError(
            f"{folder} has no provider to be tested against.",
            hint="Write `def provider() -> Provider` in tests/provider.py, or record a cassette with `headwater run"
            " --record` and give it with --cassette.",
        )
    exchanges = [exchange for path in recorded for exchange in cassette.load(path)]
    secrets = {name: values.get(name, f"made-up-{name}") for name in project.connector.secret_fields}
    settings = {name: value for name, value in values.items() if name not in secrets}
    redactor = Redactor(secrets.values())
    name = ", ".join(path.name for path in recorded)

    def made() -> Provider:
        replay = cassette.Replay(exchanges, redactor=redactor, name=name)
        return Provider(transport=replay, settings=settings, secrets=secrets)

    return made


def _of_tests(folder: Path) -> Factory | None:
    tests = folder / TESTS
    files = [tests / f"{FUNCTION}.py", *sorted(tests.glob("test_*.py"))]
    for file in files:
        if file.is_file() and f"def {FUNCTION}(" in file.read_text(encoding="utf-8"):
            found: Any = getattr(_imported(file), FUNCTION, None)
            if callable(found):
                return found  # type: ignore[no-any-return]
    return None


def _imported(file: Path) -> Any:
    # As pytest does: the tests of a project import each other by their names.
    sys.path.insert(0, str(file.parent))
    try:
        spec = importlib.util.spec_from_file_location(f"_headwater_test_{file.stem}", file)
        assert spec is not None, "it is a Python file"
        assert spec.loader is not None, "it is a Python file"
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except HeadwaterError:
        raise
    except Exception as error:
        raise UsageError(f"{file} cannot be imported: {type(error).__name__}: {error}.") from error
    finally:
        sys.path.remove(str(file.parent))
    return module
