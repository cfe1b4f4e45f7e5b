"""OWASP ASVS 5.0 at the front door: each test is named after its item.

V3 web frontend · V11, V13 to V16 as far as a browser or a program at the door meets them. Requests and their bodies,
V4 and V5, are in `test_security_requests.py`; who comes and what they may do, V6 to V8, in `test_security_callers.py`.
"""

import logging
import re

import pytest
from starlette.routing import Mount

from doors import (
    BETTER,
    EMAIL,
    GOOD,
    connect_shop,
    csrf_in,
    event,
    proof,
    send,
    sign_in,
    visit,
)
from every_route import CANARY, TEMPLATES, UNSAFE, asks_everything, filled, routes_of
from headwater import account
from headwater.api.session import COOKIE
from loopback import API_KEY, WEBHOOK_SECRET, shop_project
from stored import connect, emit, ingest

pytestmark = pytest.mark.usefixtures("quick_passwords")

# V3: web frontend


def test_v3_2_2_what_providers_sent_is_shown_as_text(tmp_path):
    async def act(house):
        await connect(house.store, house.clock, key="acme", streams=["customers"])
        await ingest(house.store, house.clock, emit("<i>odd", house.clock, name=CANARY))
        await house.store.audit(at=house.clock.now(), actor=CANARY, act=CANARY, target=CANARY, detail={"a": CANARY})
        browser = await house.person()
        for path, methods in routes_of(house):
            if "GET" in methods and not path.startswith("/api/"):
                answer = await browser.get(filled(path, connection="acme", stream="customers", key="acme"))
                assert "<script>alert" not in answer.text, path
                assert "<i>odd" not in answer.text, path
        assert "canary-4111-&lt;script&gt;" in (await browser.get("/audit")).text

    visit(tmp_path, act)


async def cookie(house):
    await house.person()
    return (await sign_in(house.browser())).headers["set-cookie"]


def test_v3_3_1_cookies_are_secure(tmp_path):
    async def act(house):
        assert "; Secure" in await cookie(house)

    visit(tmp_path, act)


def test_v3_3_2_cookies_are_not_sent_by_forms_of_other_sites(tmp_path):
    async def act(house):
        assert "; SameSite=lax" in await cookie(house)

    visit(tmp_path, act)


def test_v3_3_3_cookies_belong_to_this_host_alone(tmp_path):
    async def act(house):
        text = await cookie(house)
        assert text.startswith("__Host-headwater=")
        assert "; Path=/;" in text
        assert "domain" not in text.lower()

    visit(tmp_path, act)


def test_v3_3_4_scripts_do_not_see_the_session(tmp_path):
    async def act(house):
        text = await cookie(house)
        assert "; HttpOnly" in text
        browser = await house.person()
        token = browser.cookies[COOKIE]
        for path in ("/", "/account", "/keys", "/account?format=json"):
            assert token not in (await browser.get(path)).text

    visit(tmp_path, act)


async def every_answer(house):
    """One answer of each kind: page, form, list, twin, API, static file, refusal, nothing there, not allowed."""
    browser = await house.person()
    static = re.search(r'href="(/static/[^"]+css[^"]*)"', (await browser.get("/")).text)[1]
    for path in ("/", "/login", "/audit?format=csv", "/?format=json", "/api/v1/streams", static, "/nothing", "/?x=1"):
        yield await browser.get(path)
    yield await browser.post("/audit")
    yield await browser.post("/keys")
    yield await house.browser().get("/api/v1/streams")
    yield await house.browser().get("/livez")


def test_v3_4_1_browsers_are_told_to_stay_with_https(tmp_path):
    async def act(house):
        async for answer in every_answer(house):
            found = answer.headers["strict-transport-security"]
            assert int(re.search(r"max-age=(\d+)", found)[1]) >= 31_536_000
            assert "includeSubDomains" in found

    visit(tmp_path, act)


def test_v3_4_2_no_other_origin_may_read(tmp_path):
    async def act(house):
        for method in ("GET", "OPTIONS"):
            answer = await (await house.person()).request(method, "/", headers={"origin": "https://evil.example"})
            assert "access-control-allow-origin" not in answer.headers
        async for answer in every_answer(house):
            assert "access-control-allow-origin" not in answer.headers

    visit(tmp_path, act)


