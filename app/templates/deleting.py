"""Deleting a template with all that would start it: each goes by its own way, so that the audit says of each that it
went, and Temporal lets go of the schedules.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.audit.changes import record_change
from app.db.session import Database
from app.db.statuses import EntityType
from app.db.tables import WorkflowTemplate
from app.errors import Conflict
from app.links.service import delete_link
from app.schedules.service import delete_schedule, forget
from app.subscriptions.service import delete_subscription
from app.templates.queries import find_what_starts, has_executions
from app.templates.service import facts, get_template
from app.temporal import Temporal
from app.webhooks.service import delete_endpoint


async def delete_template(database: Database, temporal: Temporal, reference: str, actor: str | None = None) -> None:
    """Deletes a template with its versions, links, subscriptions, schedules and webhook endpoints.

    Raises TEMPLATE_NOT_FOUND, TEMPLATE_IN_USE when it was ever run.
    """
    async with database.transaction() as session:
        schedules = await _delete(session, reference, actor)
    for schedule_id in schedules:
        await forget(temporal, schedule_id)


async def _delete(session: AsyncSession, reference: str, actor: str | None) -> Sequence[UUID]:
    """Its schedules are given, which Temporal still has."""
    template = await get_template(session, reference, lock=True)
    in_use = Conflict("TEMPLATE_IN_USE", f"{template.slug} has executions; archive it instead.")
    if await has_executions(session, template.id):
        raise in_use
    # With the template locked nothing new can refer to it.
    starting = await find_what_starts(session, template.id)
    for schedule_id in starting.schedules:
        await delete_schedule(session, str(schedule_id), actor)
    for subscription_id in starting.subscriptions:
        await delete_subscription(session, subscription_id, actor)
    for endpoint_id in starting.endpoints:
        await delete_endpoint(session, endpoint_id, actor)
    for entity_type, entity_id in starting.links:
        await delete_link(session, EntityType(entity_type), entity_id, actor)
    try:
        await session.execute(delete(WorkflowTemplate).where(col(WorkflowTemplate.id) == template.id))
    except IntegrityError as error:
        raise in_use from error
    await record_change(session, "DELETE_TEMPLATE", ("TEMPLATE", template.id), actor, facts(template), None)
    return starting.schedules
