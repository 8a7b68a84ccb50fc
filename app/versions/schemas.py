"""Versions and definitions on the wire."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import semver
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from app.db.tables import VersionStatus
from app.wire import Given, JsonObject, Taken
from engine.problems import Problem, Severity


def _semantic(text: str) -> str:
    if not semver.Version.is_valid(text):
        raise ValueError("not a semantic version such as 1.2.0")
    return text


SemanticVersion = Annotated[str, StringConstraints(max_length=50), AfterValidator(_semantic), Field(examples=["1.2.0"])]
Note = Annotated[str, StringConstraints(max_length=10_000)]


class VersionCreate(Taken):
    """A new draft: with a `definition`, as a copy of `starterVersionId`, or from START to END."""

    version: SemanticVersion
    version_note: Note | None = None
    definition: JsonObject | None = None
    starter_version_id: UUID | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "VersionCreate":
        if self.definition is not None and self.starter_version_id is not None:
            raise ValueError("definition and starterVersionId exclude each other")
        return self


class VersionChange(Taken):
    """What may be changed in a draft; what is left out stays as it is."""

    version: SemanticVersion = ""
    version_note: Note | None = None
    definition: JsonObject = {}


class DefinitionToValidate(Taken):
    """A definition that need not be stored. `templateId` (id or slug) is the template it is meant for."""

    definition: JsonObject
    template_id: str | None = Field(default=None, max_length=100)


class ProblemView(Given):
    """One finding of validation; `path` points into the definition: `steps[3].parameters.to`."""

    rule: str
    code: str
    severity: Severity
    path: str
    message: str
    step_ids: list[str]
    transition_ids: list[str]


class ValidationView(Given):
    """`valid` is false when any problem is an ERROR; warnings alone leave it true."""

    valid: bool
    problems: list[ProblemView]


class VersionSummary(Given):
    """A version without its definition."""

    id: UUID
    template_id: UUID
    template: str
    version: str
    version_note: str | None
    status: VersionStatus
    active: bool
    definition_hash: str = Field(description="SHA-256 of the definition as canonical JSON")
    published_at: datetime | None
    created_at: datetime
    updated_at: datetime


class VersionView(VersionSummary):
    """A version as users read it; `problems` are those found when it was saved, null otherwise."""

    definition: dict[str, Any]
    problems: list[ProblemView] | None = None


class PlanEdge(Given):
    """Where a step leads."""

    transition_id: str
    to_step_id: str
    is_default: bool


class PlanStep(Given):
    """A step in plan order."""

    id: str
    name: str
    type: str
    outgoing: list[PlanEdge]


class PlanView(Given):
    """The steps in the order in which they can come, back edges aside."""

    steps: list[PlanStep]


def problem_view(problem: Problem) -> ProblemView:
    """A finding of the engine, on the wire."""
    return ProblemView(
        rule=problem.rule,
        code=problem.code,
        severity=problem.severity,
        path=problem.path,
        message=problem.message,
        step_ids=list(problem.step_ids),
        transition_ids=list(problem.transition_ids),
    )


def problem_documents(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    """Findings of the engine as the members of a problem document."""
    return [problem_view(problem).model_dump(mode="json", by_alias=True) for problem in problems]
