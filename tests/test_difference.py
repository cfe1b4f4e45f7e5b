"""What a deploy changes, from two outlines: pure."""

from dataclasses import replace

import pytest

from headwater.difference import compare
from headwater.outline import Outline, decode, encode, outline, shape
from headwater.project import load, shipped_types
from project_builder import manifest, write_project

POLL = {"mode": "poll", "schedule": "*/15 * * * *", "timezone": "UTC", "page_records": 100}
BEFORE = Outline(
    connector="shop",
    version="0.1.0",
    streams={"customers": POLL, "events": {"mode": "webhook", "schedule": None, "timezone": "UTC"}},
    permissions=("https://api.shop.example/*",),
    settings={"region": {"type": "string"}},
    webhooks={"endpoint": "/webhooks/shop", "auth": "standard_webhooks"},
    types={"order": {"id": "string", "total": "integer"}},
)


def changes(**changed):
    found = compare(BEFORE, replace(BEFORE, **changed))
    return [(one.area, one.kind, one.name, one.before, one.after, one.destructive) for one in found]


def test_the_same_version_changes_nothing():
    assert compare(BEFORE, BEFORE) == ()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"streams": {**BEFORE.streams, "orders": POLL}},
            ("stream", "added", "orders", None, "poll, */15 * * * * UTC", False),
        ),
        (
            {"streams": {"customers": POLL}},
            ("stream", "removed", "events", "webhook", None, True),
        ),
        (
            {"streams": {**BEFORE.streams, "customers": {**POLL, "schedule": "0 * * * *"}}},
            ("stream", "rescheduled", "customers", "poll, */15 * * * * UTC", "poll, 0 * * * * UTC", False),
        ),
        (
            {"streams": {**BEFORE.streams, "customers": {**POLL, "page_records": 50}}},
            ("stream", "changed", "customers", "page_records = 100", "page_records = 50", False),
        ),
        ({"permissions": ()}, ("permission", "removed", "https://api.shop.example/*", None, None, False)),
        ({"private": True}, ("permission", "added", "private addresses", None, None, False)),
        (
            {"settings": {"region": {"type": "integer"}}},
            ("setting", "changed", "region", '{"type":"string"}', '{"type":"integer"}', False),
        ),
        (
            {"required": ("region",)},
            ("setting", "changed", "region", '{"type":"string"}', '{"type":"string"}, required', False),
        ),
        ({"settings": {}}, ("setting", "removed", "region", '{"type":"string"}', None, False)),
        (
            {"webhooks": {"endpoint": "/webhooks/new", "auth": "standard_webhooks"}},
            ("webhooks", "changed", "endpoint", "/webhooks/shop", "/webhooks/new", True),
        ),
        ({"types": {}}, ("record", "removed", "order", None, None, True)),
        ({"types": {**BEFORE.types, "cart": {}}}, ("record", "added", "cart", None, None, False)),
        (
            {"types": {"order": {"id": "string"}}},
            ("field", "removed", "order.total", "integer", None, True),
        ),
        (
            {"types": {"order": {"id": "string", "total": "string"}}},
            ("field", "retyped", "order.total", "integer", "string", True),
        ),
        (
            {"types": {"order": {"id": "string", "total": "integer", "tax": "integer"}}},
            ("field", "added", "order.tax", None, "integer", False),
        ),
    ],
)
def test_each_change_is_told_and_what_takes_something_away_is_marked(changed, expected):
    assert changes(**changed) == [expected]


def test_the_first_version_adds_everything_and_destroys_nothing():
    found = compare(None, BEFORE)
    assert {(one.kind, one.destructive) for one in found} == {("added", False)}
    assert {one.area for one in found} == {"stream", "permission", "setting", "webhooks", "record"}


def test_long_schemas_that_differ_at_their_end_differ():
    enums = [{"enum": ["x" * 300, end]} for end in "ab"]
    (found,) = compare(replace(BEFORE, settings={"region": enums[0]}), replace(BEFORE, settings={"region": enums[1]}))
    assert (found.kind, found.name) == ("changed", "region")


def test_where_the_records_before_are_not_known_they_are_not_compared():
    assert compare(replace(BEFORE, types=None), replace(BEFORE, types={})) == ()


def test_an_outline_is_read_from_a_project_and_survives_the_store(tmp_path):
    records = """\
        from headwater.canonical.schema import Canonical

        SCHEMAS = {"cart": {"type": "object", "properties": {"id": {"type": "string"}}}}


        class Order(Canonical):
            id: str
            total: int | None = None
    """
    read = outline(load(write_project(tmp_path / "shop", {"src/records.py": records})))
    assert decode(encode(read)) == read
    assert read.streams["customers"]["schedule"] == "*/15 * * * *"
    assert read.required == ("api_key",)
    assert read.types == {"cart": {"id": "string"}, "order": {"id": "string", "total": "integer | null"}}
    again = outline(load(write_project(tmp_path / "shop", {"connector.py": manifest(('"0.1.0"', '"0.2.0"'))})))
    assert [one.name for one in compare(read, again)] == []
    assert again.version == "0.2.0"


def test_fields_within_fields_are_told_by_their_path():
    invoice = shape(shipped_types()["invoice"].json_schema())
    assert invoice["id"] == "string"
    assert any(name.startswith("lines.") for name in invoice)
    recursive = {"$ref": "#/$defs/Node", "$defs": {"Node": {"properties": {"next": {"$ref": "#/$defs/Node"}}}}}
    assert len(shape(recursive)) < 20
