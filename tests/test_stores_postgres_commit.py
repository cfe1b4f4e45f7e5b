"""What waits together is committed together, in portions, and alone where that fails."""

import asyncio

import psycopg
import pytest

from headwater.errors import StoreUnavailableError
from headwater.stores.postgres import commit
from headwater.stores.postgres.commit import commit_together
from headwater.stores.postgres.database import translated


class Database:
    """Answers each work with its double, and fails as it is told to; `asked` are its transactions."""

    def __init__(self, error=None, *, spoils=()):
        self.asked, self._error, self._spoils = [], error, spoils

    async def commit_many(self, items):
        self.asked.append(list(items))
        if self._error and any(one in self._spoils for one in items):
            raise self._error
        return [2 * one for one in items]


def committed(database, items):
    return asyncio.run(commit_together(items, database.commit_many, weigh=lambda item: item))


@pytest.mark.parametrize(
    ("weights", "portions"),
    [
        ([], []),
        ([5], [[5]]),
        ([9, 1], [[9], [1]]),
        ([2, 2, 1], [[2, 2], [1]]),
        ([1, 1, 1, 1], [[1, 1, 1, 1]]),
        ([1, 2, 2, 3, 1, 4], [[1, 2], [2], [3, 1], [4]]),
    ],
)
def test_a_transaction_takes_what_its_weight_allows(monkeypatch, weights, portions):
    monkeypatch.setattr(commit, "WEIGHT_MAX", 4)
    database = Database()
    assert committed(database, weights) == [2 * one for one in weights]
    assert database.asked == portions


def test_an_error_that_nobody_foresaw_is_the_one_s_who_brought_it():
    error = ValueError("unforeseen")
    database = Database(error, spoils=[2])
    assert committed(database, [1, 2, 3]) == [2, error, 6]
    assert database.asked == [[1, 2, 3], [1], [2], [3]]


def test_a_value_that_the_database_refuses_is_the_one_s_who_brought_it():
    error = translated(psycopg.DataError("no such number"))
    database = Database(error, spoils=[1])
    assert committed(database, [1, 2]) == [error, 4]
    assert database.asked == [[1, 2], [1], [2]]


def test_a_database_that_is_away_is_not_asked_again_for_each():
    error = StoreUnavailableError("gone")
    database = Database(error, spoils=[2])
    assert committed(database, [1, 2, 3]) == [error] * 3
    assert database.asked == [[1, 2, 3]]


def test_the_portion_before_one_that_fails_is_committed(monkeypatch):
    monkeypatch.setattr(commit, "WEIGHT_MAX", 3)
    error = StoreUnavailableError("gone")
    assert committed(Database(error, spoils=[3]), [1, 2, 3]) == [2, 4, error]
