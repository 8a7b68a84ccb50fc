"""One activation without items, or one item: its datasources, its iterations, its attempts, and their answers."""

from engine import compensation
from engine.closing import TIMED_OUT, fail_visit, finish_visit
from engine.draft import Draft, iso
from engine.errors import EngineError
from engine.events import ActionDone, ActionFailed, ActionSuspended, ChildDone, ChildFailed, HumanCompleted
from engine.holding import counted, with_result
from engine.json_types import JSON
from engine.keys import DATA, RETRY, Key, role_key
from engine.launch import AtOnce, arm, launch, policy, seen_by
from engine.nodes import ACTION_RETRY, ACTION_TIMEOUT
from engine.plan import ActionNode, ChildNode, DataRead, HumanNode, Node, RepeatPlan, WorkNode
from engine.protocol import CloseHumanTask, Failure, RunAction, Withdraw
from engine.retry import pause_after
from engine.schema import violations
from engine.state import Stage, Work
from engine.values import holds, required
from engine.withdrawal import command_key, disarm, end_wait, take_back, with_progress

CONFIRMED = "confirmed"

Answer = ActionDone | ActionFailed | ActionSuspended | ChildDone | ChildFailed


def begin_unit(draft: Draft, node: WorkNode, key: str) -> None:
    """Reads what is read per item, then goes on with the first iteration. Raises `EngineError`."""
    if not read(draft, node, key, per_item=True):
        begin_round(draft, node, key)


def read(draft: Draft, node: Node, key: str, *, per_item: bool) -> bool:
    """Begins to read datasources; tells whether there are any. Raises `EngineError`."""
    sources = [source for source in node.data if source.per_item == per_item]
    if not sources:
        return False
    scope = seen_by(draft, node, draft.work[key])
    # All of them or, when one cannot be asked, none.
    commands = []
    for source in sources:
        name = role_key(key, f"{DATA}/{source.alias}")
        parameters = required(source.params, scope, draft.moment(name))
        identity = f"{draft.run.execution_id}/{name}"
        label = f"{node.name}: {source.alias}"
        commands.append(
            RunAction(name, node.id, label, source.source, parameters, ACTION_RETRY, ACTION_TIMEOUT, identity)
        )
    draft.commands.extend(commands)
    draft.change(key, stage=Stage.READING, reads=tuple(source.alias for source in sources))
    return True


def end_read(draft: Draft, node: Node, key: str, alias: str, event: ActionDone) -> bool:
    """A datasource has answered; tells whether it was the last one of those that were read together.

    Raises `EngineError`.
    """
    work = draft.work[key]
    source = next(source for source in node.data if source.alias == alias)
    answer = _selected(draft, node, work, source, event.output)
    data = {**(work.data if isinstance(work.data, dict) else {}), alias: answer}
    draft.change(key, data=data, stage=Stage.READING if work.reads else Stage.READY)
    return not work.reads


def _selected(draft: Draft, node: Node, work: Work, source: DataRead, answer: JSON) -> JSON:
    if source.select is None:
        return answer
    scope = {**seen_by(draft, node, work), "__result__": answer}
    return required(source.select, scope, draft.moment(f"{node.id}/{DATA}/{source.alias}"))


def begin_round(draft: Draft, node: WorkNode, key: str) -> None:
    """Begins the next iteration, if there is to be one; a step that does not repeat has one. Raises `EngineError`."""
    repeat = node.repeat
    work = draft.work[key]
    if repeat is not None:
        name = command_key(node, key, work)
        if repeat.while_ is not None and not holds(repeat.while_, seen_by(draft, node, work), draft.moment(name)):
            _finish(draft, node, key, list(work.results))
            return
        if work.round >= repeat.most:
            raise EngineError("REPEAT_LIMIT_EXCEEDED", f"step {node.id} was to repeat more than {repeat.most} times")
    attempt(draft, node, key)


def attempt(draft: Draft, node: WorkNode, key: str) -> None:
    """Makes an attempt; an action waits for a free place. What cannot be evaluated fails the attempt."""
    if isinstance(node, ActionNode) and draft.running >= draft.plan.limits.parallelism:
        draft.change(key, stage=Stage.QUEUED, begun=True)
        draft.waiting.append(key)
        return
    draft.change(key, stage=Stage.READY, begun=True)
    # What is answered at once may fail half done: the step must then be found as it was.
    mark = None
    try:
        answer = launch(draft, node, key)
        if isinstance(answer, AtOnce):
            mark = draft.mark()
            succeed(draft, node, key, answer.output)
    except EngineError as error:
        if mark is not None:
            draft.go_back(mark)
        fail_unit(draft, node, key, Failure(error.code, str(error), node.id, retryable=False))


def succeed(draft: Draft, node: WorkNode, key: str, output: JSON, compensations: JSON = None) -> None:
    """An attempt has succeeded. Raises `EngineError` when its output is not what the step promises."""
    work = draft.work[key]
    check_output(node, output)
    remember_success(draft, node, key, work, output, compensations)
    if node.repeat is None:
        _finish(draft, node, key, output)
        return
    following = iterated(draft, node, node.repeat, work, key, output)
    if following is None:
        _finish(draft, node, key, [*work.results, output])
        return
    draft.work = draft.work.set(key, following)
    draft.later("round", key)


