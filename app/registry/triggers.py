"""What can be done with triggers of the registry."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.audit.changes import Facts, record_change
from app.audit.repeating import Asked, find_made, record_made
from app.db.event_tables import Subscription, TriggerDefinition
from app.db.tables import new_id
from app.errors import Conflict, NotFound
from app.forms.checking import Fault
from app.forms.reading import form_invalid, read_form
from app.registry.entries import Entry
from app.registry.trigger_queries import find_trigger
from app.registry.trigger_schemas import TriggerCreate
from app.subscriptions.narrowing import COLUMNS, METHODS, MONITOR_COLUMNS, OPERATIONS, PATH

# Fields of these names narrow which events match, for every trigger: see `app.subscriptions.narrowing`.
_NARROWING = {
    OPERATIONS: ("multiOptions",),
    COLUMNS: ("multiOptions", "string"),
    METHODS: ("multiOptions",),
    MONITOR_COLUMNS: ("boolean",),
    PATH: ("string",),
}


async def get_trigger(session: AsyncSession, key: str, *, lock: bool = False) -> TriggerDefinition:
    """A trigger by its key. Raises TRIGGER_NOT_FOUND."""
    trigger = await find_trigger(session, key, lock=lock)
    if trigger is None:
        raise NotFound("trigger", key)
    return trigger


def _asked(request: TriggerCreate, actor: str | None, key: str | None) -> Asked:
    said = request.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return Asked("CREATE_TRIGGER", "TRIGGER", actor, key, said)


async def is_repeated(session: AsyncSession, request: TriggerCreate, key: str | None) -> bool:
    """Whether the same request with the same key has made its trigger before. Raises IDEMPOTENCY_CONFLICT."""
    return await find_made(session, _asked(request, None, key)) is not None


async def create_trigger(
    session: AsyncSession, request: TriggerCreate, actor: str | None = None, key: str | None = None
) -> TriggerDefinition:
    """A new trigger, or the one that the same request with the same key has made.

    Raises TRIGGER_EXISTS, PROPERTY_FORM_INVALID, IDEMPOTENCY_CONFLICT.
    """
    asked = _asked(request, actor, key)
    made = await find_made(session, asked)
    if made is not None:
        return await get_trigger(session, made)
    trigger, created = await ensure_trigger(session, request, actor, asked)
    if not created:
        raise Conflict("TRIGGER_EXISTS", f"There is a trigger {request.key} already.")
    return trigger


async def ensure_trigger(
    session: AsyncSession, entry: Entry, actor: str | None = None, asked: Asked | None = None
) -> tuple[TriggerDefinition, bool]:
    """The trigger of a key, made of the entry when there is none, and whether it was made now.

    One that is there stays as it is, with all that people have changed. Raises PROPERTY_FORM_INVALID.
    """
    _check_form(entry.properties)
    fields = entry.model_dump(exclude={"variables"})
    fields["variables"] = [each.model_dump(exclude_none=True) for each in entry.variables]
    statement = (
        insert(TriggerDefinition)
        .values(id=new_id(), **fields)
        .on_conflict_do_nothing(index_elements=["key"])
        .returning(col(TriggerDefinition.id))
    )
    created = (await session.execute(statement)).scalar_one_or_none() is not None
    trigger = await get_trigger(session, entry.key)
    if created:
        asked = asked or Asked("CREATE_TRIGGER", "TRIGGER", actor, None, {})
        await record_made(session, asked, entry.key, _facts(trigger))
    return trigger, created


async def change_trigger(
    session: AsyncSession, key: str, changes: Mapping[str, Any], actor: str | None = None
) -> TriggerDefinition:
    """Sets the fields given. Subscriptions keep the properties they have until they are saved again.

    Raises TRIGGER_NOT_FOUND, TRIGGER_BUILT_IN, PROPERTY_FORM_INVALID.
    """
    trigger = await get_trigger(session, key, lock=True)
    _refuse_built_in(trigger)
    if "properties" in changes:
        _check_form(changes["properties"])
    before = _facts(trigger)
    for name, value in changes.items():
        setattr(trigger, name, value)
    await session.flush()
    await record_change(session, "CHANGE_TRIGGER", ("TRIGGER", key), actor, before, _facts(trigger))
    return trigger


async def delete_trigger(session: AsyncSession, key: str, actor: str | None = None) -> None:
    """Deletes a trigger. Raises TRIGGER_NOT_FOUND, TRIGGER_BUILT_IN, TRIGGER_IN_USE."""
    trigger = await get_trigger(session, key, lock=True)
    _refuse_built_in(trigger)
    in_use = Conflict("TRIGGER_IN_USE", f"There are subscriptions to {key}; delete them first.")
    if (await session.execute(select(exists().where(col(Subscription.trigger_id) == trigger.id)))).scalar_one():
        raise in_use
    try:
        await session.execute(delete(TriggerDefinition).where(col(TriggerDefinition.id) == trigger.id))
    except IntegrityError as error:
        raise in_use from error
    await record_change(session, "DELETE_TRIGGER", ("TRIGGER", key), actor, _facts(trigger), None)


def _check_form(properties: list[dict[str, Any]]) -> None:
    form = read_form(properties)
    faults = [
        Fault(f"properties[{index}].type", "NARROWING", f"{field.name} is of type {' or '.join(kinds)} everywhere")
        for index, field in enumerate(form)
        if field.type not in (kinds := _NARROWING.get(field.name, (field.type,)))
    ]
    if faults:
        raise form_invalid(faults)


def _refuse_built_in(trigger: TriggerDefinition) -> None:
    if trigger.built_in:
        raise Conflict("TRIGGER_BUILT_IN", f"{trigger.key} comes with Millrace and stays as it is.")


def _facts(trigger: TriggerDefinition) -> Facts:
    """What the audit says of a trigger."""
    return trigger.model_dump(mode="json", exclude={"id", "key", "created_at", "updated_at"})
