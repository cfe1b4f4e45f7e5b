"""For every code of the check, the good project broken in the one way that shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from project_builder import CUSTOMERS, GOOD, LIB, LIBRARY, MANIFEST, SYNC, WEBHOOK, manifest, replaced

STREAM = '        Stream("customers", mode="poll", schedule="*/15 * * * *"),\n'
OAUTH = (
    '        test="setup/test_connection",\n'
    '        oauth={"authorize_url": "https://shop.example/a", "token_url": "https://api.shop.example/t",'
    ' "client_id": "regio", "client_secret": "api_key"},\n'
)
INVOICES = '        Stream("invoices", mode="backfill"),\n'


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A project with one problem: what is changed, and where and how the check says so."""

    files: Mapping[str, str | None]
    at: str  # path:line
    says: str  # part of the message and hint
    links: Mapping[str, str] = field(default_factory=dict)  # symbolic links, by path


def of_manifest(*replacements: tuple[str, str], line: int, says: str) -> Broken:
    return Broken(files={"connector.py": manifest(*replacements)}, at=f"connector.py:{line}", says=says)


def of_stream(new: str, *, line: int = 24, says: str) -> Broken:
    return of_manifest((STREAM, new), line=line, says=says)


def of_sync(*replacements: tuple[str, str], line: int, says: str) -> Broken:
    return Broken(files={CUSTOMERS: replaced(GOOD[CUSTOMERS], *replacements)}, at=f"{CUSTOMERS}:{line}", says=says)


def of_library(*replacements: tuple[str, str], line: int, says: str) -> Broken:
    return Broken(files={LIB: replaced(LIBRARY, *replacements)}, at=f"{LIB}:{line}", says=says)


def of_library_end(code: str, *, says: str, line: int = 1) -> Broken:
    """A problem in the nth line of what is added to the library."""
    return Broken(files={LIB: LIBRARY + code}, at=f"{LIB}:{LIBRARY.count(chr(10)) + line}", says=says)


def of_records(code: str, *, line: int, says: str) -> Broken:
    return Broken(files={"src/records.py": code}, at=f"src/records.py:{line}", says=says)


def poll(options: str, key: str = "customers") -> str:
    return f'        Stream("{key}", mode="poll", schedule="*/15 * * * *", {options}),\n'


