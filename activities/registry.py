"""Actions as Temporal activities: validated, translated, and refused at start-up when two share a key."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json, to_json
from structlog.contextvars import bound_contextvars
from temporalio import activity
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from app.contracts import LARGEST_LOCAL_RECORD, NOT_LOCAL, SUSPENDED, ActionCall, LocalRecord, readable
from app.errors import AppError
from engine.retry import pause_after
from millrace.actions import Action, ActionFailure, Call, Resumed, Suspend

Activity = Callable[..., Any]

# Bytes. What is large is kept outside history, but every later step may read it again, in memory and whole.
LARGEST_RESULT = 16 * 1024 * 1024

# Seconds from the beginning of an attempt to its first sign of life, and from one to the next. A sign is a call of the
# server; a withdrawal is heard of with the next one.
FIRST_BEAT = 2.0
BEAT = 4.0


class RegistryError(AppError):
    """The worker's actions do not fit together; it must not start."""

    def __init__(self, message: str) -> None:
        super().__init__("ACTIONS_INVALID", 500, message)


def load_actions(modules: Iterable[str]) -> list[Action]:
    """The actions that these modules hold, found in the working folder or wherever Python looks.

    Raises `RegistryError` for a module that cannot be imported or holds none.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    found: list[Action] = []
    for name in modules:
        try:
            module = import_module(name)
        except ImportError as error:
            raise RegistryError(f"the module {name} cannot be imported: {error}") from error
        actions = [entry for entry in vars(module).values() if isinstance(entry, Action)]
        if not actions:
            raise RegistryError(f"the module {name} holds no @action")
        found.extend(actions)
    return found


def action_activities(actions: Iterable[Action]) -> list[Activity]:
    """One activity for each action, named by its key. Raises `RegistryError` for a key that is there twice."""
    by_key: dict[str, Action] = {}
    for entry in actions:
        if entry.key in by_key:
            raise RegistryError(f"two actions have the key {entry.key}")
        by_key[entry.key] = entry
    return [_activity(entry) for entry in by_key.values()]


def check_activities(activities: Sequence[Activity], names: Iterable[str]) -> None:
    """Raises `RegistryError` unless the activities are exactly those that workflows name."""
    bound = {_name(entry) for entry in activities}
    expected = set(names)
    if bound != expected:
        raise RegistryError(f"missing: {sorted(expected - bound)}, unknown: {sorted(bound - expected)}")


def _name(entry: Activity) -> str:
    definition = activity._Definition.from_callable(entry)
    if definition is None or definition.name is None:
        raise RegistryError(f"{entry} is not an activity")
    return definition.name


def _activity(entry: Action) -> Activity:
    @activity.defn(name=entry.key)
    async def run(parameters: Any, call: ActionCall) -> Any:
        info = activity.info()
        keys = {
            "execution": str(call.execution_id),
            "template": call.template,
            "step": call.step_id,
            "attempt": info.attempt,
        }
        with bound_contextvars(**keys):
            if info.is_local:
                return await _attempt_locally(entry, parameters, call, info.attempt)
            if entry.long:
                return await _attempt(entry, parameters, call, info.attempt, activity.heartbeat)
            async with beating():
                return await _attempt(entry, parameters, call, info.attempt, activity.heartbeat)

    return run


@asynccontextmanager
async def beating() -> AsyncIterator[None]:
    """Says of an attempt that it is alive, and so hears of its withdrawal: the action gets `asyncio.CancelledError`.

    One that is over before the first sign costs nothing more. Actions that are long give the signs themselves.
    """
    signs = asyncio.create_task(_beat())
    try:
        yield
    finally:
        signs.cancel()


async def _beat() -> None:
    await asyncio.sleep(FIRST_BEAT)
    while True:
        activity.heartbeat()
        await asyncio.sleep(BEAT)


async def _attempt_locally(entry: Action, parameters: Any, call: ActionCall, attempt: int) -> LocalRecord:
    """An attempt whose input is kept with how it ended: nothing else in history would show it."""
    try:
        output = await _attempt(entry, parameters, call, attempt)
    except ApplicationError as error:
        raise ApplicationError(
            error.message,
            {"attempts": attempt, "input": parameters},
            type=error.type,
            non_retryable=error.non_retryable,
            next_retry_delay=error.next_retry_delay,
        ) from error.__cause__
    record = LocalRecord(input=parameters, output=output)
    size = len(record.model_dump_json())
    if size > LARGEST_LOCAL_RECORD:
        raise ApplicationError(f"input and output have {size} bytes", type=NOT_LOCAL, non_retryable=True)
    return record


async def _attempt(
    entry: Action, parameters: Any, call: ActionCall, attempt: int, beat: Callable[..., None] | None = None
) -> Any:
    try:
        accepted = entry.parameters.model_validate(parameters if parameters is not None else {})
    except ValidationError as error:
        raise _refused(error, attempt) from None
    resumed = None if call.resumed is None else Resumed(*call.resumed)
    described = Call(call.idempotency_key, str(call.execution_id), call.template, call.step_id, attempt, resumed)
    if beat is not None:
        described = replace(described, beat=beat)
    try:
        output = await entry.run(accepted, described)
    except ActionFailure as failure:
        raise ApplicationError(
            readable(failure.message),
            {"attempts": attempt},
            type=failure.code,
            non_retryable=not failure.retryable,
            next_retry_delay=_next_pause(call, attempt),
        ) from None
    except Exception as error:  # an edge: whatever an author's code raises becomes one coded failure
        raise ApplicationError(
            readable(f"{type(error).__name__}: {error}"),
            {"attempts": attempt},
            type="ACTION_FAILED",
            next_retry_delay=_next_pause(call, attempt),
        ) from error
    if isinstance(output, Suspend):
        return {SUSPENDED: _result(output.data, attempt)}
    return _result(output, attempt)


def _result(output: Any, attempt: int) -> Any:
    """An action's output as JSON. What is none, or is too large, fails the step once and for all."""
    try:
        written = to_json(output, by_alias=True, inf_nan_mode="constants")
        result = from_json(written, allow_inf_nan=False)
    except ValueError as error:
        reason = readable(f"the action's result is not JSON: {error}")
        raise ApplicationError(
            reason, {"attempts": attempt}, type="ACTION_RESULT_INVALID", non_retryable=True
        ) from None
    if len(written) > LARGEST_RESULT:
        reason = f"the action's result has {len(written)} bytes; a step may give {LARGEST_RESULT}"
        raise ApplicationError(reason, {"attempts": attempt}, type="ACTION_RESULT_TOO_LARGE", non_retryable=True)
    return result


@activity.defn(dynamic=True)
async def unknown_action(arguments: Sequence[RawValue]) -> None:
    """What runs for an action that this worker does not have; another worker of the task queue may have it."""
    info = activity.info()
    message = f"this worker has no action {info.activity_type}"
    if info.is_local:
        # A local activity never leaves this worker; an ordinary one finds the worker that has the action.
        raise ApplicationError(message, type=NOT_LOCAL, non_retryable=True)
    raise ApplicationError(message, {"attempts": info.attempt}, type="ACTION_NOT_REGISTERED")


def _refused(error: ValidationError, attempt: int) -> ApplicationError:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    reasons = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found[:5])
    return ApplicationError(reasons, {"attempts": attempt}, type="ACTION_PARAMETERS_INVALID", non_retryable=True)


def _next_pause(call: ActionCall, attempt: int) -> timedelta | None:
    """The pause that Temporal's own policy cannot express: linear backoff, or jitter."""
    if call.retry.backoff != "linear" and not call.retry.jitter:
        return None
    return timedelta(seconds=pause_after(call.retry, attempt, call.idempotency_key))
