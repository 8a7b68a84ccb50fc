"""What can be done with subscriptions. What is saved is checked whole: nothing is left for the first event to find."""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.audit.changes import Facts, record_change
from app.audit.repeating import Asked, find_made, record_made
from app.audit.words import Action
from app.db.event_tables import Subscription, TriggerDefinition
from app.db.statuses import SubscriptionMode, SubscriptionStatus
from app.errors import Invalid, NotFound
from app.findings import filter_invalid, findings
from app.forms.checking import check_properties
from app.forms.reading import read_form
from app.registry.trigger_queries import find_trigger
from app.subscriptions.explaining import explained
from app.subscriptions.matching import read_subscription
from app.subscriptions.queries import SubscriptionAndTemplate, find_event, find_subscription
from app.subscriptions.schemas import ExplainedView, ExplainRequest, SubscriptionCreate
from app.subscriptions.warning import find_taken, warnings
from app.templates.service import get_template, refuse_archived
from engine.event_values import EventValue, read_event_value
from engine.filters.faults import FilterError
from engine.filters.reading import parse
from engine.values import Const

VALUES = (("context", "context"), ("name", "name"), ("correlation_key", "correlationKey"))


async def create_subscription(
    session: AsyncSession, request: SubscriptionCreate, actor: str | None = None, key: str | None = None
) -> SubscriptionAndTemplate:
    """A new subscription, ACTIVE unless asked otherwise, or the one that the same request with the same key has made.

    Raises TEMPLATE_NOT_FOUND, TEMPLATE_ARCHIVED, TRIGGER_NOT_FOUND, FILTER_INVALID, PROPERTIES_INVALID,
    EXPRESSION_INVALID, SUBSCRIPTION_INVALID, IDEMPOTENCY_CONFLICT.
    """
    said = request.model_dump(mode="json", by_alias=True, exclude_unset=True)
    asked = Asked("CREATE_SUBSCRIPTION", "SUBSCRIPTION", actor, key, said)
    made = await find_made(session, asked)
    if made is not None:
        return await get_subscription(session, UUID(made))
    template = await get_template(session, request.template_id)
    refuse_archived(template)
    trigger = await _trigger(session, request.trigger_key)
    row = Subscription(**request.model_dump(exclude={"template_id"}), template_id=template.id, trigger_id=trigger.id)
    _check(row, trigger)
    session.add(row)
    await session.flush()
    await record_made(session, asked, row.id, _facts(row))
    return row, template


async def get_subscription(
    session: AsyncSession, subscription_id: UUID, *, lock: bool = False
) -> SubscriptionAndTemplate:
    """A subscription with its template. Raises SUBSCRIPTION_NOT_FOUND."""
    found = await find_subscription(session, subscription_id, lock=lock)
    if found is None:
        raise NotFound("subscription", subscription_id)
    return found


async def change_subscription(
    session: AsyncSession, subscription_id: UUID, changes: Mapping[str, Any], actor: str | None = None
) -> SubscriptionAndTemplate:
    """Sets the fields given. Raises SUBSCRIPTION_NOT_FOUND, and for what is not valid what creating raises."""
    row, template = await get_subscription(session, subscription_id, lock=True)
    before = _facts(row)
    for name, value in changes.items():
        setattr(row, name, value)
    _check(row, await _trigger(session, row.trigger_key))
    await session.flush()
    await record_change(session, "CHANGE_SUBSCRIPTION", ("SUBSCRIPTION", row.id), actor, before, _facts(row))
    return row, template


async def set_status(
    session: AsyncSession, subscription_id: UUID, status: SubscriptionStatus, actor: str | None = None
) -> SubscriptionAndTemplate:
    """ACTIVE hears of events, INACTIVE does not; the same again changes nothing. One is checked anew before it becomes
    ACTIVE, since its trigger may have changed. Raises what changing raises.
    """
    row, template = await get_subscription(session, subscription_id, lock=True)
    before = _facts(row)
    if status is SubscriptionStatus.ACTIVE:
        _check(row, await _trigger(session, row.trigger_key))
    row.status = status
    await session.flush()
    action: Action = "ACTIVATE_SUBSCRIPTION" if status is SubscriptionStatus.ACTIVE else "DEACTIVATE_SUBSCRIPTION"
    await record_change(session, action, ("SUBSCRIPTION", row.id), actor, before, _facts(row))
    return row, template


