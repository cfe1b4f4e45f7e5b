"""`/audit`: who did what, found by what is in the URL, in three formats."""

import pytest

from doors import EMAIL, send, visit
from headwater.dashboard.audit import facts_of, words_of

pytestmark = pytest.mark.usefixtures("quick_passwords")
HEAD = "id,at,actor,act,target,detail"


async def note(house, **overrides):
    words = {"actor": EMAIL, "act": "deliveries.replay", "target": "acme", "detail": {"state": "dead", "count": 41}}
    await house.store.audit(at=house.clock.now(), **{**words, **overrides})


def test_every_act_is_told_with_its_filter_and_count(tmp_path):
    async def act(house):
        admin = await house.person()
        await note(house)
        await note(house, actor="cli:<b>", act="quarantine.drop", target="=1+1", detail={"ids": [1, 2], "none": None})
        page = (await admin.get("/audit")).text
        for part in ("state: dead", "count: 41", "cli:&lt;b&gt;", "ids: [1,2]", "signed in", "?act=deliveries.replay"):
            assert part in page, part
        assert "none:" not in page
        twin = (await admin.get("/audit?format=json")).json()
        assert [one["act"] for one in twin["data"]] == [
            "quarantine.drop", "deliveries.replay", "sessions.begin", "accounts.add",
        ]  # fmt: skip
        table = (await admin.get("/audit?format=csv")).text.splitlines()
        assert table[0] == HEAD
        assert "'=1+1" in table[1]

    visit(tmp_path, act)


def test_filters_are_in_the_url_and_lists_go_on(tmp_path):
    async def act(house):
        admin = await house.key("operate")
        for number in range(3):
            await house.clock.advance(3600)
            await note(house, target=f"acme {number}")

        async def targets(query):
            return [one["target"] for one in (await admin.get(f"/audit?format=json&{query}")).json()["data"]]

        assert await targets("act=deliveries") == ["acme 2", "acme 1", "acme 0"]
        assert await targets("act=deliveries.replay&target=acme+1") == ["acme 1"]
        assert await targets(f"actor={EMAIL}&act=deliveries&since=2026-01-01T02:00:00Z") == ["acme 2", "acme 1"]
        assert await targets("act=deliveries&until=2026-01-01T02:00:00Z") == ["acme 0"]
        assert await targets("actor=nobody") == []
        first = (await admin.get("/audit?format=json&act=deliveries&limit=2")).json()
        assert await targets(f"act=deliveries&limit=2&after={first['next_cursor']}") == ["acme 0"]
        page = (await admin.get("/audit?act=deliveries&limit=2")).text
        assert f"act=deliveries&amp;limit=2&amp;after={first['next_cursor']}" in page
        assert 'value="deliveries"' in page
        assert "No act matches" in (await admin.get("/audit?actor=nobody")).text
        assert (await admin.get("/audit?atcor=x")).status_code == 400

    visit(tmp_path, act)


def test_operators_see_it_and_viewers_and_tenants_do_not(tmp_path):
    async def act(house):
        await house.person()
        operator, viewer = await house.person("operator", "op@x.y"), await house.person("viewer", "see@x.y")
        assert 'href="/audit"' in (await operator.get("/audit")).text
        assert (await viewer.get("/audit")).status_code == 403
        assert 'href="/audit"' not in (await viewer.get("/")).text
        assert (await (await house.key("operate", tenant="north")).get("/audit?format=json")).status_code == 403
        assert (await (await house.key("operate")).get("/audit?format=json")).status_code == 200

    visit(tmp_path, act)


def test_what_is_done_at_the_door_is_in_it(tmp_path):
    async def act(house):
        admin = await house.person()
        await send(admin, "/accounts", "/accounts", email="bob@x.y", role="viewer")
        await send(admin, "/keys", "/keys", **{"name": "ci", "scope-read": "1"})
        await send(admin, "/account", "/logout")
        assert [one[0] for one in await house.acts()] == [
            "accounts.add", "sessions.begin", "accounts.add", "accounts.invite", "keys.create", "sessions.end",
        ]  # fmt: skip

    visit(tmp_path, act)


def test_acts_are_told_in_words_where_there_are_some():
    assert words_of("keys.revoke") == "revoked the key"
    assert words_of("moons.align") == "moons.align"
    assert facts_of({"a": 1, "b": "x", "c": [], "d": None, "e": {"f": True}, "g": False}) == [
        ("a", "1"),
        ("b", "x"),
        ("e", '{"f":true}'),
        ("g", "false"),
    ]


