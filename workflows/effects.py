"""A command → the Temporal call → the event. Every call answers with exactly one event, whatever happens to it."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import FailureError

from app.contracts import (
    BATCH_WORKFLOW,
    REGISTER_CHILDREN,
    SUSPENDED,
    ActionCall,
    ChildOrder,
    ChildReport,
    ChildToRegister,
    ExecutionStart,
    OpenChild,
    RegisterChildren,
    RegisteredChild,
    RegisteredChildren,
    RegisteredVersion,
    batch_workflow_id,
    keyed_summary,
    summary,
    workflow_id,
)
from engine.events import (
    ActionDone,
    ActionFailed,
    ActionSuspended,
    ChildFailed,
    Event,
    TimerFired,
    Yielded,
)
from engine.protocol import (
    ChildSpec,
    Command,
    Failure,
    RunAction,
    SpawnBatch,
    SpawnChildren,
    StartTimer,
    TellChildren,
    Withdraw,
    Yield,
)
from workflows.definitions import stored_definition
from workflows.descendants import cancel_child, child_done, outcome_of, tell_child
from workflows.failures import failure_of
from workflows.local_steps import LocalSteps, Unfinished
from workflows.moment import now
from workflows.policies import LOCAL, action_options, heartbeat_timeout
from workflows.records import Recorded, StepRecords
from workflows.revisions import AWAITS, REPORTS, SURVIVES
from workflows.search import search_attributes

_A_MOMENT = timedelta(milliseconds=1)
_YIELD = "yield"
_RECORDS = "records"


class Effects:
    """What one run has under way in Temporal, by command key."""

    def __init__(self, started_with: ExecutionStart, definition: RawValue, report: Callable[[Event], None]) -> None:
        self._run = started_with
        self._definition = definition
        self._report = report
        self._local = LocalSteps(started_with.local_actions, self._awaits)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._children: set[str] = set()
        self._timers: set[str] = set()
        self._broken: BaseException | None = None
        self._open_children: dict[str, OpenChild] = {}
        self._adopted: set[str] = set()
        self._untold: dict[str, list[ChildOrder]] = {}
        self.records = StepRecords(started_with, self._look_at)
        self._definitions: dict[UUID, RawValue | dict[str, Any]] = {}

    @property
    def _awaits(self) -> bool:
        return self._run.engine_revision >= AWAITS

    @property
    def busy(self) -> bool:
        """Whether anything is under way that the next run could not begin again from the state, as it can timers, or
        hear of again, as of children that have started.
        """
        return len(self._tasks) > len(self._timers) + len(self._open_children) or self.records.busy

    def under_way(self) -> set[str]:
        """The keys of what makes the run `busy`."""
        keys = set(self._tasks) - self._timers - set(self._open_children)
        return keys | {_RECORDS} if self.records.busy else keys

    @property
    def has_children(self) -> bool:
        """Whether a child is open whose end Temporal will tell this run of, but not the next: that had better wait."""
        return len(self._children) > len(self._adopted)

    @property
    def open_children(self) -> dict[str, OpenChild]:
        """The children that have started and not ended, by command key."""
        return dict(self._open_children)

    def adopt(self, children: Mapping[str, OpenChild]) -> None:
        """Asks after the children of the run before this one until they have ended."""
        for key, child in children.items():
            self._children.add(key)
            self._adopted.add(key)
            self._open_children[key] = child
            self._begin(key, outcome_of(key, child))

    @property
    def broken(self) -> bool:
        """Whether something broke in the background."""
        return self._broken is not None

    def use(self, started_with: ExecutionStart, definition: RawValue) -> None:
        """From here on the run is one of another version."""
        self._run = started_with
        self._definition = definition

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
            case _ if isinstance(command, Recorded):
                # The state remembers them; nothing in Temporal waits.
                self.records.note(command, now())
            case SpawnBatch():
                self._children.add(command.key)
                self._begin(command.key, self._run_batch(command))
            case TellChildren():
                self._tell(command)
            case _:
                raise AssertionError(f"{command} ends the run and has no effect of its own")

    def _begin(self, key: str, work: Coroutine[Any, Any, Event | None]) -> None:
        task = asyncio.create_task(self._answer(key, work), name=key)
        task.add_done_callback(self._look_at)
        self._tasks[key] = task

    def _stop(self, key: str) -> None:
        """Cancels what runs under a key, after its first step: a task cancelled before that would never answer.

        A child that is being told not to undo anything is cancelled when it knows: the server keeps no order.
        """
        task = self._tasks.get(key)
        telling = self._tasks.get(f"{key}/tell/LEAVE_DONE")
        if telling is not None:
            telling.add_done_callback(lambda _: self._stop(key))
            return
        if key in self._adopted:
            self._aside(f"{key}/cancel", cancel_child(self._open_children[key]))
        elif task is not None:
            asyncio.get_running_loop().call_soon(task.cancel)

    async def _answer(self, key: str, work: Coroutine[Any, Any, Event | None]) -> None:
        event = await work
        if self._tasks.get(key) is asyncio.current_task():
            del self._tasks[key]
            self._children.discard(key)
            self._adopted.discard(key)
            self._open_children.pop(key, None)
            self._untold.pop(key, None)
            self._timers.discard(key)
        if event is not None:
            self._report(event)

    def _look_at(self, task: asyncio.Task[None]) -> None:
        """Keeps what escaped from a background task: the run would wait for its answer for ever."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken = error

    async def _run_action(self, command: RunAction) -> Event:
        call = ActionCall(
            idempotency_key=command.idempotency_key,
            execution_id=self._run.execution_id,
            template=self._run.template,
            step_id=command.step_id,
            retry=command.retry,
            resumed=None if command.resumed is None else (command.resumed.suspended, command.resumed.data),
        )
        try:
            output = await self._call_action(command, call)
        except (FailureError, asyncio.CancelledError) as error:
            return ActionFailed(command.key, now(), failure_of(error, command.step_id))
        if isinstance(output, dict) and output.keys() == {SUSPENDED}:
            return ActionSuspended(command.key, now(), output[SUSPENDED])
        return ActionDone(command.key, now(), output)

    async def _call_action(self, command: RunAction, call: ActionCall) -> Any:
        if self._local.takes(command):
            try:
                return await self._local.run(command, call)
            except Unfinished:
                task = asyncio.current_task()
                if self._awaits and task is not None and task.cancelling():
                    # It was to be done over below, but has been withdrawn meanwhile.
                    raise asyncio.CancelledError from None
        return await workflow.execute_activity(
            command.action_key,
            args=[command.parameters, call],
            activity_id=command.key,
            summary=summary(command.step_name),
            heartbeat_timeout=heartbeat_timeout(command.action_key, self._awaits, self._run.long_actions),
            **action_options(command, self._awaits, self._run.long_actions),
        )

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
            detached=not command.wait,
        )
        answer: RegisteredChildren = await workflow.execute_local_activity(
            REGISTER_CHILDREN,
            request,
            result_type=RegisteredChildren,
            activity_id=f"{command.key}/register/{command.attempt}",
            **LOCAL,
        )
        for version in answer.versions:
            if version.definition_sha256 is not None:
                self._definitions[version.version_id] = stored_definition(version.definition_sha256)
            elif version.definition is not None:
                # An answer recorded before definitions were kept outside history.
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
        return child_done(child.key, output, now())

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
            engine_revision=self._run.engine_revision,
            reports=command.wait and self._run.engine_revision >= REPORTS,
            detached=not command.wait,
            local_actions=self._run.local_actions,
            long_actions=self._run.long_actions,
        )
        handle = await workflow.start_child_workflow(
            version.template,
            args=[start, self._definitions[version.version_id]],
            id=workflow_id(row.execution_id),
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            parent_close_policy=self._close_policy(command.wait),
            cancellation_type=workflow.ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
            retry_policy=RetryPolicy(maximum_attempts=1),
            static_summary=keyed_summary(
                f"{row.name} · {version.template_name} v{version.version} · {command.step_name}", child.key
            ),
            search_attributes=search_attributes(start),
        )
        if not command.wait:
            return {"executionId": str(row.execution_id)}
        self._note_child(child.key, handle, row.name, command.step_id, start.reports)
        output = await handle
        return ChildReport.model_validate(output) if start.reports else output

    async def _run_batch(self, command: SpawnBatch) -> Event:
        """The run of a chunk of items; it begins with a state and answers like a child."""
        start = self._run.model_copy(
            update={
                "state": command.state,
                "inbox": [],
                "context": {},
                "children": {},
                "batch": True,
                "reports": True,
                "recorded_until": 0,
            }
        )
        name = f"{command.step_name} {command.place}"
        try:
            handle = await workflow.start_child_workflow(
                BATCH_WORKFLOW,
                args=[start, self._definition],
                id=batch_workflow_id(self._run.execution_id, command.key),
                parent_close_policy=self._close_policy(wait=True),
                cancellation_type=workflow.ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
                retry_policy=RetryPolicy(maximum_attempts=1),
                static_summary=summary(name),
            )
            self._note_child(command.key, handle, name, command.step_id, reports=True)
            output = ChildReport.model_validate(await handle)
        except (FailureError, asyncio.CancelledError) as error:
            return ChildFailed(command.key, now(), failure_of(error, command.step_id))
        return child_done(command.key, output, now())

    def _note_child(
        self, key: str, handle: workflow.ChildWorkflowHandle[Any, Any], name: str, step_id: str, reports: bool
    ) -> None:
        if self._run.engine_revision >= SURVIVES:
            self._open_children[key] = OpenChild(workflow_id=handle.id, name=name, step_id=step_id, reports=reports)
            for order in self._untold.pop(key, ()):
                self._send(key, order)

    def _close_policy(self, wait: bool) -> workflow.ParentClosePolicy:
        """A child that nobody waits for, or that must survive its parent's continue-as-new, is not ended with it."""
        if wait and self._run.engine_revision < SURVIVES:
            return workflow.ParentClosePolicy.REQUEST_CANCEL
        return workflow.ParentClosePolicy.ABANDON

    def _tell(self, command: TellChildren) -> None:
        """Passes on what children must know; those that have not started yet are told as soon as they have."""
        for key in command.keys:
            order = ChildOrder.model_validate({"what": command.what, "actor": command.actor})
            if key in self._open_children:
                self._send(key, order)
            elif key in self._children:
                self._untold.setdefault(key, []).append(order)

    def _send(self, key: str, order: ChildOrder) -> None:
        self._aside(f"{key}/tell/{order.what}", tell_child(self._open_children[key], order))

    def _aside(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        """Something of which nobody waits for the end, but of which the run waits to be over before it leaves."""
        self._begin(key, work)