def iterated(draft: Draft, node: WorkNode, repeat: RepeatPlan, work: Work, key: str, output: JSON) -> Work | None:
    """How an activation or item stands before its next iteration; None when that was the last. Raises `EngineError`."""
    name = command_key(node, key, work)
    scope = {**seen_by(draft, node, work), "__result__": output}
    if repeat.until is not None and holds(repeat.until, scope, draft.moment(name)):
        return None
    return work._replace(
        round=work.round + 1,
        results=(*work.results, output),
        held=counted(draft.run, work.held, output, f"the results of {node.id}"),
        previous=output if repeat.feedback is None else required(repeat.feedback, scope, draft.moment(name)),
        attempt=1,
        stage=Stage.READY,
        edited=(),
        suspended=(),
        failure=None,
    )


def check_output(node: WorkNode, output: JSON) -> None:
    """Raises OUTPUT_INVALID unless an output is what the step promises."""
    if node.output_schema is None:
        return
    found = violations(dict(node.output_schema), output, at="output")
    if found:
        shown = "; ".join(f"{one.path}: {one.message}" for one in found[:3])
        raise EngineError("OUTPUT_INVALID", f"the output does not fit outputSchema: {shown}")


def remember_success(draft: Draft, node: WorkNode, key: str, work: Work, output: JSON, compensations: JSON) -> None:
    """Writes down what undoes an attempt that has succeeded. Raises `EngineError`."""
    name = command_key(node, key, work)
    compensation.remember_child(draft, node, name, compensations)
    if node.compensate is not None:
        compensation.remember(draft, node, name, {**seen_by(draft, node, work), "__result__": output})


def fail_attempt(draft: Draft, node: WorkNode, key: str, failure: Failure) -> None:
    """An attempt has failed: it is made again after a pause, or it was the last. Actions' attempts are the driver's."""
    work = draft.work[key]
    retry = node.retry
    last = isinstance(node, ActionNode) or work.attempt >= retry.max_attempts
    if last or not failure.retryable or failure.code in retry.non_retryable:
        attempts = failure.attempts if isinstance(node, ActionNode) else work.attempt
        fail_unit(draft, node, key, _with_attempts(failure, node.id, attempts))
        return
    draft.change(key, stage=Stage.RETRYING, attempt=work.attempt + 1, signal=())
    if draft.paused:
        draft.later("rest", key)
        return
    try:
        rest(draft, node, key)
    except EngineError as error:
        fail_unit(draft, node, key, Failure(error.code, str(error), node.id, retryable=False))


def rest(draft: Draft, node: WorkNode, key: str) -> None:
    """Begins the pause before the next attempt. Raises `EngineError`."""
    work = draft.work[key]
    name = command_key(node, key, work)
    retry = policy(draft, node, name, seen_by(draft, node, work))
    pause = pause_after(retry, work.attempt - 1, f"{draft.run.execution_id}/{name}")
    arm(draft, role_key(key, RETRY), pause, f"retry of {node.name}")


def fail_unit(draft: Draft, node: Node, key: str, failure: Failure) -> None:
    """An activation or item has failed for good; of an item its step decides what that means."""
    work = draft.work[key]
    if work.item is None:
        fail_visit(draft, node, key, failure)
        return
    visit = Key(work.step_id, work.visit).visit_key
    take_back(draft, key)
    fan = draft.fans[visit]
    fan = with_progress(fan, key, work)
    draft.fans = draft.fans.set(visit, fan._replace(open=fan.open - 1, errors=fan.errors.set(work.item, failure)))
    draft.later("fan", visit)


def _finish(draft: Draft, node: WorkNode, key: str, output: JSON) -> None:
    """An activation or item has ended well. Raises `EngineError`."""
    work = draft.work[key]
    if work.item is None:
        finish_visit(draft, node, key, output)
        return
    visit = Key(work.step_id, work.visit).visit_key
    fan = with_result(draft.run, draft.fans[visit], work.item, output)
    disarm(draft, key)
    draft.work = draft.work.delete(key)
    draft.fans = draft.fans.set(visit, fan._replace(open=fan.open - 1))
    draft.later("fan", visit)


def note_answer(draft: Draft, node: HumanNode, key: str, event: HumanCompleted) -> JSON:
    """A person has answered: nobody is asked any more. Gives the output."""
    output: dict[str, JSON] = {
        "outcome": event.outcome or CONFIRMED,
        "comment": event.comment,
        "completedBy": event.completed_by,
        "completedAt": iso(event.at),
    }
    if node.documents:
        output["documents"] = event.data
    elif node.form is not None or node.url is not None:
        output["data"] = event.data
    draft.answers = draft.answers.set(command_key(node, key, draft.work[key]), output)
    draft.commands.append(CloseHumanTask(key, "COMPLETED", output))
    draft.change(key, stage=Stage.READY)
    disarm(draft, key)
    return output


def time_out(draft: Draft, node: WorkNode, key: str) -> None:
    """An attempt took too long: a child's is withdrawn and fails once it has answered, the others fail at once."""
    failure = Failure(TIMED_OUT, f"step {node.id} took longer than its timeout", node.id)
    if isinstance(node, ChildNode):
        name = command_key(node, key, draft.work[key])
        draft.change(key, stage=Stage.EXPIRED, failure=failure)
        draft.commands.append(Withdraw((name,)))
        return
    disarm(draft, key)
    if isinstance(node, HumanNode):
        draft.commands.append(CloseHumanTask(key, "EXPIRED"))
    end_wait(draft, key, draft.work[key])
    draft.change(key, stage=Stage.READY)
    fail_attempt(draft, node, key, failure)


def _with_attempts(failure: Failure, step_id: str, attempts: int) -> Failure:
    return Failure(failure.code, failure.message, failure.step_id or step_id, attempts, failure.retryable)
