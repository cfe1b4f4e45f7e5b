"""Live connections: code, settings and secrets together, read rarely and never stale for long."""

import asyncio
from datetime import timedelta

import pytest

from builders import AT, make_catalog, make_project
from headwater.connection import KeyRing, secret_aad
from headwater.errors import NotFoundError, SettingsError
from headwater.invoke import MISS_SECONDS, READ_AGAIN_SECONDS, invocation_for
from http_fakes import SECRET
from live_connections import RING, catalog, scene


def test_a_live_connection_has_its_code_its_settings_and_its_secrets():
    async def body(scene):
        stored = await scene.add(secrets={"api_key": SECRET, "webhook_secret": "whsec"})
        live = await scene.connections.get(stored.id)
        assert live.stored == stored
        assert live.project is scene.projects["fake"]
        assert live.settings == {"region": "eu"}
        assert live.secrets == {"api_key": SECRET, "webhook_secret": "whsec"}
        assert live.webhook_secrets() == ["whsec"]
        assert await scene.connections.by_key("acme") is live
        assert await scene.connections.by_endpoint("endpoint-acme") is live

    scene(body)


def test_nothing_shows_its_secrets():
    async def body(scene):
        live = await scene.connections.get((await scene.add()).id)
        invocation = invocation_for(live, stream="customers", as_of=AT)
        shown = [repr(live), repr(live.versions["api_key"]), repr(invocation), repr(live.http), repr(scene.connections)]
        assert not [text for text in shown if SECRET in text]

    scene(body)


def test_what_is_not_there_is_named():
    async def body(scene):
        await scene.add()
        with pytest.raises(NotFoundError, match="id 999"):
            await scene.connections.get(999)
        with pytest.raises(NotFoundError, match="Did you mean `acme`"):
            await scene.connections.by_key("acmee")
        assert await scene.connections.by_endpoint("endpoint-other") is None

    scene(body)


def test_a_connection_made_a_moment_ago_is_found_by_id_and_key():
    async def body(scene):
        await scene.connections.by_endpoint("endpoint-acme")
        stored = await scene.add()
        assert (await scene.connections.get(stored.id)).stored == stored
        other = await scene.add(key="other")
        assert (await scene.connections.by_key("other")).stored == other

    scene(body)


def test_a_connection_whose_connector_is_not_loaded_is_told_apart():
    async def body(scene):
        stored = await scene.add(key="other", connector="fakes")
        with pytest.raises(NotFoundError, match="`fakes` of the connection `other` is not loaded"):
            await scene.connections.get(stored.id)
        assert await scene.connections.by_endpoint("endpoint-other") is None

    scene(body)


def test_a_secret_under_a_lost_key_needs_the_operator():
    async def body(scene):
        stored = await scene.add(ring=KeyRing([bytes(range(32))]))
        with pytest.raises(SettingsError, match="cannot be decrypted"):
            await scene.connections.get(stored.id)

    scene(body)


def test_a_ciphertext_moved_to_another_connection_is_worth_nothing():
    async def body(scene):
        first = await scene.add()
        (secret,) = await scene.store.secrets(first.id, at=AT)
        second = await scene.add(key="thief", secrets={})
        await scene.store.put_secret(second.id, name="api_key", ciphertext=secret.ciphertext, keep_previous_until=None)
        with pytest.raises(SettingsError):
            await scene.connections.get(second.id)

    scene(body)


def test_the_store_is_read_once_in_a_few_seconds():
    async def body(scene):
        stored = await scene.add()
        first = await scene.connections.get(stored.id)
        for _ in range(10):
            assert await scene.connections.by_endpoint("endpoint-acme") is first
        assert scene.counted.reads == ["connections", "secrets"]
        await scene.clock.advance(READ_AGAIN_SECONDS)
        assert await scene.connections.get(stored.id) is first
        assert scene.counted.reads == ["connections", "secrets"] * 2

    scene(body)


def test_many_who_ask_at_once_read_the_store_once():
    async def body(scene):
        await scene.add()
        await asyncio.gather(*(scene.connections.by_key("acme") for _ in range(20)))
        assert scene.counted.reads.count("connections") == 1

    scene(body)


