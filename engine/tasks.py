"""Completing human steps: which activation is meant, and whether the answer is acceptable."""

from dataclasses import dataclass

from engine.errors import EngineError
from engine.plan import HumanNode, Plan
from engine.protocol import visit_key
from engine.state import Phase, State
from engine.work import CONFIRMED


@dataclass(frozen=True, slots=True)
class OpenTask:
    """The human step that a completion is for. `open` is False when it has been completed already."""

    key: str
    step_id: str
    visit: int
    open: bool


def find_task(plan: Plan, state: State, step_id: str, visit: int | None, outcome: str | None) -> OpenTask:
    """The activation that a completion means.

    Raises `EngineError` with STEP_NOT_FOUND, STEP_NOT_OPEN, AMBIGUOUS (several visits are open and none was
    named), OUTCOME_UNKNOWN or EXECUTION_ENDED.
    """
    node = _human_node(plan, step_id)
    task = _completed(state, node, visit) or _open(state, node, visit)
    if not task.open:
        return task
    allowed = node.outcomes or (CONFIRMED,)
    if outcome is None and node.outcomes:
        raise EngineError("OUTCOME_UNKNOWN", f"step {step_id} needs an outcome: {', '.join(allowed)}")
    if outcome is not None and outcome not in allowed:
        raise EngineError("OUTCOME_UNKNOWN", f"the outcome of step {step_id} is one of: {', '.join(allowed)}")
    return task


def _human_node(plan: Plan, step_id: str) -> HumanNode:
    index = plan.by_id.get(step_id)
    if index is None:
        raise EngineError("STEP_NOT_FOUND", f"there is no step {step_id}")
    node = plan.nodes[index]
    if not isinstance(node, HumanNode):
        raise EngineError("STEP_NOT_OPEN", f"step {step_id} is not one that a person completes")
    return node


def _completed(state: State, node: HumanNode, visit: int | None) -> OpenTask | None:
    """An activation that is over: completing it again gives what was given the first time."""
    record = state.steps.get(node.id)
    if record is None or (visit is None and _open_visits(state, node)):
        return None
    answered = record.visits if visit is None else visit
    key = visit_key(node.id, answered)
    return OpenTask(key, node.id, answered, open=False) if key in state.answers else None


def _open(state: State, node: HumanNode, visit: int | None) -> OpenTask:
    if state.phase is not Phase.RUNNING:
        raise EngineError("EXECUTION_ENDED", "the execution has ended or is ending")
    visits = _open_visits(state, node)
    wanted = visits if visit is None else [at for at in visits if at == visit]
    if not wanted:
        which = "" if visit is None else f", visit {visit},"
        raise EngineError("STEP_NOT_OPEN", f"step {node.id}{which} is not waiting for anyone")
    if len(wanted) > 1:
        raise EngineError("AMBIGUOUS", f"visits {wanted} of step {node.id} are open; name one")
    return OpenTask(visit_key(node.id, wanted[0]), node.id, wanted[0], open=True)


def _open_visits(state: State, node: HumanNode) -> list[int]:
    return sorted(work.visit for work in state.work.values() if work.step_id == node.id)
