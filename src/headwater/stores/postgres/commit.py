"""Carry out what waits together, and one by one where that fails: a broken item never harms its neighbours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

from headwater.errors import StoreUnavailableError
from headwater.stores.postgres.database import is_spoiled

WEIGHT_MAX = 10_000  # records and deliveries of one transaction

T = TypeVar("T")
CommitMany = Callable[[Sequence[T]], Awaitable[Sequence[Any]]]


async def commit_together(
    items: Sequence[T], commit_many: CommitMany[T], *, weigh: Callable[[T], int]
) -> Sequence[Any]:
    """A result or an exception for each item, in order, in as few transactions as their weights allow.

    `commit_many` is one transaction and answers the refusals that it foresees itself. An exception that it raises has
    taken all of it back: each item is then tried alone, unless the database itself is away.
    """
    results: list[Any] = []
    for some in _portions(items, weigh):
        results += await _attempt(some, commit_many)
    return results


async def _attempt(items: Sequence[T], commit_many: CommitMany[T]) -> Sequence[Any]:
    try:
        return await commit_many(items)
    except Exception as error:
        if len(items) == 1 or (isinstance(error, StoreUnavailableError) and not is_spoiled(error)):
            return [error] * len(items)
    return [result for item in items for result in await _attempt([item], commit_many)]


def _portions(items: Sequence[T], weigh: Callable[[T], int]) -> Iterator[Sequence[T]]:
    portion: list[T] = []
    weight = 0
    for item in items:
        if portion and weight + weigh(item) > WEIGHT_MAX:
            yield portion
            portion, weight = [], 0
        portion.append(item)
        weight += weigh(item)
    if portion:
        yield portion
