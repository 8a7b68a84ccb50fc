"""Which open activation somebody means, and whether what they ask of it is acceptable."""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import EngineError
from engine.keys import DELAY, DUE, RETRY, TIMEOUT, item_key, role_key, round_key, visit_key
from engine.plan import HumanNode, Node, Plan, WorkNode
from engine.schema import violations
from engine.state import Phase, Stage, State, Work
from engine.units import CONFIRMED
from engine.uploads import check_documents

# In this order: what a person most likely means by "do not wait".
_SKIPPABLE = (DELAY, RETRY, TIMEOUT, DUE)


@dataclass(frozen=True, slots=True)
class OpenTask:
    """The human step that a completion is for. `open` is False when it has been completed already."""

    key: str
    step_id: str
    visit: int
    open: bool
    item: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person says: an outcome, and data for a form or documents by key."""

    outcome: str | None = None
    data: Any = None


def find_task(plan: Plan, state: State, step_id: str, visit: int | None, item: int | None, answer: Answer) -> OpenTask:
    """The activation that a completion means.

    Raises `EngineError` with STEP_NOT_FOUND, STEP_NOT_OPEN, AMBIGUOUS (several are open and none was named),
    OUTCOME_UNKNOWN, FORM_INVALID, DOCUMENTS_INVALID or EXECUTION_ENDED.
    """
    node = node_of(plan, step_id)
    if not isinstance(node, HumanNode):
        raise EngineError("STEP_NOT_OPEN", f"step {step_id} is not one that a person completes")
    answered = _answered(state, node, visit, item)
    if answered is not None:
        return answered
    key, work = find_open(state, node.id, visit, item, lambda one: one.stage is Stage.RUNNING, "waiting for anyone")
    _check(node, answer)
    return OpenTask(_answer_key(node, key, work), step_id, work.visit, open=True, item=work.item)


def find_open(
    state: State,
    step_id: str,
    visit: int | None,
    item: int | None,
    wanted: Callable[[Work], bool],
    what: str,
    taken: Container[str] = (),
) -> tuple[str, Work]:
    """The one activation or item of a step that is meant, other than those `taken` already, by key.

    Raises STEP_NOT_OPEN, AMBIGUOUS, EXECUTION_ENDED.
    """
    if state.phase not in (Phase.RUNNING, Phase.COMPENSATING):
        raise EngineError("EXECUTION_ENDED", "the execution has ended or is ending")
    found = [
        (key, work)
        for key, work in sorted(state.work.items())
        if work.step_id == step_id
        and key not in taken
        and wanted(work)
        and visit in (None, work.visit)
        and item in (None, work.item)
    ]
    if not found:
        place = "".join(f", {name} {value}" for name, value in (("visit", visit), ("item", item)) if value is not None)
        raise EngineError("STEP_NOT_OPEN", f"step {step_id}{place}{',' if place else ''} is not {what}")
    if len(found) > 1:
        places = ", ".join(key for key, _ in found[:10])
        raise EngineError("AMBIGUOUS", f"several are open: {places}; name the visit and the item")
    return found[0]


def find_timer(
    plan: Plan, state: State, step_id: str, visit: int | None, item: int | None, taken: Container[str] = ()
) -> str:
    """The timer that somebody does not want to wait for, other than those `taken` already, by key.

    Raises STEP_NOT_FOUND, NO_TIMER, AMBIGUOUS.
    """
    node = node_of(plan, step_id)
    found: list[str] = []
    for key, work in sorted(state.work.items()):
        if work.step_id == node.id and visit in (None, work.visit) and item in (None, work.item):
            armed = [name for role in _SKIPPABLE if (name := role_key(key, role)) in state.timers]
            found.extend(name for name in armed[:1] if name not in taken)
    if not found:
        raise EngineError("NO_TIMER", f"step {step_id} waits for no timer")
    if len(found) > 1:
        raise EngineError(
            "AMBIGUOUS", f"several timers are armed: {', '.join(found[:10])}; name the visit and the item"
        )
    return found[0]


def node_of(plan: Plan, step_id: str) -> Node:
    """The node of a step. Raises STEP_NOT_FOUND."""
    index = plan.by_id.get(step_id)
    if index is None:
        raise EngineError("STEP_NOT_FOUND", f"there is no step {step_id}")
    return plan.nodes[index]


def _answered(state: State, node: HumanNode, visit: int | None, item: int | None) -> OpenTask | None:
    """An activation that is over: completing it again gives what was given the first time."""
    record = state.steps.get(node.id)
    still_open = any(work.step_id == node.id and item in (None, work.item) for work in state.work.values())
    if record is None or (visit is None and still_open):
        return None
    at = record.visits if visit is None else visit
    key = visit_key(node.id, at) if item is None else item_key(visit_key(node.id, at), item)
    if key in state.answers:
        return OpenTask(key, node.id, at, open=False, item=item)
    return None


def _answer_key(node: WorkNode, key: str, work: Work) -> str:
    return key if node.repeat is None else round_key(key, work.round)


def _check(node: HumanNode, answer: Answer) -> None:
    allowed = node.outcomes or (CONFIRMED,)
    if answer.outcome is None and node.outcomes:
        raise EngineError("OUTCOME_UNKNOWN", f"step {node.id} needs an outcome: {', '.join(allowed)}")
    if answer.outcome is not None and answer.outcome not in allowed:
        raise EngineError("OUTCOME_UNKNOWN", f"the outcome of step {node.id} is one of: {', '.join(allowed)}")
    if node.form is not None:
        _check_form(node.id, node.form, answer.data)
    elif node.documents:
        check_documents(node.documents, answer.data)
    elif answer.data is not None and node.url is None:
        raise EngineError("FORM_INVALID", f"step {node.id} takes no data", faults=(("data", "it takes none"),))


def _check_form(step_id: str, schema: Mapping[str, Any], data: Any) -> None:
    found = violations(dict(schema), data, at="data")
    if found:
        shown = "; ".join(f"{one.path}: {one.message}" for one in found[:5])
        message = f"the data does not fit the form of {step_id}: {shown}"
        raise EngineError("FORM_INVALID", message, faults=tuple((one.path, one.message) for one in found))
