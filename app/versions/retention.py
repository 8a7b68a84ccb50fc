"""Old versions that nobody can need any more, and that go."""

from collections.abc import Sequence
from uuid import UUID

import structlog
from sqlalchemy import delete, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.db.session import Database
from app.db.tables import WorkflowTemplateVersion

log = structlog.get_logger(__name__)

# So many published versions of a template are kept, whatever became of them.
KEPT = 10

# A draft that pins one, and a queued start that names one, could not be published or started without it.
PRUNABLE = text("""
    WITH ranked AS (
        SELECT id, template_id, version,
            row_number() OVER (PARTITION BY template_id ORDER BY published_at DESC, id DESC) AS place
        FROM workflow_template_version WHERE status <> 'DRAFT'
    ), old AS (
        SELECT * FROM ranked WHERE place > :kept
    ), pinned AS (
        SELECT DISTINCT jsonb_path_query(definition, '$.steps[*].childWorkflowTemplateVersionId') #>> '{}' AS reference
        FROM workflow_template_version WHERE EXISTS (SELECT FROM old)
    )
    SELECT old.id
    FROM old JOIN workflow_template AS template ON template.id = old.template_id
    WHERE template.active_version_id IS DISTINCT FROM old.id
        AND NOT EXISTS (SELECT FROM workflow_execution WHERE version_id = old.id)
        AND NOT EXISTS (SELECT FROM execution_lineage WHERE old.id IN (from_version_id, to_version_id))
        AND NOT EXISTS (
            SELECT FROM pinned
            WHERE lower(reference) = CAST(old.id AS text) OR reference = template.slug || '@' || old.version
        )
        AND NOT EXISTS (
            SELECT FROM trigger_event
            WHERE status = 'PENDING' AND template_id = old.template_id AND payload->>'version' = old.version
        )
    ORDER BY old.id
""")


async def find_prunable(session: AsyncSession) -> Sequence[UUID]:
    """Versions that are not among the last `KEPT` published ones of their template, and that nothing refers to:

    not active, of no execution (nor its past), pinned by no definition, named by no event that waits.
    """
    return (await session.execute(PRUNABLE, {"kept": KEPT})).scalars().all()


async def prune_versions(database: Database) -> int:
    """Deletes them; how many. One that is taken into use at this moment stays."""
    async with database.transaction() as session:
        found = await find_prunable(session)
    pruned = 0
    for version_id in found:
        try:
            async with database.transaction() as session:
                await session.execute(
                    delete(WorkflowTemplateVersion).where(col(WorkflowTemplateVersion.id) == version_id)
                )
        except IntegrityError:
            log.info("version_in_use", version_id=str(version_id))
        else:
            pruned += 1
    return pruned
