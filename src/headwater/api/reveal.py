"""What providers sent is shown to those who may see it, when they ask for it, and it is written down who saw what.

A page that could show a payload asks `reveal`, and shows `HIDDEN` otherwise, in its JSON twin and CSV alike:

    shown = await reveal(caller, store, clock, target=f"delivery {found.id}", asked=query.flag("reveal") or False)
    found = delivery_as(found, shown=shown)

`caller.may("payloads")` says whether to offer the link (`?reveal=true`) at all. Lists show no payloads. The API asks
`opened`: its readers are mostly programs, which are always given what their key is for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import msgspec

from headwater.api.access import Caller
from headwater.clock import Clock
from headwater.delivery import Delivery, Rejection
from headwater.record import QuarantinedRecord
from headwater.sink import Change
from headwater.store import Store

HIDDEN: Final = "hidden"  # the word that stands where a payload is not shown
ACT: Final = "payloads.reveal"


async def reveal(caller: Caller, store: Store, clock: Clock, *, target: str, asked: bool) -> bool:
    """Whether a page shows the payload of `target` (`delivery 7`, `record acme/customer/c1`); audited where it does.

    A program need not ask, and is not audited: that its key may see payloads was written down when it was made.
    Raises `ProblemError` 403 for somebody who asks and may not.
    """
    if asked:
        caller.require("payloads")
    if caller.is_program:
        return caller.may("payloads")
    if asked:
        await store.audit(at=clock.now(), actor=caller.name, act=ACT, target=target, detail={})
    return asked


async def opened(caller: Caller, store: Store, clock: Clock, *, target: str) -> bool:
    """Whether an answer of the API holds payloads; audited where the reader is a person who signed in."""
    if caller.may("payloads") and caller.is_person:
        await store.audit(at=clock.now(), actor=caller.name, act=ACT, target=target, detail={})
    return caller.may("payloads")


def change_as(change: Change, *, shown: bool) -> Change:
    """An envelope, without its data unless that is shown."""
    return change if shown else msgspec.structs.replace(change, data=None)


def delivery_as(delivery: Delivery, *, shown: bool) -> Delivery:
    """A delivery, without headers and body unless they are shown."""
    return delivery if shown else replace(delivery, headers={}, body=None)


def quarantined_as(record: QuarantinedRecord, *, shown: bool) -> QuarantinedRecord:
    """A quarantined record, without its payload unless that is shown."""
    return record if shown else replace(record, payload=HIDDEN)


def rejection_as(rejection: Rejection, *, shown: bool) -> Rejection:
    """Refused requests, without the sample of what was sent unless that is shown."""
    return rejection if shown else replace(rejection, sample=HIDDEN)
