"""What can be done with links."""

from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.audit.changes import Facts, record_change
from app.db.statuses import EntityType
from app.db.tables import WorkflowTemplateLink, new_id
from app.errors import Conflict, NotFound
from app.links.queries import LinkAndSlug, find_link
from app.templates.service import get_template, refuse_archived


async def put_link(
    session: AsyncSession,
    entity_type: EntityType,
    entity_id: str,
    template_reference: str,
    actor: str | None = None,
) -> tuple[LinkAndSlug, bool]:
    """The link of the entity to the template, and whether it is new.

    Raises LINK_EXISTS when the entity starts another template already, TEMPLATE_NOT_FOUND, TEMPLATE_ARCHIVED.
    """
    template = await get_template(session, template_reference)
    refuse_archived(template)
    statement = (
        insert(WorkflowTemplateLink)
        .values(id=new_id(), template_id=template.id, entity_type=entity_type, entity_id=entity_id)
        .on_conflict_do_nothing(index_elements=["entity_type", "entity_id"])
        .returning(col(WorkflowTemplateLink.id))
    )
    created = (await session.execute(statement)).scalar_one_or_none() is not None
    found = await get_link(session, entity_type, entity_id)
    if found[0].template_id != template.id:
        raise Conflict("LINK_EXISTS", f"{entity_type} {entity_id} starts {found[1]} already; delete that link first.")
    if created:
        await record_change(session, "LINK", ("LINK", entity_id), actor, None, _facts(*found))
    return found, created


async def get_link(session: AsyncSession, entity_type: EntityType, entity_id: str) -> LinkAndSlug:
    """The link of an entity. Raises LINK_NOT_FOUND."""
    found = await find_link(session, entity_type, entity_id)
    if found is None:
        raise NotFound("link", f"of {entity_type} {entity_id}")
    return found


async def delete_link(session: AsyncSession, entity_type: EntityType, entity_id: str, actor: str | None = None) -> None:
    """Takes the link away. Raises LINK_NOT_FOUND."""
    found = await get_link(session, entity_type, entity_id)
    statement = (
        delete(WorkflowTemplateLink)
        .where(
            col(WorkflowTemplateLink.entity_type) == entity_type,
            col(WorkflowTemplateLink.entity_id) == entity_id,
        )
        .returning(col(WorkflowTemplateLink.id))
    )
    if (await session.execute(statement)).scalar_one_or_none() is None:
        raise NotFound("link", f"of {entity_type} {entity_id}")
    await record_change(session, "UNLINK", ("LINK", entity_id), actor, _facts(*found), None)


def _facts(link: WorkflowTemplateLink, template: str) -> Facts:
    """What the audit says of a link."""
    return {"entity_type": str(link.entity_type), "template_id": str(link.template_id), "template": template}
