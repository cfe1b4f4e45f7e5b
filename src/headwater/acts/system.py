"""Looking at the store itself."""

from __future__ import annotations

from typing import ClassVar

from headwater.acts.act import Act, Desk, Done, Place, Plan
from headwater.errors import UsageError


class ExamineStore(Act, frozen=True, kw_only=True):
    """Look at the store's version, schema, integrity, durability and size."""

    name: ClassVar[str] = "system.examine"
    title: ClassVar[str] = "Examine the store"

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        _require_all(desk)
        return Plan(
            sentence="The store looks at itself.",
            consequences=("Nothing is changed. On a large database it takes a while; work goes on meanwhile.",),
        )

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        _require_all(desk)
        findings = await desk.store.examine()
        wrong = [one for one in findings if not one.ok]
        return Done(
            sentence=f"{len(wrong)} of {len(findings)} are wrong." if wrong else "All is well.",
            value={"wrong": [one.name for one in wrong]},
            target="store",
            columns=("", "what", "fact", "what to do"),
            rows=[("ok" if one.ok else "WRONG", one.name, one.fact, "" if one.ok else one.hint) for one in findings],
            ok=not wrong,
        )

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["doctor"]

    def about(self) -> Place:
        """See `Act.about`."""
        return Place(("system",))


def _require_all(desk: Desk) -> None:
    if desk.tenant is not None:
        raise UsageError("This is for those who see every tenant.")
