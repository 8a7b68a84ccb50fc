"""`/templates/{template}/versions`, `/versions` and `/definitions`."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path
from sqlalchemy.ext.asyncio import AsyncSession

from app.addresses import id_of
from app.db.tables import WorkflowTemplate, WorkflowTemplateVersion
from app.dependencies import Actor, Cursor, Limit, SessionPart
from app.problem_details import problem_responses
from app.templates.service import get_template
from app.versions import service
from app.versions.queries import list_versions
from app.versions.schemas import (
    DefinitionToValidate,
    PlanEdge,
    PlanStep,
    PlanView,
    ValidationView,
    VersionChange,
    VersionCreate,
    VersionSummary,
    VersionView,
    problem_view,
)
from app.wire import Page, encode_cursor, read_id_cursor
from engine.problems import Problem
from engine.validate import has_errors

router = APIRouter(tags=["versions"], responses=problem_responses(404, 422, 503))

Reference = Annotated[str, Path(alias="template", description="a template's id or slug", max_length=100)]
VersionId = Annotated[UUID, id_of("version"), Path(alias="version")]
STATE = problem_responses(409)


@router.post(
    "/templates/{template}/versions",
    status_code=201,
    summary="Create a draft",
    responses=STATE,
    name="createVersion",
)
async def create(template: Reference, request: VersionCreate, session: SessionPart, actor: Actor = None) -> VersionView:
    """A draft may have problems; the answer lists them. Codes: VERSION_EXISTS, DEFINITION_INVALID."""
    owner, (version, problems) = await service.create_version(session, template, request, actor)
    return _view(owner, version, problems)


@router.get("/templates/{template}/versions", summary="List a template's versions", name="listVersions")
async def list_(
    template: Reference, session: SessionPart, cursor: Cursor = None, limit: Limit = 50
) -> Page[VersionSummary]:
    """The newest first, without their definitions."""
    owner = await get_template(session, template)
    rows = await list_versions(session, owner.id, before=read_id_cursor(cursor), limit=limit + 1)
    items = [VersionSummary(**_fields(owner, version)) for version in rows[:limit]]
    following = encode_cursor(str(items[-1].id)) if len(rows) > limit else None
    return Page(items=items, next_cursor=following)


@router.get("/versions/{version}", summary="Read a version", name="getVersion")
async def get(version: VersionId, session: SessionPart) -> VersionView:
    """With its definition."""
    return await _answer(session, await service.get_version(session, version), None)


@router.patch("/versions/{version}", summary="Edit a draft", responses=STATE, name="changeVersion")
async def change(version: VersionId, request: VersionChange, session: SessionPart, actor: Actor = None) -> VersionView:
    """What is left out stays. Codes: VERSION_NOT_DRAFT, VERSION_EXISTS, DEFINITION_INVALID."""
    changes = request.model_dump(exclude_unset=True)
    return await _answer(session, *await service.change_version(session, version, changes, actor))


@router.delete("/versions/{version}", status_code=204, summary="Delete a draft", responses=STATE, name="deleteVersion")
async def delete(version: VersionId, session: SessionPart, actor: Actor = None) -> None:
    """Codes: VERSION_NOT_DRAFT."""
    await service.delete_version(session, version, actor)


@router.post("/versions/{version}/validate", summary="Validate a version", name="validateVersion")
async def validate(version: VersionId, session: SessionPart) -> ValidationView:
    """Every problem, against what is stored now."""
    found = await service.get_version(session, version)
    return _validation(await service.validate_definition(session, found.definition, found.template_id))


@router.post("/versions/{version}/publish", summary="Publish a draft", responses=STATE, name="publishVersion")
async def publish(version: VersionId, session: SessionPart, actor: Actor = None) -> VersionView:
    """From then on the definition never changes. Codes: VERSION_NOT_DRAFT, DEFINITION_INVALID."""
    return await _answer(session, *await service.publish_version(session, version, actor))


@router.post("/versions/{version}/activate", summary="Activate a version", responses=STATE, name="activateVersion")
async def activate(version: VersionId, session: SessionPart, actor: Actor = None) -> VersionView:
    """New executions run it; running ones keep theirs. Codes: VERSION_NOT_PUBLISHED, TEMPLATE_ARCHIVED."""
    return _view(*await service.activate_version(session, version, actor), None)


@router.post("/versions/{version}/deprecate", summary="Deprecate a version", responses=STATE, name="deprecateVersion")
async def deprecate(version: VersionId, session: SessionPart, actor: Actor = None) -> VersionView:
    """Codes: VERSION_NOT_PUBLISHED, VERSION_ACTIVE."""
    return _view(*await service.deprecate_version(session, version, actor), None)


@router.get("/versions/{version}/plan", summary="Read a version's plan", name="planVersion")
async def plan(version: VersionId, session: SessionPart) -> PlanView:
    """The steps in plan order. Codes: DEFINITION_INVALID."""
    built = await service.plan_version(session, version)
    return PlanView(
        steps=[
            PlanStep(
                id=node.id,
                name=node.name,
                type=node.type,
                outgoing=[
                    PlanEdge(
                        transition_id=edge.id,
                        to_step_id=built.nodes[edge.target].id,
                        is_default=edge.is_default,
                    )
                    for edge in node.outgoing
                ],
            )
            for node in built.nodes
        ]
    )


@router.post("/definitions/validate", summary="Validate a definition", name="validateDefinition")
async def validate_unsaved(request: DefinitionToValidate, session: SessionPart) -> ValidationView:
    """Stores nothing."""
    owner = None if request.template_id is None else await get_template(session, request.template_id)
    template_id = None if owner is None else owner.id
    return _validation(await service.validate_definition(session, request.definition, template_id))


async def _answer(
    session: AsyncSession, version: WorkflowTemplateVersion, problems: tuple[Problem, ...] | None
) -> VersionView:
    return _view(await get_template(session, str(version.template_id)), version, problems)


def _view(
    template: WorkflowTemplate, version: WorkflowTemplateVersion, problems: tuple[Problem, ...] | None
) -> VersionView:
    found = None if problems is None else [problem_view(problem) for problem in problems]
    return VersionView(**_fields(template, version), definition=version.definition, problems=found)


def _fields(template: WorkflowTemplate, version: WorkflowTemplateVersion) -> dict[str, object]:
    return version.model_dump(exclude={"definition"}) | {
        "template": template.slug,
        "active": template.active_version_id == version.id,
    }


def _validation(problems: tuple[Problem, ...]) -> ValidationView:
    return ValidationView(valid=not has_errors(problems), problems=[problem_view(problem) for problem in problems])
