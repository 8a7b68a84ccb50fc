"""Very many items: chunks of them run in runs of their own, so that neither history nor memory of one run is exceeded.

The run of a chunk interprets the same plan, with a state in which nothing but this one step is open. Its items have
the numbers, keys and children that they would have in the execution itself, whose children they are.
"""

from collections.abc import Iterator
from math import ceil
from typing import Any

from immutables import Map

from engine.draft import Draft
from engine.ending import end, tell_children
from engine.errors import EngineError
from engine.holding import LARGEST_AT_ONCE, check_passed_on, counted, with_result
from engine.json_types import JSON
from engine.keys import BATCH, Key, role_key
from engine.plan import ChildNode, EachPlan, WorkNode
from engine.protocol import Failure, SpawnBatch
from engine.state import Ending, Fan, Phase, Stage, State, Work
from engine.state_json import from_json, state_to_json, to_json
from engine.withdrawal import withdraw_items

# More items than this are run in chunks of as many: that is a history of some four thousand events.
CHUNK = 500
LANES = 4


def chunk_of(node: WorkNode, each: EachPlan, count: int) -> int:
    """How many items a run takes at a time; 0 where the execution runs them itself."""
    if not isinstance(node, ChildNode) or count <= CHUNK or each.enough_sees_results:
        return 0
    # As even as can be, so that lanes end together.
    return ceil(count / ceil(count / CHUNK))


