"""`headwater test`: a connector put through a provider that lies, before anybody depends on it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headwater.cli import output
from headwater.cli.main import CHECK_FAILED, FAILED, near_miss_error

if TYPE_CHECKING:
    from headwater.testing.trial import Verdict


@click.command("test")
@click.argument("path", type=click.Path(path_type=Path, file_okay=False, exists=True), default=".")
@click.option("--trial", "names", multiple=True, help="Only this one; may be given more than once.")
@click.option("--seed", type=int, help="Only the history of this seed.")
@click.option("--seeds", type=click.IntRange(1, 10_000), default=3, show_default=True, help="Histories of each trial.")
@click.option("--cassette", type=click.Path(path_type=Path, dir_okay=False, exists=True), multiple=True,
              help="Answer from what was recorded with `headwater run --record`.")  # fmt: skip
@click.option(
    "--set", "sets", multiple=True, metavar="NAME=VALUE", help="A setting, or a made-up secret, for a cassette."
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def test(
    path: Path,
    names: tuple[str, ...],
    seed: int | None,
    seeds: int,
    cassette: tuple[Path, ...],
    sets: tuple[str, ...],
    as_json: bool,
) -> int:
    """Run the connector project at PATH on the real platform, in virtual time, against a provider that lies.

    The provider is the function `provider` of its tests, or cassettes. The process dies at every commit point; answers
    are 429, 5xx, lost, cut; pages shift while they are read; webhooks come twice and in any order; cursors expire; the
    clock is wrong. Says in plain words which promise the connector breaks, with the seed. Exit code 1 when it does.
    """
    from headwater.check.check import check
    from headwater.clock import SystemClock
    from headwater.testing import found_provider
    from headwater.testing.trial import TRIALS, Bench, trials

    for name in names:
        if name not in TRIALS:
            raise near_miss_error(name, list(TRIALS), "trial")
    values = _values(sets)
    report = check(path)
    if report.errors or report.project is None:
        for line in report.lines():
            output.say(line)
        return CHECK_FAILED
    folder = path.resolve()
    factory = found_provider.find(folder, report.project, cassettes=cassette, values=values)
    chosen = (seed,) if seed is not None else tuple(range(1, seeds + 1))
    logging.disable(logging.CRITICAL)  # what goes wrong is meant to; what it comes to is told below
    verdicts, begun = [], SystemClock().monotonic()
    for verdict in trials(Bench(path=folder, factory=factory, seeds=chosen), names or tuple(TRIALS)):
        verdicts.append(verdict)
        if not as_json:
            _say(verdict, path)
    logging.disable(logging.NOTSET)
    if as_json:
        output.print_json([_as_json(verdict) for verdict in verdicts])
    else:
        tried = [verdict for verdict in verdicts if not verdict.skipped]
        held = sum(verdict.ok for verdict in tried)
        histories = sum(verdict.histories for verdict in verdicts)
        connector = report.project.connector
        output.say(
            f"\n{connector.key} {report.project.version}: {held} of {len(tried)} promises held in"
            f" {histories} histories, {SystemClock().monotonic() - begun:.1f} s"
        )
    return 0 if all(verdict.ok for verdict in verdicts) else FAILED


def _say(verdict: Verdict, path: Path) -> None:
    if verdict.skipped:
        output.say(f"skipped  {verdict.name:9} {verdict.promise}\n                   {verdict.skipped}")
        return
    output.say(f"{'ok' if verdict.ok else 'BROKEN':8} {verdict.name:9} {verdict.promise}")
    for words in verdict.broken:
        for line in words.splitlines():
            output.say(f"                   {line}")
    if not verdict.ok:
        seed = f" --seed {verdict.seed}" if verdict.seed is not None else ""
        output.say(f"                   again: headwater test {path} --trial {verdict.name}{seed}")


def _as_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "trial": verdict.name,
        "promise": verdict.promise,
        "ok": verdict.ok,
        "broken": list(verdict.broken),
        "skipped": verdict.skipped or None,
        "histories": verdict.histories,
        "seed": verdict.seed,
    }


def _values(sets: tuple[str, ...]) -> dict[str, str]:
    values: dict[str, str] = {}
    for word in sets:
        name, found, value = word.partition("=")
        if not found or not name:
            raise click.UsageError(f"`--set {word}` is no NAME=VALUE.")
        values[name] = value
    return values
