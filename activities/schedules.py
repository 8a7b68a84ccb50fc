"""What a schedule's tick does outside its workflow: into the inbox, to a source, after what was started."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from temporalio import activity

from activities.http import HttpCalls, HttpRequest
from activities.lifecycle import refusals_translated
from activities.registry import beating
from app.connections.opening import Connections
from app.contracts import POLL_SOURCE, STORE_TICK, TICK_IS_OVER, WITHDRAW_TICK, readable
from app.db.schedule_tables import ScheduleTrigger
from app.db.session import BUSY, UNAVAILABLE, Database
from app.errors import AppError, Invalid
from app.polling.sql_source import ask_database
from app.polling.taking import read_answer, take
from app.schedules import ticks
from app.schedules.queries import find_schedule
from app.schedules.schemas import HttpSource, Poll, SqlSource
from app.settings import Settings
from app.temporal import Temporal
from app.tick_contracts import TickRequest, TickStored
from engine.errors import EngineError
from millrace.actions import ActionFailure


def schedule_activities(database: Database, temporal: Temporal, settings: Settings) -> list[Callable[..., Any]]:
    """The activities of this module, bound to what they need."""
    calls = HttpCalls(settings.http_action)
    connections = Connections(database.url, settings.connections)

    @activity.defn(name=STORE_TICK)
    async def store_tick(about: TickRequest) -> TickStored:
        with refusals_translated():
            return await ticks.store_tick(database, temporal, about)

    @activity.defn(name=TICK_IS_OVER)
    async def tick_is_over(about: TickRequest) -> bool:
        with refusals_translated():
            return await ticks.tick_is_over(database, about)

    @activity.defn(name=WITHDRAW_TICK)
    async def withdraw_tick(about: TickRequest) -> bool:
        with refusals_translated():
            await ticks.withdraw_tick(database, temporal, about)
        return True

    @activity.defn(name=POLL_SOURCE)
    async def poll_source(about: TickRequest) -> TickStored:
        with refusals_translated():
            async with database.transaction() as session:
                row = await find_schedule(session, str(about.schedule_id))
            if row is None:
                return TickStored()
            async with beating():
                return await _poll(database, connections, settings, calls, row)

    return [store_tick, tick_is_over, withdraw_tick, poll_source]


async def _poll(
    database: Database, connections: Connections, settings: Settings, calls: HttpCalls, row: ScheduleTrigger
) -> TickStored:
    """Asks and takes. What is wrong with the source stands in the poll's row, and the next time it is asked again."""
    try:
        poll = Poll.model_validate(row.poll)
        if isinstance(poll.source, SqlSource):
            response: Any = await ask_database(connections, poll.source, row.cursor, settings.polling)
        else:
            response = await _ask(settings, calls, poll.source, row.cursor)
        taken = read_answer(poll, response, row.cursor, settings.polling.max_items)
        return await take(database, row, poll, taken)
    except (ActionFailure, AppError, EngineError) as error:
        if error.code in {UNAVAILABLE, BUSY}:
            raise
        said = f"{error.code}: {readable(error.message)}"
    except ValidationError as error:
        # Written by an older release that took what this one does not.
        said = readable(f"POLL_INVALID: {error.error_count()} fault(s) in the poll's source")
    await ticks.note_failure(database, row.id, said)
    return TickStored(error=said)


async def _ask(settings: Settings, calls: HttpCalls, source: HttpSource, cursor: Any) -> Any:
    seen = {"cursor": cursor}
    query = {name: ticks.value_of(value, seen) for name, value in source.query.items()}
    try:
        request = HttpRequest.model_validate(
            {
                "url": ticks.value_of(source.url, seen),
                "query": {name: value for name, value in query.items() if value is not None},
                "timeoutSeconds": settings.polling.timeout,
            }
        )
    except ValidationError as error:
        raise Invalid("POLL_REQUEST_INVALID", "The url is text; what is in the query is text or a number.") from error
    response = await calls.send(request, _headers(settings, source))
    if not isinstance(response.body, list | dict):
        raise Invalid("POLL_ANSWER_NOT_JSON", "The source's answer is no JSON object or list, or does not say so.")
    return response.body


def _headers(settings: Settings, source: HttpSource) -> Mapping[str, str]:
    headers = {"Accept": "application/json", **source.headers}
    for header, name in source.secret_headers.items():
        secret = settings.polling.secrets.get(name)
        if secret is None:
            raise Invalid("SECRET_UNKNOWN", f"No secret {name} is configured for polling.")
        headers[header] = secret.get_secret_value()
    return headers
