"""Keys and accounts by the command line."""

from __future__ import annotations

from shell import Shell


def test_a_key_of_the_api_is_shown_once(shell: Shell) -> None:
    made = shell.ok("keys", "create", "ci", "--scope", "read", "--days", "7", "--json").json
    assert made["key"].startswith("hw_")
    assert (made["api_key"]["scopes"], made["api_key"]["expires_at"] is not None) == (["read"], True)


def test_keys_are_listed_without_themselves_and_revoked(shell: Shell) -> None:
    key = shell.ok("keys", "create", "ci", "--scope", "read", "--json").json["key"]
    (listed,) = shell.ok("keys", "--json").json
    assert (listed["name"], listed["scopes"]) == ("ci", ["read"])
    assert key not in shell.ok("keys", "list").out
    assert shell.ok("keys", "revoke", str(listed["id"])).out == "ci opens nothing any more.\n"
    assert shell.ok("keys", "--json").json == []
    assert "There is no key 1" in shell("keys", "revoke", "1").err


def test_accounts_are_invited_changed_and_disabled(shell: Shell) -> None:
    word = "correct horse battery"
    made = shell.ok("accounts", "add", "Ann@example.com", "--role", "admin", "--password-stdin", "--json", stdin=word)
    assert (made.json["email"], made.json["role"], made.json["state"]) == ("ann@example.com", "admin", "active")
    assert "link" in shell.ok("accounts", "add", "bob@example.com").err
    link = shell.ok("accounts", "password", "bob@example.com").out.strip()
    assert link.startswith("http://127.0.0.1:8700/setup?token=")
    assert shell.ok("accounts", "role", "bob@example.com", "operator", "--json").json["role"] == "operator"
    assert "disabled" in shell.ok("accounts", "disable", "bob@example.com").err
    assert "invited" in shell.ok("accounts", "enable", "bob@example.com").err
    assert [one["email"] for one in shell.ok("accounts", "--json").json] == ["ann@example.com", "bob@example.com"]
    text = shell.ok("accounts").out
    assert "argon2" not in text
    assert word not in text
    assert "is the only admin" in shell("accounts", "disable", "ann@example.com").err
    assert (
        "guessed first"
        in shell("accounts", "password", "ann@example.com", "--password-stdin", stdin="password12345").err
    )
    assert "no such account" in shell("accounts", "role", "eve@example.com", "viewer").err
    assert "already" in shell("accounts", "add", "bob@example.com").err
