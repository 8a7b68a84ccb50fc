"""`/registry/triggers`: the kinds of events that templates can subscribe to."""

from typing import Annotated
from urllib.parse import quote, unquote

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.event_tables import TriggerDefinition
from app.db.statuses import EventSource, TriggerCategory
from app.dependencies import Actor, CallerPart, ConnectionsPart, Cursor, DatabasePart, Limit, SessionPart
from app.forms.fields import Form
from app.forms.reading import read_form
from app.problem_details import problem_responses
from app.registry import firing, triggers
from app.registry.judging import judge_sources
from app.registry.option_rows import Asked
from app.registry.options import OptionReader, source_of_method, source_of_property
from app.registry.trigger_queries import TriggerFilter, list_triggers
from app.registry.trigger_schemas import (
    LoadOptions,
    OptionsView,
    OptionView,
    SavedTrigger,
    SearchOptions,
    TriggerChange,
    TriggerCreate,
    TriggerEntry,
    TriggerTest,
    TriggerTestView,
)
from app.subscriptions.schemas import Warned
from app.trigger_keys import DESCRIPTION as TRIGGER_KEY
from app.wire import Page, decode_cursor, encode_cursor

router = APIRouter(prefix="/registry/triggers", tags=["registry"], responses=problem_responses(422, 503))

Key = Annotated[str, Path(alias="key", min_length=1, max_length=200, description=TRIGGER_KEY)]


async def get_options(request: Request) -> OptionReader:
    """What reads options in this process."""
    reader: OptionReader = request.app.state.options
    return reader


OptionsPart = Annotated[OptionReader, Depends(get_options)]
NOT_FOUND = problem_responses(404)
STATE = problem_responses(404, 409)


@router.post("", status_code=201, summary="Create a trigger", responses=problem_responses(409), name="createTrigger")
async def create(
    request: TriggerCreate,
    database: DatabasePart,
    session: SessionPart,
    connections: ConnectionsPart,
    caller: CallerPart,
) -> SavedTrigger:
    """Tables that options are read from are looked at; when their database is away, `warnings` say so. A repetition
    with the same `Idempotency-Key` is answered with what the first has made.

    Codes: TRIGGER_EXISTS, PROPERTY_FORM_INVALID, IDEMPOTENCY_CONFLICT.
    """
    async with database.transaction() as first:
        repeated = await triggers.is_repeated(first, request, caller.key)
    # Before the session's first statement: while a database is asked no connection of ours is held. Of what has been
    # made nothing is asked: its tables may have gone meanwhile.
    warnings = [] if repeated else await judge_sources(connections, read_form(request.properties))
    return _saved(await triggers.create_trigger(session, request, caller.actor, caller.key), warnings)


