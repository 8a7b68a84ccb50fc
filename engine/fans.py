"""Steps over items: the window, the failures that are borne, the condition that ends them early."""

from immutables import Map

from engine.batches import chunk_of, finish, refill
from engine.closing import fail_visit, finish_visit
from engine.draft import Draft
from engine.errors import EngineError
from engine.holding import LARGEST_AT_ONCE, with_result
from engine.json_types import JSON
from engine.keys import Key, item_key
from engine.plan import ChildNode, EachPlan, WorkNode
from engine.protocol import Failure
from engine.signals import early_items
from engine.state import Fan, Stage, Work
from engine.units import begin_unit, fail_unit
from engine.values import holds, listed
from engine.withdrawal import withdraw_items

# Items and their results stand in the state.
MAX_ITEMS = 10_000
MAX_CHILDREN = 100_000


def spread(draft: Draft, node: WorkNode, key: str) -> None:
    """Begins a step over its items, or the step itself when it has none. Raises `EngineError`."""
    each = node.each
    if each is None:
        begin_unit(draft, node, key)
        return
    work = draft.work[key]
    draft.stand_in(work)
    items = (*listed(each.items, draft.seen(), draft.moment(key)), *early_items(draft, node.id))
    most = _most(node, each)
    if len(items) > most:
        raise EngineError("BATCH_TOO_LARGE", f"{node.id} runs over {most} items at most, not {len(items)}")
    draft.work = draft.work.delete(key)
    fan = Fan(work._replace(stage=Stage.RUNNING, begun=True), items, chunk=chunk_of(node, each, len(items)))
    draft.fans = draft.fans.set(key, fan)
    look(draft, node, key)


def relisted(draft: Draft, node: WorkNode, key: str, results: dict[int, JSON], again: int) -> None:
    """A step over its items, all but one of which have their results already. Raises `EngineError`."""
    spread(draft, node, key)
    fan = draft.fans[key]
    if len(fan.items) != len(results) + 1:
        raise EngineError("ITEM_NOT_FOUND", f"{node.id} now runs over {len(fan.items)} items, not {len(results) + 1}")
    withdraw_items(draft, key)
    fan = draft.fans[key]
    fan = fan._replace(results=Map(), errors=Map(), next=len(fan.items), again=(again,), open=0, held=0)
    for index, result in results.items():
        fan = with_result(draft.run, fan, index, result)
    draft.fans = draft.fans.set(key, fan)
    draft.commands.clear()
    draft.later("fan", key)


def look(draft: Draft, node: WorkNode, key: str) -> None:
    """What follows from what the items have come to. Raises `EngineError`."""
    fan, each = draft.fans[key], node.each
    if each is None or key in draft.work:
        return
    if draft.base.batch and (_is_over(fan) or not _bears(each, fan) or _enough(draft, each, key, fan)):
        withdraw_items(draft, key)
        finish(draft, key)
    elif fan.errors and not _bears(each, fan):
        index, failure = min(fan.errors.items())
        fail_visit(draft, node, key, _of_item(failure, index))
    elif _is_over(fan) or _enough(draft, each, key, fan):
        withdraw_items(draft, key)
        finish_visit(draft, node, key, [_item_output(fan, index) for index in range(len(fan.items))])
    elif fan.chunk:
        refill(draft, node, each, key)
    else:
        _refill(draft, node, each, key)


def _is_over(fan: Fan) -> bool:
    return len(fan.results) + len(fan.errors) == len(fan.items)


def _most(node: WorkNode, each: EachPlan) -> int:
    return MAX_CHILDREN if isinstance(node, ChildNode) and not each.enough_sees_results else MAX_ITEMS


def add_items(draft: Draft, key: str, items: tuple[JSON, ...]) -> None:
    """More items, while the step runs."""
    fan = draft.fans[key]
    most = max(0, (MAX_CHILDREN if fan.chunk else MAX_ITEMS) - len(fan.items))
    draft.fans = draft.fans.set(key, fan._replace(items=(*fan.items, *items[:most])))
    draft.later("fan", key)


