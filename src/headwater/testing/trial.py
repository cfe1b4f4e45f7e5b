"""What `headwater test` puts a connector through: a provider that lies, a process that dies, a clock that is wrong.

peace ──> what is right ──> each trial, one lie over and over ──> the same records, or which promise is broken, and how

Every history is one of a seed, on the real platform in virtual time (`scene.py`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from headwater.testing.answering import Provider
from headwater.testing.lie import DOWN, LOSSY, SHIFTS, Forgetful, changing, tokens
from headwater.testing.process import SERVE_FAILPOINTS
from headwater.testing.scene import Act, Played, Scene, Snapshot, play
from headwater.testing.suite import same

SEEDS = 3  # histories of each drawn trial
KILLS_MAX = 3  # at the first so many passes of each commit point
CLOCK_SECONDS = 120.0  # how far off the machine's clock is
EXPIRED_SECONDS = 300.0  # virtual, for which the provider refuses the cursor
DOWN_SECONDS = 100.0  # virtual, for which the provider is not there at all

Factory = Callable[[], Provider]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a trial came to."""

    name: str
    promise: str  # what the connector is held to, in one sentence
    broken: Sequence[str] = ()  # how it is broken, in words
    skipped: str = ""  # why it was not tried
    histories: int = 0
    seed: int | None = None  # that broke it

    @property
    def ok(self) -> bool:
        """Nothing was broken."""
        return not self.broken


@dataclass(kw_only=True)
class Bench:
    """A project, its provider, and what is right; the trials of one command share it."""

    path: Path
    factory: Factory
    seeds: Sequence[int] = tuple(range(1, SEEDS + 1))
    kills_max: int = KILLS_MAX  # at each commit point
    peace: Played = field(default_factory=Played)

    def play(self, act: Act, *, seed: int = 0, provider: Provider | None = None) -> Played:
        """One history, with a fresh provider unless one is given."""
        return play(self.path, provider or self.factory(), act, seed=seed)

    def differs(
        self, played: Played, snapshot: str = "end", *, versions: bool = False, ties: bool = False
    ) -> list[str]:
        """In words, what differs from what is right."""
        if played.problems:
            return played.problems
        try:
            same(self.peace.snapshots[snapshot], played.snapshots[snapshot], "", versions=versions, ties=ties)
        except AssertionError as error:
            return [str(error).removeprefix(": ").capitalize()]
        return []


Trial = Callable[[Bench], Verdict]


async def in_peace(scene: Scene) -> None:
    """Poll, deliver, poll: what every trial is compared with."""
    await scene.poll()
    scene.note("polled")
    if scene.provider.events and scene.project.connector.webhooks:
        await scene.deliver(scene.provider.events)
        scene.note("delivered")
    await scene.poll()
    scene.note("end")
    if scene.rows("SELECT 1 FROM quarantine LIMIT 1"):
        ((reason, kind),) = scene.rows("SELECT reason, type FROM quarantine LIMIT 1")
        scene.problem(f"Records are quarantined, such as a {kind}: {reason}")


def peace(bench: Bench) -> Verdict:
    """Without any fault."""
    bench.peace = bench.play(in_peace)
    return Verdict(
        name="peace",
        promise="Without faults, every stream is polled to its end and every event is taken.",
        broken=bench.peace.problems,
        histories=1,
    )


def again(bench: Bench) -> Verdict:
    """The same once more."""

    async def act(scene: Scene) -> None:
        for name in ("first", "settled", "again"):
            await scene.poll()
            scene.note(name)
        await scene.reset()
        await scene.poll()
        scene.note("anew")

    played = bench.play(act)
    broken = list(played.problems)
    for name, how in (("again", "polled once more"), ("anew", "polled from the beginning")):
        try:
            same(played.snapshots["settled"], played.snapshots[name], how, versions=True)
        except (AssertionError, KeyError) as error:
            broken.append(str(error).capitalize())
    return Verdict(
        name="again",
        promise="Where nothing changed at the provider, a poll changes nothing.",
        broken=broken[:1],
        histories=1,
    )