async def delete_subscription(session: AsyncSession, subscription_id: UUID, actor: str | None = None) -> None:
    """Takes a subscription away; what it has started goes on. Raises SUBSCRIPTION_NOT_FOUND."""
    row, _ = await get_subscription(session, subscription_id, lock=True)
    await session.execute(delete(Subscription).where(col(Subscription.id) == row.id))
    await record_change(session, "DELETE_SUBSCRIPTION", ("SUBSCRIPTION", row.id), actor, _facts(row), None)


async def explain_subscription(session: AsyncSession, subscription_id: UUID, request: ExplainRequest) -> ExplainedView:
    """Why an event matches or not. Raises SUBSCRIPTION_NOT_FOUND, TRIGGER_EVENT_NOT_FOUND, EXPLAIN_INVALID."""
    found = await get_subscription(session, subscription_id)
    row, warned = found[0], warnings(found, await find_taken(session, [found]))
    if (request.event_record_id is None) == ("payload" not in request.model_fields_set):
        raise Invalid("EXPLAIN_INVALID", "Give a `payload` or an `eventRecordId`, and not both.")
    if request.event_record_id is None:
        return explained(read_subscription(row), request.payload, warned)
    event = await find_event(session, request.event_record_id)
    if event is None:
        raise NotFound("trigger event", request.event_record_id)
    return explained(read_subscription(row), event.payload, warned)


async def _trigger(session: AsyncSession, key: str) -> TriggerDefinition:
    trigger = await find_trigger(session, key)
    if trigger is None:
        raise NotFound("trigger", key)
    return trigger


def _check(row: Subscription, trigger: TriggerDefinition) -> None:
    try:
        parse(row.filter, "filter")
    except FilterError as error:
        raise filter_invalid(error) from error
    faults = check_properties(read_form(trigger.properties), row.properties)
    if faults:
        message = f"The properties are not those that {trigger.key} asks for."
        raise Invalid("PROPERTIES_INVALID", message, [fault.problem() for fault in faults])
    problems = [problem for attribute, path in VALUES for problem in _value_problems(getattr(row, attribute), path)]
    if problems:
        raise Invalid("EXPRESSION_INVALID", "A value is not valid.", problems)
    problems = list(_mode_problems(row))
    if problems:
        raise Invalid("SUBSCRIPTION_INVALID", "The subscription is not valid.", problems)


def _value_problems(raw: Any, path: str) -> Iterator[dict[str, Any]]:
    if raw is None:
        return
    value, problems = read_event_value(raw, path)
    yield from findings(problems)
    if not problems:
        yield from _never_usable(value, path)


def _never_usable(value: EventValue, path: str) -> Iterator[dict[str, Any]]:
    """A constant that no event could make right."""
    if not isinstance(value.value, Const):
        return
    constant = value.value.value
    if path == "context":
        if not isinstance(constant, dict):
            yield _problem(path, "CONTEXT_INVALID", "a context is an object")
    elif isinstance(constant, bool | list | dict):
        yield _problem(path, "VALUE_INVALID", "it is text or a number")


def _mode_problems(row: Subscription) -> Iterator[dict[str, Any]]:
    if row.mode == SubscriptionMode.START:
        if row.signal is not None:
            yield _problem("signal", "SIGNAL_UNUSED", "with the mode START no signal is sent")
        return
    if row.signal is None:
        yield _problem("signal", "SIGNAL_MISSING", f"the mode {row.mode} needs the name of the signal")
    if row.correlation_key is None:
        message = f"the mode {row.mode} needs a correlation key to find the execution by"
        yield _problem("correlationKey", "CORRELATION_KEY_MISSING", message)


def _problem(path: str, code: str, message: str) -> dict[str, Any]:
    return {"path": path, "code": str(code), "message": message}


def _facts(row: Subscription) -> Facts:
    """What the audit says of a subscription."""
    return row.model_dump(mode="json", exclude={"id", "trigger_id", "created_at", "updated_at"})
