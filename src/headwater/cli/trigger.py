"""`headwater trigger`: a sample event, signed with the connection's own secret, sent through its own endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from headwater.cli import output
from headwater.cli.deliveries import without_body
from headwater.cli.main import FAILED
from headwater.cli.session import Options, platform_options, server_url, with_platform

if TYPE_CHECKING:
    from headwater.acts.events import SignedEvent
    from headwater.app import Platform
    from headwater.delivery import Delivery
    from headwater.invoke import LiveConnection

SETTLE_SECONDS_MAX = 15.0
LOOK_SECONDS = 0.1


@click.command("trigger")
@platform_options
@click.argument("connection")
@click.argument("event_type")
@click.option("--data", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The body, sent as it is.")
@click.option("--url", help="Base URL of the server (default: the one that serves this database).")
def trigger(options: Options, connection: str, event_type: str, data: Path | None, url: str | None) -> int:
    """Send an event of EVENT_TYPE to CONNECTION, as its provider would.

    The body is --data, or the project's tests/payloads/<event_type>.json with a new id, or a bare event.
    Where no server runs, it is received and dispatched here.
    """

    given = data.read_bytes() if data else None

    async def act(platform: Platform) -> int:
        from headwater.acts import events

        stored = await platform.find_connection(connection)
        live = await platform.live.connections.get(stored.id)
        body, words = events.sample_event(live.project, event_type, platform.clock.now())
        if given is None:
            output.note(f"body: {words}; --data sends one of your own")
        else:
            body = given
        event = events.signed_event(live, event_type, body, at=platform.clock.now())
        since = await events.newest_delivery(platform.store, stored.key)
        base = url or await server_url(platform)
        status = await _send(platform, live, event, base)
        if status >= 300:
            output.note(
                f"The endpoint answered {status}." + (" `headwater deliveries --rejected`" if status == 401 else "")
            )
            return FAILED
        done = await _settled(platform, await events.stored_as(platform.store, stored.key, event, since=since))
        return await _tell(platform, options, done, status)

    return with_platform(options, act, projects=True)


async def _send(platform: Platform, live: LiveConnection, event: SignedEvent, base: str | None) -> int:
    target = platform.webhook_url(live.stored, base)
    assert target is not None, "the connector has webhooks"
    return await (_post(target, event) if base else _receive_here(platform, target, event))


async def _post(url: str, event: SignedEvent) -> int:
    import aiohttp

    from headwater.errors import ProviderError

    try:
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, headers=event.headers, data=event.body) as answer,
        ):
            return answer.status
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise ProviderError("The server could not be reached.", hint="Is `headwater serve` running?") from error


async def _receive_here(platform: Platform, url: str, event: SignedEvent) -> int:
    from headwater.dispatch import Dispatcher
    from headwater.in_process import answering
    from headwater.ingress import Ingress
    from headwater.transport import TransportRequest

    ingress = Ingress(platform.store, platform.live.connections, platform.clock, public_url=platform.config.base_url)
    answer = await answering(ingress)(
        TransportRequest(method="POST", url=url, headers=dict(event.headers), body=event.body)
    )
    await ingress.drain()
    await Dispatcher(platform.store, platform.live.connections, platform.clock).dispatch_batch()
    return answer.status


async def _settled(platform: Platform, found: Delivery | None) -> Delivery | None:
    """The delivery once it is no longer pending, or as it is when we waited for long; None: it was a duplicate."""
    limit = platform.clock.monotonic() + SETTLE_SECONDS_MAX
    while found is not None and found.state == "pending" and platform.clock.monotonic() < limit:
        await platform.clock.sleep(LOOK_SECONDS)
        found = await platform.store.delivery(found.id)
    return found


async def _tell(platform: Platform, options: Options, done: Delivery | None, status: int) -> int:
    if done is None:
        if options.json:
            output.print_json({"status": status, "delivery": None})
        else:
            output.say(f"{status}: accepted, and nothing new was stored (a duplicate, or a handshake).")
        return 0
    versions = await platform.store.versions_of_delivery(done.id)
    if options.json:
        output.print_json({"status": status, "delivery": without_body(done), "versions": versions})
    else:
        state = "ignored" if done.ignored else done.state.value
        output.say(f"{status}: delivery {done.id} is {state}, {output.counts(done.counts)}")
        for one in versions:
            output.say(f"  {one.stream}: {one.type} {one.source_id}, version {one.version}")
        if done.error:
            output.note(f"{done.error_code}: {done.error}")
    return FAILED if done.state == "dead" else 0
