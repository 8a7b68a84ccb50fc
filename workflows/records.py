"""What other people must be able to list: open human tasks and incidents, in rows, in the order of what happened.

The run does not wait for them: it goes on while they are written, and ends only when they are.
"""

import asyncio
from collections.abc import Callable
from typing import assert_never

from temporalio import workflow
from temporalio.exceptions import FailureError

from app.contracts import (
    RECORD_STEPS,
    RECORDS_STEPS,
    ExecutionStart,
    IncidentRecord,
    RecordSteps,
    TaskRecord,
    readable,
)
from engine.draft import iso
from engine.keys import Key
from engine.protocol import CloseHumanTask, CloseIncident, OpenHumanTask, OpenIncident, ReassignHumanTask
from workflows.policies import ROW

Recorded = OpenHumanTask | CloseHumanTask | ReassignHumanTask | OpenIncident | CloseIncident


class StepRecords:
    """The rows of one run that are still to be written, and the one activity at a time that writes them."""

    def __init__(self, started_with: ExecutionStart, look_at: Callable[[asyncio.Task[None]], None]) -> None:
        self._run = started_with
        self._look_at = look_at
        self._pending: list[TaskRecord | IncidentRecord] = []
        self._latest = 0
        self._writing: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether something is still to be written."""
        return bool(self._pending) or self._writing is not None

    def note(self, command: Recorded, at: int) -> None:
        """Writes a row as soon as those before it are written; `at` is in milliseconds since the epoch."""
        if self._run.engine_revision < RECORDS_STEPS:
            return
        # Later than the last one: of two records of one moment the second counts.
        self._latest = max(at, self._latest + 1)
        self._pending.append(_record(command, iso(self._latest)))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="records")
            self._writing.add_done_callback(self._look_at)

    async def written(self) -> None:
        """Waits until everything is written, also when the run is cancelled meanwhile."""
        while self._writing is not None:
            try:
                await asyncio.shield(self._writing)
            except asyncio.CancelledError:
                continue

    async def _write(self) -> None:
        # What happens in one activation is one write.
        await asyncio.sleep(0)
        while self._pending:
            pending, self._pending = self._pending, []
            request = RecordSteps(
                execution_id=self._run.execution_id,
                tasks=[record for record in pending if isinstance(record, TaskRecord)],
                incidents=[record for record in pending if isinstance(record, IncidentRecord)],
            )
            try:
                await workflow.execute_local_activity(RECORD_STEPS, request, **ROW)
            except FailureError as error:
                workflow.logger.warning("steps_not_recorded", extra={"cause": str(error.cause or error)})
        self._writing = None


def _record(command: Recorded, at: str) -> TaskRecord | IncidentRecord:
    key = Key.parse(command.key)
    place = {"key": command.key, "stepId": key.step_id, "visit": key.visit, "item": key.item, "at": at}
    match command:
        case OpenHumanTask():
            form = {"form": command.form, "url": command.url, "documents": command.documents}
            return TaskRecord.model_validate(
                {
                    **place,
                    "status": "OPEN",
                    "name": command.step_name,
                    "type": command.type,
                    "assignee": None if command.assignee is None else str(command.assignee),
                    "candidateGroups": list(command.candidate_groups),
                    "dueAt": None if command.due is None else iso(command.due),
                    "form": {
                        "outcomes": list(command.outcomes),
                        **{name: value for name, value in form.items() if value is not None},
                    },
                }
            )
        case CloseHumanTask():
            return TaskRecord.model_validate({**place, "status": command.status, "outcome": command.outcome})
        case ReassignHumanTask():
            assignee = None if command.assignee is None else str(command.assignee)
            groups = list(command.candidate_groups)
            return TaskRecord.model_validate(
                {**place, "status": "OPEN", "assignee": assignee, "candidateGroups": groups}
            )
        case OpenIncident(failure=failure):
            return IncidentRecord.model_validate({**place, "code": failure.code, "message": readable(failure.message)})
        case CloseIncident():
            return IncidentRecord.model_validate({**place, "resolution": command.resolution, "actor": command.actor})
        case _:
            assert_never(command)
