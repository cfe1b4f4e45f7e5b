"""`headwater streams`: the health of every stream, in the same words as the dashboard; pausing and resuming one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING

import click

from headwater.cli import output
from headwater.cli.main import ListGroup
from headwater.cli.session import Options, platform_options, with_platform

if TYPE_CHECKING:
    from headwater.app import Platform
    from headwater.health import StreamReport


@click.group(cls=ListGroup)
def streams() -> None:
    """The health of every stream in a sentence."""


@streams.command("list")
@platform_options
@click.option("--connection", help="Connection key.")
@click.option("--status", help="Only streams of this status, such as failing.")
def list_(options: Options, connection: str | None, status: str | None) -> None:
    """Every stream with its cadence, last success, next run and health; worst first."""

    async def act(platform: Platform) -> None:
        from headwater import health

        if status is not None:
            _known_status(status)
        now = platform.clock.now()
        stored = await platform.find_connection(connection) if connection else None
        states = await platform.store.streams(at=now, connection=stored.key if stored else None)
        found = [one for one in health.reports(states, now) if status in (None, one.status.value)]
        if options.json:
            output.print_json(found)
        else:
            _print(found, now)

    with_platform(options, act)


@streams.command("pause")
@platform_options
@click.argument("connection")
@click.argument("stream")
@click.option("--partition", default="", help="Of a stream with partitions.")
def pause(options: Options, connection: str, stream: str, partition: str) -> None:
    """Start no run of STREAM until it is resumed; one under way finishes."""

    async def act(platform: Platform) -> None:
        from headwater.acts.streams import PauseStream

        state = await platform.find_stream(connection, stream, partition)
        done = await platform.perform(PauseStream(connection=state.connection, stream=stream, partition=partition))
        output.note(done.sentence)

    with_platform(options, act)


@streams.command("resume")
@platform_options
@click.argument("connection")
@click.argument("stream")
@click.option("--partition", default="", help="Of a stream with partitions.")
def resume(options: Options, connection: str, stream: str, partition: str) -> None:
    """Undo a pause; a poll stream runs at once."""

    async def act(platform: Platform) -> None:
        from headwater.acts.streams import ResumeStream

        state = await platform.find_stream(connection, stream, partition)
        done = await platform.perform(ResumeStream(connection=state.connection, stream=stream, partition=partition))
        output.note(done.sentence)

    with_platform(options, act)


def _known_status(status: str) -> None:
    from headwater.cli.main import near_miss_error
    from headwater.verdict import Status

    known = [one.value for one in Status]
    if status not in known:
        raise near_miss_error(status, known, "status")


def _print(found: Sequence[StreamReport], now: datetime) -> None:
    if not found:
        output.say("No streams yet. `headwater connections add CONNECTOR` makes a connection with its streams.")
        return
    from headwater import health

    by_connection = sorted(found, key=lambda one: one.connection)
    for key, group in groupby(by_connection, key=lambda one: one.connection):
        members = list(group)
        name = members[0].connector.replace("_", " ").capitalize()
        output.say(health.connection_summary(name, key, members))
    output.say()
    output.print_table(
        ("connection", "stream", "status", "cadence", "last success", "next", "24 h", "why"),
        [
            (
                one.connection, one.name, one.status.value, one.cadence,
                output.ago(one.last_success_at or one.last_delivery_at, now), output.until(one.next_at, now),
                output.counts(one.counts_24h), one.sentence,
            )
            for one in found
        ],
        widest="why",
    )  # fmt: skip
