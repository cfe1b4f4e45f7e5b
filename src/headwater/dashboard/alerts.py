"""`/alerts`: what is not as it should be, who is told of what, what was sent, and what is muted."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from headwater.api.access import Caller, require_all
from headwater.api.query import Query
from headwater.dashboard.csv import Table
from headwater.dashboard.screen import Answer, Screens, finish

PAST_SHOWN = 50
MESSAGES_SHOWN = 20
COLUMNS = ("id", "condition", "connection", "stream", "partition", "sentence", "began_at", "fired_at", "resolved_at")


def routes(screens: Screens) -> list[Route]:
    """The page."""

    async def show(request: Request, caller: Caller) -> Answer:
        require_all(caller)
        finish(Query(request), is_list=True)
        store, at = screens.store, screens.clock.now()
        standing, past = await store.standing_alerts(), await store.past_alerts(limit=PAST_SHOWN)
        twin: dict[str, Any] = {
            "standing": standing,
            "past": past,
            "rules": await store.alert_rules(),
            "mutes": await store.mutes(at=at),
            "messages": await store.notifications(limit=MESSAGES_SHOWN),
        }
        rows = [
            (
                one.id, one.subject.condition, one.subject.connection, one.subject.stream, one.subject.partition,
                one.sentence, one.began_at, one.fired_at, one.resolved_at,
            )
            for one in (*standing, *past)
        ]  # fmt: skip
        table = Table(name="alerts", columns=COLUMNS, rows=rows)
        return Answer(template="alerts.html", values={"alerts": twin}, twin=twin, table=table)

    return [screens.route("/alerts", show)]
