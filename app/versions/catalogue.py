"""What the engine must know of the world to judge a definition: just what the definition refers to."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.db.tables import Action
from app.registry.queries import find_actions
from app.untrusted import storable
from app.versions.queries import (
    VersionReference,
    find_templates_by_reference,
    find_versions_by_reference,
)
from engine.catalogue import ActionEntry, Catalogue, VersionEntry

# Definitions that refer to definitions are followed this far; a run's own `maxDepth` may be at most 100.
DEEPEST = 100


async def build_catalogue(session: AsyncSession, document: Mapping[str, Any], template_id: UUID | None) -> Catalogue:
    """The catalogue for a document: two statements for each level of sub-workflows, one for actions."""
    actions = await find_actions(session, _called(document))
    versions: dict[str, VersionEntry] = {}
    templates: dict[str, VersionEntry | None] = {}
    wanted_versions = _texts(document, "childWorkflowTemplateVersionId")
    wanted_templates = _texts(document, "childWorkflowTemplateId")
    seen: set[str] = set()
    for _ in range(DEEPEST):
        if not wanted_versions and not wanted_templates:
            break
        seen |= wanted_versions | wanted_templates
        found_versions = await find_versions_by_reference(session, wanted_versions)
        found_templates = await find_templates_by_reference(session, wanted_templates)
        versions |= {reference: _entry(found) for reference, found in found_versions.items()}
        templates |= {
            reference: None if found.version_id is None else _entry(found)
            for reference, found in found_templates.items()
        }
        found_all = [*found_versions.values(), *found_templates.values()]
        wanted_versions = _following((item.child_versions for item in found_all), seen)
        wanted_templates = _following((item.child_templates for item in found_all), seen)
    return Catalogue(
        actions={action.key: _action(action) for action in actions},
        versions=versions,
        templates=templates,
        template_id=None if template_id is None else str(template_id),
    )


def _action(found: Action) -> ActionEntry:
    long, idempotent = bool(found.policies.get("long")), bool(found.policies.get("idempotent"))
    return ActionEntry(found.key, found.parameters_schema, long, idempotent)


def _entry(found: VersionReference) -> VersionEntry:
    return VersionEntry(
        id=str(found.version_id),
        template_id=str(found.template_id),
        template_slug=found.template,
        version=found.version or "",
        status=found.status or "",
        children=(*found.child_versions, *found.child_templates),
    )


def _following(references: Iterable[list[str]], seen: set[str]) -> set[str]:
    return {reference for listed in references for reference in listed} - seen


def _called(document: Mapping[str, Any]) -> set[str]:
    """The actions that a document (of whatever shape) calls: its steps', their compensators and datasources."""
    keys = _texts(document, "actionKey")
    for step in _objects(document.get("steps")):
        keys |= _texts({"steps": [step.get("compensate")]}, "actionKey")
        keys |= _texts({"steps": step.get("dataSources")}, "dataSourceId")
    return keys


def _texts(document: Mapping[str, Any], member: str) -> set[str]:
    """What the steps of a document (of whatever shape) have in a member, where it is text."""
    found = (step.get(member) for step in _objects(document.get("steps")))
    return {value for value in found if isinstance(value, str) and storable(value)}


def _objects(listed: Any) -> list[dict[str, Any]]:
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