def test_v3_4_3_nothing_runs_in_a_page_but_our_own_module(tmp_path):
    async def act(house):
        seen = 0
        async for answer in every_answer(house):
            if answer.headers.get("content-type", "").startswith("text/html"):
                policy = answer.headers["content-security-policy"]
                assert "default-src 'none'" in policy
                assert "script-src 'self'" in policy
                assert "base-uri 'none'" in policy
                assert "unsafe" not in policy
                assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=", answer.text)
                assert not re.search(r'(?:src|href|action)="(?:https?:)?//', answer.text)
                seen += 1
        assert seen >= 5

    visit(tmp_path, act)


def test_v3_4_4_browsers_do_not_guess_what_an_answer_is(tmp_path):
    async def act(house):
        async for answer in every_answer(house):
            if answer.content and answer.url.path != "/livez":
                assert answer.headers["x-content-type-options"] == "nosniff", answer.url
                assert answer.headers.get("content-type"), answer.url

    visit(tmp_path, act)


def test_v3_4_5_other_sites_do_not_learn_where_one_was(tmp_path):
    async def act(house):
        async for answer in every_answer(house):
            if answer.headers.get("content-type", "").startswith("text/html"):
                assert answer.headers["referrer-policy"] in ("same-origin", "no-referrer")

    visit(tmp_path, act)


def test_v3_4_6_no_other_site_frames_a_page(tmp_path):
    async def act(house):
        async for answer in every_answer(house):
            if answer.headers.get("content-type", "").startswith("text/html"):
                assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]

    visit(tmp_path, act)


