"""A hand-written outside world for the interpreter: it keeps what was asked for and answers when it is told to."""

import json
from dataclasses import replace
from typing import Any

from engine.compile import compile_document
from engine.draft import Step
from engine.events import (
    ActionDone,
    ActionFailed,
    ActionSuspended,
    CancelRequested,
    ChildDone,
    ChildFailed,
    Event,
    HumanCompleted,
    IncidentResolved,
    PauseRequested,
    ResumeRequested,
    SignalReceived,
    StepResumed,
    TimerFired,
    TimerSkipped,
    Yielded,
)
from engine.holding import COUNTS_RESULTS, size_of
from engine.interpreter import advance, resume, start
from engine.keys import DATA, Key
from engine.plan import HumanNode, Plan
from engine.protocol import (
    Cancel,
    CloseHumanTask,
    CloseIncident,
    CloseWait,
    Command,
    Complete,
    Fail,
    Failure,
    OpenHumanTask,
    OpenIncident,
    OpenWait,
    ReassignHumanTask,
    RunAction,
    RunInput,
    SpawnBatch,
    SpawnChildren,
    StartTimer,
    TellChildren,
    Withdraw,
    Yield,
)
from engine.state import Stage, State
from engine.state_json import state_from_json, state_to_json
from engine.withdrawal import command_key

BEGAN = 1_700_000_000_000


def run_input(context: dict[str, Any] | None = None, **fields: Any) -> RunInput:
    """A root execution, started at BEGAN."""
    given: dict[str, Any] = {
        "execution_id": "00000000-0000-7000-8000-000000000001",
        "name": "a run",
        "root_id": "00000000-0000-7000-8000-000000000001",
        "parent_id": None,
        "template_id": "00000000-0000-7000-8000-000000000002",
        "template": "template",
        "version_id": "00000000-0000-7000-8000-000000000003",
        "version": "1.0.0",
        "context": context or {},
        "trigger": None,
        "at": BEGAN,
        "revision": COUNTS_RESULTS,
        **fields,
    }
    return RunInput(**given)


# What a run that has ended has none of.
TRANSIENT = (
    "ready", "todo", "arrived", "filled", "regions", "work", "fans", "leaving", "timers", "waiting", "running", "gated",
    "guarded", "locks",
)  # fmt: skip


def left_behind(state: State) -> dict[str, Any]:
    """What a state holds of a run that still goes on."""
    return {name: getattr(state, name) for name in TRANSIENT if getattr(state, name)}


def is_read(key: str) -> bool:
    """Whether a key is that of reading a datasource."""
    return (Key.parse(key).role or "").startswith(DATA)


# What may not be begun while a run is paused.
NEW_WORK = (RunAction, SpawnBatch, SpawnChildren, OpenHumanTask, OpenWait, StartTimer)


