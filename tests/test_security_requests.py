"""OWASP ASVS 5.0, requests and their bodies (V4, V5): each test is named after its item."""

import pytest

from doors import (
    connect_shop,
    csrf_in,
    event,
    on_a_port,
    proof,
    raw,
    send,
    sign_in,
    visit,
)
from every_route import filled, routes_of
from loopback import shop_project

pytestmark = pytest.mark.usefixtures("quick_passwords")

# V4: API


def test_v4_1_3_only_a_trusted_proxy_says_who_asks(tmp_path):
    told = {"x-forwarded-for": "198.51.100.4", "x-real-ip": "198.51.100.4", "x-forwarded-host": "evil.example"}

    async def act(house):
        await house.person()
        await sign_in(house.browser(client=("192.0.2.9", 1), **told), text="wrong")
        (refused,) = [one for one in await house.store.audit_log() if one.act == "sessions.refuse"]
        assert refused.detail["address"] == "192.0.2.9"
        admin = await house.person(**told)
        made = await send(admin, "/accounts", "/accounts", email="bob@x.y", role="viewer")
        assert "evil.example" not in made.text

    visit(tmp_path, act)


def test_v4_1_4_methods_that_nobody_uses_are_refused(tmp_path):
    async def act(house):
        browser = await house.person()
        for path, methods in routes_of(house):
            for method in {"TRACE", "CONNECT", "PUT", "PATCH", "PROPFIND", "DELETE"} - methods:
                answer = await browser.request(method, filled(path), headers={"x-csrf-token": "x"})
                assert answer.status_code in (403, 404, 405), (method, path)

    visit(tmp_path, act)


def test_v4_2_1_a_request_with_two_lengths_is_refused(tmp_path):
    head = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    smuggled = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

    async def act(house):
        async with on_a_port(house) as port:
            both = head + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + smuggled
            twice = head + b"Content-Length: 4\r\nContent-Length: 40\r\n\r\n" + smuggled
            odd = head + b"Transfer-Encoding: xchunked\r\nContent-Length: 4\r\n\r\n" + smuggled
            for request in (both, twice, odd):
                answer = await raw(port, request)
                assert answer.count(b"HTTP/1.1 ") <= 1, answer
                assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer

    visit(tmp_path, act, base_url="http://127.0.0.1:8700")


def test_v4_2_5_a_head_beyond_its_limit_is_refused(tmp_path):
    async def act(house):
        browser = await house.person()
        assert (await browser.get("/", headers={"x-long": "a" * 40_000})).status_code == 431
        assert (await browser.get("/?q=" + "a" * 20_000)).status_code == 414
        assert (await browser.get("/?q=" + "a" * 9_000)).status_code == 414

    visit(tmp_path, act)


# V5: bodies


def test_v5_2_1_a_body_is_bounded_before_it_is_read(tmp_path):
    shop_project(tmp_path / "shop")

    async def act(house):
        browser = await house.person()
        token = csrf_in(await browser.get("/keys"))
        large = {"csrf": token, "name": "a" * 300_000}
        assert (await browser.post("/keys", data=large)).status_code == 413
        asked = await browser.post("/api/v1/keys", content=b"{" * 300_000, headers={"x-csrf-token": token})
        assert asked.status_code == 413

        async def endless():
            for _ in range(1000):
                yield b"csrf=" + b"a" * 1000

        form = {"content-type": "application/x-www-form-urlencoded"}
        assert (await browser.post("/keys", content=endless(), headers=form)).status_code == 411
        chunked = {"content-type": "application/json", "x-csrf-token": token}
        assert (await browser.post("/api/v1/keys", content=endless(), headers=chunked)).status_code == 413
        _, path = await connect_shop(house)
        body = b"a" * (2 * 1024 * 1024 + 1)
        assert (await browser.post(path, content=body, headers=proof(house, body))).status_code == 413

    visit(tmp_path, act)


def test_v5_2_3_a_compressed_body_is_refused(tmp_path):
    shop_project(tmp_path / "shop")

    async def act(house):
        _, path = await connect_shop(house)
        headers = {**proof(house, event()), "content-encoding": "gzip"}
        assert (await house.browser().post(path, content=event(), headers=headers)).status_code == 415
        key = await house.key("admin", "read")
        bomb = b"\x1f\x8b" + b"\x00" * 1000
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        assert (await key.post("/api/v1/keys", content=bomb, headers=headers)).status_code == 400

    visit(tmp_path, act)
