"""Which URLs and which addresses a connector may call."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import ForbiddenHostError, HandlerError
from headwater.permission import URL_CHARACTERS_MAX, AllowList, Pattern, check_address, check_host, parse


def is_allowed(url, *patterns, **kinds):
    try:
        AllowList(patterns, **kinds).reach(parse(url))
    except ForbiddenHostError:
        return False
    return True


@pytest.mark.parametrize(
    ("pattern", "url", "allowed"),
    [
        ("https://api.stripe.com/*", "https://api.stripe.com/v1/customers?limit=1", True),
        ("https://api.stripe.com/*", "https://API.STRIPE.COM:443/", True),
        ("https://api.stripe.com", "https://api.stripe.com/v1", True),
        ("https://api.stripe.com/*", "http://api.stripe.com/v1", False),
        ("https://api.stripe.com/*", "https://api.stripe.com:8443/v1", False),
        ("https://api.stripe.com/*", "https://api.stripe.com.evil.example/v1", False),
        ("https://api.stripe.com/*", "https://api.stripe.com./v1", False),
        ("https://api.stripe.com/*", "https://evil.example/?https://api.stripe.com/", False),
        ("https://api.stripe.com/*", "https://evil.example/#@api.stripe.com/", False),
        ("https://api-stripe.com/*", "https://apixstripe.com/", False),
        ("https://*.myshopify.com/admin/*", "https://one.myshopify.com/admin/api", True),
        ("https://*.myshopify.com/admin/*", "https://one.myshopify.com/other", False),
        ("https://*.myshopify.com/admin/*", "https://one.myshopify.com/admin/../other", False),
        ("https://*.myshopify.com/admin/*", "https://one.myshopify.com/admin/%2e%2e/other", False),
        ("https://*.myshopify.com/*", "https://evil.example/.myshopify.com/", False),
        ("https://*.myshopify.com/*", "https://evil.example:443/x.myshopify.com/", False),
        ("http://127.0.0.1:*/*", "http://127.0.0.1:9931/v1", True),
        ("*://hook.example/*", "http://hook.example/", False),
        ("*://hook.example/*", "https://hook.example/", True),
        ("https://[2001:db8::1]/*", "https://[2001:db8::1]/", True),
        ("https://api.example/exact", "https://api.example/exact", True),
        ("https://api.example/exact", "https://api.example/exact/more", False),
        ("not a pattern", "https://api.example/", False),
    ],
)
def test_a_pattern_allows_what_it_names_and_nothing_else(pattern, url, allowed):
    assert is_allowed(url, pattern) is allowed


@given(host=st.from_regex(r"[a-z0-9.-]{1,30}", fullmatch=True))
def test_no_host_passes_for_another(host):
    url = f"https://{host}/"
    try:
        parsed = parse(url)
    except HandlerError:
        return
    assert is_allowed(url, "https://api.stripe.com/*") is (parsed.raw_host == "api.stripe.com")


def test_a_refusal_names_the_near_miss_and_what_to_add():
    with pytest.raises(ForbiddenHostError) as caught:
        AllowList(["https://api.stripe.com/*"]).reach(parse("https://api.stripe.co/v1?token=hunter2"))
    assert "did you mean `https://api.stripe.com/*`?" in str(caught.value)
    assert "Add `https://api.stripe.co/*`" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "", "/v1/customers", "api.stripe.com/v1", "ftp://api.stripe.com/", "https:///v1", "https://a.example:99999/",
        "https://[]@", "http://[:https]://hunter2.example#c", "https://[hunter2]@", "//@[", "https://[", "https://]", "https://@]",
        "https://user:hunter2@a.example/", "https://hunter2@a.example/", "https://a.example\\@hunter2.example/",
        "https://a.example/%2F..%2Fhunter2", "https://a.example/x\\..\\hunter2",
        "https://a.example/" + "x" * URL_CHARACTERS_MAX,
    ],
)  # fmt: skip
def test_an_unusable_url_is_refused_without_being_repeated(url):
    with pytest.raises(HandlerError) as caught:
        parse(url)
    assert "hunter2" not in str(caught.value)


def test_a_fragment_is_never_sent():
    assert str(parse("https://a.example/x?y=1#token")) == "https://a.example/x?y=1"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1", "::1", "::", "fe80::1", "fc00::1", "fd12::1",
        "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::", "2002:a00:1::", "2001:db8::1",
    ],
)  # fmt: skip
def test_what_is_not_public_is_out_of_reach(address):
    with pytest.raises(ForbiddenHostError):
        check_address(ip_address(address), "public", host="some.example")


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_in_reach(address):
    check_address(ip_address(address), "public", host="some.example")


@pytest.mark.parametrize(
    ("address", "reach", "allowed"),
    [
        ("127.0.0.1", "loopback", True), ("::1", "loopback", True), ("::ffff:127.0.0.1", "loopback", True),
        ("10.0.0.1", "loopback", False), ("169.254.169.254", "loopback", False), ("8.8.8.8", "loopback", True),
        ("127.0.0.1", "private", True), ("10.0.0.1", "private", True), ("fd00::1", "private", True),
        ("169.254.169.254", "private", False), ("fe80::1", "private", False), ("0.0.0.0", "private", False),
        ("::ffff:169.254.169.254", "private", False), ("64:ff9b::a9fe:a9fe", "private", False),
    ],
)  # fmt: skip
def test_a_wider_reach_never_includes_the_link_local_addresses(address, reach, allowed):
    if allowed:
        check_address(ip_address(address), reach, host="some.example")
    else:
        with pytest.raises(ForbiddenHostError):
            check_address(ip_address(address), reach, host="some.example")


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "127.0.0.1.", "1.2.3.4.5", "example.0x7f"]
)
def test_an_address_in_disguise_is_refused_even_where_private_ones_are_allowed(host):
    with pytest.raises(ForbiddenHostError):
        check_host(host, "private")


def test_a_name_passes_to_be_resolved():
    for host in ("api.stripe.com", "localhost", "1password.com", "x1.example"):
        check_host(host, "public")


def test_the_reach_comes_from_the_permissions():
    public = AllowList(["https://api.example/*"])
    assert public.reach(parse("https://api.example/x")) == "public"
    assert AllowList(["https://api.example/*"], private=True).reach(parse("https://api.example/x")) == "private"
    local = ["http://localhost:9/*"]
    mixed = AllowList([*local, "https://api.example/*"], loopback=local)
    assert mixed.reach(parse("http://localhost:9/x")) == "loopback"
    assert mixed.reach(parse("https://api.example/x")) == "public"


def test_words_that_make_no_pattern_are_none():
    for words in ("", "api.example", "ftp://api.example/*", "https://", "https://a b:c/"):
        assert Pattern.of(words) is None
