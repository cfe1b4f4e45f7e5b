"""Commit many parcels as one, or each by itself: a broken parcel never harms its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import apsw

from headwater.stores.sqlite.writer import attempt

T = TypeVar("T")
CommitMany = Callable[[apsw.Connection, Sequence[T]], Sequence[Any]]


def commit_all(db: apsw.Connection, works: Sequence[T], commit_many: CommitMany[T], *, together: bool) -> Sequence[Any]:
    """A result for each work, or an exception: `commit_many` answers the refusals that it foresees itself.

    Of works that are `together`, an exception that it raises leaves the writes of some: take the transaction back.
    """
    if together:
        return commit_many(db, works)
    return [_alone(db, work, commit_many) for work in works]


def _alone(db: apsw.Connection, work: T, commit_many: CommitMany[T]) -> Any:
    return attempt(db, lambda db: commit_many(db, [work])[0])
