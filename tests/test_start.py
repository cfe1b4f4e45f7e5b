"""The root and the start: what an author imports is frozen, and asking for the version costs next to nothing."""

from __future__ import annotations

import subprocess
import sys
from types import FunctionType, ModuleType

import headwater

EXPORTS_MAX = 20
HEAVY = {
    "aiohttp", "apsw", "asyncio", "cryptography", "jinja2", "jsonschema_rs", "msgspec", "prometheus_client", "rich",
    "starlette", "uvicorn",
}  # fmt: skip


def modules_after(code: str) -> set[str]:
    told = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules, file=sys.stderr)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in told.stderr.split()}


def test_the_root_exports_these_names_and_no_other() -> None:
    assert headwater.__all__ == [
        "Canonical",
        "Connection",
        "Connector",
        "Page",
        "Permissions",
        "Response",
        "SetupRequest",
        "Stream",
        "SyncRequest",
        "WebhookRequest",
        "Webhooks",
        "checkpoint",
        "errors",
        "http",
        "ingest",
        "log",
        "oauth",
        "route",
        "secrets",
        "settings",
    ]
    assert headwater.__all__ == sorted(headwater.__all__)
    assert len(headwater.__all__) <= EXPORTS_MAX


def test_each_exported_name_is_there_and_the_same_each_time() -> None:
    for name in headwater.__all__:
        assert getattr(headwater, name) is getattr(headwater, name)
    assert set(headwater.__all__) <= set(dir(headwater))


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    assert not hasattr(headwater, "Steam")


def test_route_is_the_decorator_whatever_is_imported_first() -> None:
    told = "import headwater.route\nfrom headwater import route\nprint(type(route).__name__)"
    answer = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "function"
    assert isinstance(headwater.route, FunctionType)
    assert isinstance(headwater.http, ModuleType)
    assert isinstance(headwater.ingest, ModuleType)


def test_the_version_is_told_without_any_heavy_library() -> None:
    code = "from headwater.cli.main import run\nassert run(['--version']) == 0"
    assert not modules_after(code) & HEAVY


def test_the_help_is_told_without_any_heavy_library() -> None:
    code = "from headwater.cli.main import run\nassert run(['--help']) == 0"
    assert not modules_after(code) & HEAVY
