"""A start by hand: an event like any other, for a template that somebody names."""

from dataclasses import dataclass
from typing import Any

from app.db.session import Database
from app.db.statuses import EventSource
from app.db.tables import new_id
from app.executions.queries import find_target
from app.executions.starting import StartRequest
from app.inbox.aims import TEMPLATE
from app.inbox.settling import trigger_of
from app.inbox.storing import Incoming
from app.inbox.taking import Ask, Taken, take
from app.settings import Settings
from app.temporal import Temporal

MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class ByHand:
    """What somebody wants started: a template by id or slug, its active version or the one named."""

    template: str
    context: dict[str, Any]
    name: str | None = None
    version: str | None = None
    actor: str | None = None
    key: str | None = None


async def start_by_hand(database: Database, temporal: Temporal, settings: Settings, wanted: ByHand) -> Taken | None:
    """Starts a template; None when there is none. What is refused is not kept: whoever asked has the answer.

    Raises what `take` raises.
    """
    event_id = new_id()
    by = "" if wanted.actor is None else f" by {wanted.actor}"
    asked = {"context": wanted.context, "name": wanted.name, "version": wanted.version}
    event = Incoming(
        source=EventSource.MANUAL,
        trigger_key=MANUAL,
        dedupe_key=wanted.key or str(event_id),
        summary=f"started{by}",
        payload={name: value for name, value in asked.items() if value is not None},
        id=event_id,
    )
    key = None if wanted.key is None else f"{EventSource.MANUAL}:{wanted.key}"
    request = StartRequest(
        wanted.context, trigger_of(event) | {"actor": wanted.actor}, wanted.name, key, wanted.version
    )
    return await take(
        database,
        temporal,
        settings,
        Ask(
            event,
            request,
            find=lambda connection: find_target(connection, wanted.template, wanted.version, key),
            target=TEMPLATE,
            keep_refused=False,
        ),
    )