def again(draft: Draft, key: str) -> None:
    """Takes up what has not succeeded once more: the items that failed, and those that were withdrawn with them."""
    fan = draft.fans[key]
    left = tuple(index for index in range(fan.next) if index not in fan.results)
    draft.fans = draft.fans.set(key, fan._replace(again=left, errors=Map(), open=0))
    draft.later("fan", key)


def _refill(draft: Draft, node: WorkNode, each: EachPlan, key: str) -> None:
    """Begins items until the window is full, or until they have been handed as much as one workflow task may carry."""
    fan = draft.fans[key]
    for index in _to_begin(draft, key, (fan.window or each.concurrency) - fan.open):
        if draft.handed > LARGEST_AT_ONCE:
            draft.later("fan", key)
            return
        fan = draft.fans[key]
        again = tuple(waiting for waiting in fan.again if waiting != index)
        work = _item(fan, index, draft.at)
        name = item_key(key, index)
        left = fan.left.delete(index) if index in fan.left else fan.left
        following = max(fan.next, index - fan.offset + 1)
        draft.fans = draft.fans.set(key, fan._replace(next=following, again=again, open=fan.open + 1, left=left))
        draft.work = draft.work.set(name, work)
        try:
            begin_unit(draft, node, name)
        except EngineError as error:
            fail_unit(draft, node, name, Failure(error.code, str(error), node.id, retryable=False))


def _to_begin(draft: Draft, key: str, room: int) -> list[int]:
    """The next items, at most `room`. One whose last attempt was withdrawn and has not answered must wait for that."""
    fan = draft.fans[key]
    again = list(fan.again)
    if again and draft.leaving:
        parsed = [Key.parse(name) for name in draft.leaving]
        leaving = {one.item for one in parsed if one.visit_key == key}
        again = [index for index in again if index not in leaving]
    again = again[: max(0, room)]
    fresh = min(len(fan.items) - fan.next, max(0, room - len(again)))
    first = fan.next + fan.offset
    return [*again, *range(first, first + fresh)]


def _item(fan: Fan, index: int, at: int) -> Work:
    """The activation of an item; one that has been tried before goes on with the iteration (and deadline) it had."""
    tries = fan.tries.get(index, 0)
    fresh = fan.work._replace(stage=Stage.READY, item=index, since=at, begun=False, tries=tries)
    before = fan.left.get(index)
    if before is None:
        return fresh
    return fresh._replace(
        round=before.round,
        results=before.results,
        previous=before.previous,
        deadlines=before.deadlines,
        held=before.held,
    )


def _bears(each: EachPlan, fan: Fan) -> bool:
    if each.collects or not fan.errors:
        return True
    _, failed, total = fan.before or (0, 0, len(fan.items))
    failed += len(fan.errors)
    if each.tolerated is not None:
        return failed <= each.tolerated
    if each.tolerated_percent is not None:
        return failed * 100 <= each.tolerated_percent * total
    return False


def _enough(draft: Draft, each: EachPlan, key: str, fan: Fan) -> bool:
    """Whether the completion condition holds; it is asked whenever an item has ended."""
    if each.enough is None or not (fan.results or fan.errors):
        return False
    completed, failed, total = fan.before or (0, 0, len(fan.items))
    counts = {
        "total": total,
        "completed": completed + len(fan.results),
        "failed": failed + len(fan.errors),
        "running": fan.open,
    }
    more: dict[str, object] = {"__counts__": counts}
    if each.enough_sees_results:
        more["__results__"] = [fan.results[index] for index in sorted(fan.results)]
    draft.stand_in(fan.work)
    return holds(each.enough, draft.seen(**more), draft.moment(key))


def _item_output(fan: Fan, index: int) -> JSON:
    if index in fan.results:
        return fan.results[index]
    failure = fan.errors.get(index)
    return None if failure is None else {"error": {"code": failure.code, "message": failure.message}}


def _of_item(failure: Failure, index: int) -> Failure:
    message = f"item {index}: {failure.message}"
    return Failure(failure.code, message, failure.step_id, failure.attempts, failure.retryable)
