"""A hand-written outside world for the interpreter: it keeps what was asked for and answers when it is told to."""

import json
from typing import Any

from engine.compile import compile_document
from engine.draft import Step
from engine.events import (
    ActionDone,
    ActionFailed,
    CancelRequested,
    ChildDone,
    ChildFailed,
    Event,
    HumanCompleted,
    IncidentResolved,
    SignalReceived,
    TimerFired,
    Yielded,
)
from engine.interpreter import advance, start
from engine.plan import Plan
from engine.protocol import (
    Cancel,
    CloseHumanTask,
    CloseIncident,
    Command,
    Complete,
    Fail,
    Failure,
    OpenHumanTask,
    OpenIncident,
    ReassignHumanTask,
    RunAction,
    RunInput,
    SpawnChildren,
    StartTimer,
    TellChildren,
    Withdraw,
    Yield,
)
from engine.state import State
from engine.state_json import state_from_json, state_to_json

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
        **fields,
    }
    return RunInput(**given)


class World:
    """One run. `open` are the commands not yet answered, by key; `history` every event given.

    With `through_json` the state is written to JSON and read back before each event.
    """

    def __init__(
        self,
        document: dict[str, Any],
        context: dict[str, Any] | None = None,
        *,
        through_json: bool = False,
        **run: Any,
    ) -> None:
        self.plan: Plan = compile_document(document)
        self.through_json = through_json
        self.open: dict[str, Command] = {}
        self.history: list[Event] = []
        self.ended: Complete | Fail | Cancel | None = None
        self.withdrawn: set[str] = set()
        self.at = BEGAN
        self.commands: list[Command] = []
        self._take(start(self.plan, run_input(context, **run)))

    def _take(self, step: Step) -> None:
        self.state: State = step.state
        self.commands.extend(step.commands)
        for command in step.commands:
            assert self.ended is None, "a command after the end"
            match command:
                case SpawnChildren(children=children):
                    self.open.update({child.key: command for child in children})
                case RunAction(key=key) | StartTimer(key=key) | OpenHumanTask(key=key) | OpenIncident(key=key):
                    assert key not in self.open, f"{key} is open already"
                    self.open[key] = command
                case CloseHumanTask(key=key) | CloseIncident(key=key):
                    self.open.pop(key, None)
                case ReassignHumanTask() | TellChildren():
                    pass
                case Yield():
                    self.open["yield"] = command
                case Withdraw(keys):
                    self._withdraw(keys)
                case Complete() | Fail() | Cancel():
                    self.ended = command

    def _withdraw(self, keys: tuple[str, ...]) -> None:
        for key in keys:
            if isinstance(self.open.get(key), StartTimer | None):
                self.open.pop(key, None)
            else:
                self.withdrawn.add(key)

    def give(self, event: Event) -> "World":
        """One event."""
        self.history.append(event)
        state = self.state
        if self.through_json:
            state = state_from_json(json.loads(json.dumps(state_to_json(state))))
        self._take(advance(self.plan, state, event))
        return self

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
            case SpawnChildren():
                return self.give(ChildDone(key, self.tick(), output, **fields))
            case OpenHumanTask():
                return self.give(HumanCompleted(key, self.tick(), output, **fields))
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
        return [key for key, command in self.open.items() if isinstance(command, RunAction | SpawnChildren)]

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
