"""OAuth: a declaration whose fields are there, whose client is a setting, and whose URLs may be called."""

from __future__ import annotations

from headwater.check import code
from headwater.check.permissions import is_permitted, patterns, url_address
from headwater.check.places import Places
from headwater.check.subject import Subject
from headwater.errors import near_miss
from headwater.grant import OAuth, oauth_of
from headwater.project import MANIFEST


def check_oauth(subject: Subject, places: Places) -> None:
    """Note what is wrong with the declaration."""
    assert subject.connector is not None, "the manifest was read"
    line = places.line("Connection", "oauth")
    try:
        declared = oauth_of(subject.connector.connection.oauth)
    except (ValueError, TypeError) as error:
        subject.found.add(code.OAUTH_INVALID, MANIFEST, line, f"`oauth` of `Connection` is not usable: {error}.")
        return
    if declared is None:
        return
    plain = [name for name in subject.settings() if name not in subject.secrets()]
    _check_name(subject, line, "client_id", declared.client_id, plain, "setting")
    if declared.client_secret is not None:
        _check_name(subject, line, "client_secret", declared.client_secret, list(subject.secrets()), "secret setting")
    _check_urls(subject, line, declared, plain)


def _check_name(subject: Subject, line: int, field: str, name: str, known: list[str], what: str) -> None:
    if name not in known:
        subject.found.add(
            code.OAUTH_INVALID,
            MANIFEST,
            line,
            f"`{field}` of `oauth` names no {what}: `{name}`.",
            near_miss(name, known) or f"declare the {what} `{name}`.",
        )


def _check_urls(subject: Subject, line: int, declared: OAuth, plain: list[str]) -> None:
    for url in (declared.authorize_url, declared.token_url, declared.revoke_url):
        name = url.removeprefix("{settings.").partition("}")[0] if url and url.startswith("{settings.") else None
        if name is not None and name not in plain:
            _check_name(subject, line, "a URL", name, plain, "setting")
    _check_permitted(subject, line, "token URL", declared.token_url)
    if declared.revoke_url is not None:
        _check_permitted(subject, line, "revocation URL", declared.revoke_url)


def _check_permitted(subject: Subject, line: int, what: str, url: str) -> None:
    assert subject.connector is not None, "the manifest was read"
    permitted = patterns(subject)
    if permitted is None:
        return
    if url.startswith("{settings."):
        head = url.partition("}")[0] + "}"
        is_named = any(one.startswith(head) for one in subject.connector.permissions.http)
    else:
        address = url_address(url)
        is_named = address is not None and is_permitted(address, permitted)
    if not is_named:
        subject.found.add(
            code.OAUTH_INVALID,
            MANIFEST,
            line,
            f"The {what} `{url}` is permitted by no pattern.",
            "add its host to `permissions.http`.",
        )
