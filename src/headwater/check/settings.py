"""The settings: a JSON Schema of an object, flat in its secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from headwater.check import code
from headwater.check.places import Places
from headwater.check.subject import Subject, is_secret
from headwater.errors import near_miss
from headwater.project import MANIFEST

DEPTH_MAX = 32


def check_settings(subject: Subject, places: Places) -> None:
    """Note every problem of the manifest's settings schema."""
    assert subject.connector is not None, "the manifest was read"
    schema = subject.connector.connection.settings
    problem = schema_problem(schema)
    if problem:
        line = places.line("Connection", "settings")
        subject.found.add(code.SETTINGS_INVALID, MANIFEST, line, f"The settings are no JSON Schema: {problem}.")
    elif schema.get("type") != "object" or not isinstance(schema.get("properties", {}), Mapping):
        subject.found.add(
            code.SETTINGS_SHAPE,
            MANIFEST,
            places.line("Connection", "settings"),
            "The settings do not describe an object.",
            'write {"type": "object", "properties": {…}}.',
        )
    else:
        _check_properties(subject, places, schema)


def schema_problem(schema: object) -> str:
    """Why a value is no JSON Schema 2020-12 that can be used without network; empty where it is one."""
    import jsonschema_rs

    if not isinstance(schema, dict):
        return f"it is a {type(schema).__name__}, not a dict"
    remote = next((one for one in _references(schema) if not one.startswith("#")), None)
    if remote is not None:
        return f"it refers to `{remote}`, and only its own parts (`#/$defs/…`) can be referred to"
    try:
        jsonschema_rs.meta.validate(schema)
        jsonschema_rs.validator_for(schema)
    except jsonschema_rs.ValidationError as error:
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
        return f"{error.message} - at `${place}`"
    except (jsonschema_rs.ReferencingError, TypeError, ValueError, RecursionError) as error:
        return str(error)
    return ""


def _check_properties(subject: Subject, places: Places, schema: Mapping[str, object]) -> None:
    settings = subject.settings()
    for name, of in settings.items():
        if is_secret(of):
            _check_secret(subject, places, name, of)
        elif any(is_secret(one) for one in _nested(of)):
            subject.found.add(
                code.SECRET_NESTED,
                MANIFEST,
                places.line("Connection", "settings", name),
                f"The setting `{name}` has a secret inside it, which would be kept in the clear.",
                "make the secret a setting of its own.",
            )
    required = schema.get("required", ())
    for name in required if isinstance(required, (list, tuple)) else ():
        if name not in settings:
            subject.found.add(
                code.REQUIRED_UNDECLARED,
                MANIFEST,
                places.line("Connection", "settings", name),
                f"The settings require `{name}`, and declare no such property.",
                near_miss(name, settings),
            )


def _check_secret(subject: Subject, places: Places, name: str, schema: object) -> None:
    if isinstance(schema, Mapping) and schema.get("type") != "string":
        subject.found.add(
            code.SECRET_TYPE,
            MANIFEST,
            places.line("Connection", "settings", name),
            f"The secret `{name}` is no string.",
            'say "type": "string".',
        )


def _nested(value: object, depth: int = 0) -> Iterator[object]:
    """Every part of a schema below its top."""
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    for one in inside if depth < DEPTH_MAX else ():
        yield one
        yield from _nested(one, depth + 1)


def _references(schema: object) -> Iterator[str]:
    for part in (schema, *_nested(schema)):
        for keyword in ("$ref", "$dynamicRef") if isinstance(part, Mapping) else ():
            reference = part.get(keyword) if isinstance(part, Mapping) else None
            if isinstance(reference, str):
                yield reference
