"""The end of an activation: well, or badly, and what follows from it."""

from engine.draft import Draft
from engine.ending import fail_run
from engine.errors import EngineError
from engine.json_types import JSON
from engine.plan import ChildNode, Edge, Node, WorkNode
from engine.protocol import Failure, OpenIncident
from engine.regions import fail_branch
from engine.state import Stage, StepStatus, Token, Work
from engine.withdrawal import disarm, halt, release, withdraw_rivals

TIMED_OUT = "STEP_TIMED_OUT"

# Passing these is no mishap of one step: nobody may catch or park them.
FATAL = frozenset({"MAX_STEPS_EXCEEDED", "MAX_NODE_VISITS_EXCEEDED"})


def activation(draft: Draft, key: str) -> Work | None:
    """The step's own activation under a visit's key, also when it runs over items."""
    fan = draft.fans.get(key)
    return draft.work.get(key) if fan is None else fan.work


def finish_visit(draft: Draft, node: Node, key: str, output: JSON, *, has_output: bool = True) -> None:
    """Ends an activation well: output, projection, mapping, then on to the next step. Raises `EngineError`."""
    work = _close(draft, key)
    draft.stand_in(work)
    draft.show(work, StepStatus.COMPLETED)
    if has_output:
        draft.outputs = draft.outputs.set(node.id, output)
    if isinstance(node, ChildNode):
        draft.write(node.projection, key, __child__=output)
    draft.write(node.output_mapping, key)
    withdraw_rivals(draft, work.race)
    draft.send(*node.outgoing)


def skip_visit(draft: Draft, node: Node, key: str) -> None:
    """Ends an activation without output: its milestone has passed."""
    work = _close(draft, key)
    draft.stand_in(work)
    draft.show(work, StepStatus.SKIPPED)
    withdraw_rivals(draft, work.race)
    draft.send(*node.outgoing)


def fail_visit(draft: Draft, node: Node, key: str, failure: Failure) -> None:
    """An activation has failed for good: a transition catches it, an operator is asked, the branch ends, or the run."""
    halt(draft, key)
    caught = None if failure.code in FATAL else _catching(node, failure)
    if draft.base.batch:
        # The run of a batch has nobody to ask: what has failed is the business of the run that it belongs to.
        fail_run(draft, node, failure)
    elif caught is not None:
        work = _close(draft, key)
        draft.show(work, StepStatus.FAILED, error=failure)
        withdraw_rivals(draft, work.race)
        draft.ready.append(Token(caught.id, work.scope, failure))
    elif node.parks and failure.code not in FATAL:
        _park(draft, key, failure)
    else:
        fail_for_good(draft, node, key, failure)


def fail_for_good(draft: Draft, node: Node, key: str, failure: Failure) -> None:
    """Nobody catches it: the branch of a region that settles ends, otherwise the run."""
    work = activation(draft, key)
    if work is None:
        fail_run(draft, node, failure)
        return
    if key in draft.work:
        draft.change(key, stage=Stage.READY)
    if fail_branch(draft, work.scope, failure):
        draft.show(work, StepStatus.FAILED, error=failure)
    else:
        fail_run(draft, node, failure)


def fail_token(draft: Draft, node: Node, token: Token, failure: Failure) -> None:
    """A token could not be taken: the failure belongs to the step that it came to."""
    draft.take(token)
    try:
        visit = draft.enter(node)
    except EngineError as error:
        fail_run(draft, node, Failure(error.code, str(error), node.id, retryable=False))
        return
    edge: Edge | None = draft.plan.edges.get(token.edge)
    key = draft.open(node, visit, edge, StepStatus.IN_PROGRESS, Stage.READY)
    fail_visit(draft, node, key, failure)


def _park(draft: Draft, key: str, failure: Failure) -> None:
    fan = draft.fans.get(key)
    if fan is None:
        work = draft.change(key, stage=Stage.INCIDENT, failure=failure)
    else:
        work = fan.work._replace(stage=Stage.INCIDENT, failure=failure)
        draft.work = draft.work.set(key, work)
    draft.show(work, StepStatus.INCIDENT, ended=False, error=failure)
    draft.commands.append(OpenIncident(key, failure))


def _catching(node: Node, failure: Failure) -> Edge | None:
    """The transition for a failure: one for timeouts first, then one that names its code, then one for any error."""
    if not isinstance(node, WorkNode):
        return None
    if failure.code == TIMED_OUT:
        for edge in node.on_error:
            if edge.on == "TIMEOUT":
                return edge
    errors = [edge for edge in node.on_error if edge.on == "ERROR"]
    for edge in errors:
        if failure.code in edge.error_codes:
            return edge
    return next((edge for edge in errors if not edge.error_codes), None)


def _close(draft: Draft, key: str) -> Work:
    work = activation(draft, key)
    if work is None:
        raise AssertionError(f"{key} is not open")
    disarm(draft, key)
    release(draft, key)
    if key in draft.work:
        draft.work = draft.work.delete(key)
    if key in draft.fans:
        draft.fans = draft.fans.delete(key)
    return work
