"""Backfills on the wire."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import ConfigDict, Field

from app.backfills.queries import BackfillAndSlug, Progress
from app.db.statuses import BackfillRowStatus, BackfillStatus, EntityType
from app.wire import Given, JsonObject, Name, Taken

MOST_AT_ONCE = 1_000
_ROWS: list[Any] = [
    {"number": 2, "eventId": "SR-17", "entityId": "pothole", "context": {"street": "Main St"}},
    {"number": 3, "code": "COLUMNS_WRONG", "message": "The header has 3 columns, this row 2.", "raw": ["SR-18", "x"]},
]
_CREATED: list[Any] = [
    {"name": "Requests of 2025", "entityType": "SERVICE_CATALOG", "rate": 20, "concurrency": 200},
    {"name": "Orders", "template": "order-approval"},
]
Code = Annotated[str, Field(min_length=1, max_length=200)]


class BackfillCreate(Taken):
    """What is to be started: a `template` (slug or id), or what each row's entity of `entityType` is linked to.

    `rate` is starts a second, `concurrency` how many of its executions may be open at once.
    """

    model_config = ConfigDict(json_schema_extra={"examples": _CREATED})

    name: Name
    template: str | None = Field(default=None, min_length=1, max_length=100)
    entity_type: EntityType | None = None
    rate: float | None = Field(default=None, gt=0, le=10_000)
    concurrency: int | None = Field(default=None, ge=1, le=1_000_000)
    source: JsonObject = {}


class RowTaken(Taken):
    """A row of the source by its number there. One that could not be read has a `code` and a `message`, and perhaps
    what it said (`raw`), and no context.
    """

    number: int = Field(ge=1, lt=2**31)
    event_id: str | None = Field(default=None, min_length=1, max_length=400)
    entity_id: str | None = Field(default=None, min_length=1, max_length=200)
    name: Name | None = None
    context: JsonObject | None = None
    code: Code | None = None
    message: str | None = Field(default=None, max_length=2_000)
    raw: Any = None


class RowsTaken(Taken):
    """Some rows of the source."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"rows": _ROWS}]})

    rows: list[RowTaken] = Field(min_length=1, max_length=MOST_AT_ONCE)


class RetryRequest(Taken):
    """Which of the refused rows: those with this code; all of them without it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"code": "UNLINKED"}, {}]})

    code: Code | None = None


class CheckRequest(RowsTaken):
    """Rows that are not to be started: would they be taken?"""

    model_config = ConfigDict(json_schema_extra={"examples": [{"entityType": "SERVICE_CATALOG", "rows": _ROWS}]})

    template: str | None = Field(default=None, min_length=1, max_length=100)
    entity_type: EntityType | None = None


class RowProblem(Given):
    """Why a row would not be started."""

    number: int
    code: str
    message: str


class CheckView(Given):
    """How many rows would be started, how many have been started already, and what is wrong with the others."""

    valid: int
    repeated: int
    problems: list[RowProblem]


class LoadView(Given):
    """How many rows are new, how many of these cannot be started, and how many had been loaded before."""

    loaded: int
    invalid: int
    repeated: int


class RowCounts(Given):
    """Rows by status."""

    total: int = 0
    pending: int = 0
    started: int = 0
    repeated: int = 0
    refused: int = 0
    invalid: int = 0


class BackfillView(Given):
    """A backfill and how far it is. `lastNumber` is the number of the last row that was loaded, `open` how many of the
    executions that it started are open. After `rowsDeletedAt` its rows are gone, and `rows` is what they were.
    """

    id: UUID
    name: str
    template_id: UUID | None
    template: str | None
    entity_type: EntityType | None
    rate: float | None
    concurrency: int | None
    source: JsonObject
    status: BackfillStatus
    status_reason: str | None
    created_by: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    rows: RowCounts
    last_number: int | None
    open: int
    rows_deleted_at: datetime | None


class BackfillRowView(Given):
    """A row and what became of it; `eventRecordId` is its event in the inbox."""

    number: int
    event_id: str | None
    entity_id: str | None
    name: str | None
    context: JsonObject | None
    raw: Any
    status: BackfillRowStatus
    code: str | None
    message: str | None
    event_record_id: UUID | None = Field(validation_alias="trigger_event_id")
    execution_id: UUID | None
    updated_at: datetime


def backfill_view(found: BackfillAndSlug, progress: Progress) -> BackfillView:
    """A backfill as it is shown."""
    backfill, slug = found
    counts = {status.lower(): count for status, count in progress.by_status.items()}
    return BackfillView(
        **backfill.model_dump(exclude={"updated_at", "row_counts"}),
        template=slug,
        rows=RowCounts(**counts, total=sum(counts.values())),
        last_number=progress.last_number,
        open=progress.open,
    )
