"""Settings are checked all at once, secrets are kept encrypted, and no value is ever repeated."""

import asyncio
import re
import select
import socket
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import make_catalog, open_memory_store
from headwater.catalog import Connection
from headwater.connection import (
    SECRET_BYTES_MAX,
    KeyRing,
    encrypt_secrets,
    endpoint_id,
    reencrypt,
    secret_aad,
    validate_settings,
)
from headwater.errors import SettingsError
from headwater.testing.clock import FakeClock

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
CANARY = "sk_live_hunter2hunter2"

SCHEMA = {
    "type": "object",
    "properties": {
        "api_key": {"type": "string", "x-secret": True, "pattern": "^sk_"},
        "webhook_secret": {"type": "string", "x-secret": True},
        "region": {"type": "string", "enum": ["eu", "us"], "default": "eu"},
        "retries": {"type": "integer", "minimum": 1},
        "proxy": {"type": "object", "properties": {"port": {"type": "integer"}}, "required": ["port"]},
    },
    "required": ["api_key"],
}


def catalog(schema=SCHEMA, **changes):
    return make_catalog(connection=Connection(settings={**schema, **changes}))


def test_settings_and_secrets_come_apart_with_defaults():
    settings, secrets = validate_settings(catalog(), {"api_key": "sk_1", "retries": 3})
    assert settings == {"region": "eu", "retries": 3}
    assert secrets == {"api_key": "sk_1"}


def test_settings_are_plain_json_wherever_they_came_from():
    connector = catalog(properties={"rate": {"type": "number"}, "list": {"type": "array"}}, required=[])
    settings, _ = validate_settings(connector, {"rate": Decimal("1.5"), "list": [Decimal(2), "x"]})
    assert settings == {"rate": 1.5, "list": [2.0, "x"]}
    assert type(settings["rate"]) is float


def problems(values, **options):
    with pytest.raises(SettingsError) as caught:
        validate_settings(options.pop("connector", catalog()), values, **options)
    return str(caught.value)


def test_every_problem_is_named_at_once_with_its_path_and_near_miss():
    said = problems({"api_kye": "x", "retries": 0, "region": "mars", "proxy": {"port": "x"}})
    assert "`api_kye` is no setting of it (did you mean `api_key`?)" in said
    assert "`api_key` is missing" in said
    assert "`retries`: the value is less than the minimum of 1" in said
    assert '`region`: the value is not one of "eu" or "us"' in said
    assert '`proxy.port`: the value is not of type "integer"' in said


def test_a_nested_field_that_is_missing_has_its_path():
    assert "`proxy.port` is missing" in problems({"api_key": "sk_1", "proxy": {}})


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        (5, "must be text"), (None, "must be text"), (["sk_1"], "must be text"), ("", "is empty"),
        ("sk_1\n", "begins or ends with"), (" sk_1", "begins or ends with"),
        ("sk_" + "x" * SECRET_BYTES_MAX, "is longer than"), ("sk_\ud800", "cannot be written as JSON"),
        ("pk_1", "does not match"),
    ],
)  # fmt: skip
def test_a_secret_must_be_usable_text(secret, says):
    said = problems({"api_key": secret})
    assert "`api_key`" in said
    assert says in said


@pytest.mark.parametrize("value", [float("nan"), object(), b"bytes", "\ud800", {"port": {1, 2}}, Decimal("Infinity")])
def test_a_setting_that_is_no_json_is_named_beside_the_others(value):
    said = problems({"proxy": value, "region": "mars"})
    assert "`proxy` cannot be written as JSON" in said
    assert "`region`: the value is not one of" in said


def test_a_secret_that_is_set_already_may_be_left_out():
    assert validate_settings(catalog(), {}, stored_secrets={"api_key"}) == ({"region": "eu"}, {})
    assert "`retries` is missing" in problems(
        {}, connector=catalog(required=["api_key", "retries"]), stored_secrets={"api_key", "retries"}
    )


def test_more_fields_are_taken_where_the_schema_says_so():
    for open_schema in ({"additionalProperties": True}, {"patternProperties": {"^x_": {"type": "string"}}}):
        settings, _ = validate_settings(catalog(**open_schema), {"api_key": "sk_1", "x_more": "y"})
        assert settings["x_more"] == "y"


def test_a_schema_that_asks_for_the_network_is_refused_without_asking():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        connector = catalog(properties={"a": {"$ref": url}}, required=[])
        assert "settings schema is not valid" in problems({"a": 1}, connector=connector)
        assert select.select([server], [], [], 0)[0] == []


