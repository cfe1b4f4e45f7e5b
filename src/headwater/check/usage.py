"""What the routes and their libraries use, held against what the manifest declares."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping

from headwater.check import code
from headwater.check.facts import DYNAMIC, Facts, argument, is_open, module_name
from headwater.check.permissions import Address, is_permitted, patterns, url_address
from headwater.check.streams import declared
from headwater.check.subject import Subject
from headwater.errors import near_miss
from headwater.project import MANIFEST

_URL_AT = {"request": 1} | dict.fromkeys(("get", "post", "put", "patch", "delete", "head", "options"), 0)
_EMISSIONS = {"headwater.ingest.canonical": "ingest.canonical", "headwater.ingest.batch": "ingest.batch"}
_TEXT_PARTS_MAX = 64

# Calls that give an instant without a zone, and how many arguments they have at most when they do.
_NAIVE = {
    "datetime.datetime.utcnow": 0,
    "datetime.datetime.utcfromtimestamp": 1,
    "datetime.datetime.now": 0,
    "datetime.datetime.today": 0,
    "datetime.datetime.fromtimestamp": 1,
}


def check_usage(subject: Subject) -> None:
    """Note every use of a secret, setting, host, type or stream that the manifest does not declare."""
    called: set[str] = set()
    code_files = [facts for path, facts in subject.facts.items() if path != MANIFEST]
    texts = {
        f"{module_name(one.path)}.{name}": (one, value) for one in code_files for name, value in one.constants.items()
    }
    for facts in code_files:
        _check_habits(subject, facts)
        if subject.connector is not None:
            _check_lookups(subject, facts)
            _check_calls(subject, facts, texts, called)
        _check_emissions(subject, facts)
    if subject.connector is not None:
        for facts in code_files:
            _check_texts(subject, facts, texts, called)


def _check_lookups(subject: Subject, facts: Facts) -> None:
    settings, secrets = subject.settings(), subject.secrets()
    plain = [name for name in settings if name not in secrets]
    for lookup in facts.lookups:
        if lookup.of not in ("headwater.secrets", "headwater.settings"):
            continue
        is_of_secrets = lookup.of == "headwater.secrets"
        own, other = (secrets, plain) if is_of_secrets else (plain, secrets)
        what = "secret" if is_of_secrets else "setting"
        if lookup.key in own:
            continue
        if lookup.key in other:
            side = "settings" if is_of_secrets else "secrets"
            subject.found.add(
                code.SETTING_SIDE,
                facts.path,
                lookup.line,
                f"`{lookup.key}` is declared as a {'plain setting' if is_of_secrets else 'secret'}.",
                f'write {side}["{lookup.key}"].',
            )
        else:
            shape = '{"type": "string", "x-secret": True}' if is_of_secrets else '{"type": "string"}'
            subject.found.add(
                code.SECRET_UNDECLARED if is_of_secrets else code.SETTING_UNDECLARED,
                facts.path,
                lookup.line,
                f"The manifest declares no {what} `{lookup.key}`.",
                near_miss(lookup.key, own) or f'add "{lookup.key}": {shape} to its settings.',
            )


def _check_calls(subject: Subject, facts: Facts, texts: Mapping[str, tuple[Facts, ast.expr]], called: set[str]) -> None:
    permitted = patterns(subject)
    for name, call in facts.calls if permitted is not None else ():
        verb = name.removeprefix("headwater.http.").removeprefix("blocking.")
        if not name.startswith("headwater.http.") or verb not in _URL_AT:
            continue
        url = argument(call, "url", _URL_AT[verb])
        address = url_address(text_of(url, facts, texts)) if url is not None else None
        if url is None or address is None or is_permitted(address, permitted or ()):
            continue
        called.add(address.host)
        subject.found.add(
            code.HOST_UNDECLARED,
            facts.path,
            url.lineno,
            f"The manifest does not permit calls to `{shown(address)}`.",
            _permission_hint(subject, address),
        )


def _check_texts(subject: Subject, facts: Facts, texts: Mapping[str, tuple[Facts, ast.expr]], called: set[str]) -> None:
    permitted = patterns(subject)
    for node in facts.texts if permitted is not None else ():
        address = url_address(text_of(node, facts, texts))
        if address is None or address.host in called or is_permitted(address, permitted or ()):
            continue
        subject.found.add(
            code.HOST_UNCERTAIN,
            facts.path,
            node.lineno,
            f"This URL names `{shown(address)}`, which the manifest does not permit to be called.",
            _permission_hint(subject, address),
        )


def _permission_hint(subject: Subject, address: Address) -> str:
    pattern = f"{shown(address)}/*"
    near = near_miss(pattern, patterns(subject) or ())
    return f'{near} Otherwise add "{pattern}" to its permissions.' if near else f'add "{pattern}" to its permissions.'


def shown(address: Address) -> str:
    """An address as a reader knows it, `*` for its unknown parts."""
    default = "443" if address.scheme == "https" else "80"
    port = "" if address.port == default else f":{address.port}"
    return f"{address.scheme}://{address.host}{port}".replace(DYNAMIC, "*")


def text_of(node: ast.expr, facts: Facts, texts: Mapping[str, tuple[Facts, ast.expr]], depth: int = 0) -> str:
    """The text of an expression, `DYNAMIC` for each part that only a run can know."""
    if depth > _TEXT_PARTS_MAX:
        return DYNAMIC
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else DYNAMIC
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part, facts, texts, depth + 1) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return text_of(node.value, facts, texts, depth + 1)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left, facts, texts, depth + 1) + text_of(node.right, facts, texts, depth + 1)
    if isinstance(node, ast.Name) and node.id in facts.constants:
        return text_of(facts.constants[node.id], facts, texts, depth + 1)
    imported = texts.get(facts.dotted(node) or "")
    return text_of(imported[1], imported[0], texts, depth + 1) if imported else DYNAMIC


def _check_emissions(subject: Subject, facts: Facts) -> None:
    streams = [one.key for one in declared(subject)]
    for name, call in facts.calls:
        if name not in _EMISSIONS:
            continue
        _check_arguments(subject, facts, _EMISSIONS[name], call)
        type_name = facts.literal(argument(call, "type", 0))
        if type_name is not None and subject.types is not None and type_name not in subject.types:
            subject.found.add(
                code.TYPE_UNKNOWN,
                facts.path,
                _line(call, "type", 0),
                f"There is no canonical type `{type_name}`.",
                near_miss(type_name, subject.types) or "declare it in `src/records.py`.",
            )
        stream = facts.literal(argument(call, "stream"))
        if stream is not None and subject.connector is not None and stream not in streams:
            subject.found.add(
                code.EMISSION_STREAM,
                facts.path,
                _line(call, "stream"),
                f"The manifest declares no stream `{stream}`.",
                near_miss(stream, _texts_only(streams)),
            )


def _check_arguments(subject: Subject, facts: Facts, shown_name: str, call: ast.Call) -> None:
    if is_open(call):
        return
    # A batch without keys names its objects by themselves.
    needed = ("stream",) if shown_name.endswith("batch") else ("stream", "idempotency_key")
    missing = [name for name in needed if argument(call, name) is None]
    if missing:
        subject.found.add(
            code.EMISSION_INCOMPLETE,
            facts.path,
            call.lineno,
            f"`{shown_name}` needs {' and '.join(f'`{name}=`' for name in missing)}.",
        )


def _check_habits(subject: Subject, facts: Facts) -> None:
    for name, line in facts.uses:
        if name in ("os.environ", "os.getenv", "os.environb"):
            subject.found.add(
                code.ENVIRONMENT,
                facts.path,
                line,
                "This reads the environment, which all connections share.",
                "declare a setting instead, and read it from `settings` or `secrets`.",
            )
    for name, call in facts.calls:
        if name in _NAIVE and not is_open(call) and len(call.args) + len(call.keywords) <= _NAIVE[name]:
            subject.found.add(
                code.NAIVE_INSTANT,
                facts.path,
                call.lineno,
                f"`{name.removeprefix('datetime.')}` here gives no zone.",
                "give it one: `datetime.fromtimestamp(seconds, UTC)`.",
            )
        elif name == "float":
            subject.found.add(
                code.FLOAT,
                facts.path,
                call.lineno,
                "`float(…)` loses digits, and a payload with a float is refused.",
                "use `Decimal` or whole minor units.",
            )


def _line(call: ast.Call, name: str, position: int | None = None) -> int:
    given = argument(call, name, position)
    return given.lineno if given is not None else call.lineno


def _texts_only(values: Collection[object]) -> list[str]:
    return [one for one in values if isinstance(one, str)]
