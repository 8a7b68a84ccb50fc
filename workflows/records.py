"""What others must be able to list or to find: open human tasks, incidents and waits for signals under a correlation
key, in rows, in the order of what happened.

The run does not wait for them: it goes on while they are written, and ends only when they are.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import assert_never

from temporalio import workflow
from temporalio.exceptions import FailureError

from app.contracts import (
    LONGEST_CORRELATION_KEY,
    LONGEST_SIGNAL,
    RECORD_STEPS,
    ExecutionStart,
    IncidentRecord,
    RecordSteps,
    TaskRecord,
    WaitRecord,
    readable,
)
from engine.draft import iso
from engine.keys import Key
from engine.protocol import (
    CloseHumanTask,
    CloseIncident,
    CloseWait,
    OpenHumanTask,
    OpenIncident,
    OpenWait,
    ReassignHumanTask,
)
from workflows.policies import BRIEFLY, INSISTING, ROW
from workflows.revisions import INSISTS, RECORDS_STEPS, RECORDS_WAITS

Recorded = OpenHumanTask | CloseHumanTask | ReassignHumanTask | OpenIncident | CloseIncident | OpenWait | CloseWait
Record = TaskRecord | IncidentRecord | WaitRecord

_LONGEST_END = timedelta(minutes=1)


class StepRecords:
    """The rows of one run that are still to be written, and the one activity at a time that writes them."""

    def __init__(self, started_with: ExecutionStart, look_at: Callable[[asyncio.Task[None]], None]) -> None:
        self._run = started_with
        self._look_at = look_at
        self._pending: list[Record] = []
        # Where very many rows were written at once, the run before this one is ahead of the clock.
        self._latest = started_with.recorded_until
        self._writing: asyncio.Task[None] | None = None
        self._insisting = False

    @property
    def busy(self) -> bool:
        """Whether something is still to be written."""
        return bool(self._pending) or self._writing is not None

    @property
    def latest(self) -> int:
        """The time of the last row, in milliseconds since the epoch; those of the next run must be later."""
        return self._latest

    def note(self, command: Recorded, at: int) -> None:
        """Writes a row as soon as those before it are written; `at` is in milliseconds since the epoch."""
        if not self._records(command):
            return
        # Later than the last one: of two records of one moment the second counts.
        self._latest = max(at, self._latest + 1)
        self._pending.append(_record(command, iso(self._latest)))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="records")
            self._writing.add_done_callback(self._look_at)

    def _records(self, command: Recorded) -> bool:
        if isinstance(command, OpenWait):
            short = len(command.signal) <= LONGEST_SIGNAL and len(command.correlation_key) <= LONGEST_CORRELATION_KEY
            return short and self._run.engine_revision >= RECORDS_WAITS
        since = RECORDS_WAITS if isinstance(command, CloseWait) else RECORDS_STEPS
        return self._run.engine_revision >= since

    async def written(self) -> None:
        """Waits until everything is written, also when the run is cancelled meanwhile.

        While Postgres is away it waits a minute: then the reconciler closes what is open in the rows of an execution
        that has ended. How a task was completed is known to the run alone then, as its steps show.
        """
        await self._until(lambda: self._is_over() or self._insisting)
        if self._writing is None:
            return
        patience = asyncio.create_task(workflow.sleep(_LONGEST_END, summary="rows of steps"))
        await self._until(lambda: self._is_over() or patience.done())
        if self._writing is not None:
            workflow.logger.warning("steps_left_unrecorded", extra={"writes": len(self._pending) + 1})
        patience.cancel()

    def _is_over(self) -> bool:
        """Whether nothing is being written, because all is or because something broke."""
        return self._writing is None or self._writing.done()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            try:
                await workflow.wait_condition(condition)
            except asyncio.CancelledError:
                continue
        if self._writing is not None and self._writing.done():
            # A bug of ours: it must fail the workflow task, and not be waited for without end.
            self._writing.result()

    async def _write(self) -> None:
        # What happens in one activation is one write.
        await asyncio.sleep(0)
        while self._pending:
            pending, self._pending = self._pending, []
            request = RecordSteps(
                execution_id=self._run.execution_id,
                tasks=[record for record in pending if isinstance(record, TaskRecord)],
                incidents=[record for record in pending if isinstance(record, IncidentRecord)],
                waits=[record for record in pending if isinstance(record, WaitRecord)],
            )
            try:
                await self._record(request)
            except FailureError as error:
                workflow.logger.warning("steps_not_recorded", extra={"cause": str(error.cause or error)})
        self._writing = None

    async def _record(self, request: RecordSteps) -> None:
        """Writes rows, however long that takes: what Postgres does not take now, an ordinary activity is tried with
        until it does, which costs no events. Runs of earlier revisions give up after a minute.
        """
        if self._run.engine_revision < INSISTS:
            await workflow.execute_local_activity(RECORD_STEPS, request, **ROW)
            return
        try:
            await workflow.execute_local_activity(RECORD_STEPS, request, **BRIEFLY)
        except FailureError:
            self._insisting = True
            await workflow.execute_activity(RECORD_STEPS, request, summary="rows of steps", **INSISTING)
        finally:
            self._insisting = False


def _record(command: Recorded, at: str) -> Record:
    if isinstance(command, OpenWait):
        return WaitRecord(key=command.key, at=at, signal=command.signal, correlation_key=command.correlation_key)
    if isinstance(command, CloseWait):
        return WaitRecord(key=command.key, at=at)
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
