"""`headwater doctor`: what is wrong with this installation, and what to do about it."""

from __future__ import annotations

import platform as machine
import stat
import sys
from collections.abc import Iterable
from importlib.metadata import version
from typing import TYPE_CHECKING

import click

from headwater.cli import output
from headwater.cli.session import Options, platform_options, server_url, with_platform

if TYPE_CHECKING:
    from headwater.app import Platform
    from headwater.config import Config
    from headwater.intention import Finding

CLOCK_YEAR_MIN = 2025


@click.command("doctor")
@platform_options
def doctor(options: Options) -> int:
    """Look at versions, database, key, clock, disk and connector projects. Exit code 1 when something is wrong."""
    output.note("Looking …")

    async def act(platform: Platform) -> int:
        findings = [
            *_versions(),
            *await platform.store.examine(),
            *await _machine(platform),
            *await _secrets(platform),
            *_projects(platform),
        ]
        if options.json:
            output.print_json(findings)
        else:
            _print(findings)
        return 0 if all(one.ok for one in findings) else 1

    return with_platform(options, act, projects=True, warn=False)


def _print(findings: Iterable[Finding]) -> None:
    rows = [("ok" if one.ok else "WRONG", one.name, one.fact) for one in findings]
    output.print_table(("", "what", "fact"), rows, widest="fact")
    for one in findings:
        if not one.ok and one.hint:
            output.say(f"\n{one.name}: {one.hint}")


def _versions() -> list[Finding]:
    from headwater.intention import Finding

    fact = (
        f"headwater {version('headwater')}, Python {machine.python_version()}, {machine.system()} {machine.machine()}"
    )
    return [Finding(name="versions", ok=sys.version_info >= (3, 11), fact=fact, hint="Python 3.11 or newer is needed.")]


async def _machine(platform: Platform) -> list[Finding]:
    from headwater.intention import Finding

    now = platform.clock.now()
    audit = await platform.store.audit_log(limit=1)
    is_behind = now.year < CLOCK_YEAR_MIN or bool(audit and audit[0].at > now)
    url = await server_url(platform)
    return [
        Finding(
            name="clock",
            ok=not is_behind,
            fact=output.instant(now),
            hint="The clock is behind what is stored: signatures and schedules depend on it. Does NTP run?",
        ),
        Finding(name="server", ok=True, fact=url or "not running on this database"),
    ]


async def _secrets(platform: Platform) -> list[Finding]:
    from headwater.connection import secret_aad
    from headwater.errors import SettingsError
    from headwater.intention import Finding
    from headwater.second_factor import factor_aad

    keys = {one.id: one.key for one in await platform.store.connections()}
    unreadable = []
    for connection_id, one in await platform.store.all_secrets():
        try:
            platform.live.key_ring.decrypt(one.ciphertext, aad=secret_aad(keys[connection_id], one.field))
        except SettingsError:
            unreadable.append(f"{keys[connection_id]} {one.field}")
    for account in await platform.store.accounts():
        try:
            if account.factor:
                platform.live.key_ring.decrypt(account.factor, aad=factor_aad(account.id))
        except SettingsError:
            unreadable.append(f"{account.email} second factor")
    readable = Finding(
        name="secrets",
        ok=not unreadable,
        fact=f"not readable: {', '.join(unreadable)}" if unreadable else "all readable",
        hint="Restore the key that they were encrypted with, or set them anew.",
    )
    return [*_key_file(platform.config), readable]


def _key_file(config: Config) -> list[Finding]:
    from headwater.intention import Finding

    if config.key is not None:
        return [Finding(name="key", ok=True, fact="from HEADWATER_KEY")]
    mode = stat.S_IMODE(config.key_file.stat().st_mode)
    return [
        Finding(
            name="key",
            ok=not mode & 0o077,
            fact=f"{config.key_file}, mode {mode:04o}",
            hint=f"Others can read it: chmod 600 {config.key_file}",
        )
    ]


def _projects(platform: Platform) -> list[Finding]:
    from headwater.intention import Finding

    findings = [
        Finding(name=f"connector {key}", ok=True, fact=f"{project.version}, {platform.origin(key)}")
        for key, project in sorted(platform.projects.items())
    ]
    for key, path in platform.passed_over.items():
        fact = f"{path} does not run: {key} runs from {platform.origin(key)}"
        findings.append(Finding(name="folder", ok=True, fact=fact))
    for refused in platform.refused:
        fact = f"{refused.path}: {refused.lines[0]}" + (
            f" (and {len(refused.lines) - 1} more)" if refused.lines[1:] else ""
        )
        hint = "Deploy it again." if str(refused.path).startswith("bundle:") else f"`headwater check {refused.path}`"
        findings.append(Finding(name="connector", ok=False, fact=fact, hint=hint))
    return findings
