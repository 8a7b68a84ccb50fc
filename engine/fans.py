"""Steps over items: the window, the failures that are borne, the condition that ends them early."""

from immutables import Map

from engine.closing import fail_visit, finish_visit
from engine.draft import Draft
from engine.errors import EngineError
from engine.json_types import JSON
from engine.keys import item_key
from engine.plan import EachPlan, WorkNode
from engine.protocol import Failure
from engine.signals import early_items
from engine.state import Fan, Stage
from engine.units import begin_unit, fail_unit
from engine.values import holds, listed
from engine.withdrawal import withdraw_items

# Items stand in the state, and children are children of the run itself.
MAX_ITEMS = 2_000


def spread(draft: Draft, node: WorkNode, key: str) -> None:
    """Begins a step over its items, or the step itself when it has none. Raises `EngineError`."""
    each = node.each
    if each is None:
        begin_unit(draft, node, key)
        return
    work = draft.work[key]
    draft.stand_in(work)
    items = (*listed(each.items, draft.seen(), draft.moment(key)), *early_items(draft, node.id))
    if len(items) > MAX_ITEMS:
        raise EngineError("BATCH_TOO_LARGE", f"a step runs over {MAX_ITEMS} items at most, not {len(items)}")
    draft.work = draft.work.delete(key)
    draft.fans = draft.fans.set(key, Fan(work._replace(stage=Stage.RUNNING, begun=True), items))
    look(draft, node, key)


def look(draft: Draft, node: WorkNode, key: str) -> None:
    """What follows from what the items have come to. Raises `EngineError`."""
    fan, each = draft.fans[key], node.each
    if each is None or key in draft.work:
        return
    if fan.errors and not _bears(each, fan):
        index, failure = min(fan.errors.items())
        withdraw_items(draft, key)
        fail_visit(draft, node, key, _of_item(failure, index))
    elif len(fan.results) + len(fan.errors) == len(fan.items) or _enough(draft, each, key, fan):
        withdraw_items(draft, key)
        finish_visit(draft, node, key, [_item_output(fan, index) for index in range(len(fan.items))])
    else:
        _refill(draft, node, each, key)


def add_items(draft: Draft, key: str, items: tuple[JSON, ...]) -> None:
    """More items, while the step runs."""
    fan = draft.fans[key]
    most = max(0, MAX_ITEMS - len(fan.items))
    draft.fans = draft.fans.set(key, fan._replace(items=(*fan.items, *items[:most])))
    draft.later("fan", key)


def again(draft: Draft, key: str) -> None:
    """Takes up what has not succeeded once more: the items that failed, and those that were withdrawn with them."""
    fan = draft.fans[key]
    left = tuple(index for index in range(fan.next) if index not in fan.results)
    draft.fans = draft.fans.set(key, fan._replace(again=left, errors=Map(), open=0))
    draft.later("fan", key)


def _refill(draft: Draft, node: WorkNode, each: EachPlan, key: str) -> None:
    """Begins items until the window is full."""
    fan = draft.fans[key]
    room = each.concurrency - fan.open
    indices = [*fan.again[:room], *range(fan.next, min(len(fan.items), fan.next + max(0, room - len(fan.again))))]
    for index in indices:
        fan = draft.fans[key]
        again = tuple(waiting for waiting in fan.again if waiting != index)
        tries = fan.tries.get(index, 0)
        work = fan.work._replace(stage=Stage.READY, item=index, since=draft.at, begun=False, tries=tries)
        name = item_key(key, index)
        following = max(fan.next, index + 1)
        draft.fans = draft.fans.set(key, fan._replace(next=following, again=again, open=fan.open + 1))
        draft.work = draft.work.set(name, work)
        try:
            begin_unit(draft, node, name)
        except EngineError as error:
            fail_unit(draft, node, name, Failure(error.code, str(error), node.id, retryable=False))


def _bears(each: EachPlan, fan: Fan) -> bool:
    if each.collects:
        return True
    if each.tolerated is not None:
        return len(fan.errors) <= each.tolerated
    if each.tolerated_percent is not None:
        return len(fan.errors) * 100 <= each.tolerated_percent * len(fan.items)
    return False


def _enough(draft: Draft, each: EachPlan, key: str, fan: Fan) -> bool:
    """Whether the completion condition holds; it is asked whenever an item has ended."""
    if each.enough is None or not (fan.results or fan.errors):
        return False
    counts = {
        "total": len(fan.items),
        "completed": len(fan.results),
        "failed": len(fan.errors),
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