def kills(bench: Bench) -> Verdict:
    """The process dies at every commit point."""
    histories = 0
    for name in SERVE_FAILPOINTS:
        for nth in range(1, min(bench.peace.passed.get(name, 0), bench.kills_max) + 1):
            histories += 1

            async def act(scene: Scene, name: str = name, nth: int = nth) -> None:
                scene.simulation.killer.aim_at(name, nth)
                await in_peace(scene)

            if broken := bench.differs(bench.play(act)):
                words = [f"Killed at {name} ({nth}): {broken[0]}"]
                return _verdict_of_kills(words, histories)
    return _verdict_of_kills([], histories)


def _verdict_of_kills(broken: Sequence[str], histories: int) -> Verdict:
    promise = "Wherever the process dies, the next one goes on: nothing is lost, nothing happens twice."
    return Verdict(name="kills", promise=promise, broken=broken, histories=histories)


def wire(bench: Bench) -> Verdict:
    """A provider that is down, and then answers 429, 503, half of it, or so that it is lost."""

    async def act(scene: Scene) -> None:
        scene.trouble(DOWN)
        await _quietly(scene, DOWN_SECONDS)
        scene.trouble(LOSSY)
        await scene.poll()
        await scene.poll()
        scene.trouble(None)
        await in_peace(scene)

    return _drawn(
        bench, "wire", "An outage, 429, 5xx, lost and cut answers delay records, and lose none.",
        lambda seed: bench.differs(bench.play(act, seed=seed)),
    )  # fmt: skip


def disorder(bench: Bench) -> Verdict:
    """Webhooks twice, and in any order."""
    promise = "Events that come twice and in any order come to the same records."
    if not bench.factory().events:
        return Verdict(name="disorder", promise=promise, skipped="the provider of the tests has no `events`")

    def broken(seed: int) -> list[str]:
        provider = bench.factory()
        # Under another delivery id, a repetition is the connector's to recognise: by its keys.
        events = [*provider.events, *(replace(one, provider_id=None) for one in provider.events)]
        random.Random(f"disorder {seed}").shuffle(events)  # noqa: S311  reproducible

        async def act(scene: Scene) -> None:
            await scene.poll()
            await scene.deliver(events)
            scene.note("delivered")
            await scene.poll()
            scene.note("end")

        played = bench.play(act, seed=seed, provider=provider)
        words = bench.differs(played, "delivered", ties=True) or bench.differs(played, ties=not _polls(bench.peace))
        return (
            [f"{words[0]}\nDoes each emission say its event's `as_of`, and a key that names the event?"]
            if words
            else []
        )

    return _drawn(bench, "disorder", promise, broken)


def shift(bench: Bench) -> Verdict:
    """The account changes while its pages are read."""
    promise = "What is there before and after a list is read is in no gap between its pages."
    if bench.factory().shift is None:
        return Verdict(name="shift", promise=promise, skipped="the provider of the tests has no `shift`")

    def broken(seed: int) -> list[str]:
        provider = bench.factory()
        moving = replace(provider, transport=changing(provider, seed))

        async def act(scene: Scene) -> None:
            await scene.poll()
            scene.provider = provider
            scene.answer_by(provider.transport)
            await scene.poll()
            scene.note("end")

        return _against_the_truth(bench, bench.play(act, seed=seed, provider=moving), provider)

    return _drawn(bench, "shift", promise, broken)


def skew(bench: Bench) -> Verdict:
    """The machine's clock is two minutes wrong, one way and the other."""

    def broken(seed: int) -> list[str]:
        offset = CLOCK_SECONDS if seed % 2 else -CLOCK_SECONDS
        provider = bench.factory()

        async def act(scene: Scene) -> None:
            scene.set_clock(offset)
            await scene.poll()
            for _ in range(SHIFTS if provider.shift else 0):
                scene.shift()
                await scene.poll()
            scene.set_clock(0.0)
            await scene.poll()
            scene.shift()
            await scene.poll()
            scene.note("end")

        played = bench.play(act, seed=seed, provider=provider)
        words = _against_the_truth(bench, played, provider)
        return [f"With a clock {offset:+g} s off: {words[0]}"] if words else []

    return _drawn(bench, "clock", "A machine's wrong clock loses nothing and turns nothing back.", broken)