def refill(draft: Draft, node: WorkNode, each: EachPlan, key: str) -> None:
    """Begins chunks until all lanes are taken. With a condition that may end the step early there is one lane.

    Raises STATE_TOO_LARGE when a chunk would begin with too much.
    """
    fan = draft.fans[key]
    if fan.again and any(Key.parse(name).visit_key == key for name in draft.leaving):
        # What is begun again may be what has been withdrawn and has not answered: the keys would be the same.
        return
    lanes = 1 if each.enough is not None else min(LANES, each.concurrency, ceil(len(fan.items) / fan.chunk))
    for numbers in list(_chunks(fan, lanes - fan.open)):
        if draft.handed > LARGEST_AT_ONCE:
            draft.later("fan", key)
            return
        first, last = numbers[0], numbers[-1]
        fan = draft.fans[key]
        following = max(fan.next, last + 1)
        again = tuple(number for number in fan.again if number > last)
        name = role_key(key, f"{BATCH}/{first}")
        draft.fans = draft.fans.set(key, fan._replace(next=following, again=again, open=fan.open + 1))
        draft.work = draft.work.set(name, fan.work._replace(stage=Stage.RUNNING, item=first, since=draft.at))
        state = _state(draft, key, fan, first, last, max(1, each.concurrency // lanes))
        place = f"{first + 1}-{last + 1} of {len(fan.items)}"
        begins_with = state_to_json(state)
        what = f"a chunk of {node.id}, with context and outputs,"
        draft.handed += check_passed_on(draft.run, begins_with, what, "STATE_TOO_LARGE")
        draft.commands.append(SpawnBatch(name, node.id, node.name, place, begins_with))


def _chunks(fan: Fan, room: int) -> Iterator[range]:
    """The next runs of numbers without a gap, at most a chunk long: those to begin again first."""
    again = list(fan.again)
    for _ in range(room):
        if again:
            first = last = again.pop(0)
            while again and again[0] == last + 1 and last - first + 1 < fan.chunk:
                last = again.pop(0)
            yield range(first, last + 1)
        elif fan.next < len(fan.items):
            last = min(fan.next + fan.chunk, len(fan.items))
            yield range(fan.next, last)
            fan = fan._replace(next=last)


def _state(draft: Draft, key: str, fan: Fan, first: int, last: int, window: int) -> State:
    """The state that the run of a chunk begins with."""
    numbers = range(first, last + 1)
    inner = Fan(
        fan.work,
        fan.items[first : last + 1],
        tries=Map({number: fan.tries[number] for number in numbers if number in fan.tries}),
        left=Map({number: fan.left[number] for number in numbers if number in fan.left}),
        offset=first,
        window=window,
        before=(len(fan.results), len(fan.errors), len(fan.items)),
    )
    return State(
        run=draft.run,
        batch=key,
        at=draft.at,
        context=draft.context,
        outputs=draft.outputs,
        steps=Map({fan.work.step_id: draft.steps[fan.work.step_id]}),
        todo=(f"fan {key}",),
        fans=Map({key: inner}),
    )


def finish(draft: Draft, key: str, *, withdrawn: bool = False) -> None:
    """The run of a chunk ends: its output is what its items have come to, `withdrawn` that they are not all of them."""
    fan = draft.fans[key]
    output = {
        "results": to_json(fan.results),
        "errors": to_json(fan.errors),
        "tries": to_json(fan.tries),
        "withdrawn": withdrawn,
    }
    if fan.left:
        output["left"] = to_json(fan.left)
    if fan.held:
        output["held"] = fan.held
    draft.output = output
    end(draft, Ending(Phase.COMPLETED))


def withdraw(draft: Draft, compensate: bool) -> None:
    """Nobody wants the rest of a chunk any more. What it has come to is the execution's to keep, and to undo."""
    draft.paused, draft.paused_at, draft.paused_by = False, 0, None
    if draft.phase is Phase.RUNNING:
        if not compensate:
            tell_children(draft, "LEAVE_DONE")
        withdraw_items(draft, draft.base.batch)
        finish(draft, draft.base.batch, withdrawn=True)


def add_result(draft: Draft, item: int, result: JSON) -> None:
    """An item of a chunk that is ending has succeeded after all. Raises RESULT_TOO_LARGE."""
    output: Any = draft.output
    if isinstance(output, dict):
        held = counted(draft.run, output.get("held", 0), result, f"with item {item} the results of the chunk")
        draft.output = {**output, "results": {**output["results"], str(item): result}}
        if held:
            draft.output["held"] = held


def add_progress(draft: Draft, item: int, following: Work) -> None:
    """An item of a chunk that is ending has come to its next iteration after all."""
    output: Any = draft.output
    if isinstance(output, dict):
        draft.output = {**output, "left": {**output.get("left", {}), str(item): to_json(following)}}


def is_partial(output: JSON) -> bool:
    """Whether the output of a chunk is that of one that was withdrawn."""
    return isinstance(output, dict) and output.get("withdrawn") is True


def with_results(draft: Draft, fan: Fan, output: JSON) -> Fan:
    """A step over items that has what a chunk had come to when it was withdrawn; what it has not done is still to do.

    Chunks of earlier revisions, which do not say whether they were withdrawn, leave nothing.
    """
    if not isinstance(output, dict) or "withdrawn" not in output:
        return fan
    given: Any = output
    fan, _ = _taken(draft, fan, given["results"])
    left = fan.left.update(from_json(Map[int, Work], given.get("left", {})))
    again = tuple(number for number in fan.again if number not in fan.results)
    return fan._replace(left=left, again=again)


def _taken(draft: Draft, fan: Fan, results: dict[str, JSON]) -> tuple[Fan, Map[int, Failure]]:
    """A step with the results of a chunk, as many as it may hold; the others fail their items."""
    errors: Map[int, Failure] = Map()
    for number, result in from_json(Map[int, JSON], results).items():
        try:
            fan = with_result(draft.run, fan, number, result)
        except EngineError as error:
            errors = errors.set(number, Failure(error.code, str(error), fan.work.step_id, retryable=False))
    return fan, errors


def merge(draft: Draft, key: str, output: JSON) -> None:
    """Takes what the items of a chunk have come to over into the step."""
    fan = draft.fans[key]
    given: Any = output
    fan, too_large = _taken(draft, fan, given["results"])
    errors, tries = fan.errors.update(too_large), fan.tries
    for number, failure in from_json(Map[int, Failure], given["errors"]).items():
        errors = errors.set(number, failure)
    for number, count in from_json(Map[int, int], given["tries"]).items():
        tries = tries.set(number, count)
    left = fan.left.update(from_json(Map[int, Work], given.get("left", {})))
    fan = fan._replace(errors=errors, tries=tries, left=left, open=fan.open - 1)
    draft.fans = draft.fans.set(key, fan)
    draft.later("fan", key)
