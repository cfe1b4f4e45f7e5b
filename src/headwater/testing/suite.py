"""The standard suite: what every connector must be able to bear, in one line of its tests.

    test_standard = standard_suite(PROJECT, provider)

`provider` is called for a fresh `Provider` before each test; it must give the same content each time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from headwater.check.check import check
from headwater.errors import CheckFailedError
from headwater.invoke import test_connection
from headwater.project import Project
from headwater.testing.answering import Provider, SentEvent
from headwater.testing.drive import project_folder
from headwater.testing.stage import Key, Seen, Stage, stage
from headwater.transport import Headers, Transport, TransportRequest, TransportResponse

KILLS_MAX = 12  # pages of a stream at which it is killed
SECRET_CHARACTERS_MIN = 6  # a shorter one occurs by chance
WRONG_SECRET = "whsec_dGhlLXNlY3JldC1vZi1zb21lYm9keS1lbHNl"  # noqa: S105  that of nobody

ProviderFactory = Callable[[], Provider]
Fresh = Callable[[], Awaitable[Provider]]
Act = Callable[[Project, Fresh], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """One test of the suite."""

    name: str
    act: Act


def standard_suite(project: Path | str, provider: ProviderFactory) -> Callable[..., None]:
    """A test function for pytest, with one case for each thing that a connector must bear.

    The check passes; every poll stream polls to its end; a run killed at any page ends with the same records; a run
    repeated changes nothing; 429 and 5xx are survived; secrets are in no log and no error; and for webhooks: a wrong
    signature is refused, repeated and reordered deliveries converge, polls and webhooks agree.
    """
    import pytest

    folder = project_folder(project)
    report = check(folder)
    cases = cases_of(report.project, provider) if report.project else []

    def passes_its_check() -> None:
        if report.errors:
            raise CheckFailedError("\n".join(report.lines()))

    @pytest.mark.parametrize("case", [None, *cases], ids=["passes its check", *(case.name for case in cases)])
    def test_standard(case: Case | None) -> None:
        if case is None or report.project is None:
            passes_its_check()
        else:
            asyncio.run(_carried_out(case, report.project, provider))

    return test_standard


async def _carried_out(case: Case, project: Project, provider: ProviderFactory) -> None:
    async def fresh() -> Provider:
        # In a thread, the factory may run a loop of its own.
        return await asyncio.to_thread(provider)

    await case.act(project, fresh)


def cases_of(project: Project, provider: ProviderFactory) -> list[Case]:
    """The cases that apply to a project."""
    polled = _polled_keys(project)
    cases = [Case(f"{key} is polled to its end", _of_stream(_polls, key)) for key in polled]
    cases += [Case(f"{key} goes on after a kill at any page", _of_stream(_resumes, key)) for key in polled]
    if polled:
        cases.append(Case("polled again, nothing changes", _is_idempotent))
        cases.append(Case("429 and 5xx are survived", _survives_faults))
        cases.append(Case("secrets are in no log and no error", _keeps_secrets))
    if project.connector.webhooks and provider().events:
        cases.append(Case("a wrong signature is refused", _refuses_wrong_signatures))
        cases.append(Case("repeated deliveries change nothing", _bears_repetition))
        cases.append(Case("reordered deliveries converge", _bears_disorder))
        if polled:
            cases.append(Case("polls and webhooks agree", _agree))
    return cases


def _of_stream(act: Callable[[Project, Fresh, str], Awaitable[None]], stream: str) -> Act:
    return lambda project, fresh: act(project, fresh, stream)


async def _polls(project: Project, fresh: Fresh, stream: str) -> None:
    async with stage(project, await fresh()) as one:
        assert await one.poll(stream), f"{stream} has no partition to poll: set the setting that names them"
        reasons = await one.quarantined()
        assert not reasons, f"{len(reasons)} records were quarantined: {reasons[0]}"


async def _resumes(project: Project, fresh: Fresh, stream: str) -> None:
    async with stage(project, await fresh()) as one:
        pages = sum(run.pages for run in await one.poll(stream))
        wanted = await one.records()
    for at_page in range(1, min(pages, KILLS_MAX) + 1):
        async with stage(project, await fresh()) as one:
            for state in await one.polled(stream):
                if not await one.poll_killed(state, at_page=at_page):
                    continue
            same(wanted, await one.records(), f"{stream}, killed at page {at_page}", versions=True)


async def _is_idempotent(project: Project, fresh: Fresh) -> None:
    async with stage(project, await fresh()) as one:
        await one.poll()
        first = _live(await one.records())
        # What a first load sees from its checkpoint on may tell of objects that were gone before it began.
        await one.poll()
        settled = await one.records()
        same(first, _live(settled), "polled again from its checkpoint", versions=True)
        await one.poll()
        same(settled, await one.records(), "polled a third time from its checkpoint", versions=True)
        await one.begin_again()
        await one.poll()
        same(settled, await one.records(), "polled again from the beginning", versions=True)


async def _survives_faults(project: Project, fresh: Fresh) -> None:
    async with stage(project, await fresh()) as one:
        await one.poll()
        wanted = await one.records()
    provider = await fresh()
    async with stage(project, provider, transport=_faulty(provider.transport)) as one:
        await one.poll()
        same(wanted, await one.records(), "with a 429 and a 503 before each answer", versions=False)


async def _keeps_secrets(project: Project, fresh: Fresh) -> None:
    provider = await fresh()
    with _captured() as lines:
        async with stage(project, provider, transport=_echoing) as one:
            texts = [await _failed_poll(one)]
            live = await one.platform.live.connections.by_key("test")
            texts.append(str(await test_connection(live)))
    texts += lines
    for name, secret in provider.secrets.items():
        if len(secret) >= SECRET_CHARACTERS_MIN:
            found = next((text for text in texts if secret in text), None)
            assert found is None, f"the secret `{name}` is told in: {found.replace(secret, '●●●') if found else ''}"


async def _refuses_wrong_signatures(project: Project, fresh: Fresh) -> None:
    provider = await fresh()
    async with stage(project, provider) as one:
        statuses = await one.send(provider.events[:1], secret=WRONG_SECRET)
        assert statuses == [401], f"a delivery with a wrong signature was answered {statuses[0]}"
        assert not await one.platform.store.pending_deliveries(), "a delivery with a wrong signature was stored"


async def _bears_repetition(project: Project, fresh: Fresh) -> None:
    provider = await fresh()
    async with stage(project, provider) as one:
        await one.deliver(provider.events)
        wanted = await one.records()
        # By another delivery id: one of the same id is settled before the route sees it, this one by the route's keys.
        await one.deliver([replace(event, provider_id=None) for event in provider.events])
        same(wanted, await one.records(), "every event delivered twice", versions=True)


async def _bears_disorder(project: Project, fresh: Fresh) -> None:
    wanted: dict[Key, Seen] = {}
    wanted_in_the_end: dict[Key, Seen] = {}
    for name, order in _orders((await fresh()).events):
        async with stage(project, await fresh()) as one:
            for event in order:
                await one.deliver([event])
            found = await one.records()
            # Two events of one instant cannot be told apart by it: the next poll settles which one holds.
            await one.poll()
            in_the_end = await one.records()
        how = f"delivered {name}"
        wanted, wanted_in_the_end = wanted or found, wanted_in_the_end or in_the_end
        same(wanted, found, f"{how} (does each emission say its event's `as_of`?)", versions=False, ties=True)
        same(wanted_in_the_end, in_the_end, f"{how}, then polled", versions=False, ties=not _polled_keys(project))


async def _agree(project: Project, fresh: Fresh) -> None:
    async with stage(project, await fresh()) as one:
        await one.poll()
        polled = await one.records()
    provider = await fresh()
    async with stage(project, provider) as one:
        await one.deliver(provider.events)
        delivered = await one.records()
    for key in polled.keys() & delivered.keys():
        by_poll, by_webhook = polled[key], delivered[key]
        assert by_poll.deleted == by_webhook.deleted, (
            f"{key.type} {key.source_id}: deleted by one way, live by the other"
        )
        if not by_poll.deleted:
            assert by_poll.payload == by_webhook.payload, (
                f"{key.type} {key.source_id} differs by poll and by webhook:\n"
                f"{by_poll.payload.decode()}\n{by_webhook.payload.decode()}"
            )


def _polled_keys(project: Project) -> list[str]:
    return [one.key for one in project.connector.streams if one.mode == "poll"]


def _live(records: dict[Key, Seen]) -> dict[Key, Seen]:
    return {key: one for key, one in records.items() if not one.deleted}


def _orders(events: Sequence[SentEvent]) -> list[tuple[str, list[SentEvent]]]:
    halves = [event for pair in zip(events[1::2], events[::2], strict=False) for event in pair]
    swapped = halves + list(events[len(halves) :])
    return [("in order", list(events)), ("backwards", list(events)[::-1]), ("with neighbours swapped", swapped)]


def same(wanted: dict[Key, Seen], found: dict[Key, Seen], how: str, *, versions: bool, ties: bool = False) -> None:
    """An assertion fails, in words, where records differ; with `ties`, not where both are of the same instant."""
    missing, extra = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    assert not missing, f"{how}: {len(missing)} records are missing, such as {min(missing)}"
    assert not extra, f"{how}: {len(extra)} records are too many, such as {min(extra)}"
    for key, one in wanted.items():
        other = found[key]
        if ties and one.as_of == other.as_of:
            continue
        assert (one.payload, one.deleted) == (other.payload, other.deleted), (
            f"{how}: {key} differs:\n{one.payload.decode()}\n{other.payload.decode()}"
        )
        assert not versions or one.versions == other.versions, (
            f"{how}: {key} has {other.versions} versions, not {one.versions}"
        )


def _faulty(transport: Transport) -> Transport:
    """Every first asking is answered 429, every second one 503, and then as the provider does."""
    asked: dict[tuple[str, str, bytes], int] = {}

    async def faulty(request: TransportRequest) -> TransportResponse:
        key = (request.method, request.url, request.body)
        turn = asked.get(key, 0)
        asked[key] = turn + 1
        if turn == 0:
            return TransportResponse(status=429, headers=Headers([("retry-after", "1")]), body=b"slow down")
        if turn == 1:
            return TransportResponse(status=503, body=b"not now")
        return await transport(request)

    return faulty


async def _echoing(request: TransportRequest) -> TransportResponse:
    """A provider that repeats all that it was sent, which some do."""
    told = " ".join([request.method, request.url, *(f"{name}: {value}" for name, value in request.headers.items())])
    return TransportResponse(status=400, body=told.encode() + request.body)


async def _failed_poll(one: Stage) -> str:
    try:
        await one.poll()
    except AssertionError as error:
        said = str(error)
    else:
        said = ""
    runs = await one.platform.store.runs()
    requests = [str(request) for run in runs for request in await one.platform.store.requests(run.id)]
    return "\n".join([said, *(str(run) for run in runs), *requests])


@contextmanager
def _captured() -> Iterator[list[str]]:
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(logging.Formatter().format(record))

    handler, root = Lines(logging.DEBUG), logging.getLogger("headwater")
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
