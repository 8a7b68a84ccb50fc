"""Undoing what was done: each completed step that says how, in reverse order of completion, one at a time.

A compensator that fails for good becomes an incident; the others go on, and the run stays open until it is resolved.
"""

from typing import Any

from engine.draft import Draft
from engine.json_types import JSON
from engine.keys import COMPENSATE, Key, role_key
from engine.plan import WorkNode
from engine.protocol import CloseIncident, Failure, OpenIncident, RunAction
from engine.state import Stage, State, StepRecord, StepStatus, Undo, Work
from engine.state_json import from_json, to_json
from engine.values import required


def remember(draft: Draft, node: WorkNode, key: str, seen: dict[str, object]) -> None:
    """Writes down what would undo the attempt `key` that has just succeeded; `seen` is that attempt's scope."""
    plan = node.compensate
    if plan is None:
        return
    parameters = required(plan.parameters, seen, draft.moment(role_key(key, COMPENSATE)))
    name = role_key(key, COMPENSATE)
    identity = f"{draft.run.execution_id}/{name}"
    _add(draft, Undo(name, node.id, node.name, plan.action_key, parameters, plan.retry, plan.timeout, identity))


def remember_child(draft: Draft, node: WorkNode, key: str, compensations: JSON) -> None:
    """Writes down what would undo a child that has completed, as the child itself has told."""
    if not isinstance(compensations, list):
        return
    place = role_key(Key.parse(key).unit_key, COMPENSATE)
    for entry in compensations:
        undo: Undo = from_json(Undo, entry)
        _add(draft, undo._replace(key=f"{place}/{len(draft.undo)}", step_id=node.id))


def to_undo(state: State) -> list[dict[str, Any]]:
    """What undoes a completed run, for its parent to keep; earliest first."""
    owner = state.run.execution_id
    entries = [undo for _, undo in sorted(state.undo.items())]
    return [to_json(undo._replace(owner=undo.owner or owner)) for undo in entries]


def go_on(draft: Draft) -> bool:
    """Undoes the next one when none is being undone; True when nothing is left to undo."""
    if not draft.undo:
        return True
    if draft.paused or any(work.stage is not Stage.INCIDENT for work in draft.work.values()):
        return False
    open_ones = {work.round for work in draft.work.values()}
    left = [index for index in draft.undo if index not in open_ones]
    if left:
        _begin(draft, max(left))
    return False


def end(draft: Draft, key: str, failure: Failure | None) -> None:
    """A compensator has answered."""
    work = draft.work.get(key)
    if work is None or work.stage is not Stage.RUNNING:
        return
    draft.running -= 1
    if failure is None:
        _undone(draft, key, work)
        return
    draft.change(key, stage=Stage.INCIDENT, failure=failure)
    _show(draft, work, StepStatus.INCIDENT, failure)
    draft.commands.append(OpenIncident(key, failure))


def resolve(draft: Draft, key: str, how: str, parameters: tuple[JSON, ...], actor: str | None) -> None:
    """An operator decides about a compensator: RETRY, COMPLETE (it has been undone by hand) or FAIL (it stays done)."""
    work = draft.work[key]
    match how:
        case "RETRY":
            draft.commands.append(CloseIncident(key, "RETRIED", actor))
            if parameters:
                undo = draft.undo[work.round]._replace(parameters=parameters[0])
                draft.undo = draft.undo.set(work.round, undo)
            # It is begun when it is its turn: nothing else is being undone, and the run is not paused.
            draft.work = draft.work.delete(key)
        case "COMPLETE":
            draft.commands.append(CloseIncident(key, "COMPLETED", actor))
            _undone(draft, key, work)
        case _:
            draft.commands.append(CloseIncident(key, "FAILED", actor))
            draft.work = draft.work.delete(key)
            draft.undo = draft.undo.delete(work.round)


def _add(draft: Draft, undo: Undo) -> None:
    index = len(draft.undo)
    # After some were undone there are gaps below.
    while index in draft.undo:
        index += 1
    draft.undo = draft.undo.set(index, undo)


def _begin(draft: Draft, index: int) -> None:
    undo = draft.undo[index]
    visit = Key.parse(undo.key).visit
    work = Work(undo.step_id, visit, draft.at, Stage.RUNNING, round=index, begun=True)
    draft.work = draft.work.set(undo.key, work)
    draft.running += 1
    name = f"undo {undo.step_name}"
    draft.commands.append(
        RunAction(
            undo.key,
            undo.step_id,
            name,
            undo.action_key,
            undo.parameters,
            undo.retry,
            undo.timeout,
            undo.idempotency_key,
        )
    )


def _undone(draft: Draft, key: str, work: Work) -> None:
    undo = draft.undo[work.round]
    draft.work = draft.work.delete(key)
    draft.undo = draft.undo.delete(work.round)
    if draft.ending is not None:
        draft.ending = draft.ending._replace(undone=(*draft.ending.undone, undo.idempotency_key))
    _show(draft, work, StepStatus.COMPENSATED, None)


def _show(draft: Draft, work: Work, status: StepStatus, failure: Failure | None) -> None:
    record = draft.steps.get(work.step_id)
    if record is not None and record.visits == work.visit:
        # How long the step took is not how long it was until it was undone.
        over = draft.at if record.ended_at is None else record.ended_at
        draft.steps = draft.steps.set(work.step_id, StepRecord(status, work.visit, record.started_at, over, failure))
