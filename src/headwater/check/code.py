"""Every code that a check can print. Codes are stable: programs and pages of the docs name them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Code:
    """One kind of problem."""

    name: str  # "HW" and three digits, the first of which is the group
    title: str  # as its page in the docs is headed
    severity: Severity = "error"


# 1xx: the folder and the manifest
NO_MANIFEST = Code("HW101", "The folder has no manifest")
SYNTAX = Code("HW102", "A file is not Python")
IMPORT_FAILS = Code("HW103", "A file fails when it is imported")
NO_CONNECTOR = Code("HW104", "The manifest has no value `connector`")
NETWORK_AT_IMPORT = Code("HW105", "A file opens the network when it is imported")
SECRETS_AT_IMPORT = Code("HW106", "A file needs a connection or the environment when it is imported")
FIELD_UNKNOWN = Code("HW107", "The manifest names a field that does not exist, or leaves out one that must be there")
FIELD_TYPE = Code("HW108", "A field of the manifest has the wrong type")
CONNECTOR_KEY = Code("HW109", "The connector's key is ill-formed")
CONNECTOR_TEXT = Code("HW110", "The connector's name or version is not usable")
NO_STREAMS = Code("HW111", "The connector declares no stream")
FILE_REFUSED = Code("HW112", "A file may not be part of a project")

# 2xx: streams
STREAM_KEY = Code("HW201", "A stream key is ill-formed")
STREAM_TWICE = Code("HW202", "A stream key is declared twice")
MODE_UNKNOWN = Code("HW203", "A stream has an unknown mode")
SCHEDULE_MISSING = Code("HW204", "A poll stream has no schedule")
SCHEDULE_REFUSED = Code("HW205", "A stream that is not polled has a schedule")
SCHEDULE_BAD = Code("HW206", "A schedule is not a cron line")
ZONE_UNKNOWN = Code("HW207", "A time zone does not exist")
LIMIT_RANGE = Code("HW208", "A limit is out of its range")
PARTITIONS = Code("HW209", "Partitions name no list in the settings")
NO_EFFECT = Code("HW210", "An option of a stream has no effect", "warning")

# 3xx: routes
SYNC_MISSING = Code("HW301", "A stream has no sync route")
SYNC_ORPHAN = Code("HW302", "A sync route belongs to no stream")
POST_MISSING = Code("HW303", "A route file has no `post`")
AUTH_DIFFERS = Code("HW304", "A route's auth is not the manifest's")
AUTH_MISSING = Code("HW305", "A route declares no auth")
POST_SHAPE = Code("HW306", "A route's `post` cannot be invoked")
TEST_MISSING = Code("HW307", "The connection test names no route")

# 4xx: webhooks
WEBHOOKS_MISSING = Code("HW401", "A webhook stream has no `webhooks`")
ENDPOINT_BAD = Code("HW402", "A webhook endpoint is ill-formed")
ENDPOINT_MISSING = Code("HW403", "A webhook endpoint has no route")
SCHEME_UNKNOWN = Code("HW404", "A signature scheme does not exist")
WEBHOOK_SECRET = Code("HW405", "The signing secret is not a secret setting")
WEBHOOK_ORPHAN = Code("HW406", "A webhook route belongs to no endpoint")
SCHEME_OPTIONS = Code("HW407", "The options of a signature scheme are not usable")

# 5xx: settings
SETTINGS_INVALID = Code("HW501", "The settings are not a JSON Schema")
SETTINGS_SHAPE = Code("HW502", "The settings do not describe an object")
SECRET_NESTED = Code("HW503", "A secret is nested inside a setting")
SETTING_UNDECLARED = Code("HW504", "A setting is read that the manifest does not declare")
SETTING_SIDE = Code("HW505", "A field is read from the wrong side of the settings")
SECRET_TYPE = Code("HW506", "A secret setting is not a string")
REQUIRED_UNDECLARED = Code("HW507", "A required setting is not declared")

# 6xx: secrets and permissions
SECRET_UNDECLARED = Code("HW601", "A secret is used that the manifest does not declare")
HOST_UNDECLARED = Code("HW602", "A host is called that the manifest does not permit")
PERMISSION_BAD = Code("HW603", "A permission is not a URL pattern")
ENVIRONMENT = Code("HW604", "A route reads the environment", "warning")
PERMISSION_PRIVATE = Code("HW605", "A permission names a private address, and private addresses are not permitted")
HOST_UNCERTAIN = Code("HW606", "A URL names a host that the manifest does not permit", "warning")

# 7xx: emissions and canonical types
TYPE_UNKNOWN = Code("HW701", "An emission names an unknown canonical type")
EMISSION_STREAM = Code("HW702", "An emission names a stream that is not declared")
TYPE_SHADOWS = Code("HW703", "An own canonical type has the name of another one and a different shape")
TYPE_INVALID = Code("HW704", "An own canonical type is not usable")
EMISSION_INCOMPLETE = Code("HW705", "An emission leaves out an argument that it needs")
NAIVE_INSTANT = Code("HW706", "An instant has no time zone", "warning")
FLOAT = Code("HW707", "A number is made a float", "warning")

# 8xx: OAuth
OAUTH_INVALID = Code("HW801", "The OAuth declaration is not usable")

CODES: Mapping[str, Code] = {value.name: value for value in list(vars().values()) if isinstance(value, Code)}
