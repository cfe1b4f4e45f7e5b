"""`headwater deploy`, `rollback` and `deployments`: versions of connectors, here or on a server somewhere else.

check here ──> bundle ──> brought, checked there ──> plan shown ──> activated, if what was planned for still runs
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from headwater.cli import output
from headwater.cli.main import CHECK_FAILED, FAILED
from headwater.cli.session import Options, platform_options, with_platform

if TYPE_CHECKING:
    from headwater.app import Platform
    from headwater.bundle import Bundle
    from headwater.cli.remote import Remote

HASH_CHARACTERS_SHOWN = 12
LIMIT_MAX = 1_000

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_SIGNS = {"added": "+", "removed": "-"}


class Target(Protocol):
    """Where to deploy to; what it answers has the form of the HTTP API."""

    async def bring(self, archive: bytes, content_hash: str) -> list[str]:
        """Check a bundle there and store it; the warnings."""
        ...

    async def rehearse(self, archive: bytes, content_hash: str) -> dict[str, Any]:
        """Check a bundle there and plan, with nothing written; the warnings are in the answer."""
        ...

    async def deploy(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Plan, and activate unless it is a dry run."""
        ...

    async def history(self, connector: str | None, limit: int) -> dict[str, Any]:
        """The activations, newest first, and what is active."""
        ...


class Elsewhere:
    """A server, through its API."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    async def bring(self, archive: bytes, content_hash: str) -> list[str]:
        """See `Target.bring`."""
        answer = await self._remote.ask("POST", "/bundles", query={"hash": content_hash}, body=archive)
        return [str(line) for line in answer.get("warnings", ())]

    async def rehearse(self, archive: bytes, content_hash: str) -> dict[str, Any]:
        """See `Target.rehearse`."""
        query = {"hash": content_hash, "plan": "true"}
        return await self._remote.ask("POST", "/bundles", query=query, body=archive)

    async def deploy(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """See `Target.deploy`."""
        return await self._remote.ask("POST", "/deployments", value=wanted)

    async def history(self, connector: str | None, limit: int) -> dict[str, Any]:
        """See `Target.history`."""
        query = {"limit": str(limit)} | ({"connector": connector} if connector else {})
        return await self._remote.ask("GET", "/deployments", query=query)


class Here:
    """The local database; a server beside us takes up what is activated within seconds."""

    def __init__(self, platform: Platform) -> None:
        from headwater.deploy import Deployer

        self._platform = platform
        self._deployer = Deployer(platform.store, platform.clock, projects={}, activated=self._take_up)

    async def bring(self, archive: bytes, content_hash: str) -> list[str]:
        """See `Target.bring`."""
        from headwater.app import person

        received = await self._deployer.receive(archive, content_hash=content_hash, actor=person())
        return list(received.lines)

    async def rehearse(self, archive: bytes, content_hash: str) -> dict[str, Any]:
        """See `Target.rehearse`."""
        from headwater.app import person

        return _plain(await self._deployer.rehearse(archive, content_hash=content_hash, actor=person()))

    async def deploy(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """See `Target.deploy`."""
        import msgspec

        from headwater.app import person
        from headwater.deploy import Wanted

        return _plain(await self._deployer.carry_out(msgspec.convert(wanted, Wanted), actor=person()))

    async def history(self, connector: str | None, limit: int) -> dict[str, Any]:
        """See `Target.history`."""
        store = self._platform.store
        found = await store.deployments(connector=connector, limit=limit)
        return _plain({"data": found, "active": await store.active_bundles()})

    async def _take_up(self) -> None:
        if self._platform.config.bundles:
            await self._platform.activations.look()


def _target_options(function: F) -> F:
    """Give a command `--to` and `--key-stdin` besides what all have."""

    @platform_options
    @click.option("--to", help="URL of the server (default: the local database).")
    @click.option("--key-stdin", is_flag=True, help="Read the API key from stdin instead of HEADWATER_API_KEY.")
    @functools.wraps(function)
    def wrapper(options: Options, to: str | None, key_stdin: bool, **words: Any) -> Any:
        return function(options, _Address(options=options, url=to, key_stdin=key_stdin), **words)

    return wrapper  # type: ignore[return-value]  # the wrapper takes other words than the function


class _Address:
    """Which target a command line names."""

    def __init__(self, *, options: Options, url: str | None, key_stdin: bool) -> None:
        self._options = options
        self._url = url
        self._key_stdin = key_stdin

    def reach(self, act: Callable[[Target], Awaitable[T]]) -> T:
        """Act on the target."""
        if self._url is None:
            if self._key_stdin:
                raise click.UsageError("--key-stdin goes with --to: the local database asks for no key.")
            return with_platform(self._options, lambda platform: act(Here(platform)))
        from headwater.cli.remote import Remote, read_key
        from headwater.server import run_loop

        remote = Remote(self._url, read_key(from_stdin=self._key_stdin))
        return run_loop(_acting(act, Elsewhere(remote)))


async def _acting(act: Callable[[Target], Awaitable[T]], target: Target) -> T:
    return await act(target)


@click.command("deploy")
@_target_options
@click.argument("path", type=click.Path(path_type=Path, file_okay=False))
@click.option("--plan", "--dry-run", "dry_run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--allow-destructive", is_flag=True, help="Streams and fields of records may go.")
def deploy(options: Options, address: _Address, path: Path, dry_run: bool, allow_destructive: bool) -> int:
    """Check the project at PATH, show what it changes, and let it run.

    Exit code 3 when the check fails, here or there; 1 when something would be taken away and may not be, or another
    deploy was faster. What runs is untouched then.
    """
    from headwater.archive import pack
    from headwater.errors import CheckFailedError

    bundle = _checked(path, options)
    if bundle is None:
        return CHECK_FAILED
    archive = pack(bundle)

    async def act(target: Target) -> int:
        if dry_run:
            return _tell(options, await target.rehearse(archive, bundle.content_hash))
        for line in await target.bring(archive, bundle.content_hash):
            output.note(line)
        wanted = {"bundle": bundle.content_hash, "allow_destructive": allow_destructive}
        return await _carry_out(target, options, wanted)

    try:
        return address.reach(act)
    except CheckFailedError as error:
        lines = getattr(error, "lines", ())
        for line in lines:
            output.note(line)
        if options.json:
            output.print_json({"ok": False, "message": error.message, "lines": lines})
        raise


@click.command("rollback")
@_target_options
@click.argument("connector")
@click.option("--bundle", help="Hash of the bundle to return to, or its beginning (default: the one before).")
@click.option("--plan", "--dry-run", "dry_run", is_flag=True, help="Show what would change, and change nothing.")
def rollback(options: Options, address: _Address, connector: str, bundle: str | None, dry_run: bool) -> int:
    """Let the version of CONNECTOR run that ran before the one that runs.

    A second rollback goes one further back. What the version that is left had brought goes without being asked for.
    """

    async def act(target: Target) -> int:
        wanted = {"connector": connector, "bundle": bundle, "rollback": True}
        return await _carry_out(target, options, wanted, dry_run=dry_run)

    return address.reach(act)


@click.command("deployments")
@_target_options
@click.argument("connector", required=False)
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=20, show_default=True, help="At most so many.")
def deployments(options: Options, address: _Address, connector: str | None, limit: int) -> None:
    """What was deployed and rolled back, newest first; of CONNECTOR, or of all."""

    async def act(target: Target) -> None:
        history = await target.history(connector, limit)
        active, entries = history["active"], history["data"]
        newest: set[str] = set()
        for one in entries:
            one["active"] = active.get(one["connector"]) == one["bundle"] and one["connector"] not in newest
            newest.add(one["connector"])
        if options.json:
            output.print_json(entries)
            return
        rows = [
            (one["id"], one["connector"], one["act"], one["version"], _short(one["bundle"]),
             datetime.fromisoformat(one["activated_at"]),
             one["actor"], "active" if one["active"] else "")
            for one in entries
        ]  # fmt: skip
        heads = ("id", "connector", "act", "version", "bundle", "at", "by", "")
        output.print_table(heads, rows, empty="Nothing was deployed yet: `headwater deploy PATH`.")

    address.reach(act)


def _checked(path: Path, options: Options) -> Bundle | None:
    """The project's files as they are now, where their check finds no error; else it is told what there is."""
    from headwater.bundle import survey
    from headwater.check.check import check_bundle

    bundle = survey(path)
    report = check_bundle(bundle, path)
    if report.project is not None:
        return bundle
    if options.json:
        output.print_json(report.as_json())
    for line in () if options.json else report.lines():
        output.say(line)
    output.note(f"{path}: {len(report.errors)} errors. Nothing was sent.")
    return None


