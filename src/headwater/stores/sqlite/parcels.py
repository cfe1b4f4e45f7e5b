"""Commit many parcels at once, and one by one where that fails: a broken parcel never harms its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import apsw

from headwater.stores.sqlite.database import is_fatal, savepoint
from headwater.stores.sqlite.writer import attempt

T = TypeVar("T")
CommitMany = Callable[[apsw.Connection, Sequence[T]], Sequence[Any]]


def commit_together(db: apsw.Connection, works: Sequence[T], commit_many: CommitMany[T]) -> Sequence[Any]:
    """A result or an exception for each work.

    `commit_many` answers the refusals that it foresees itself; an exception that it raises takes all of it back, and
    each work is then tried alone.
    """
    try:
        with savepoint(db):
            return commit_many(db, works)
    except Exception as error:
        if is_fatal(error) or not db.in_transaction:
            raise
    return [_alone(db, work, commit_many) for work in works]


def _alone(db: apsw.Connection, work: T, commit_many: CommitMany[T]) -> Any:
    return attempt(db, lambda db: commit_many(db, [work])[0])
