"""What a manifest's permissions come to once an operator has filled in the settings."""

from pathlib import Path

import pytest

from headwater.catalog import Connection, Connector, Permissions
from headwater.check.check import check

PERMISSIONS = Permissions(http=["https://api.example.com/*", "{settings.api_base}/*"])


@pytest.mark.parametrize(
    ("value", "origin"),
    [
        ("https://eu.example.com", "https://eu.example.com"),
        ("https://eu.example.com:8443/", "https://eu.example.com:8443"),
        ("http://127.0.0.1:9900", "http://127.0.0.1:9900"),
        ("http://localhost:9900", "http://localhost:9900"),
        ("http://[::1]:9900", "http://[::1]:9900"),
    ],
)
def test_an_origin_in_a_setting_completes_its_pattern(value, origin):
    assert PERMISSIONS.patterns({"api_base": value}) == ("https://api.example.com/*", f"{origin}/*")


@pytest.mark.parametrize(
    "value",
    [
        None, 5, "", "*", "https://*", "https://*.example.com", "https://a.example.com/path", "https://a@example.com",
        "https://example.com?x=1", "https://example.com#x", "ftp://example.com", "http://example.com", "http://10.0.0.1",
        "http://169.254.169.254", "https://[::1", "https://example.com:port", "https://exämple.com",
    ],
)  # fmt: skip
def test_anything_but_an_origin_allows_nothing(value):
    assert PERMISSIONS.patterns({"api_base": value}) == ("https://api.example.com/*",)
    assert PERMISSIONS.loopback_patterns({"api_base": value}) == ()


def test_a_setting_that_is_not_set_allows_nothing():
    assert PERMISSIONS.patterns({}) == ("https://api.example.com/*",)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("http://127.0.0.1:9900", ("http://127.0.0.1:9900/*",)),
        ("https://localhost", ("https://localhost/*",)),
        ("https://eu.example.com", ()),
        ("https://10.0.0.1", ()),
    ],
)
def test_loopback_is_allowed_only_where_the_setting_itself_names_it(value, expected):
    assert PERMISSIONS.loopback_patterns({"api_base": value}) == expected


def test_loopback_in_the_manifest_alone_is_no_word_of_the_operator():
    assert Permissions(http=["http://127.0.0.1/*"]).loopback_patterns({}) == ()


def test_defaults_fill_what_is_not_set():
    schema = {"properties": {"region": {"type": "string", "default": "eu"}, "account": {"type": "string"}}}
    connector = Connector(key="a", name="A", version="1", streams=[], connection=Connection(settings=schema))
    assert connector.with_defaults({"account": "x"}) == {"region": "eu", "account": "x"}
    assert connector.with_defaults({"region": "us"}) == {"region": "us"}


def test_the_check_knows_settings_in_permissions(tmp_path):
    manifest = """from headwater import Connection, Connector, Permissions

connector = Connector(
    key="shop", name="Shop", version="0.1.0", streams=[],
    connection=Connection(settings={"type": "object", "properties": {"api_base": {"type": "string"}}}),
    permissions=Permissions(http=["{settings.NAME}/*"]),
)
"""
    found = {}
    for name in ("api_base", "api_bass"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "connector.py").write_text(manifest.replace("NAME", name))
        found[name] = [str(one) + one.hint for one in check(folder).diagnostics if one.code == "HW603"]
    assert found["api_base"] == []
    assert "`api_base`?" in found["api_bass"][0]


def test_the_first_party_connectors_pass_their_check():
    manifests = list((Path(__file__).parent.parent / "connectors").glob("*/connector.py"))
    assert manifests
    for manifest in manifests:
        assert check(manifest.parent).diagnostics == (), manifest.parent.name
