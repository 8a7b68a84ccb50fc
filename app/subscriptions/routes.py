"""`/subscriptions`: templates that hear of triggers."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query
from sqlalchemy.ext.asyncio import AsyncSession

from app.addresses import id_of
from app.db.statuses import SubscriptionStatus
from app.dependencies import Actor, CallerPart, Cursor, Limit, SessionPart
from app.problem_details import problem_responses
from app.subscriptions import service
from app.subscriptions.matching import read_subscription
from app.subscriptions.queries import SubscriptionAndTemplate, SubscriptionFilter, list_subscriptions
from app.subscriptions.schemas import (
    ExplainedView,
    ExplainRequest,
    SubscriptionChange,
    SubscriptionCreate,
    SubscriptionView,
)
from app.subscriptions.warning import Taken, find_taken, warnings
from app.templates.service import get_template
from app.trigger_keys import DESCRIPTION as TRIGGER_KEY
from app.wire import Page, encode_cursor, read_id_cursor
from engine.filters.describing import describe

router = APIRouter(prefix="/subscriptions", tags=["subscriptions"], responses=problem_responses(404, 422, 503))

Id = Annotated[UUID, id_of("subscription"), Path(alias="subscription", description="the subscription's id")]


@router.post(
    "",
    status_code=201,
    summary="Subscribe a template to a trigger",
    responses=problem_responses(409),
    name="createSubscription",
)
async def create(request: SubscriptionCreate, session: SessionPart, caller: CallerPart) -> SubscriptionView:
    """A repetition with the same `Idempotency-Key` is answered with what the first has made.

    Codes: TEMPLATE_NOT_FOUND, TEMPLATE_ARCHIVED, TRIGGER_NOT_FOUND, FILTER_INVALID, PROPERTIES_INVALID,
    EXPRESSION_INVALID, SUBSCRIPTION_INVALID, IDEMPOTENCY_CONFLICT. `warnings`: TEMPLATE_NOT_ACTIVE, SIGNAL_UNKNOWN.
    """
    return await _answer(session, await service.create_subscription(session, request, caller.actor, caller.key))


@router.get("", summary="List subscriptions", name="listSubscriptions")
async def list_(
    session: SessionPart,
    template: Annotated[str | None, Query(max_length=100, description="a template's id or slug")] = None,
    trigger_key: Annotated[str | None, Query(alias="triggerKey", max_length=200, description=TRIGGER_KEY)] = None,
    status: Annotated[
        SubscriptionStatus | None, Query(description="only those that hear of events, or that rest")
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[SubscriptionView]:
    """The newest first."""
    owner = None if template is None else await get_template(session, template)
    wanted = SubscriptionFilter(None if owner is None else owner.id, trigger_key, status)
    rows = await list_subscriptions(session, wanted, before=read_id_cursor(cursor), limit=limit + 1)
    taken = await find_taken(session, rows[:limit])
    items = [_view(row, taken) for row in rows[:limit]]
    following = encode_cursor(str(items[-1].id)) if len(rows) > limit else None
    return Page(items=items, next_cursor=following)


@router.get("/{subscription}", summary="Read a subscription", name="getSubscription")
async def get(subscription: Id, session: SessionPart) -> SubscriptionView:
    """Codes: SUBSCRIPTION_NOT_FOUND."""
    return await _answer(session, await service.get_subscription(session, subscription))


@router.patch("/{subscription}", summary="Change a subscription", name="changeSubscription")
async def change(
    subscription: Id, request: SubscriptionChange, session: SessionPart, actor: Actor = None
) -> SubscriptionView:
    """What is left out stays. Codes as for a new one."""
    changes = request.model_dump(exclude_unset=True)
    return await _answer(session, await service.change_subscription(session, subscription, changes, actor))


@router.delete("/{subscription}", status_code=204, summary="Delete a subscription", name="deleteSubscription")
async def delete(subscription: Id, session: SessionPart, actor: Actor = None) -> None:
    """What it has started goes on. Codes: SUBSCRIPTION_NOT_FOUND."""
    await service.delete_subscription(session, subscription, actor)


@router.post("/{subscription}/activate", summary="Let a subscription hear of events", name="activateSubscription")
async def activate(subscription: Id, session: SessionPart, actor: Actor = None) -> SubscriptionView:
    """It is checked anew. A template that is not active is a warning. Codes as for a new one."""
    return await _answer(session, await service.set_status(session, subscription, SubscriptionStatus.ACTIVE, actor))


@router.post("/{subscription}/deactivate", summary="Let a subscription rest", name="deactivateSubscription")
async def deactivate(subscription: Id, session: SessionPart, actor: Actor = None) -> SubscriptionView:
    """It hears of nothing until it is activated. Codes: SUBSCRIPTION_NOT_FOUND."""
    return await _answer(session, await service.set_status(session, subscription, SubscriptionStatus.INACTIVE, actor))


@router.post("/{subscription}/explain", summary="Say why an event matches or not", name="explainSubscription")
async def explain(subscription: Id, request: ExplainRequest, session: SessionPart) -> ExplainedView:
    """Of a payload, or of an event of the inbox; changes nothing. Codes: SUBSCRIPTION_NOT_FOUND,
    TRIGGER_EVENT_NOT_FOUND, EXPLAIN_INVALID.
    """
    return await service.explain_subscription(session, subscription, request)


async def _answer(session: AsyncSession, found: SubscriptionAndTemplate) -> SubscriptionView:
    return _view(found, await find_taken(session, [found]))


def _view(found: SubscriptionAndTemplate, taken: Taken) -> SubscriptionView:
    row, template = found
    return SubscriptionView(
        **row.model_dump(exclude={"trigger_id"}),
        template=template.slug,
        filter_text=describe(read_subscription(row).filter),
        warnings=warnings(found, taken),
    )