def test_v3_5_1_a_form_of_another_site_changes_nothing(tmp_path):
    async def act(house):
        browser = await house.person()
        forms = [(path, one) for path, methods in routes_of(house) for one in sorted(methods & UNSAFE)]
        unguarded = {"/login", "/login/code", "/setup", "/logout"}
        before = await house.acts()
        for path, method in forms:
            for headers in ({}, {"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
                if path in unguarded and not headers:
                    continue
                answer = await browser.request(method, filled(path), headers=headers, data={"name": "x"})
                assert answer.status_code == 403, (method, path, headers)
        token = csrf_in(await browser.get("/keys"))
        evil = {"sec-fetch-site": "same-site", "origin": "https://other.example.com"}
        answer = await browser.post("/keys", data={"csrf": token, "name": "x", "scope-read": "1"}, headers=evil)
        assert answer.status_code == 403
        assert await house.acts() == before
        assert len(forms) >= 10

    visit(tmp_path, act)


def test_v3_5_2_an_act_by_json_brings_the_token_too(tmp_path):
    async def act(house):
        browser = await house.person()
        token = csrf_in(await browser.get("/keys"))
        body = {"name": "ci", "scopes": ["read"]}
        assert (await browser.post("/api/v1/keys", json=body)).status_code == 403
        plain = {"content-type": "text/plain", "x-csrf-token": token}
        assert (await browser.post("/api/v1/keys", content=b'{"name":"x"}', headers=plain)).status_code == 415
        assert (await browser.post("/api/v1/keys", json=body, headers={"x-csrf-token": token})).status_code == 201

    visit(tmp_path, act)


def test_v3_5_3_what_is_safe_to_ask_changes_nothing(tmp_path):
    async def act(house):
        browser = await house.person()
        await browser.get("/account")
        before = [one for one in await house.acts() if one[0] != "payloads.reveal"]
        safe = {path for path, methods in routes_of(house) if "GET" in methods}
        for path, methods in routes_of(house):
            if "GET" in methods and not path.startswith("/static"):
                assert (await browser.get(filled(path))).status_code < 500, path
                assert (await browser.head(filled(path))).status_code < 500, path
            elif methods & UNSAFE and path not in safe:
                assert (await browser.get(filled(path))).status_code in (404, 405), path
        # That somebody looked at a payload is noted, and is no change.
        assert [one for one in await house.acts() if one[0] != "payloads.reveal"] == before

    visit(tmp_path, act)


def test_v3_5_4_deliveries_and_pages_can_have_hosts_of_their_own(tmp_path):
    from headwater.application import Application

    shop_project(tmp_path / "shop")

    async def act(house):
        house.platform.config = __import__("dataclasses").replace(house.platform.config, roles=frozenset({"ingress"}))
        house.application = Application(house.platform, version="test")
        _, path = await connect_shop(house)
        ingress = house.browser()
        for page in ("/", "/login", "/api/v1/streams", "/keys"):
            assert (await ingress.get(page)).status_code == 404
        answer = await ingress.post(path, content=event(), headers=proof(house, event()))
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers

    visit(tmp_path, act)


# V11, V13 to V16 at the door


def test_v11_4_2_passwords_are_hashed_slowly(tmp_path, monkeypatch):
    monkeypatch.undo()

    async def act(house):
        made = await house.door.add(email=EMAIL, name="", role="viewer", password=GOOD, actor="cli:me")
        stored = (await house.store.account(EMAIL)).password
        assert made.password == stored
        found = re.fullmatch(r"\$argon2id\$v=19\$m=(\d+),t=(\d+),p=1\$[\w+/]{22,}\$[\w+/]{43}", stored)
        assert (int(found[1]), int(found[2])) >= (19 * 1024, 2)  # OWASP's first choice

    visit(tmp_path, act)


def test_v11_5_1_keys_are_random_beyond_guessing():
    from headwater.api.access import KEY_BYTES, new_api_key

    assert KEY_BYTES * 8 >= 128
    keys = {new_api_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"hw_[\w-]{43}", one) for one in keys)


def test_v13_4_2_nothing_is_in_debug(tmp_path):
    async def act(house):
        app = house.application._pages._app
        assert app.debug is False
        assert all(one.app.debug is False for one in app.routes if isinstance(one, Mount))

    visit(tmp_path, act)


def test_v13_4_5_metrics_and_documentation_are_not_public(tmp_path):
    async def act(house):
        stranger = house.browser()
        for path in (
            "/metrics",
            "/api/v1/",
            "/docs",
            "/openapi.json",
            "/api/v1/openapi.json",
            "/.git/config",
            "/static/",
        ):
            answer = await stranger.get(path)
            assert answer.status_code in (303, 401, 404), path
        assert (await stranger.get("/livez")).text.strip() in ("ok", '{"status":"ok"}')

    visit(tmp_path, act)


def test_v14_2_1_no_secret_travels_in_a_url(tmp_path):
    async def act(house):
        key = (await house.key("read")).headers["authorization"].removeprefix("Bearer ")
        for query in (f"?key={key}", f"?api_key={key}", f"?access_token={key}", f"?token={key}"):
            assert (await house.browser().get(f"/api/v1/streams{query}")).status_code == 401
        assert (await house.browser().get("/login?email=a&password=b")).status_code == 400
        for path in TEMPLATES:
            for form in re.findall(r"<form[^>]*>.*?</form>", path.read_text(), re.DOTALL):
                if "password" in form or "csrf()" in form or 'name="token"' in form:
                    assert 'method="post"' in form, (path, form)

    visit(tmp_path, act)


def test_v15_3_3_unknown_fields_are_refused_and_set_nothing(tmp_path):
    async def act(house):
        admin = await house.key("read", "admin")
        for extra in ({"id": 7}, {"hash": "x"}, {"created_at": "2020-01-01"}, {"is_admin": True}):
            body = {"name": "ci", "scopes": ["read"], **extra}
            assert (await admin.post("/api/v1/keys", json=body)).status_code == 400
        await house.person()
        viewer = await house.person("viewer", "bob@x.y")
        form = {"current": GOOD, "password": BETTER, "again": BETTER, "role": "admin", "email": "eve@x.y", "id": "1"}
        assert (await send(viewer, "/account", "/account/password", **form)).status_code == 303
        bob = await house.door.named("bob@x.y")
        assert (bob.role, bob.email) == ("viewer", "bob@x.y")

    visit(tmp_path, act)


def test_v15_3_4_the_clients_address_is_the_trusted_proxys_word_alone(tmp_path):
    from ipaddress import ip_network

    async def act(house):
        await house.person(client=("192.0.2.7", 1))
        for client, told in (("10.0.0.5", "198.51.100.9"), ("192.0.2.8", "198.51.100.9")):
            headers = {"x-forwarded-for": f"203.0.113.1, {told}", "x-forwarded-proto": "https"}
            await sign_in(house.browser(client=(client, 1), **headers), text="wrong")
        refused = [one.detail["address"] for one in await house.store.audit_log() if one.act == "sessions.refuse"]
        assert refused == ["192.0.2.8", "198.51.100.9"]

    visit(tmp_path, act, trusted_proxies=(ip_network("10.0.0.0/8"),))


def test_v16_3_1_logins_are_logged_whether_they_succeed_or_not(tmp_path):
    async def act(house):
        await house.person()
        await sign_in(house.browser(), text="wrong")
        await sign_in(house.browser(), email="eve@x.y")
        logged = [(one.act, one.target, one.detail.get("address")) for one in await house.store.audit_log()][:3]
        assert logged == [
            ("sessions.refuse", "eve@x.y", "192.0.2.7"),
            ("sessions.refuse", EMAIL, "192.0.2.7"),
            ("sessions.begin", EMAIL, "192.0.2.7"),
        ]

    visit(tmp_path, act)


def test_v16_3_2_refused_acts_are_logged(tmp_path, caplog):
    async def act(house):
        await house.person()
        viewer = await house.person("viewer", "bob@x.y")
        with caplog.at_level(logging.WARNING, "headwater.access"):
            await viewer.get("/accounts")
        assert "bob@x.y has no scope admin" in caplog.text

    visit(tmp_path, act)


def test_v16_3_3_attempts_to_get_round_are_logged(tmp_path, caplog):
    async def act(house):
        browser = await house.person()
        with caplog.at_level(logging.WARNING, "headwater.access"):
            await browser.post("/keys", data={"name": "x"})
            await browser.post("/keys", headers={"origin": "https://evil.example"})
            for _ in range(account.LOGINS_OF_ACCOUNT_MAX + 1):
                await sign_in(house.browser(), text="wrong")
        for words in ("/keys by ann@example.com without the token", "https://evil.example", "too many attempts"):
            assert words in caplog.text

    visit(tmp_path, act)


def broken(house, monkeypatch):
    async def fail(*_, **__):
        raise RuntimeError(f"secret detail {CANARY}")

    monkeypatch.setattr(house.store, "connections", fail)
    monkeypatch.setattr(house.store, "api_keys", fail)
    monkeypatch.setattr(house.store, "streams", fail)


def test_v16_3_4_what_was_not_foreseen_is_logged(tmp_path, monkeypatch):
    async def act(house):
        admin = await house.person()
        admin._transport.raise_app_exceptions = True
        broken(house, monkeypatch)
        with pytest.raises(RuntimeError, match="secret detail"):  # whoever serves logs it: uvicorn
            await admin.get("/keys")

    visit(tmp_path, act)


def test_v16_5_1_a_bug_tells_its_reader_nothing(tmp_path, monkeypatch):
    async def act(house):
        admin = await house.person()
        broken(house, monkeypatch)
        for path in ("/", "/keys", "/api/v1/streams", "/api/v1/keys"):
            answer = await admin.get(path)
            assert answer.status_code == 500, path
            for word in ("secret detail", "Traceback", "RuntimeError", "canary", str(tmp_path)):
                assert word not in answer.text, path

    visit(tmp_path, act)


def test_v16_5_4_the_last_resort_is_an_answer_with_its_headers(tmp_path, monkeypatch):
    async def act(house):
        admin = await house.person()
        broken(house, monkeypatch)
        page = await admin.get("/keys")
        assert page.status_code == 500
        assert "default-src 'none'" in page.headers["content-security-policy"]
        problem = await admin.get("/api/v1/streams")
        assert problem.headers["content-type"] == "application/problem+json"
        assert (await admin.get("/account")).status_code == 200  # and the process goes on

    visit(tmp_path, act)


def test_v16_2_5_no_secret_is_in_what_is_said(tmp_path, caplog, capsys):
    shop_project(tmp_path / "shop")

    async def act(house):
        with caplog.at_level(logging.DEBUG):
            _, path = await connect_shop(house)
            admin = await house.person()
            await send(admin, "/keys", "/keys", **{"name": "ci", "scope-read": "1"})
            headers = proof(house, event())
            await house.browser().post(path, content=event(), headers=headers)
            await house.browser().post(path, content=event(2), headers=headers)
            said = [caplog.text, capsys.readouterr().out, capsys.readouterr().err, str(await house.store.audit_log())]
            async for _, answer in asks_everything(admin, house, {"connection": "acme", "key": "acme"}):
                said.append(answer.text)
        token = admin.cookies[COOKIE]
        for secret in (API_KEY, WEBHOOK_SECRET, GOOD, token, house.platform.config.key_file.read_text().strip()):
            assert all(secret not in text for text in said), secret

    visit(tmp_path, act)


def test_v16_4_1_a_log_line_is_one_line(tmp_path, caplog):
    async def act(house):
        await house.person()
        with caplog.at_level(logging.WARNING):
            await sign_in(house.browser(), email="eve\nFAKE LINE \x1b[2J")
            await house.browser(**{"user-agent": "x"}).post("/login", headers={"origin": "https://e\x1b[31m.example"})
        assert all("\n" not in one.getMessage() and "\x1b" not in one.getMessage() for one in caplog.records)
        assert len(caplog.records) >= 2

    visit(tmp_path, act)
