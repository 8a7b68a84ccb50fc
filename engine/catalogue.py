"""What validation must know of the world, as a frozen value that the caller builds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ActionEntry:
    """A registered action: its key, the JSON Schema of its parameters, and whether it heartbeats (`long`)."""

    key: str
    parameters_schema: Mapping[str, Any]
    long: bool = False


@dataclass(frozen=True, slots=True)
class VersionEntry:
    """A version that a sub-workflow may name: `status` is DRAFT, PUBLISHED or DEPRECATED.

    `children` holds the references (as written) of the sub-workflows in its own definition, so that cycles of
    definitions can be followed.
    """

    id: str
    template_id: str
    template_slug: str
    version: str
    status: str
    children: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything outside a definition that its validity depends on.

    `versions` is found by what a definition may write in `childWorkflowTemplateVersionId`: a version's id or
    `slug@1.2.0`. `templates` is found by a template's id or slug and gives the active version, or None when the
    template has no active one. `legacy_tasks` maps an older service-request type to its groups and their task
    keys; None means that they are not known here.
    """

    actions: Mapping[str, ActionEntry] = field(default_factory=dict)
    versions: Mapping[str, VersionEntry] = field(default_factory=dict)
    templates: Mapping[str, VersionEntry | None] = field(default_factory=dict)
    legacy_tasks: Mapping[str, Mapping[str, frozenset[str]]] | None = None
    template_id: str | None = None