def expiry(bench: Bench) -> Verdict:
    """The provider forgets the cursor."""
    met = False

    def broken(seed: int) -> list[str]:
        provider = bench.factory()
        forgetful = Forgetful(provider.transport)

        async def act(scene: Scene) -> None:
            nonlocal met
            await scene.poll()
            forgetful.tokens = tokens(scene.checkpoints())
            newest = scene.rows("SELECT coalesce(max(id), 0) FROM runs")[0][0]
            scene.answer_by(forgetful)
            await _quietly(scene, EXPIRED_SECONDS)
            scene.answer_by(provider.transport)
            met = met or forgetful.refused > 0
            for (stream,) in scene.rows(
                "SELECT DISTINCT s.key FROM runs r JOIN streams s ON s.id = r.stream_id"
                " WHERE r.state = 'succeeded' AND r.id > ? AND EXISTS (SELECT 1 FROM requests q"
                " WHERE q.run_id = r.id AND q.status = 410 AND NOT EXISTS (SELECT 1 FROM requests later"
                " WHERE later.run_id = r.id AND later.number > q.number AND later.status BETWEEN 200 AND 299))",
                newest,
            ):
                scene.problem(
                    f"The stream {stream} succeeds although the provider refused its cursor (410), and asks for nothing"
                    " else instead: what lies behind that cursor is lost, and nobody is told."
                )
            await scene.reset()
            await scene.poll()
            scene.note("end")

        return _against_the_truth(bench, bench.play(act, seed=seed, provider=provider), provider)

    promise = "A cursor that the provider forgot is told, or begun anew; it is not passed over."
    verdict = _drawn(bench, "expiry", promise, broken)
    if verdict.ok and not met:
        return replace(verdict, skipped="no request carries the checkpoint")
    return verdict


TRIALS: dict[str, Trial] = {
    "peace": peace,
    "again": again,
    "kills": kills,
    "wire": wire,
    "disorder": disorder,
    "shift": shift,
    "clock": skew,
    "expiry": expiry,
}


def trials(bench: Bench, names: Sequence[str] = tuple(TRIALS)) -> Iterator[Verdict]:
    """The verdicts of those trials, as they come; without peace, there are no others."""
    first = peace(bench)
    if "peace" in names or not first.ok:
        yield first
    if first.ok:
        for name, trial in TRIALS.items():
            if name in names and name != "peace":
                yield trial(bench)


def _drawn(bench: Bench, name: str, promise: str, broken: Callable[[int], list[str]]) -> Verdict:
    for count, seed in enumerate(bench.seeds, 1):
        if words := broken(seed):
            return Verdict(name=name, promise=promise, broken=words[:1], histories=count, seed=seed)
    return Verdict(name=name, promise=promise, histories=len(bench.seeds))


def _against_the_truth(bench: Bench, played: Played, provider: Provider) -> list[str]:
    """What a first poll of the account as it stands now finds, and the history has not, or has otherwise."""
    if played.problems:
        return played.problems

    async def act(scene: Scene) -> None:
        await scene.poll()
        scene.note("end")

    truth = bench.play(act, provider=provider)
    if truth.problems:
        return truth.problems
    wanted = {key: one for key, one in truth.snapshots["end"].items() if not one.deleted}
    found: Snapshot = {key: one for key, one in played.snapshots["end"].items() if key in wanted}
    try:
        same(wanted, found, "", versions=False)
    except AssertionError as error:
        return [str(error).removeprefix(": ").capitalize()]
    return []


async def _quietly(scene: Scene, seconds: float) -> None:
    await scene.simulation.world_clock.sleep(seconds)


def _polls(played: Played) -> bool:
    return played.pages > 0
