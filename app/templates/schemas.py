"""Templates on the wire."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator

from app.db.statuses import AtRest
from app.db.tables import TemplateStatus
from app.wire import Given, Name, Taken

SLUG = r"^[a-z0-9][a-z0-9-]{0,99}$"

Slug = Annotated[str, Field(pattern=SLUG, description="the Temporal workflow type; fixed once published")]
Tag = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=50)]
Tags = Annotated[list[Tag], Field(max_length=50)]
Segment = Annotated[str, StringConstraints(min_length=1, max_length=50)]
Category = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Description = Annotated[str, StringConstraints(max_length=10_000)]

WhenPaused = Annotated[AtRest, Field(description="what becomes of what would start it while it is PAUSED")]


class TemplateLimits(Taken):
    """How many executions of a template may be started in a minute, and be open at once; children do not count."""

    starts_per_minute: int | None = Field(default=None, ge=1, le=1_000_000)
    open_executions: int | None = Field(default=None, ge=1, le=1_000_000)
    when_full: AtRest = AtRest.REFUSE

    @model_validator(mode="after")
    def _limit_something(self) -> Self:
        if self.starts_per_minute is None and self.open_executions is None:
            raise ValueError("limits have startsPerMinute, openExecutions or both; null takes them away")
        return self


class LimitsView(Given):
    """The limits of a template."""

    starts_per_minute: int | None = None
    open_executions: int | None = None
    when_full: AtRest = AtRest.REFUSE


class TemplateCreate(Taken):
    """A new template; without a `slug`, one is made of the name."""

    name: Name
    slug: Slug | None = None
    description: Description | None = None
    segment: Segment | None = Field(default=None, examples=["CRM", "SALES", "MARKETING"])
    category: Category | None = None
    tags: Tags = []
    pinned: bool = False
    is_gallery: bool = False
    when_paused: WhenPaused = AtRest.REFUSE
    limits: TemplateLimits | None = None


class TemplateChange(Taken):
    """What may be changed; what is left out stays as it is."""

    name: Name = ""
    slug: Slug = ""
    description: Description | None = None
    segment: Segment | None = None
    category: Category | None = None
    tags: Tags = []
    pinned: bool = False
    is_gallery: bool = False
    when_paused: WhenPaused = AtRest.REFUSE
    limits: TemplateLimits | None = None


class TemplateView(Given):
    """A template as users read it."""

    id: UUID
    slug: str
    name: str
    description: str | None
    segment: str | None
    category: str | None
    tags: list[str]
    pinned: bool
    is_gallery: bool
    status: TemplateStatus
    when_paused: AtRest
    limits: LimitsView | None
    active_version_id: UUID | None
    active_version: str | None
    created_at: datetime
    updated_at: datetime