@router.get("", summary="List triggers", name="listTriggers")
async def list_(
    session: SessionPart,
    source: Annotated[EventSource | None, Query(description="where their events come from")] = None,
    category: Annotated[TriggerCategory | None, Query(description="what people look under for them")] = None,
    text: Annotated[str | None, Query(max_length=200, description="in key, name or description")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[TriggerEntry]:
    """By key."""
    after = None if cursor is None else unquote(decode_cursor(cursor, 1)[0])
    rows = await list_triggers(session, TriggerFilter(source, category, text), after=after, limit=limit + 1)
    items = [_view(row) for row in rows[:limit]]
    following = encode_cursor(quote(items[-1].key)) if len(rows) > limit else None
    return Page(items=items, next_cursor=following)


@router.get("/{key}", summary="Read a trigger", responses=NOT_FOUND, name="getTrigger")
async def get(key: Key, session: SessionPart) -> TriggerEntry:
    """Codes: TRIGGER_NOT_FOUND."""
    return _view(await triggers.get_trigger(session, key))


@router.patch("/{key}", summary="Change a trigger", responses=STATE, name="changeTrigger")
async def change(
    key: Key, request: TriggerChange, session: SessionPart, connections: ConnectionsPart, actor: Actor = None
) -> SavedTrigger:
    """What is left out stays; subscriptions keep their properties. Codes: TRIGGER_BUILT_IN, PROPERTY_FORM_INVALID."""
    warnings = await judge_sources(connections, read_form(request.properties))
    changes = request.model_dump(exclude_unset=True)
    return _saved(await triggers.change_trigger(session, key, changes, actor), warnings)


@router.delete("/{key}", status_code=204, summary="Delete a trigger", responses=STATE, name="deleteTrigger")
async def delete(key: Key, session: SessionPart, actor: Actor = None) -> None:
    """Codes: TRIGGER_IN_USE when there are subscriptions, TRIGGER_BUILT_IN."""
    await triggers.delete_trigger(session, key, actor)


@router.post(
    "/{key}/test",
    status_code=202,
    summary="Try a trigger",
    responses={**STATE, 200: {"model": TriggerTestView, "description": "a dry run"}},
    response_model_exclude_none=True,
    name="testTrigger",
)
async def test(
    key: Key, request: TriggerTest, database: DatabasePart, caller: CallerPart, response: Response
) -> TriggerTestView:
    """With `dryRun`, what each subscription would make of the payload; without, an event. Codes: TRIGGER_NOT_FOUND,
    IDEMPOTENCY_CONFLICT.
    """
    if request.dry_run:
        response.status_code = 200
        tested = await firing.try_trigger(database, key, request)
        return TriggerTestView(dry_run=True, subscriptions=tested)
    event_id = await firing.fire_trigger(database, key, request, caller)
    return TriggerTestView(dry_run=False, event_record_id=event_id)


@router.get("/{key}/options", summary="Resolve a property's options", responses=NOT_FOUND, name="listTriggerOptions")
async def options(
    key: Key,
    session: SessionPart,
    reader: OptionsPart,
    name: Annotated[
        str, Query(alias="property", min_length=1, max_length=500, description="`a`; `a.b` in a collection")
    ],
    token: Annotated[
        str | None, Query(alias="paginationToken", max_length=500, description="that of the part before")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="how many options at most")] = 100,
) -> OptionsView:
    """Of a property that depends on no other. Codes: TRIGGER_NOT_FOUND, OPTIONS_NOT_FOUND, OPTIONS_VALUE_MISSING,
    TABLE_UNKNOWN, COLUMN_UNKNOWN, TABLE_NOT_READABLE, CONNECTION_UNKNOWN, CONNECTION_UNREACHABLE.
    """
    source = source_of_property(await _form(session, key), name)
    return _options(await reader.read(source, Asked({}, token=token, limit=limit)))


@router.post("/{key}/load-options", summary="Load options by a method", responses=NOT_FOUND, name="loadTriggerOptions")
async def load_options(key: Key, request: LoadOptions, session: SessionPart, reader: OptionsPart) -> OptionsView:
    """With the values that they depend on. Codes as for a property's options, and OPTIONS_VALUE_INVALID."""
    source = source_of_method(await _form(session, key), request.method)
    asked = Asked(request.values, token=request.pagination_token, limit=request.limit)
    return _options(await reader.read(source, asked))


@router.post("/{key}/search", summary="Search options by a method", responses=NOT_FOUND, name="searchTriggerOptions")
async def search(key: Key, request: SearchOptions, session: SessionPart, reader: OptionsPart) -> OptionsView:
    """Like loading them, with a text that is looked for."""
    source = source_of_method(await _form(session, key), request.method)
    asked = Asked(request.values, request.text, request.pagination_token, request.limit)
    return _options(await reader.read(source, asked))


async def _form(session: AsyncSession, key: str) -> Form:
    return read_form((await triggers.get_trigger(session, key)).properties)


def _options(found: tuple[list[OptionView], str | None]) -> OptionsView:
    results, token = found
    return OptionsView(results=results, pagination_token=token)


def _saved(trigger: TriggerDefinition, warnings: list[Warned]) -> SavedTrigger:
    return SavedTrigger(**trigger.model_dump(exclude={"id"}), warnings=warnings)


def _view(trigger: TriggerDefinition) -> TriggerEntry:
    return TriggerEntry(**trigger.model_dump(exclude={"id"}))
