"""`headwater alerts`: what is not as it should be, who is told of what, and mutes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headwater.cli import output
from headwater.cli.main import ListGroup
from headwater.cli.session import Options, platform_options, with_platform

if TYPE_CHECKING:
    from headwater.acts.act import Act
    from headwater.app import Platform

CONDITIONS = ("late", "failing", "needs attention", "dead letters", "drift", "rejected")


@click.group(cls=ListGroup)
def alerts() -> None:
    """List alerts; add and remove rules; mute and unmute."""


@alerts.command("list")
@platform_options
def list_(options: Options) -> None:
    """What stands, and what is muted."""

    async def act(platform: Platform) -> None:
        standing = await platform.store.standing_alerts()
        mutes = await platform.store.mutes(at=platform.clock.now())
        if options.json:
            output.print_json({"standing": standing, "mutes": mutes})
            return
        now = platform.clock.now()
        output.print_table(
            ("alert", "what", "connection", "stream", "since", "told", "why"),
            [
                (
                    one.id, one.subject.condition, one.subject.connection, one.subject.stream,
                    output.ago(one.began_at, now), output.ago(one.fired_at, now), one.sentence,
                )
                for one in standing
            ],
            empty="Nothing stands. `headwater alerts rules` shows what is looked for.",
            widest="why",
        )  # fmt: skip
        if mutes:
            output.say()
            output.print_table(
                ("mute", "connection", "stream", "until", "why"),
                [(one.id, one.connection, one.stream, one.until, one.reason) for one in mutes],
            )

    with_platform(options, act)


@alerts.command("rules")
@platform_options
def rules(options: Options) -> None:
    """The rules."""

    async def act(platform: Platform) -> None:
        found = await platform.store.alert_rules()
        if options.json:
            output.print_json(found)
            return
        output.print_table(
            ("rule", "when", "connection", "stream", "more than", "for", "tell"),
            [
                (
                    one.id, ", ".join(one.conditions), one.connection, one.stream, _number(one.threshold),
                    f"{one.hold_seconds // 60} min", ", ".join(one.targets),
                )
                for one in found
            ],
            empty="No rules yet. `headwater alerts add --when failing --to you@example.com` makes one.",
        )  # fmt: skip

    with_platform(options, act)


@alerts.command("add")
@platform_options
@click.option(
    "--when", "conditions", multiple=True, required=True, type=click.Choice(CONDITIONS), help="Repeat for more."
)
@click.option("--to", "targets", multiple=True, required=True, help="`webhook`, or an email address; repeat for more.")
@click.option("--connection", help="Connection key (default: every one).")
@click.option("--stream", help="Stream key (default: every one).")
@click.option("--threshold", type=click.FloatRange(0), help="Of dead letters, drift or rejected: more than that.")
@click.option("--hold", "hold_minutes", type=click.IntRange(0), default=5, show_default=True, help="Minutes.")
def add(
    options: Options,
    conditions: tuple[str, ...],
    targets: tuple[str, ...],
    connection: str | None,
    stream: str | None,
    threshold: float | None,
    hold_minutes: int,
) -> None:
    """Tell somebody when streams are not as they should be, and when they are well again."""
    from headwater.acts.alerts import AddAlertRule

    _perform(
        options,
        AddAlertRule(
            conditions=conditions,  # type: ignore[arg-type]  # of those that are offered
            targets=targets,
            connection=connection,
            stream=stream,
            threshold=threshold,
            hold_minutes=hold_minutes,
        ),
    )


@alerts.command("remove")
@platform_options
@click.argument("rule", type=int)
def remove(options: Options, rule: int) -> None:
    """Let a RULE hold no longer."""
    from headwater.acts.alerts import RemoveAlertRule

    _perform(options, RemoveAlertRule(rule=rule))


@alerts.command("mute")
@platform_options
@click.argument("connection")
@click.argument("stream", required=False)
@click.option("--hours", type=click.IntRange(1), help="Default: until it is taken back.")
@click.option("--reason", default="", help="Why.")
def mute(options: Options, connection: str, stream: str | None, hours: int | None, reason: str) -> None:
    """Tell nobody anything new of a STREAM, or of all of CONNECTION; it goes on as ever."""
    from headwater.acts.alerts import MuteStream

    _perform(options, MuteStream(connection=connection, stream=stream, hours=hours, reason=reason))


@alerts.command("unmute")
@platform_options
@click.argument("mute", type=int)
def unmute(options: Options, mute: int) -> None:
    """Take a MUTE back."""
    from headwater.acts.alerts import Unmute

    _perform(options, Unmute(mute=mute))


@alerts.command("test")
@platform_options
@click.argument("target", default="webhook")
def test(options: Options, target: str) -> None:
    """Send a test message to TARGET: `webhook`, or an email address. The server sends it."""
    from headwater.acts.alerts import SendTestMessage

    _perform(options, SendTestMessage(target=target))


def _perform(options: Options, wanted: Act) -> None:
    async def act(platform: Platform) -> None:
        done = await platform.perform(wanted)
        if options.json:
            output.print_json(done.value)
        else:
            output.say(done.sentence)

    with_platform(options, act)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"