def test_accounts_by_the_api(tmp_path):
    async def act(house):
        admin = await house.key("read", "payloads", "operate", "deploy", "admin")
        made = await admin.post("/api/v1/accounts", json={"email": "Ann@Example.com", "role": "operator"})
        assert (made.status_code, made.json()["account"]["email"]) == (201, "ann@example.com")
        assert (made.json()["account"]["state"], "password" in made.json()["account"]) == ("invited", False)
        one, path = f"/api/v1/accounts/{made.json()['account']['id']}", made.json()["setup_path"]
        assert (await house.browser().get(path)).status_code == 200
        again = (await admin.post(f"{one}/invite")).json()["setup_path"]
        assert [(await house.browser().get(each)).status_code for each in (path, again)] == [404, 200]
        changed = await admin.patch(one, json={"role": "viewer", "enabled": False})
        assert (changed.json()["role"], changed.json()["state"]) == ("viewer", "disabled")
        assert (await admin.patch(one, json={"enabled": True})).json()["state"] == "invited"
        assert (await admin.post(f"{one}/end-sessions")).json() == {"ended": 0}
        (listed,) = (await admin.get("/api/v1/accounts")).json()["data"]
        assert (listed["role"], listed["state"]) == ("viewer", "invited")
        taken = await admin.post("/api/v1/accounts", json={"email": "ann@example.com"})
        assert taken.status_code == 409
        for wrong in (
            {"email": "nobody"},
            {"email": "b@example.com", "role": "god"},
            {"email": "b@example.com", "x": 1},
        ):
            assert (await admin.post("/api/v1/accounts", json=wrong)).status_code == 400, wrong
        assert (await admin.patch("/api/v1/accounts/99", json={"role": "viewer"})).status_code == 404
        for poor in (await house.key("read", "operate"), await house.key("admin", tenant="north")):
            assert (await poor.get("/api/v1/accounts")).status_code == 403
            assert (await poor.post("/api/v1/accounts", json={"email": "c@example.com"})).status_code == 403

    visit(tmp_path, act)


def test_who_gives_a_role_has_all_of_it(tmp_path):
    async def act(house):
        owner = await house.key("read", "payloads", "operate", "deploy", "admin")
        boss = (await owner.post("/api/v1/accounts", json={"email": "boss@example.com", "role": "admin"})).json()
        one = f"/api/v1/accounts/{boss['account']['id']}"
        clerk = await house.key("admin", "read")
        for answer in (
            await clerk.post("/api/v1/accounts", json={"email": "me@example.com", "role": "admin"}),
            await clerk.post(f"{one}/invite"),
            await clerk.patch(one, json={"role": "operator"}),
        ):
            assert (answer.status_code, "to give" in answer.json()["detail"]) == (403, True)
        assert (
            await clerk.post("/api/v1/accounts", json={"email": "me@example.com", "role": "viewer"})
        ).status_code == 201

    visit(tmp_path, act)


def test_keys_by_the_api(tmp_path):
    async def act(house):
        admin = await house.key("admin", "read", "deploy")
        made = await admin.post("/api/v1/keys", json={"name": "ci", "scopes": ["read"], "days": 7, "tenant": "north"})
        assert made.status_code == 201
        key = made.json()["key"]
        assert made.json()["api_key"]["scopes"] == ["read"]
        assert (await house.browser(authorization=f"Bearer {key}").get("/api/v1/streams")).status_code == 200
        listed = (await admin.get("/api/v1/keys")).json()["data"]
        assert [one["name"] for one in listed] == ["ci", "ci"]
        assert key not in str(listed)
        for wrong in (
            {"name": "x", "scopes": []}, {"name": "", "scopes": ["read"]}, {"name": "x", "scopes": ["read"], "days": 0},
            {"name": "x", "scopes": ["all"]}, {"name": "x", "scopes": ["read"], "role": "admin"},
        ):  # fmt: skip
            assert (await admin.post("/api/v1/keys", json=wrong)).status_code == 400, wrong
        more = await admin.post("/api/v1/keys", json={"name": "x", "scopes": ["operate"]})
        assert (more.status_code, "to give" in more.json()["detail"]) == (403, True)
        number = made.json()["api_key"]["id"]
        assert (await admin.delete(f"/api/v1/keys/{number}")).status_code == 204
        assert (await admin.delete(f"/api/v1/keys/{number}")).status_code == 404
        assert (await admin.delete(f"/api/v1/keys/{2**70}")).status_code == 404
        assert (await house.browser(authorization=f"Bearer {key}").get("/api/v1/streams")).status_code == 401
        for poor in (await house.key("read", "operate", "deploy"), await house.key("admin", tenant="north")):
            assert (await poor.get("/api/v1/keys")).status_code == 403
            assert (await poor.post("/api/v1/keys", json={"name": "x", "scopes": ["read"]})).status_code == 403
            assert (await poor.delete("/api/v1/keys/1")).status_code == 403

    visit(tmp_path, act)