async def _carry_out(target: Target, options: Options, wanted: Mapping[str, Any], *, dry_run: bool = False) -> int:
    """Plan, show, and activate what was shown: on no other footing than the plan's."""
    answer = await target.deploy({**wanted, "dry_run": True})
    plan = answer["plan"]
    if not options.json:
        _show(plan)
    may = dry_run or not plan["destructive"] or wanted.get("allow_destructive") or wanted.get("rollback")
    if may and not dry_run:
        answer = await target.deploy({**wanted, "bundle": plan["bundle"], "expected": plan["active"]})
    if options.json:
        output.print_json(answer)
    elif answer["deployment"] is not None:
        before = f"; before, {_short(plan['active'])} did" if plan["active"] not in (None, plan["bundle"]) else ""
        output.say(f"{plan['connector']} runs bundle {_short(plan['bundle'])}{before}.")
    if not may:
        output.note("This takes something away. Nothing was changed; --allow-destructive allows it.")
    return 0 if may else FAILED


def _tell(options: Options, answer: Mapping[str, Any]) -> int:
    for line in answer["warnings"]:
        output.note(line)
    if options.json:
        output.print_json(answer)
    else:
        _show(answer["plan"])
    return 0


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """As it comes from a server."""
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(value)
    return plain


def _show(plan: Mapping[str, Any]) -> None:
    before = plan["active_version"] or "nothing"
    output.say(f"{plan['connector']}: {before} → {plan['version']} (bundle {_short(plan['bundle'])})")
    for change in plan["changes"]:
        values = " → ".join(one for one in (change["before"], change["after"]) if one is not None)
        mark = "   DESTRUCTIVE" if change["destructive"] else ""
        sign = _SIGNS.get(change["kind"], "~")
        output.say(f"  {sign} {change['area']:<10} {change['name']:<28} {change['kind']:<11} {values}".rstrip() + mark)
    if not plan["changes"]:
        output.say("  no stream, permission, setting or record changes")


def _short(bundle: str) -> str:
    return bundle[:HASH_CHARACTERS_SHOWN]