BROKEN: Mapping[str, Broken] = {
    # the folder and the manifest
    "HW101": Broken(
        files=dict.fromkeys(GOOD) | {"conector.py": MANIFEST}, at="connector.py:1", says="Did you mean `conector.py`?"
    ),
    "HW102": of_library_end("def broken(:\n", says="This is not Python"),
    "HW103": of_library_end("LIMIT = 1 // 0\n", says="The import raises ZeroDivisionError"),
    "HW104": of_manifest(("connector = Connector(", "conector = Connector("), line=1, says="did you mean to name"),
    "HW105": of_library_end(
        "import socket\n\nsocket.create_connection(('192.0.2.1', 80))\n", line=3, says="opens the network"
    ),
    "HW106": of_library_end("KEY = secrets['api_key']\n", says="move it into the route"),
    "HW107": of_manifest(('schedule="', 'shedule="'), line=24, says="did you mean `schedule`?"),
    "HW108": of_manifest(
        ('http=["https://api.shop.example/*"]', 'http="https://api.shop.example/*"'), line=20, says="put it in a list"
    ),
    "HW109": of_manifest(('key="shop"', 'key="Shop-EU"'), line=4, says="did you mean `shop_eu`?"),
    "HW110": of_manifest(('"0.1.0"', '"first"'), line=6, says="`first` is no version"),
    "HW111": Broken(
        files={
            "connector.py": manifest((STREAM, ""), (INVOICES, ""), ('        Stream("events", mode="webhook"),\n', "")),
            CUSTOMERS: None,
            "src/api/sync/invoices.py": None,
            "src/api/webhooks/shop.py": replaced(WEBHOOK, ('stream="events"', "stream=event['stream']")),
        },
        at="connector.py:22",
        says="declares no stream",
    ),
    "HW112": Broken(
        files={}, links={"src/lib/secret.txt": "/etc/hostname"}, at="src/lib/secret.txt:1", says="leads out"
    ),
    # streams
    "HW201": Broken(
        files={
            "connector.py": manifest(('Stream("invoices"', 'Stream("Invoices"')),
            "src/api/sync/invoices.py": None,
            "src/api/sync/Invoices.py": SYNC.replace("{stream}", "Invoices"),
        },
        at="connector.py:25",
        says="did you mean `invoices`?",
    ),
    "HW202": of_stream(STREAM + STREAM, line=25, says="declared twice"),
    "HW203": of_stream('        Stream("customers", mode="pol", schedule="* * * * *"),\n', says="did you mean `poll`?"),
    "HW204": of_stream('        Stream("customers", mode="poll"),\n', says='schedule="*/15 * * * *"'),
    "HW205": of_manifest(
        (INVOICES, '        Stream("invoices", mode="backfill",\n schedule="0 4 * * *"),\n'), line=26, says="remove it"
    ),
    "HW206": of_stream(
        '        Stream("customers", mode="poll", schedule="*/15 * * *"),\n', says="has 4 fields, not 5"
    ),
    "HW207": of_stream(poll('timezone="Europe/Berln"'), says="did you mean `Europe/Berlin`?"),
    "HW208": of_stream(poll("page_records=0"), says="it must be 1 to 10,000"),
    "HW209": of_stream(poll('partitions="acounts"'), says="did you mean `accounts`?"),
    "HW210": of_stream(poll("lookback_seconds=60"), says="say windowed=True as well"),
    # routes
    "HW301": Broken(files={CUSTOMERS: None}, at="connector.py:24", says="has no `src/api/sync/customers.py`"),
    "HW302": Broken(
        files={"src/api/sync/refunds.py": SYNC.replace("{stream}", "customers")},
        at="src/api/sync/refunds.py:1",
        says="No stream is named `refunds`",
    ),
    "HW303": of_sync(("def post(", "def get("), line=1, says="did you mean to name `get` `post`?"),
    "HW304": of_sync(('auth="api_key"', 'auth="standard_webhooks"'), line=6, says='write `@route(auth="api_key")`'),
    "HW305": of_sync(('@route(auth="api_key")\n', ""), line=6, says="declares no auth"),
    "HW306": of_sync(("(request: SyncRequest)", "(request: SyncRequest, page: int)"), line=7, says="does not take one"),
    "HW307": of_manifest(
        ("setup/test_connection", "setup/test_conection"), line=18, says="did you mean `setup/test_connection`?"
    ),
    # webhooks
    "HW401": Broken(
        files={
            "connector.py": manifest(
                ('    webhooks=Webhooks(endpoint="/webhooks/shop", auth="standard_webhooks"),\n', "")
            ),
            "src/api/webhooks/shop.py": None,
        },
        at="connector.py:22",
        says="the manifest declares no `webhooks`",
    ),
    "HW402": of_manifest(('"/webhooks/shop"', '"/hooks/shop"'), line=21, says="ill-formed"),
    "HW403": of_manifest(('"/webhooks/shop"', '"/webhooks/shopp"'), line=21, says="did you mean `/webhooks/shop`?"),
    "HW404": Broken(
        files={
            "connector.py": manifest(('"standard_webhooks"', '"standard_webhook"')),
            "src/api/webhooks/shop.py": replaced(WEBHOOK, ('"standard_webhooks"', '"standard_webhook"')),
        },
        at="connector.py:21",
        says="did you mean `standard_webhooks`?",
    ),
    "HW405": of_manifest(
        ('"webhook_secret": {"type": "string", "x-secret": True}', '"webhook_secret": {"type": "string"}'),
        line=14,
        says="is a plain setting",
    ),
    "HW406": Broken(
        files={"src/api/webhooks/other.py": WEBHOOK},
        at="src/api/webhooks/other.py:1",
        says="No endpoint of the manifest",
    ),
    "HW407": Broken(
        files={
            "connector.py": manifest(('"standard_webhooks"', '"hmac_sha256", options={"heder": "X-Signature"}')),
            "src/api/webhooks/shop.py": replaced(WEBHOOK, ('"standard_webhooks"', '"hmac_sha256"')),
        },
        at="connector.py:21",
        says="header",
    ),
    # settings
    "HW501": of_manifest(
        ('"region": {"type": "string"}', '"region": {"type": "strin"}'), line=8, says="no JSON Schema"
    ),
    "HW502": of_manifest(('"type": "object",', '"type": "array",'), line=8, says="do not describe an object"),
    "HW503": of_manifest(
        ('"region": {"type": "string"}', '"region": {"type": "object", "properties": {"key": {"x-secret": True}}}'),
        line=11,
        says="a setting of its own",
    ),
    "HW504": of_library(('settings.get("region")', 'settings.get("regio")'), line=7, says="did you mean `region`?"),
    "HW505": of_library(('settings.get("region")', 'secrets.get("region")'), line=7, says='write settings["region"]'),
    "HW506": of_manifest(
        ('"api_key": {"type": "string", "x-secret": True}', '"api_key": {"type": "integer", "x-secret": True}'),
        line=13,
        says="is no string",
    ),
    "HW507": of_manifest(
        ('"required": ["api_key"]', '"required": ["apikey"]'), line=16, says="did you mean `api_key`?"
    ),
    # secrets and permissions
    "HW601": of_library(("secrets['api_key']", "secrets['api_keys']"), line=7, says="did you mean `api_key`?"),
    "HW602": of_library(
        ('http.get(f"{API}{path}"', 'http.get(f"https://files.shop.example{path}"'), line=8, says="add"
    ),
    "HW603": of_manifest(
        ('http=["https://api.shop.example/*"]', 'http=["https://api.shop.example/*", "files.shop.example/*"]'),
        line=20,
        says="did you mean `https://files.shop.example/*`?",
    ),
    "HW604": of_library_end(
        "import os\n\n\ndef region():\n    return os.environ['REGION']\n", line=5, says="all connections"
    ),
    "HW605": of_manifest(
        ('http=["https://api.shop.example/*"]', 'http=["https://api.shop.example/*", "http://localhost:8080/*"]'),
        line=20,
        says="Permissions(private=True)",
    ),
    "HW606": of_library_end('SANDBOX = "https://sandbox.shop.example/v1"\n', says="https://sandbox.shop.example/*"),
    # emissions and types
    "HW701": of_sync(('            "customer",', '            "costumer",'), line=11, says="did you mean `customer`?"),
    "HW702": of_sync(('stream="customers"', 'stream="customer"'), line=13, says="did you mean `customers`?"),
    "HW703": of_records(
        "from headwater import Canonical\n\n\nclass Customer(Canonical):\n    id: int\n", line=4, says="Headwater ships"
    ),
    "HW704": of_records('SCHEMAS = {\n    "Parcel": {"type": "object"},\n}\n', line=2, says="did you mean `parcel`?"),
    "HW705": of_sync(('            stream="customers",\n', ""), line=10, says="`ingest.canonical` needs `stream=`"),
    "HW706": of_library_end(
        "from datetime import datetime\n\n\ndef at(seconds):\n    return datetime.fromtimestamp(seconds)\n",
        line=5,
        says="gives no zone",
    ),
    "HW707": of_library_end("def amount(text):\n    return float(text)\n", line=2, says="use `Decimal`"),
    # OAuth
    "HW801": of_manifest(
        (
            '        test="setup/test_connection",\n',
            OAUTH,
        ),
        line=19,
        says="did you mean `region`?",
    ),
}