class World:
    """One run. `open` are the commands not yet answered, by key; `history` every event given.

    After each event the state and what is open outside must agree, whatever the test is about.
    """

    def __init__(
        self,
        document: dict[str, Any],
        context: dict[str, Any] | None = None,
        **run: Any,
    ) -> None:
        self.plan: Plan = compile_document(document)
        self.open: dict[str, Command] = {}
        self.history: list[Event] = []
        self.ended: Complete | Fail | Cancel | None = None
        self.withdrawn: set[str] = set()
        self.at = BEGAN
        self.commands: list[Command] = []
        self.keyed: dict[str, tuple[str, ...]] = {}
        self._take(start(self.plan, run_input(context, **run)))

    def _take(self, step: Step) -> None:
        self.state: State = step.state
        if step.state.paused:
            assert not [command for command in step.commands if isinstance(command, NEW_WORK)], "new work while paused"
        self.commands.extend(step.commands)
        for command in step.commands:
            assert self.ended is None, "a command after the end"
            self._note(command)
        self._agree()

    def _note(self, command: Command) -> None:
        match command:
            case SpawnChildren(children=children):
                self.open.update({child.key: command for child in children})
            case (
                RunAction(key=key)
                | SpawnBatch(key=key)
                | StartTimer(key=key)
                | OpenHumanTask(key=key)
                | OpenIncident(key=key)
            ):
                assert key not in self.open, f"{key} is open already"
                self.open[key] = command
            case CloseHumanTask(key=key) | CloseIncident(key=key):
                self.open.pop(key, None)
            case OpenWait() | CloseWait():
                self._note_wait(command)
            case ReassignHumanTask() | TellChildren():
                pass
            case Yield():
                self.open["yield"] = command
            case Withdraw(keys):
                self._withdraw(keys)
            case Complete() | Fail() | Cancel():
                self.ended = command

    def _note_wait(self, command: OpenWait | CloseWait) -> None:
        if isinstance(command, CloseWait):
            del self.keyed[command.key]
            return
        assert command.key not in self.keyed, f"{command.key} waits already"
        self.keyed[command.key] = (command.signal, command.correlation_key)

    def _agree(self) -> None:
        """What the state believes to be open outside is open, and the other way round."""
        state = self.state
        actions = [key for key in self.keys(RunAction) if not is_read(key)]
        assert state.running == len(actions), (state.running, actions)
        assert self.keys(StartTimer) == sorted(state.timers)
        assert set(state.leaving) <= self.withdrawn
        parked = [key for key, work in state.work.items() if work.stage is Stage.INCIDENT]
        assert self.keys(OpenIncident) == sorted(parked)
        asked = [key for key, work in state.work.items() if work.stage is Stage.RUNNING and self._is_human(key)]
        assert self.keys(OpenHumanTask) == sorted(asked)
        assert self.keyed == {key: wanted for key, wanted in self.waits().items() if len(wanted) > 1}
        self._count()
        if self.ended is not None:
            assert not self.keyed
            assert not left_behind(state)
            assert not self.open, self.open

    def _count(self) -> None:
        """The bytes that the state says its results have are those that they have."""
        state = self.state
        if state.run.revision < COUNTS_RESULTS:
            return
        fans, work = list(state.fans.values()), list(state.work.values())
        if state.lost is not None:
            fans += state.lost.fans.values()
            work += state.lost.work.values()
        work += [one for fan in fans for one in fan.left.values()]
        for fan in fans:
            assert fan.held == sum(map(size_of, fan.results.values())), fan
        for one in work:
            assert one.held == sum(map(size_of, one.results)), one

    def _is_human(self, key: str) -> bool:
        node = self.plan.node(self.state.work[key].step_id)
        return isinstance(node, HumanNode) and Key.parse(key).role is None

    def _withdraw(self, keys: tuple[str, ...]) -> None:
        for key in keys:
            if isinstance(self.open.get(key), StartTimer | None):
                self.open.pop(key, None)
            else:
                self.withdrawn.add(key)

    def give(self, event: Event) -> "World":
        """One event."""
        self.history.append(event)
        self._take(advance(self.plan, self.state, event))
        return self

    def replayed(self, event: Event) -> "World":
        """One event as it was given to another world: what it answers is not open any more."""
        key = "yield" if isinstance(event, Yielded) else getattr(event, "key", None)
        if key in self.open:
            del self.open[key]
            self.withdrawn.discard(key)
        self.at = event.at
        return self.give(event)

    def tick(self, milliseconds: int = 1_000) -> int:
        """Time passes."""
        self.at += milliseconds
        return self.at

    def done(self, key: str, output: Any = None, **fields: Any) -> "World":
        """The action, child, person or operator under `key` answers well."""
        command = self.open.pop(key)
        self.withdrawn.discard(key)
        match command:
            case RunAction():
                return self.give(ActionDone(key, self.tick(), output))
            case SpawnChildren() | SpawnBatch():
                return self.give(ChildDone(key, self.tick(), output, **fields))
            case OpenHumanTask():
                work = self.state.work.get(key)
                name = key if work is None else command_key(self.plan.node(work.step_id), key, work)
                return self.give(HumanCompleted(name, self.tick(), output, **fields))
            case StartTimer(due=due):
                self.at = max(self.at, due)
                return self.give(TimerFired(key, self.tick(0)))
            case Yield():
                return self.give(Yielded(self.tick()))
            case OpenIncident():
                return self.give(IncidentResolved(key, self.tick(), "COMPLETE", output=output))
            case _:
                raise AssertionError(command)

    def failed(self, key: str, code: str = "BROKEN", *, retryable: bool = True) -> "World":
        """The action or child under `key` answers with a failure."""
        command = self.open.pop(key)
        self.withdrawn.discard(key)
        failure = Failure(code, f"{key} failed", retryable=retryable)
        if isinstance(command, RunAction):
            return self.give(ActionFailed(key, self.tick(), failure))
        return self.give(ChildFailed(key, self.tick(), failure))

    def fire(self, key: str) -> "World":
        """A timer comes due, at its time or (when that is past) now."""
        return self.done(key)

    def skip(self, key: str) -> "World":
        """Somebody does not want to wait for a timer."""
        return self.give(TimerSkipped(key, self.tick()))

    def suspended(self, key: str, data: Any = None) -> "World":
        """The action under `key` waits for somebody outside."""
        self.open.pop(key)
        return self.give(ActionSuspended(key, self.tick(), data))

    def entered_again(self, key: str, data: Any = None) -> "World":
        """What a suspended action waits for comes."""
        return self.give(StepResumed(key, self.tick(), data))

    def paused(self) -> "World":
        """Someone pauses the execution."""
        return self.give(PauseRequested(self.tick()))

    def resumed(self) -> "World":
        """Someone lets the execution go on."""
        return self.give(ResumeRequested(self.tick()))

    def taken_up(self, state: State) -> "World":
        """A new run of the execution begins with a state; what was said in the last one is forgotten."""
        self.open.clear()
        self.withdrawn.clear()
        self.ended = None
        self.commands.clear()
        self._take(resume(self.plan, state, self.tick()))
        if "yield" in self.open:
            self.done("yield")
        return self

    def carried_over(self) -> "World":
        """The run continues as a new one, with its state as JSON. Nothing may run outside."""
        assert not self.outside(), self.outside()
        state = state_from_json(json.loads(json.dumps(state_to_json(self.state))))
        for key in [*self.keys(StartTimer), *self.keys(Yield)]:
            del self.open[key]
        self._take(resume(self.plan, state, self.tick(0)))
        return self

    def changes_nothing(self, event: Event) -> None:
        """An event that answers nothing open: no command, and the state is the same but for the time."""
        step = advance(self.plan, self.state, event)
        assert step.commands == ()
        assert replace(step.state, at=self.state.at) == self.state

    def waits(self) -> dict[str, tuple[str, ...]]:
        """What activations and items wait for a signal, by key: its name, and its correlation key if any."""
        work = sorted(self.state.work.items())
        return {key: one.signal for key, one in work if one.signal and one.stage is Stage.RUNNING}

    def cancelled(self, reason: str | None = None, *, compensate: bool = True) -> "World":
        """Someone cancels the execution."""
        return self.give(CancelRequested(self.tick(), reason, compensate))

    def signal(self, name: str, payload: Any = None, key: str | None = None, signal_id: str | None = None) -> "World":
        """A signal comes."""
        return self.give(SignalReceived(name, self.tick(), payload, key, signal_id))

    def resolve(self, key: str, how: Any, **fields: Any) -> "World":
        """An operator decides about an incident."""
        return self.give(IncidentResolved(key, self.tick(), how, **fields))

    def keys(self, kind: type[Any] = object) -> list[str]:
        """The keys of what is open, in order; of one kind of command."""
        return sorted(key for key, command in self.open.items() if isinstance(command, kind))

    def outside(self) -> list[str]:
        """The keys of actions and children that have not answered."""
        return [
            key for key, command in self.open.items() if isinstance(command, RunAction | SpawnChildren | SpawnBatch)
        ]

    def settle(self) -> "World":
        """What was withdrawn answers that it has stopped."""
        while self.withdrawn:
            self.failed(min(self.withdrawn), "CANCELLED")
        return self

    def command(self, key: str) -> Any:
        """The open command under a key."""
        return self.open[key]

    def said(self, kind: type[Any]) -> list[Any]:
        """Every command of a kind that was ever given, in order."""
        return [command for command in self.commands if isinstance(command, kind)]

    def output_of(self, step_id: str) -> Any:
        """What the last completed visit of a step gave."""
        return self.state.outputs[step_id]

    @property
    def output(self) -> Any:
        """The output of a run that has completed."""
        assert isinstance(self.ended, Complete), self.ended
        return self.ended.output

    @property
    def failure(self) -> Failure:
        """Why the run failed."""
        assert isinstance(self.ended, Fail), self.ended
        return self.ended.failure

    def statuses(self) -> dict[str, str]:
        """The status of every step that has begun."""
        return {step_id: record.status.value for step_id, record in sorted(self.state.steps.items())}
