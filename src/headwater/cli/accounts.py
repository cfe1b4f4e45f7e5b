"""`headwater accounts`: the people who sign in to the dashboard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

from headwater.cli import output
from headwater.cli.main import ListGroup
from headwater.cli.secret import read_secret
from headwater.cli.session import Options, platform_options, with_platform

if TYPE_CHECKING:
    from headwater.account import Account, Role
    from headwater.app import Platform

ROLES = ("admin", "operator", "viewer")


@click.group(cls=ListGroup)
def accounts() -> None:
    """The people who sign in to the dashboard."""


@accounts.command("list")
@platform_options
def list_(options: Options) -> None:
    """Accounts, by email."""

    async def act(platform: Platform) -> None:
        found = await platform.store.accounts()
        if options.json:
            output.print_json([shown(one) for one in found])
            return
        now = platform.clock.now()
        output.print_table(
            ("email", "name", "role", "state", "last login"),
            [(one.email, one.name, one.role, one.state, output.ago(one.last_login_at, now)) for one in found],
            empty="No account yet: `headwater serve` prints a link that makes the first admin.",
        )

    with_platform(options, act)


@accounts.command("add")
@platform_options
@click.argument("email")
@click.option("--name", default="", help="For people (default: the beginning of the email).")
@click.option("--role", type=click.Choice(ROLES), default="viewer", show_default=True)
@click.option("--password-stdin", is_flag=True, help="Read a password from stdin, instead of making a link.")
def add(options: Options, email: str, name: str, role: str, password_stdin: bool) -> None:
    """Add an account. Its owner sets a password by a link that is good once, for a day.

    A viewer sees all but what providers sent; an operator sees that, too, and acts; an admin has all of it, with
    accounts, keys and deploys.
    """

    async def act(platform: Platform) -> None:
        door, words = _door(platform), {"email": email, "name": name, "role": cast("Role", role), "actor": _actor()}
        if password_stdin:
            account = await door.add(**words, password=read_secret("password", "-"))
            _say(options, account)
        else:
            account, token = await door.invite(**words)
            _say(options, account, link(platform, token))

    with_platform(options, act)


@accounts.command("password")
@platform_options
@click.argument("email")
@click.option("--password-stdin", is_flag=True, help="Read the new password from stdin, instead of making a link.")
def password(options: Options, email: str, password_stdin: bool) -> None:
    """Make a link that sets a new password, or set one from stdin. All sessions of the account end when it is set."""

    async def act(platform: Platform) -> None:
        door = _door(platform)
        account = await door.named(email)
        if password_stdin:
            await door.set_password(account, read_secret("password", "-"), actor=_actor())
            _say(options, account)
        else:
            _say(options, account, link(platform, await door.invite_again(account, actor=_actor())))

    with_platform(options, act)


@accounts.command("role")
@platform_options
@click.argument("email")
@click.argument("role", type=click.Choice(ROLES))
def role(options: Options, email: str, role: str) -> None:
    """Give an account another role, from its next request on."""

    async def act(platform: Platform) -> None:
        door = _door(platform)
        _say(options, await door.change_role(await door.named(email), cast("Role", role), actor=_actor()))

    with_platform(options, act)


@accounts.command("disable")
@platform_options
@click.argument("email")
def disable(options: Options, email: str) -> None:
    """Let an account in no longer, and end its sessions at once."""
    _enable(options, email, enabled=False)


@accounts.command("enable")
@platform_options
@click.argument("email")
def enable(options: Options, email: str) -> None:
    """Let a disabled account in again."""
    _enable(options, email, enabled=True)


@accounts.command("reset-factor")
@platform_options
@click.argument("email")
def reset_factor(options: Options, email: str) -> int:
    """Forget the second factor of an account, such as of a phone that is lost."""

    async def act(platform: Platform) -> int:
        door = _door(platform)
        account = await door.named(email)
        is_done = await door.reset_factor(account, actor=_actor())
        _say(options, await door.named(email))
        if not is_done:
            output.note("It had no second factor.")
        return 0 if is_done else 1

    return with_platform(options, act)


def shown(account: Account) -> dict[str, Any]:
    """An account as lists show it: without its hash."""
    return {
        "email": account.email,
        "name": account.name,
        "role": account.role,
        "state": account.state,
        "created_at": account.created_at,
        "last_login_at": account.last_login_at,
        "factor_at": account.factor_at,
    }


def link(platform: Platform, token: str) -> str:
    """The link that a token is handed over as."""
    return f"{platform.config.base_url}/setup?token={token}"


def _enable(options: Options, email: str, *, enabled: bool) -> None:
    async def act(platform: Platform) -> None:
        door = _door(platform)
        _say(options, await door.change_enabled(await door.named(email), enabled=enabled, actor=_actor()))

    with_platform(options, act)


def _say(options: Options, account: Account, link: str | None = None) -> None:
    if options.json:
        output.print_json({**shown(account), "link": link})
        return
    output.note(f"{account.email}: {account.role}, {account.state}")
    if link is not None:
        output.say(link)
        output.note("This link sets the password. It is shown once, and good once, for a day.")


def _door(platform: Platform) -> Any:
    from headwater.door import Door

    return Door(store=platform.store, clock=platform.clock, breached=platform.breached)


def _actor() -> str:
    from headwater.app import person

    return person()
