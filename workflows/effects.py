"""A command → the Temporal call → the event. Every call answers with exactly one event, whatever happens to it."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from temporalio import workflow
from temporalio.common import RetryPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import FailureError

from app.contracts import (
    REGISTER_CHILDREN,
    ActionCall,
    ChildToRegister,
    ExecutionStart,
    RegisterChildren,
    RegisteredChild,
    RegisteredChildren,
    RegisteredVersion,
    keyed_summary,
    workflow_id,
)
from engine.protocol import (
    ActionDone,
    ActionFailed,
    ChildDone,
    ChildFailed,
    ChildSpec,
    Command,
    Event,
    Failure,
    OpenHumanTask,
    RunAction,
    SpawnChildren,
    StartTimer,
    TimerFired,
    Withdraw,
    Yield,
    Yielded,
)
from workflows.failures import failure_of
from workflows.policies import LOCAL, action_options, summary
from workflows.search import search_attributes

_A_MOMENT = timedelta(milliseconds=1)
_YIELD = "yield"


def now() -> int:
    """The workflow's time in milliseconds since the epoch."""
    return workflow.time_ns() // 1_000_000


class Effects:
    """What one run has under way in Temporal, by command key."""

    def __init__(self, started_with: ExecutionStart, report: Callable[[Event], None]) -> None:
        self._run = started_with
        self._report = report
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._children: set[str] = set()
        self._timers: set[str] = set()
        self._broken: BaseException | None = None
        self._definitions: dict[UUID, dict[str, Any]] = {}

    @property
    def busy(self) -> bool:
        """Whether anything is under way that the next run could not begin again from the state, as it can timers."""
        return len(self._tasks) > len(self._timers)

    @property
    def has_children(self) -> bool:
        """Whether a child is open: children do not survive their parent's continue-as-new."""
        return bool(self._children)

    @property
    def broken(self) -> bool:
        """Whether something broke in the background."""
        return self._broken is not None

    def check(self) -> None:
        """Raises what broke in the background: a bug of ours, which must fail the workflow task, not hide."""
        if self._broken is not None:
            raise self._broken

    def perform(self, command: Command) -> None:
        """Starts what the command asks for."""
        match command:
            case RunAction():
                self._begin(command.key, self._run_action(command))
            case StartTimer():
                self._timers.add(command.key)
                self._begin(command.key, self._run_timer(command))
            case SpawnChildren():
                self._spawn(command)
            case Withdraw(keys):
                for key in keys:
                    self._stop(key)
            case Yield():
                self._timers.add(_YIELD)
                self._begin(_YIELD, self._yield())
            case OpenHumanTask():
                pass  # the state remembers it; nothing in Temporal waits
            case _:
                raise AssertionError(f"{command} ends the run and has no effect of its own")

    def _begin(self, key: str, work: Coroutine[Any, Any, Event | None]) -> None:
        task = asyncio.create_task(self._answer(key, work), name=key)
        task.add_done_callback(self._look_at)
        self._tasks[key] = task

    def _stop(self, key: str) -> None:
        """Cancels what runs under a key, after its first step: a task cancelled before that would never answer."""
        task = self._tasks.get(key)
        if task is not None:
            asyncio.get_running_loop().call_soon(task.cancel)

    async def _answer(self, key: str, work: Coroutine[Any, Any, Event | None]) -> None:
        event = await work
        if self._tasks.get(key) is asyncio.current_task():
            del self._tasks[key]
            self._children.discard(key)
            self._timers.discard(key)
        if event is not None:
            self._report(event)

    def _look_at(self, task: asyncio.Task[None]) -> None:
        """Keeps what escaped from a background task: the run would wait for its answer for ever."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken = error

    async def _run_action(self, command: RunAction) -> Event:
        call = ActionCall(
            idempotency_key=f"{self._run.execution_id}/{command.key}",
            execution_id=self._run.execution_id,
            template=self._run.template,
            step_id=command.step_id,
            retry=command.retry,
        )
        try:
            output = await workflow.execute_activity(
                command.action_key,
                args=[command.parameters, call],
                activity_id=command.key,
                summary=summary(command.step_name),
                **action_options(command),
            )
        except (FailureError, asyncio.CancelledError) as error:
            return ActionFailed(command.key, now(), failure_of(error, command.step_id))
        return ActionDone(command.key, now(), output)

    async def _run_timer(self, command: StartTimer) -> Event | None:
        left = max(command.due - now(), 1)
        try:
            await workflow.sleep(timedelta(milliseconds=left), summary=keyed_summary(command.summary, command.key))
        except asyncio.CancelledError:
            return None
        return TimerFired(command.key, now())

    async def _yield(self) -> Event:
        await workflow.sleep(_A_MOMENT, summary="many steps")
        return Yielded(now())

    def _spawn(self, command: SpawnChildren) -> None:
        registered = asyncio.create_task(self._register(command), name=f"{command.key}/register")
        for child in command.children:
            self._children.add(child.key)
            self._begin(child.key, self._run_child(command, child, registered))

    async def _register(self, command: SpawnChildren) -> RegisteredChildren:
        request = RegisterChildren(
            parent_id=self._run.execution_id,
            root_id=self._run.root_id,
            step_id=command.step_id,
            attempt=command.attempt,
            version_ref=command.version_ref,
            template_ref=command.template_ref,
            children=[
                ChildToRegister(key=child.key, context=child.context, name=child.name) for child in command.children
            ],
            known_versions=list(self._definitions),
        )
        answer: RegisteredChildren = await workflow.execute_local_activity(
            REGISTER_CHILDREN,
            request,
            result_type=RegisteredChildren,
            activity_id=f"{command.key}/register/{command.attempt}",
            **LOCAL,
        )
        for version in answer.versions:
            if version.definition is not None:
                self._definitions[version.version_id] = version.definition
        return answer

    async def _run_child(
        self, command: SpawnChildren, child: ChildSpec, registered: "asyncio.Task[RegisteredChildren]"
    ) -> Event:
        try:
            answer = await asyncio.shield(registered)
            row = next(row for row in answer.children if row.key == child.key)
            if row.code is not None:
                failure = Failure(row.code, row.message or row.code, command.step_id, retryable=False)
                return ChildFailed(child.key, now(), failure)
            version = next(item for item in answer.versions if item.version_id == row.version_id)
            output = await self._execute_child(command, child, row, version)
        except (FailureError, asyncio.CancelledError) as error:
            failure = failure_of(error, command.step_id)
            whose = child.name or command.step_name
            return ChildFailed(child.key, now(), replace(failure, message=f"child {whose}: {failure.message}"))
        return ChildDone(child.key, now(), output)

    async def _execute_child(
        self, command: SpawnChildren, child: ChildSpec, row: RegisteredChild, version: RegisteredVersion
    ) -> Any:
        start = ExecutionStart(
            execution_id=row.execution_id,
            name=row.name,
            root_id=self._run.root_id,
            parent_id=self._run.execution_id,
            template_id=version.template_id,
            template=version.template,
            version_id=version.version_id,
            version=version.version,
            context=child.context,
            depth=self._run.depth + 1,
            has_search_attributes=self._run.has_search_attributes,
        )
        return await workflow.execute_child_workflow(
            version.template,
            args=[start, self._definitions[version.version_id]],
            id=workflow_id(row.execution_id),
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            parent_close_policy=workflow.ParentClosePolicy.REQUEST_CANCEL,
            cancellation_type=workflow.ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
            retry_policy=RetryPolicy(maximum_attempts=1),
            static_summary=keyed_summary(
                f"{row.name} · {version.template_name} v{version.version} · {command.step_name}", child.key
            ),
            search_attributes=search_attributes(start),
        )