def test_a_change_made_elsewhere_is_seen_after_a_few_seconds():
    async def body(scene):
        stored = await scene.add()
        await scene.connections.get(stored.id)
        ciphertext = RING.encrypt("sk_new", aad=secret_aad("acme", "api_key"))
        await scene.store.put_secret(stored.id, name="api_key", ciphertext=ciphertext, keep_previous_until=None)
        assert (await scene.connections.get(stored.id)).secrets["api_key"] == SECRET
        await scene.clock.advance(READ_AGAIN_SECONDS)
        assert (await scene.connections.get(stored.id)).secrets["api_key"] == "sk_new"
        await scene.store.update_settings(stored.id, {"region": "us"})
        await scene.clock.advance(READ_AGAIN_SECONDS)
        assert (await scene.connections.get(stored.id)).settings["region"] == "us"
        await scene.store.remove_connection(stored.id)
        await scene.clock.advance(READ_AGAIN_SECONDS)
        with pytest.raises(NotFoundError):
            await scene.connections.get(stored.id)

    scene(body)


def test_what_is_forgotten_is_read_at_once():
    async def body(scene):
        stored = await scene.add()
        await scene.connections.get(stored.id)
        await scene.store.pause_connection(stored.id, reason="later", needs_attention=False, at=AT)
        assert (await scene.connections.get(stored.id)).stored.paused_at is None
        scene.connections.forget(stored.id)
        assert (await scene.connections.get(stored.id)).stored.paused_reason == "later"
        await scene.store.resume_connection(stored.id, at=AT)
        scene.connections.forget()
        assert (await scene.connections.get(stored.id)).stored.paused_at is None

    scene(body)


def test_what_is_forgotten_while_it_is_read_is_read_again():
    async def body(scene):
        stored = await scene.add()

        async def change_behind_the_read():
            scene.counted.during = None
            await scene.store.pause_connection(stored.id, reason="later", needs_attention=False, at=AT)
            scene.connections.forget(stored.id)

        scene.counted.during = change_behind_the_read
        assert (await scene.connections.get(stored.id)).stored.paused_reason == "later"

    scene(body)


def test_a_new_connection_is_found_soon_and_a_guess_costs_one_read_a_second():
    async def body(scene):
        assert await scene.connections.by_endpoint("endpoint-acme") is None
        await scene.add()
        for _ in range(50):
            assert await scene.connections.by_endpoint("endpoint-acme") is None
        assert scene.counted.reads == ["connections"]
        await scene.clock.advance(MISS_SECONDS)
        assert await scene.connections.by_endpoint("endpoint-acme") is not None

    scene(body)


def test_a_project_that_is_replaced_is_used_from_the_next_look_on():
    async def body(scene):
        stored = await scene.add()
        await scene.connections.get(stored.id)
        scene.projects["fake"] = newer = make_project(connector=catalog(version="0.2.0"))
        assert (await scene.connections.get(stored.id)).project is newer

    scene(body)


def test_while_a_secret_rotates_both_are_valid_and_the_newest_comes_first():
    async def body(scene):
        stored = await scene.add(secrets={"webhook_secret": "old"})
        ciphertext = RING.encrypt("new", aad=secret_aad("acme", "webhook_secret"))
        until = scene.clock.now() + timedelta(seconds=READ_AGAIN_SECONDS / 2)
        await scene.store.put_secret(stored.id, name="webhook_secret", ciphertext=ciphertext, keep_previous_until=until)
        live = await scene.connections.get(stored.id)
        assert live.webhook_secrets() == ["new", "old"]
        assert live.secrets["webhook_secret"] == "new"
        await scene.clock.advance(READ_AGAIN_SECONDS / 2)
        assert live.webhook_secrets() == ["new"]

    scene(body)


def test_without_webhooks_or_without_a_secret_there_are_none():
    async def body(scene):
        stored = await scene.add()
        assert (await scene.connections.get(stored.id)).webhook_secrets() == []
        scene.projects["fake"] = make_project(connector=make_catalog(webhooks=None))
        assert (await scene.connections.get(stored.id)).webhook_secrets() == ()

    scene(body)


def test_the_processs_redactor_knows_every_live_secret():
    async def body(scene):
        await scene.connections.get((await scene.add()).id)
        await scene.connections.get((await scene.add(key="other", secrets={"api_key": "sk_other_account"})).id)
        assert scene.connections.redactor().text(f"{SECRET} sk_other_account") == "*** ***"

    scene(body)
