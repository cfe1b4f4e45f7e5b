"""`headwater deliveries`: what providers sent, what became of it, and sending it through again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from headwater.cli import output
from headwater.cli.main import ListGroup
from headwater.cli.session import Options, confirm, instant, platform_options, with_platform

if TYPE_CHECKING:
    from headwater.app import Platform
    from headwater.delivery import Delivery, DeliveryFilter
    from headwater.record import Version

STATES = ("pending", "done", "dead")
BODY_CHARACTERS_SHOWN = 4000


@click.group(cls=ListGroup)
def deliveries() -> None:
    """List, show and replay webhook deliveries."""


@deliveries.command("list")
@platform_options
@click.option("--connection", help="Connection key.")
@click.option("--state", type=click.Choice(STATES))
@click.option("--event-type", help="Such as invoice.paid.")
@click.option("--error-code", help="Such as stop.handler.")
@click.option("--from", "received_from", type=instant, help="Received at or after.")
@click.option("--to", "received_to", type=instant, help="Received before.")
@click.option("--replayed-at", type=instant, help="Of the replay of this instant.")
@click.option("--limit", type=click.IntRange(1, 1000), default=30, show_default=True)
@click.option("--after", type=int, help="Go on after this delivery id (smaller ones).")
@click.option("--rejected", is_flag=True, help="The refused requests instead, by reason and hour.")
def list_(options: Options, limit: int, after: int | None, rejected: bool, **words: object) -> None:
    """Deliveries, newest first."""

    async def act(platform: Platform) -> None:
        which = _filter(words)
        if rejected:
            await _print_rejections(platform, options, which.connection, limit)
            return
        found = await platform.store.deliveries(which, after=after, limit=limit)
        if options.json:
            output.print_json([without_body(one) for one in found])
            return
        now = platform.clock.now()
        output.print_table(
            ("delivery", "connection", "event", "state", "received", "attempts", "duplicates", "records", "error"),
            [
                (
                    one.id, one.connection, one.event_type, "ignored" if one.ignored else one.state.value,
                    output.ago(one.received_at, now), one.attempts, one.duplicates, output.counts(one.counts),
                    one.error,
                )
                for one in found
            ],
            empty="No deliveries match.",
        )  # fmt: skip

    with_platform(options, act)


@deliveries.command("show")
@platform_options
@click.argument("delivery_id", type=int)
def show(options: Options, delivery_id: int) -> None:
    """One delivery: headers, body, and the versions that it made."""

    async def act(platform: Platform) -> None:
        from headwater.errors import NotFoundError

        one = await platform.store.delivery(delivery_id)
        if one is None:
            raise NotFoundError(f"There is no delivery {delivery_id}.", hint="`headwater deliveries` lists them.")
        versions = await platform.store.versions_of_delivery(delivery_id)
        if options.json:
            body = (one.body or b"").decode("utf-8", "replace")
            output.print_json({**without_body(one), "headers": one.headers, "body": body, "versions": versions})
        else:
            _print_delivery(one, versions)

    with_platform(options, act)


@deliveries.command("replay")
@platform_options
@click.argument("ids", type=int, nargs=-1)
@click.option("--connection", help="Connection key.")
@click.option("--state", type=click.Choice(STATES))
@click.option("--event-type", help="Such as invoice.paid.")
@click.option("--error-code", help="Such as stop.handler.")
@click.option("--from", "received_from", type=instant, help="Received at or after.")
@click.option("--to", "received_to", type=instant, help="Received before.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def replay(options: Options, ids: tuple[int, ...], yes: bool, **words: object) -> None:
    """Dispatch deliveries again: those with these IDS, or all that match the options.

    What was already right does not change.
    """
    if not ids and not any(words.values()):
        raise click.UsageError("Name deliveries, or say which by an option such as --state dead.")

    async def act(platform: Platform) -> None:
        from headwater.acts.deliveries import ReplayDeliveries

        which = _filter(words, ids)
        count = await platform.store.count_deliveries(which)
        said, at = "No deliveries match.", None
        if count:
            confirm(f"{count} deliveries match and will be dispatched again. Go on?", yes=yes or len(ids) == 1)
            done = await platform.perform(ReplayDeliveries(**words_of(which)))
            count, said, at = done.value["replayed"], done.sentence, done.value["replayed_at"]
        if options.json:
            output.print_json({"replayed": count, "replayed_at": at})
        else:
            output.say(said)
            if at:
                output.note(f"`headwater deliveries list --replayed-at {at.isoformat()}` follows them.")

    with_platform(options, act)


@deliveries.command("cancel-replay")
@platform_options
@click.argument("replayed_at", type=instant)
@click.option("--connection", help="Connection key.")
def cancel_replay(options: Options, replayed_at: datetime, connection: str | None) -> None:
    """Let those of the replay of REPLAYED_AT that still wait be what they were before."""

    async def act(platform: Platform) -> None:
        from headwater.acts.deliveries import CancelReplay

        done = await platform.perform(CancelReplay(replayed_at=replayed_at, connection=connection))
        if options.json:
            output.print_json(done.value)
        else:
            output.say(done.sentence)

    with_platform(options, act)


def words_of(which: DeliveryFilter) -> dict[str, Any]:
    """What a replay is told of a filter."""
    words = dataclasses.asdict(which)
    del words["replayed_at"]
    return words


def _filter(words: Mapping[str, object], ids: Sequence[int] = ()) -> DeliveryFilter:
    from headwater.delivery import DeliveryFilter, DeliveryState

    def text(name: str) -> str | None:
        value = words.get(name)
        return value if isinstance(value, str) else None

    def at(name: str) -> datetime | None:
        value = words.get(name)
        return value if isinstance(value, datetime) else None

    state = text("state")
    return DeliveryFilter(
        ids=tuple(ids) or None,
        connection=text("connection"),
        state=DeliveryState(state) if state else None,
        event_type=text("event_type"),
        received_from=at("received_from"),
        received_to=at("received_to"),
        error_code=text("error_code"),
        replayed_at=at("replayed_at"),
    )


async def _print_rejections(platform: Platform, options: Options, connection: str | None, limit: int) -> None:
    found = await platform.store.rejections(connection=connection, limit=limit)
    if options.json:
        output.print_json(found)
        return
    output.print_table(
        ("connection", "reason", "count", "last"),
        [(one.connection, one.reason, one.count, one.last_at) for one in found],
        empty="No request was refused.",
    )


def without_body(one: Delivery) -> dict[str, object]:
    """A delivery as lists show it."""
    fields = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
    del fields["body"], fields["headers"]
    return fields


def _print_delivery(one: Delivery, versions: Sequence[Version]) -> None:
    output.print_facts(
        [
            ("delivery", one.id),
            ("connection", one.connection),
            ("event", one.event_type),
            ("provider id", one.provider_id),
            ("state", "ignored" if one.ignored else one.state.value),
            ("received", one.received_at),
            ("next attempt", one.due_at),
            ("finished", one.finished_at),
            ("attempts", one.attempts),
            ("duplicates", one.duplicates),
            ("records", output.counts(one.counts)),
            ("error", f"{one.error_code}: {one.error}" if one.error else None),
        ]
    )
    if versions:
        output.say()
        output.print_table(
            ("type", "id", "version", "stale", "as of"),
            [(one.type, one.source_id, one.version, one.stale, one.as_of) for one in versions],
        )
    if one.traceback:
        output.say("\n" + one.traceback.rstrip())
    output.say()
    for name, value in one.headers.items():
        output.say(f"{name}: {value}")
    body = (one.body or b"").decode("utf-8", "replace")
    cut = f"\n… {len(body) - BODY_CHARACTERS_SHOWN} more characters" if len(body) > BODY_CHARACTERS_SHOWN else ""
    output.say(f"\n{body[:BODY_CHARACTERS_SHOWN]}{cut}")
