"""What every request passes first: whose word about it counts, how large its head may be, HTTPS kept."""

import asyncio
from ipaddress import ip_network

import httpx
import pytest
from starlette.responses import JSONResponse

from doors import EMAIL, GOOD, sign_in, visit
from headwater.api.session import COOKIE
from headwater.front import HEADERS_MAX, TARGET_BYTES_MAX, Front, forwarded, seen_as

PROXY = ("10.0.0.5", 1)
TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
TOLD = {"x-forwarded-for": "198.51.100.4", "x-forwarded-proto": "https", "x-forwarded-host": "hw.example.com"}


async def tell(scope, receive, send):
    answer = {"client": scope["client"][0], "scheme": scope["scheme"], "seen_as": seen_as.get()}
    await JSONResponse(answer | {"host": dict(scope["headers"])[b"host"].decode()})(scope, receive, send)


def ask(headers=None, *, client=PROXY, trusted=TRUSTED, public_url=None, url="http://inside:8700/"):
    async def main():
        app = Front(tell, trusted=trusted, public_url=public_url)
        transport = httpx.ASGITransport(app, client=client)
        async with httpx.AsyncClient(transport=transport) as browser:
            return await browser.get(url, headers=headers or {})

    return asyncio.run(main())


def test_a_trusted_proxy_says_where_a_request_came_from():
    answer = ask(TOLD)
    assert answer.json() == {
        "client": "198.51.100.4",
        "scheme": "https",
        "seen_as": "https://hw.example.com",
        "host": "hw.example.com",
    }
    assert answer.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"


@pytest.mark.parametrize("trusted", [(), (ip_network("192.0.2.0/24"),), (ip_network("::/0"),)])
def test_from_anybody_else_these_headers_are_nothing(trusted):
    answer = ask(TOLD, trusted=trusted)
    assert answer.json() == {"client": "10.0.0.5", "scheme": "http", "seen_as": None, "host": "inside:8700"}
    assert "strict-transport-security" not in answer.headers


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("198.51.100.4, 10.1.1.1", "198.51.100.4"),
        ("127.0.0.1, 198.51.100.4, 10.1.1.1, 10.2.2.2", "198.51.100.4"),  # what a client made up stands further left
        ("10.9.9.9", "10.9.9.9"),
        ("198.51.100.4, nonsense", "10.0.0.5"),
        ("", "10.0.0.5"),
        ("::ffff:198.51.100.4", "198.51.100.4"),
        ("[2001:db8::1]", "2001:db8::1"),
        (", ".join(["198.51.100.4"] + ["10.0.0.1"] * 40), "10.0.0.1"),
    ],
)
def test_the_client_is_the_last_address_that_is_no_proxy_of_ours(chain, client):
    assert ask({"x-forwarded-for": chain}).json()["client"] == client


def test_of_several_values_the_nearest_counts():
    headers = {"x-forwarded-proto": "https, http", "x-forwarded-host": "evil.example, hw.example.com"}
    assert ask(headers).json()["scheme"] == "http"
    assert ask(headers).json()["host"] == "hw.example.com"
    assert ask({"x-forwarded-proto": "gopher"}).json()["scheme"] == "http"
    assert forwarded({"client": None, "headers": []}, TRUSTED) == {}


def test_an_https_public_url_says_that_its_host_is_reached_by_tls():
    answer = ask({"host": "hw.example.com"}, public_url="https://hw.example.com/base")
    assert (answer.json()["scheme"], answer.json()["seen_as"]) == ("https", None)
    assert "strict-transport-security" in answer.headers
    assert ask({"host": "other.example"}, public_url="https://hw.example.com").json()["scheme"] == "http"
    assert ask(TOLD, public_url="https://hw.example.com").json()["seen_as"] is None


def test_a_head_that_is_too_large_is_refused():
    assert ask({f"x-{n}": "1" for n in range(HEADERS_MAX + 1)}).status_code == 431
    assert ask({"x-long": "a" * 40_000}).status_code == 431
    assert ask(url="http://inside:8700/" + "a" * TARGET_BYTES_MAX).status_code == 414
    assert ask(url="http://inside:8700/?q=" + "a" * TARGET_BYTES_MAX).status_code == 414


def test_a_request_of_two_hosts_is_refused():
    async def main():
        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "client": PROXY}
        scope |= {"scheme": "http", "headers": [(b"host", b"a"), (b"host", b"b")]}
        await Front(tell)(scope, None, send)
        return sent[0]["status"]

    assert asyncio.run(main()) == 400


def test_cookies_and_counted_logins_follow_what_the_proxy_says(tmp_path):
    async def act(house):
        await house.door.add(email=EMAIL, name="", role="admin", password=GOOD, actor="cli:me")
        browser = house.browser(client=PROXY, **TOLD)
        browser.base_url = "https://hw.example.com"  # by which it looks for its cookies
        done = await sign_in(browser)
        assert done.headers["set-cookie"].startswith(f"{COOKIE}=")
        ((_, session),) = [
            (one.act, one.detail) for one in await house.store.audit_log() if one.act == "sessions.begin"
        ]
        assert session == {"address": "198.51.100.4"}
        assert (await sign_in(house.browser(client=("192.0.2.9", 1), **TOLD))).status_code == 403

    visit(tmp_path, act, base_url="http://10.0.0.9:8700", host="0.0.0.0", trusted_proxies=TRUSTED)
