"""What every store must show: one suite, run over each kind of store.

@pytest.mark.parametrize("name", sorted(CHECKS))
def test_the_store_keeps_its_promises(name):
    run_check(name, lambda clock: MyStore("…", clock))
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from types import ModuleType

from headwater.testing.clock import FakeClock
from headwater.testing.conformance import (
    accounts,
    alerts,
    answers,
    audit,
    backfills,
    bundles,
    connections,
    deliveries,
    emissions,
    grants,
    log_lines,
    records,
    runs,
    ticks,
)
from headwater.testing.conformance.world import StoreFactory, World

Check = Callable[[World], Awaitable[None]]

_MODULES = (
    accounts,
    alerts,
    answers,
    audit,
    backfills,
    bundles,
    connections,
    deliveries,
    emissions,
    grants,
    log_lines,
    records,
    runs,
    ticks,
)


def _checks(module: ModuleType) -> Mapping[str, Check]:
    return {
        name: function
        for name, function in vars(module).items()
        if inspect.iscoroutinefunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }


CHECKS: Mapping[str, Check] = {name: check for module in _MODULES for name, check in _checks(module).items()}


def run_check(name: str, make_store: StoreFactory) -> None:
    """Carry out one check on a store that `make_store` makes, fresh and not yet open; `AssertionError` if it fails."""

    async def carry_out() -> None:
        clock = FakeClock()
        store = make_store(clock)
        await store.open()
        try:
            await CHECKS[name](World(store=store, clock=clock))
        finally:
            await store.close()

    asyncio.run(carry_out())
