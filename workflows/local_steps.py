"""Steps that run as local activities: short, declared idempotent, without a trip to the server for each.

A local activity runs inside a workflow task, and its outcome is a marker that is sent when the task ends. So the task
must end soon: signals, answers and cancels wait for it, one message must hold all its markers, and a worker that dies
loses all of it. What does not fit runs as an ordinary activity, and ends the task by doing so.

Everything here is decided by the run's input, its state and the workflow's time, which a replay reads from history.
"""

import asyncio
from collections.abc import Iterable
from datetime import timedelta

from pydantic_core import to_json
from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError, FailureError

from app.contracts import LARGEST_LOCAL_INPUT, NOT_LOCAL, ActionCall, LocalRecord, summary
from engine.json_types import JSON
from engine.protocol import RunAction
from workflows.policies import action_options

# Local activities in one stretch, that is, between two ends of workflow tasks: with LARGEST_LOCAL_RECORD each, and as
# many again that began in the stretch before, they stay below the 4 MiB that the server takes in one message.
MOST_IN_STRETCH = 50

# After this a stretch gets no further local activities, so that others hear from the run.
LONGEST_STRETCH = timedelta(seconds=2)

# A longer pause before the next attempt is a timer of the workflow: it must not keep the workflow task open.
_LONGEST_PAUSE = timedelta(milliseconds=200)

_NANOSECONDS = 1_000_000_000


class Unfinished(Exception):
    """A local activity has not come to an outcome of the action, which is to run as an ordinary activity."""


class LocalSteps:
    """Which actions of a run go into local activities, and how much of the present stretch is used up."""

    def __init__(self, eligible: Iterable[str], awaited: bool) -> None:
        self._eligible = frozenset(eligible)
        self._awaited = awaited
        self._open = 0
        self._begun = 0
        self._began_at = 0
        self._ended_at = -1

    def takes(self, command: RunAction) -> bool:
        """Whether an action is to run as a local activity now."""
        if command.action_key not in self._eligible or len(to_json(command.parameters)) > LARGEST_LOCAL_INPUT:
            return False
        at = workflow.time_ns()
        # Within a workflow task, time only moves with the ends of local activities: it has moved on by itself, so a
        # new task has begun, and what ended before has been reported.
        if self._open == 0 and at > self._ended_at:
            self._begun = 0
            self._began_at = at
        late = at - self._began_at > LONGEST_STRETCH.total_seconds() * _NANOSECONDS
        return self._begun < MOST_IN_STRETCH and not late

    async def run(self, command: RunAction, call: ActionCall) -> JSON:
        """Runs the action beside the workflow; gives its output.

        Raises what an ordinary activity would raise, and `Unfinished`.
        """
        self._begun += 1
        self._open += 1
        try:
            record = await workflow.execute_local_activity(
                command.action_key,
                args=[command.parameters, call],
                result_type=LocalRecord,
                activity_id=command.key,
                summary=summary(command.step_name),
                local_retry_threshold=_LONGEST_PAUSE,
                **action_options(command, self._awaited),
            )
        except FailureError as error:
            if _is_unfinished(error):
                raise Unfinished from error
            raise
        finally:
            self._open -= 1
            self._ended_at = workflow.time_ns()
        output: JSON = record.output
        return output


def _is_unfinished(error: FailureError) -> bool:
    """Whether a local activity ended for reasons of its own: the worker lacks the action, the record was too large, or
    the SDK cancelled it because it put the run out of its cache. Only this task being cancelled is a true cancel.
    """
    # A cancelled local activity comes wrapped, as ordinary ones always do; a failed one comes as it is.
    match error.cause if isinstance(error, ActivityError) else error:
        case ApplicationError(type=code):
            return code == NOT_LOCAL
        case CancelledError():
            task = asyncio.current_task()
            return task is None or not task.cancelling()
        case _:
            return False
