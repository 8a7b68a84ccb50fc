"""What can be done with versions and definitions."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.audit.changes import Facts, record_change
from app.canonical import digest
from app.db.tables import TemplateStatus, VersionStatus, WorkflowTemplate, WorkflowTemplateVersion
from app.errors import Conflict, Invalid, NotFound
from app.templates.service import get_template, refuse_archived
from app.versions.catalogue import build_catalogue
from app.versions.queries import find_version
from app.versions.schemas import VersionCreate, problem_documents
from engine.compile import compile_definition
from engine.definition import normalised, read_definition
from engine.errors import EngineError
from engine.plan import Plan
from engine.problems import Problem
from engine.validate import has_errors, validate

# What stands under these rules is not a definition at all, and is not stored even as a draft.
UNREADABLE = frozenset({"DEFINITION_SHAPE", "SIZE_LIMIT"})

EMPTY_DEFINITION: dict[str, Any] = {
    "schemaVersion": 1,
    "steps": [
        {"id": "start", "type": "START", "name": "Start"},
        {"id": "end", "type": "END", "name": "End"},
    ],
    "stepTransitions": [{"id": "start-end", "fromStepId": "start", "toStepId": "end"}],
}

Saved = tuple[WorkflowTemplateVersion, tuple[Problem, ...]]


async def validate_definition(
    session: AsyncSession, document: Mapping[str, Any], template_id: UUID | None
) -> tuple[Problem, ...]:
    """Every problem of a definition, judged against what is stored."""
    return validate(document, await build_catalogue(session, document, template_id))


async def create_version(
    session: AsyncSession, template_reference: str, request: VersionCreate, actor: str | None = None
) -> tuple[WorkflowTemplate, Saved]:
    """A new draft. Raises VERSION_EXISTS, DEFINITION_INVALID for what is not a definition at all."""
    template = await get_template(session, template_reference, lock=True)
    refuse_archived(template)
    document = request.definition
    if request.starter_version_id is not None:
        document = (await get_version(session, request.starter_version_id)).definition
    document = normalised(EMPTY_DEFINITION if document is None else document)
    problems = await _readable(session, document, template.id)
    version = WorkflowTemplateVersion(
        template_id=template.id,
        version=request.version,
        version_note=request.version_note,
        definition=document,
        definition_hash=digest(document),
    )
    session.add(version)
    await _flush_number(session, version)
    await record_change(session, "CREATE_VERSION", ("VERSION", version.id), actor, None, _facts(template, version))
    return template, (version, problems)


async def get_version(session: AsyncSession, version_id: UUID) -> WorkflowTemplateVersion:
    """A version by id. Raises VERSION_NOT_FOUND."""
    version = await find_version(session, version_id)
    if version is None:
        raise NotFound("version", version_id)
    return version


async def change_version(
    session: AsyncSession, version_id: UUID, changes: Mapping[str, Any], actor: str | None = None
) -> Saved:
    """Sets the fields given. Raises VERSION_NOT_DRAFT, VERSION_EXISTS, DEFINITION_INVALID."""
    template, version = await _lock_draft(session, version_id)
    before = _facts(template, version)
    for name, value in changes.items():
        setattr(version, name, normalised(value) if name == "definition" else value)
    problems = await _readable(session, version.definition, version.template_id)
    version.definition_hash = digest(version.definition)
    await _flush_number(session, version)
    await record_change(session, "CHANGE_VERSION", ("VERSION", version.id), actor, before, _facts(template, version))
    return version, problems


async def publish_version(session: AsyncSession, version_id: UUID, actor: str | None = None) -> Saved:
    """DRAFT → PUBLISHED. Raises VERSION_NOT_DRAFT, DEFINITION_INVALID with every problem.

    The row stays locked from before the validation to the commit: what is published is what was judged.
    """
    template, version = await _lock_draft(session, version_id)
    before = _facts(template, version)
    problems = await validate_definition(session, version.definition, version.template_id)
    if has_errors(problems):
        raise _definition_invalid(problems)
    version.status = VersionStatus.PUBLISHED
    version.published_at = datetime.now(UTC)
    await session.flush()
    await record_change(session, "PUBLISH_VERSION", ("VERSION", version.id), actor, before, _facts(template, version))
    return version, problems


async def activate_version(
    session: AsyncSession, version_id: UUID, actor: str | None = None
) -> tuple[WorkflowTemplate, WorkflowTemplateVersion]:
    """Makes a version the one that new executions run; a deprecated one is PUBLISHED again (rollback).

    Raises VERSION_NOT_PUBLISHED for a draft, TEMPLATE_ARCHIVED.
    """
    template, version = await _lock(session, version_id)
    before = _facts(template, version)
    refuse_archived(template)
    if version.status == VersionStatus.DRAFT:
        raise _not_published(version)
    version.status = VersionStatus.PUBLISHED
    template.active_version_id = version.id
    if template.status == TemplateStatus.DRAFT:
        template.status = TemplateStatus.ACTIVE
    await session.flush()
    await record_change(session, "ACTIVATE_VERSION", ("VERSION", version.id), actor, before, _facts(template, version))
    return template, version


async def deprecate_version(
    session: AsyncSession, version_id: UUID, actor: str | None = None
) -> tuple[WorkflowTemplate, WorkflowTemplateVersion]:
    """PUBLISHED → DEPRECATED. Raises VERSION_NOT_PUBLISHED for a draft, VERSION_ACTIVE for the active one."""
    template, version = await _lock(session, version_id)
    before = _facts(template, version)
    if version.status == VersionStatus.DRAFT:
        raise _not_published(version)
    if template.active_version_id == version.id:
        raise Conflict("VERSION_ACTIVE", f"{version.version} is active; activate another version first.")
    version.status = VersionStatus.DEPRECATED
    await session.flush()
    await record_change(session, "DEPRECATE_VERSION", ("VERSION", version.id), actor, before, _facts(template, version))
    return template, version


async def delete_version(session: AsyncSession, version_id: UUID, actor: str | None = None) -> None:
    """Deletes a draft. Raises VERSION_NOT_DRAFT."""
    template, version = await _lock_draft(session, version_id)
    before = _facts(template, version)
    await session.execute(delete(WorkflowTemplateVersion).where(col(WorkflowTemplateVersion.id) == version.id))
    await record_change(session, "DELETE_VERSION", ("VERSION", version.id), actor, before, None)


async def plan_version(session: AsyncSession, version_id: UUID) -> Plan:
    """The plan of a version. Raises DEFINITION_INVALID with every problem when there is none."""
    version = await get_version(session, version_id)
    problems = await validate_definition(session, version.definition, version.template_id)
    if has_errors(problems):
        raise _definition_invalid(problems)
    try:
        return compile_definition(read_definition(version.definition))
    except (ValidationError, EngineError) as error:
        raise Invalid("DEFINITION_INVALID", str(error)) from error


async def _lock(session: AsyncSession, version_id: UUID) -> tuple[WorkflowTemplate, WorkflowTemplateVersion]:
    """The version and its template, both locked, the template first: everybody takes them in this order."""
    template_id = (await get_version(session, version_id)).template_id
    template = await get_template(session, str(template_id), lock=True)
    version = await find_version(session, version_id, lock=True)
    if version is None:
        raise NotFound("version", version_id)
    return template, version


async def _lock_draft(session: AsyncSession, version_id: UUID) -> tuple[WorkflowTemplate, WorkflowTemplateVersion]:
    template, version = await _lock(session, version_id)
    if version.status != VersionStatus.DRAFT:
        raise Conflict("VERSION_NOT_DRAFT", f"{version.version} is {version.status}: only a draft can be changed.")
    refuse_archived(template)
    return template, version


def _facts(template: WorkflowTemplate, version: WorkflowTemplateVersion) -> Facts:
    """What the audit says of a version, and of its template as far as the version's life is also the template's. Of the
    definition it has the hash.
    """
    return {
        "template": template.slug,
        "template_status": str(template.status),
        "active_version_id": None if template.active_version_id is None else str(template.active_version_id),
        **version.model_dump(mode="json", include={"version", "version_note", "definition_hash", "status"}),
    }


async def _readable(session: AsyncSession, document: Mapping[str, Any], template_id: UUID) -> tuple[Problem, ...]:
    problems = await validate_definition(session, document, template_id)
    if any(problem.rule in UNREADABLE for problem in problems):
        raise _definition_invalid(problems)
    return problems


async def _flush_number(session: AsyncSession, version: WorkflowTemplateVersion) -> None:
    number = version.version
    try:
        await session.flush()
    except IntegrityError as error:
        raise Conflict("VERSION_EXISTS", f"The template has a version {number} already.") from error


def _not_published(version: WorkflowTemplateVersion) -> Conflict:
    return Conflict("VERSION_NOT_PUBLISHED", f"{version.version} is a draft; publish it first.")


def _definition_invalid(problems: tuple[Problem, ...]) -> Invalid:
    count = len(problems)
    return Invalid(
        "DEFINITION_INVALID",
        f"The definition has {count} problem{'s' if count > 1 else ''}.",
        problem_documents(problems),
    )
