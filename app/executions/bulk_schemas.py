"""The bulk forms on the wire."""

from typing import Any
from uuid import UUID

from pydantic import Field

from app.db.tables import RecordStatus
from app.executions.control_schemas import IncidentResolution, ReplayRequest, ResumePoint, StepChoice, StepResumption
from app.executions.runs import RuntimeStatus
from app.wire import Given, Moment, Taken

LARGEST_BULK = 1_000


class BulkFilter(Taken):
    """Which executions; at least one member must be given.

    Without `rootOnly` only roots are meant, unless ids are named: children follow their root.
    """

    template: str | None = Field(default=None, max_length=100, description="a template's id or slug")
    version_id: UUID | None = None
    status: RecordStatus | None = None
    runtime_status: RuntimeStatus | None = None
    root_only: bool | None = None
    root_id: UUID | None = None
    created_after: Moment | None = None
    created_before: Moment | None = None
    ids: list[UUID] | None = Field(default=None, min_length=1, max_length=LARGEST_BULK)


class BulkRequest(Taken):
    """A deed on many executions, the newest first; `cursor` is `nextCursor` of the call before."""

    filter: BulkFilter
    dry_run: bool = False
    limit: int = Field(default=100, ge=1, le=LARGEST_BULK)
    cursor: str | None = Field(default=None, max_length=500)
    reason: str | None = Field(default=None, max_length=1_000)


class BulkCancelRequest(BulkRequest):
    """See the cancel of one execution."""

    compensate: bool = True
    include_detached: bool = False


class BulkSignalRequest(BulkRequest):
    """See the signal to one execution."""

    name: str = Field(min_length=1, max_length=200)
    payload: Any = None
    correlation_key: str | None = Field(default=None, max_length=200)


class BulkStepRequest(StepChoice, BulkRequest):
    """What is asked of one step of each."""

    step_id: str = Field(min_length=1, max_length=200)


class BulkStepResumption(StepResumption, BulkStepRequest):
    """See the resumption of one execution's suspended step."""


class BulkIncidentResolution(IncidentResolution, BulkStepRequest):
    """See the resolution of one execution's incident."""


class BulkReplayRequest(ReplayRequest, BulkRequest):
    """See the replay of one execution."""


class BulkResumePoint(ResumePoint, BulkRequest):
    """See how one execution goes on from a step."""


class MigrationOverride(Taken):
    """What is different for one execution: its `mapping` goes over the others' (`{"a": "a"}` takes an entry back)."""

    mapping: dict[str, str] = Field(default={}, max_length=1_000)


class BulkMigrateRequest(BulkRequest):
    """See the migration of one execution; a dry run asks each run for its verdict.

    `mapping` is for all of them, `overrides` for single ones, by the execution's id.
    """

    version_id: UUID
    mapping: dict[str, str] = Field(default={}, max_length=1_000)
    overrides: dict[UUID, MigrationOverride] = Field(default={}, max_length=LARGEST_BULK)

    def mapping_of(self, execution_id: UUID) -> dict[str, str]:
        """The mapping of one execution."""
        override = self.overrides.get(execution_id)
        return self.mapping if override is None else self.mapping | override.mapping

    def mapped_steps(self) -> frozenset[str]:
        """The steps that any of the mappings says something of."""
        return frozenset(self.mapping).union(*(override.mapping for override in self.overrides.values()))


class BulkResult(Given):
    """What came of one execution: a word such as DONE, APPLIED or MATCHED, or the code of a refusal.

    `replayId` is the new execution that a replay has started.
    """

    execution_id: UUID
    name: str
    ok: bool
    result: str
    message: str | None = None
    replay_id: UUID | None = None


class BulkView(Given):
    """What came of a call; `nextCursor` leads to those that match and were not reached."""

    matched: int
    done: int
    refused: int
    dry_run: bool
    results: list[BulkResult]
    next_cursor: str | None
