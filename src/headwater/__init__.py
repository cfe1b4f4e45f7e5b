"""What a connector's author imports, and nothing else.

Each name is loaded when it is first used, so that `headwater --version` does not pay for what it does not need.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater import errors, http, ingest
    from headwater.canonical.schema import Canonical
    from headwater.catalog import Connection, Connector, Permissions, Stream, Webhooks
    from headwater.context import checkpoint, log, oauth, secrets, settings
    from headwater.route import Response, SetupRequest, SyncRequest, WebhookRequest, route
    from headwater.run import Page

__all__ = [
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

_HOMES = {
    "headwater.canonical.schema": ("Canonical",),
    "headwater.catalog": ("Connection", "Connector", "Permissions", "Stream", "Webhooks"),
    "headwater.context": ("checkpoint", "log", "oauth", "secrets", "settings"),
    "headwater.route": ("Response", "SetupRequest", "SyncRequest", "WebhookRequest", "route"),
    "headwater.run": ("Page",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


class _Root(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # Importing the module `headwater.route` would bind it here, over the decorator that authors mean.
        if not (name == "route" and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Root


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'headwater' has no attribute {name!r}")
    home = _HOME_OF.get(name)
    value = getattr(import_module(home), name) if home else import_module(f"headwater.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
