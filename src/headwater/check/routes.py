"""The mapping of streams, endpoint and connection test to route files, and what each route file must hold."""

from __future__ import annotations

import ast
import inspect
import re
from types import ModuleType
from typing import Final

from headwater.check import code
from headwater.check.facts import Facts, argument
from headwater.check.places import Places
from headwater.check.streams import declared
from headwater.check.subject import Subject, is_secret, route_files
from headwater.errors import near_miss
from headwater.project import API_FOLDER, MANIFEST, ROUTE_NAME, SYNC_FOLDER, WEBHOOKS_FOLDER, webhook_file
from headwater.route import API_KEY, AUTH_ATTRIBUTE
from headwater.signatures import registry

_ENDPOINT: Final = re.compile(r"/webhooks/[a-z0-9][a-z0-9_-]*")
_PULLED = ("poll", "backfill")


def check_routes(subject: Subject, places: Places | None) -> None:
    """Import every route file and prove that the manifest's streams, endpoint and test meet them, one to one."""
    files = route_files(subject.bundle)
    for path in files:
        if subject.import_file(path) is not None or path in subject.facts:
            _check_route(subject, path)
    if subject.connector is not None and places is not None:
        if "streams" not in subject.unusable:
            _check_sync(subject, places, [path for path in files if path.startswith(SYNC_FOLDER + "/")])
        if "webhooks" not in subject.unusable:
            _check_webhooks(subject, places, [path for path in files if path.startswith(WEBHOOKS_FOLDER + "/")])
        _check_test(subject, places, files)


def _check_sync(subject: Subject, places: Places, files: list[str]) -> None:
    streams = [one for one in declared(subject) if isinstance(one.key, str)]
    modes = {one.key: one.mode for one in streams}
    orphans = [
        name for name in (_below(path, SYNC_FOLDER) for path in files) if modes.get(name, "webhook") == "webhook"
    ]
    missing = [one for one in streams if one.mode in _PULLED and f"{SYNC_FOLDER}/{one.key}.py" not in files]
    for stream in missing:
        call = places.stream_call(stream.key, 0)
        near = near_miss(stream.key, orphans)
        subject.found.add(
            code.SYNC_MISSING,
            MANIFEST,
            places.stream_line(call),
            f"The {stream.mode} stream `{stream.key}` has no `{SYNC_FOLDER}/{stream.key}.py`.",
            near and f"{near} Rename that file.",
        )
    for orphan in orphans:
        is_webhook = modes.get(orphan) == "webhook"
        near = near_miss(orphan, [one.key for one in missing])
        subject.found.add(
            code.SYNC_ORPHAN,
            f"{SYNC_FOLDER}/{orphan}.py",
            1,
            f"The stream `{orphan}` is a webhook stream: it is never polled."
            if is_webhook
            else f"No stream is named `{orphan}`.",
            near or "declare the stream, or remove the file; a helper's name begins with an underscore.",
        )


def _check_webhooks(subject: Subject, places: Places, files: list[str]) -> None:
    assert subject.connector is not None, "the manifest was read"
    webhooks = subject.connector.webhooks
    for stream in declared(subject):
        if stream.mode == "webhook" and webhooks is None:
            subject.found.add(
                code.WEBHOOKS_MISSING,
                MANIFEST,
                places.stream_line(places.stream_call(stream.key, 0)),
                f"The webhook stream `{stream.key}` has no endpoint: the manifest declares no `webhooks`.",
                'add webhooks=Webhooks(endpoint="/webhooks/…", auth="…").',
            )
    served = None
    if webhooks is not None and isinstance(webhooks.endpoint, str):
        served = _check_endpoint(subject, places, webhooks.endpoint, files)
        if isinstance(webhooks.auth, str):
            _check_scheme(subject, places)
        if isinstance(webhooks.secret, str):
            _check_signing_secret(subject, places, webhooks.secret)
    for path in files:
        if path != served:
            subject.found.add(
                code.WEBHOOK_ORPHAN,
                path,
                1,
                "No endpoint of the manifest leads to this route.",
                f'say webhooks=Webhooks(endpoint="/webhooks/{_below(path, WEBHOOKS_FOLDER)}", …), or remove the file.',
            )


def _check_endpoint(subject: Subject, places: Places, endpoint: str, files: list[str]) -> str | None:
    """Note what is wrong with the endpoint; gives the route file that it leads to, or that it was meant to."""
    line = places.line("Webhooks", "endpoint")
    if not _ENDPOINT.fullmatch(endpoint):
        subject.found.add(
            code.ENDPOINT_BAD,
            MANIFEST,
            line,
            f"The endpoint `{endpoint}` is ill-formed.",
            "write `/webhooks/` and the provider's name in lower-case letters, digits, - and _.",
        )
        return files[0] if len(files) == 1 else None
    path = webhook_file(endpoint)
    if path in files:
        return path
    near = near_miss(endpoint, [f"/webhooks/{_below(one, WEBHOOKS_FOLDER)}" for one in files])
    subject.found.add(code.ENDPOINT_MISSING, MANIFEST, line, f"The endpoint `{endpoint}` has no `{path}`.", near)
    return files[0] if near and len(files) == 1 else None