CANARY_PLACES = [
    {"api_key": CANARY + " "}, {"api_key": [CANARY]}, {"api_key": {"deep": CANARY}}, {"api_kye": CANARY},
    {"region": CANARY},
    {"retries": CANARY}, {"proxy": CANARY}, {"proxy": {"port": CANARY}}, {"api_key": "pk_" + CANARY},
    {"api_key": CANARY, "region": CANARY}, {"api_key": CANARY, "webhook_secret": "", "region": f"x{CANARY}"},
    {"api_key": CANARY, CANARY: 1},
]  # fmt: skip


@pytest.mark.parametrize("values", CANARY_PLACES, ids=str)
def test_no_problem_repeats_a_value(values):
    with pytest.raises(SettingsError) as caught:
        validate_settings(catalog(), values)
    assert "hunter2" not in f"{caught.value} {caught.value!r} {caught.value.detail} {caught.value.hint}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.just(CANARY),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "port"]), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*SCHEMA["properties"], "other"]), JSON, max_size=5))
def test_no_settings_break_the_check_or_come_back_in_it(values):
    refusals = []
    try:
        settings, secrets = validate_settings(catalog(), values)
    except SettingsError as error:
        refusals.append(str(error))
    else:
        assert set(secrets) <= {"api_key", "webhook_secret"}
        assert not {"api_key", "webhook_secret"} & set(settings)
    assert not [text for text in refusals if "hunter2" in text]


def test_a_ciphertext_belongs_to_one_field_of_one_connection():
    ring = KeyRing([OLD])
    stored = encrypt_secrets(ring, "acme", {"api_key": CANARY, "other": CANARY})
    assert CANARY not in str(stored)
    assert ring.decrypt(stored["api_key"], aad=secret_aad("acme", "api_key")) == CANARY
    for connection, field in (("acme", "other"), ("acme2", "api_key"), ("acm", "e:api_key"), ("acme:api", "key")):
        with pytest.raises(SettingsError):
            ring.decrypt(stored["api_key"], aad=secret_aad(connection, field))


def test_no_two_connections_and_fields_are_bound_alike():
    assert secret_aad("a", "b:c") != secret_aad("a:b", "c")


def test_an_endpoint_id_cannot_be_guessed():
    drawn = {endpoint_id() for _ in range(100)}
    assert len(drawn) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", one) for one in drawn)
    assert endpoint_id(lambda size: f"{size} bytes") == "24 bytes"


async def connected(store, clock, ring, key):
    return await store.add_connection(
        key=key, connector="fake", tenant=None, endpoint_id=f"endpoint-{key}", settings={},
        secrets=encrypt_secrets(ring, key, {"api_key": f"{CANARY}-{key}", "webhook_secret": "whsec"}), at=clock.now(),
    )  # fmt: skip


def test_a_change_of_keys_brings_every_secret_under_the_newest():
    async def main():
        clock, old, both = FakeClock(), KeyRing([OLD]), KeyRing([NEW, OLD])
        async with open_memory_store(clock) as store:
            first = await connected(store, clock, old, "acme")
            await connected(store, clock, both, "other")
            aad = secret_aad("acme", "webhook_secret")
            await store.put_secret(
                first.id, name="webhook_secret", ciphertext=old.encrypt("next", aad=aad),
                keep_previous_until=clock.now() + timedelta(days=1),
            )  # fmt: skip
            done, again = await reencrypt(store, both), await reencrypt(store, both)
            only_new = KeyRing([NEW])
            secrets = [
                only_new.decrypt(one.ciphertext, aad=secret_aad("acme", one.field))
                for one in await store.secrets(first.id, at=clock.now())
            ]
            return done, again, sorted(secrets)

    done, again, secrets = asyncio.run(main())
    assert (done.changed, done.unreadable) == (3, [])
    assert (again.changed, again.unreadable) == (0, [])
    assert secrets == ["next", f"{CANARY}-acme", "whsec"]


def test_what_no_key_decrypts_is_named_and_holds_the_others_not_back():
    async def main():
        clock, lost, old, both = FakeClock(), KeyRing([bytes(32)]), KeyRing([OLD]), KeyRing([NEW, OLD])
        async with open_memory_store(clock) as store:
            await connected(store, clock, lost, "lost")
            await connected(store, clock, old, "acme")
            return await reencrypt(store, both)

    done = asyncio.run(main())
    assert done.changed == 2
    assert sorted(done.unreadable) == [("lost", "api_key"), ("lost", "webhook_secret")]
