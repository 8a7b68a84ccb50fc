"""Real servers for a part that needs them: PostgreSQL and Temporal in a folder of their own, gone afterwards."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from app.canonical import digest
from app.db.migrate import migrate
from app.db.session import Database
from app.db.statuses import EntityType
from app.db.tables import (
    TemplateStatus,
    VersionStatus,
    WorkflowTemplate,
    WorkflowTemplateLink,
    WorkflowTemplateVersion,
)
from app.embedded import embedded_servers
from app.registry.queries import ActionRegistration, upsert_actions
from app.settings import LogSettings, Settings, TemporalSettings
from millrace.actions import Action


@asynccontextmanager
async def own_servers(task_queue: str) -> AsyncIterator[Settings]:
    """Settings that name both servers and an empty, migrated database, for the block.

    They keep everything on disk, as `millrace dev` does: durability is part of what is measured.
    """
    home = Path(tempfile.mkdtemp(prefix="millrace-bench-"))
    quiet = Settings(home=home, temporal=TemporalSettings(task_queue=task_queue), log=LogSettings(level="ERROR"))
    try:
        async with embedded_servers(quiet) as settings:
            await migrate(database_url(settings))
            yield settings
    finally:
        shutil.rmtree(home, ignore_errors=True)


def database_url(settings: Settings) -> str:
    """The URL of the database that the settings name."""
    url = settings.database.url
    if url is None:
        raise ValueError("no database is configured")
    return url.get_secret_value()


async def store_template(database: Database, slug: str, document: dict[str, Any], service: str) -> None:
    """A template whose one published version is active and linked to a service of the catalogue."""
    template = WorkflowTemplate(slug=slug, name=slug, status=TemplateStatus.ACTIVE)
    version = WorkflowTemplateVersion(
        template_id=template.id,
        version="1.0.0",
        definition=document,
        definition_hash=digest(document),
        status=VersionStatus.PUBLISHED,
    )
    async with database.transaction() as session:
        session.add(template)
        await session.flush()
        session.add(version)
        await session.flush()
        template.active_version_id = version.id
        session.add(
            WorkflowTemplateLink(template_id=template.id, entity_type=EntityType.SERVICE_CATALOG, entity_id=service)
        )


async def store_action(database: Database, entry: Action) -> None:
    """An action as a worker announces it when it starts."""
    schema = entry.parameters.model_json_schema(by_alias=True)
    async with database.transaction() as session:
        await upsert_actions(session, [ActionRegistration(entry.key, entry.version, schema, policies=entry.policies)])
