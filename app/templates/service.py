"""What can be done with templates."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.changes import Facts, record_change
from app.audit.repeating import Asked, find_made, record_made
from app.audit.words import Action
from app.db.tables import TemplateStatus, WorkflowTemplate
from app.errors import Conflict, Invalid, NotFound
from app.inbox.storing import NOTIFY
from app.templates.queries import find_template, has_been_published
from app.templates.schemas import TemplateCreate
from app.versions.queries import as_uuid


async def create_template(
    session: AsyncSession, request: TemplateCreate, actor: str | None = None, key: str | None = None
) -> WorkflowTemplate:
    """A new template, in status DRAFT, or the one that the same request with the same key has made.

    Raises SLUG_INVALID, SLUG_TAKEN, IDEMPOTENCY_CONFLICT.
    """
    fields = request.model_dump()
    asked = Asked("CREATE_TEMPLATE", "TEMPLATE", actor, key, request.model_dump(mode="json", by_alias=True))
    made = await find_made(session, asked)
    if made is not None:
        return await get_template(session, made)
    slug = request.slug or slug_of(request.name)
    _refuse_ambiguous_slug(slug)
    template = WorkflowTemplate(**(fields | {"slug": slug}))
    session.add(template)
    await _flush_slug(session, slug)
    await record_made(session, asked, template.id, facts(template))
    return template


async def get_template(session: AsyncSession, reference: str, *, lock: bool = False) -> WorkflowTemplate:
    """A template by id or slug. Raises TEMPLATE_NOT_FOUND."""
    template = await find_template(session, reference, lock=lock)
    if template is None:
        raise NotFound("template", reference)
    return template


async def change_template(
    session: AsyncSession, reference: str, changes: Mapping[str, Any], actor: str | None = None
) -> WorkflowTemplate:
    """Sets the fields given. Raises SLUG_FIXED once a version was published, SLUG_TAKEN, SLUG_INVALID."""
    template = await get_template(session, reference, lock=True)
    slug = changes.get("slug", template.slug)
    if slug != template.slug:
        _refuse_ambiguous_slug(slug)
        if await has_been_published(session, template.id):
            raise Conflict("SLUG_FIXED", f"{template.slug} has been published: its slug stays.")
    before = facts(template)
    for name, value in changes.items():
        setattr(template, name, value)
    await _flush_slug(session, slug)
    await _call_queued(session)
    await record_change(session, "CHANGE_TEMPLATE", ("TEMPLATE", template.id), actor, before, facts(template))
    return template


async def pause_template(session: AsyncSession, reference: str, actor: str | None = None) -> WorkflowTemplate:
    """ACTIVE → PAUSED: nothing new starts. Raises TEMPLATE_NOT_ACTIVE for any other status."""
    template = await get_template(session, reference, lock=True)
    if template.status not in (TemplateStatus.ACTIVE, TemplateStatus.PAUSED):
        raise Conflict("TEMPLATE_NOT_ACTIVE", f"{template.slug} is {template.status}.")
    return await _set_status(session, template, "PAUSE_TEMPLATE", actor, TemplateStatus.PAUSED)


async def resume_template(session: AsyncSession, reference: str, actor: str | None = None) -> WorkflowTemplate:
    """PAUSED or ARCHIVED → ACTIVE, or DRAFT when no version is active."""
    template = await get_template(session, reference, lock=True)
    if template.status == TemplateStatus.DRAFT:
        raise Conflict("TEMPLATE_NOT_PAUSED", f"{template.slug} is a draft: activate a version.")
    active = template.active_version_id is not None
    return await _set_status(
        session, template, "RESUME_TEMPLATE", actor, TemplateStatus.ACTIVE if active else TemplateStatus.DRAFT
    )


async def archive_template(session: AsyncSession, reference: str, actor: str | None = None) -> WorkflowTemplate:
    """Any status → ARCHIVED: nothing new starts, nothing is edited, what runs goes on."""
    template = await get_template(session, reference, lock=True)
    return await _set_status(session, template, "ARCHIVE_TEMPLATE", actor, TemplateStatus.ARCHIVED)


def refuse_archived(template: WorkflowTemplate) -> None:
    """Raises TEMPLATE_ARCHIVED: an archived template is not worked on."""
    if template.status == TemplateStatus.ARCHIVED:
        raise Conflict("TEMPLATE_ARCHIVED", f"{template.slug} is archived; resume it first.")


def slug_of(name: str) -> str:
    """`Größe ändern!` → `grosse-andern`: ASCII letters, digits and dashes. Raises SLUG_INVALID."""
    ascii_only = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")[:100].rstrip("-")
    if not slug:
        raise Invalid("SLUG_INVALID", "The name has no letters that a slug could be made of; give a slug.")
    return slug


def _refuse_ambiguous_slug(slug: str) -> None:
    if as_uuid(slug) is not None:
        raise Invalid("SLUG_INVALID", "A slug must not look like an id.")


async def _flush_slug(session: AsyncSession, slug: str) -> None:
    try:
        await session.flush()
    except IntegrityError as error:
        raise Conflict("SLUG_TAKEN", f"Another template has the slug {slug}.") from error


async def _set_status(
    session: AsyncSession, template: WorkflowTemplate, action: Action, actor: str | None, status: TemplateStatus
) -> WorkflowTemplate:
    before = facts(template)
    template.status = status
    await session.flush()
    await _call_queued(session)
    await record_change(session, action, ("TEMPLATE", template.id), actor, before, facts(template))
    return template


async def _call_queued(session: AsyncSession) -> None:
    """The dispatcher looks, once this is committed, at what is queued for the template."""
    await session.execute(text(NOTIFY))


def facts(template: WorkflowTemplate) -> Facts:
    """What the audit says of a template."""
    return template.model_dump(mode="json", exclude={"id", "created_at", "updated_at"})