def _check_scheme(subject: Subject, places: Places) -> None:
    assert subject.connector is not None, "the manifest was read"
    webhooks = subject.connector.webhooks
    assert webhooks is not None, "there is an endpoint"
    if registry.scheme(webhooks.auth) is None:
        subject.found.add(
            code.SCHEME_UNKNOWN,
            MANIFEST,
            places.line("Webhooks", "auth"),
            f"There is no signature scheme `{webhooks.auth}`.",
            near_miss(webhooks.auth, registry.names()) or f"the schemes are {', '.join(registry.names())}.",
        )
        return
    field = "options" if webhooks.options else "auth"
    for problem in registry.problems(webhooks.auth, webhooks.options) if isinstance(webhooks.options, dict) else ():
        subject.found.add(code.SCHEME_OPTIONS, MANIFEST, places.line("Webhooks", field), problem)


def _check_signing_secret(subject: Subject, places: Places, name: str) -> None:
    settings = subject.settings()
    if is_secret(settings.get(name)):
        return
    declared_plain = name in settings
    line = places.line("Connection", "settings", name) if declared_plain else places.line("Webhooks", "secret")
    subject.found.add(
        code.WEBHOOK_SECRET,
        MANIFEST,
        line,
        f"The signing secret `{name}` is a plain setting."
        if declared_plain
        else f"The settings declare no secret `{name}`, which proves the deliveries.",
        "" if declared_plain else near_miss(name, subject.secrets()),
        f'declare it as "{name}": {{"type": "string", "x-secret": True}}.',
    )


def _check_test(subject: Subject, places: Places, files: list[str]) -> None:
    assert subject.connector is not None, "the manifest was read"
    test = subject.connector.connection.test
    if not isinstance(test, str) or f"{API_FOLDER}/{test}.py" in files:
        return
    known = [_below(path, API_FOLDER) for path in files]
    subject.found.add(
        code.TEST_MISSING,
        MANIFEST,
        places.line("Connection", "test"),
        f"The connection test `{test}` has no `{API_FOLDER}/{test}.py`.",
        near_miss(test, known),
    )


def _check_route(subject: Subject, path: str) -> None:
    facts, module = subject.facts[path], subject.modules.get(path)
    statement = facts.bound(ROUTE_NAME)
    line = statement.lineno if statement else 1
    if module is None:
        if statement is None:
            _note_no_post(subject, path, facts)
        return
    if not hasattr(module, ROUTE_NAME):
        _note_no_post(subject, path, facts)
        return
    _check_shape(subject, path, line, module)
    _check_auth(subject, path, facts, line, getattr(getattr(module, ROUTE_NAME), AUTH_ATTRIBUTE, None))


def _note_no_post(subject: Subject, path: str, facts: Facts) -> None:
    functions = [one.name for one in facts.tree.body if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef))]
    near = next((name for name in functions if name.lower() in ("post", "get", "put", "main", "handler", "sync")), "")
    subject.found.add(
        code.POST_MISSING,
        path,
        1,
        f"This route has no `{ROUTE_NAME}`.",
        f"did you mean to name `{near}` `{ROUTE_NAME}`?"
        if near
        else near_miss(ROUTE_NAME, functions)
        or "write `async def post(request)`, or keep what is no route in `src/lib`.",
    )


def _check_shape(subject: Subject, path: str, line: int, module: ModuleType) -> None:
    post = getattr(module, ROUTE_NAME)
    problem = ""
    if not inspect.isfunction(post):
        problem = f"`{ROUTE_NAME}` is no function."
    elif inspect.isasyncgenfunction(post) or inspect.isgeneratorfunction(post):
        problem = f"`{ROUTE_NAME}` yields: a route returns one page."
    else:
        try:
            inspect.signature(post).bind(None)
        except TypeError:
            problem = f"`{ROUTE_NAME}{inspect.signature(post)}` does not take one request."
    if problem:
        subject.found.add(code.POST_SHAPE, path, line, problem, "write `async def post(request)`.")


def _check_auth(subject: Subject, path: str, facts: Facts, line: int, auth: object) -> None:
    wanted: str | None = API_KEY
    if path.startswith(WEBHOOKS_FOLDER + "/"):
        webhooks = subject.connector.webhooks if subject.connector else None
        # A route that no endpoint leads to has its own diagnostic, and the manifest says nothing of its auth.
        is_served = (
            webhooks is not None and isinstance(webhooks.auth, str) and webhook_file(str(webhooks.endpoint)) == path
        )
        wanted = webhooks.auth if webhooks is not None and is_served else None
    elif not path.startswith((SYNC_FOLDER + "/", f"{API_FOLDER}/setup/")):
        return
    if auth is None:
        hint = f'write `@route(auth="{wanted or "…"}")` above it.'
        subject.found.add(code.AUTH_MISSING, path, line, f"`{ROUTE_NAME}` declares no auth.", hint)
    elif wanted is not None and auth != wanted:
        reason = (
            "a sync or setup route is called with an API key" if wanted == API_KEY else f"the manifest says `{wanted}`"
        )
        subject.found.add(
            code.AUTH_DIFFERS,
            path,
            _auth_line(facts, line),
            f"The route's auth is `{auth}`; {reason}.",
            f'write `@route(auth="{wanted}")`.',
        )


def _auth_line(facts: Facts, line: int) -> int:
    given = [argument(call, "auth") for name, call in facts.calls if name == "headwater.route"]
    lines = [one.lineno for one in given if one is not None and one.lineno <= line]
    return lines[-1] if lines else line


def _below(path: str, folder: str) -> str:
    return path.removeprefix(folder + "/").removesuffix(".py")
