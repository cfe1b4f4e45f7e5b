"""`headwater checkpoints`: where each stream goes on, and putting it elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headwater.cli import output
from headwater.cli.main import ListGroup
from headwater.cli.runs import stream_name
from headwater.cli.session import Options, confirm, platform_options, with_platform

if TYPE_CHECKING:
    from headwater.app import Platform


@click.group(cls=ListGroup)
def checkpoints() -> None:
    """Show, set or reset where a stream goes on."""


@checkpoints.command("list")
@platform_options
@click.option("--connection", help="Connection key.")
def list_(options: Options, connection: str | None) -> None:
    """The checkpoint of every poll and backfill stream."""

    async def act(platform: Platform) -> None:
        streams = await platform.store.streams(at=platform.clock.now(), connection=connection)
        found = [one for one in streams if one.mode != "webhook"]
        if options.json:
            names = ("connection", "stream", "partition", "cursor", "checkpoint_at")
            output.print_json([{name: getattr(one, name) for name in names} for one in found])
            return
        now = platform.clock.now()
        output.print_table(
            ("connection", "stream", "cursor", "saved"),
            [
                (one.connection, stream_name(one.stream, one.partition), one.cursor, output.ago(one.checkpoint_at, now))
                for one in found
            ],
            empty="No streams yet. `headwater connections add CONNECTOR` makes some.",
        )

    with_platform(options, act)


@checkpoints.command("set")
@platform_options
@click.argument("connection")
@click.argument("stream")
@click.argument("cursor")
@click.option("--partition", default="", help="Of a stream with partitions.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def set_(options: Options, connection: str, stream: str, cursor: str, partition: str, yes: bool) -> None:
    """Let STREAM of CONNECTION go on after CURSOR; a run under way is ended."""
    _put(options, connection, stream, partition, cursor, yes=yes)


@checkpoints.command("reset")
@platform_options
@click.argument("connection")
@click.argument("stream")
@click.option("--partition", default="", help="Of a stream with partitions.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(options: Options, connection: str, stream: str, partition: str, yes: bool) -> None:
    """Forget the checkpoint of STREAM: its next run begins at the beginning. Records stay."""
    _put(options, connection, stream, partition, None, yes=yes)


def _put(options: Options, connection: str, stream: str, partition: str, cursor: str | None, *, yes: bool) -> None:
    async def act(platform: Platform) -> None:
        from headwater.acts.streams import ResetCheckpoint, SetCheckpoint

        state = await platform.find_stream(connection, stream, partition)
        name = f"{state.connection} {stream_name(state.stream, state.partition)}"
        where = "the beginning" if cursor is None else f"`{cursor}`"
        confirm(f"{name} goes on after `{state.cursor}`; put it to {where}?", yes=yes)
        words = {"connection": state.connection, "stream": stream, "partition": partition}
        done = await platform.perform(
            ResetCheckpoint(**words) if cursor is None else SetCheckpoint(**words, cursor=cursor)
        )
        if options.json:
            output.print_json({"connection": state.connection, "stream": state.stream, "cursor": cursor})
        else:
            output.say(done.sentence)

    with_platform(options, act)
