"""What was withdrawn and has succeeded all the same: it is undone with the rest, and never done again.

A step over items goes on with the result where it is still open. Where the run is ending, what a retry would take up
again (`State.lost`) learns of it.
"""

from engine import batches
from engine.draft import Draft
from engine.holding import with_result
from engine.json_types import JSON
from engine.keys import Key
from engine.plan import WorkNode
from engine.state import Fan, Lost, Work
from engine.units import check_output, iterated, remember_success
from engine.withdrawal import with_progress


def succeed_late(draft: Draft, node: WorkNode, key: str, work: Work, output: JSON, compensations: JSON) -> None:
    """An attempt that was withdrawn has succeeded. Raises `EngineError`."""
    check_output(node, output)
    remember_success(draft, node, key, work, output, compensations)
    following = None if node.repeat is None else iterated(draft, node, node.repeat, work, key, output)
    result = output if node.repeat is None else [*work.results, output]
    if work.item is None:
        _note_visit(draft, key, work, following, result)
        return
    visit = Key(work.step_id, work.visit).visit_key
    if visit in draft.fans:
        fan = _with_item(draft, draft.fans[visit], key, work.item, following, result)
        draft.fans = draft.fans.set(visit, fan)
    elif draft.base.batch and following is None:
        batches.add_result(draft, work.item, result)
    elif draft.base.batch and following is not None:
        batches.add_progress(draft, work.item, following)
    elif draft.lost is not None and visit in draft.lost.fans:
        fan = _with_item(draft, draft.lost.fans[visit], key, work.item, following, result)
        draft.lost = _without_work(draft.lost._replace(fans=draft.lost.fans.set(visit, fan)), key)


def keep_chunk(draft: Draft, visit: str, output: JSON) -> None:
    """The run of a chunk of a step over items was withdrawn: what its items had come to by then is kept."""
    if visit in draft.fans:
        draft.fans = draft.fans.set(visit, batches.with_results(draft, draft.fans[visit], output))
    elif draft.lost is not None and visit in draft.lost.fans:
        # The chunk itself stays in `lost.work`: a retry learns by it which children have had their ids.
        fan = batches.with_results(draft, draft.lost.fans[visit], output)
        draft.lost = draft.lost._replace(fans=draft.lost.fans.set(visit, fan))


def _note_visit(draft: Draft, key: str, work: Work, following: Work | None, result: JSON) -> None:
    lost = draft.lost
    if lost is None or key not in lost.work or lost.work[key].round != work.round:
        return
    if following is None:
        draft.lost = lost._replace(done=lost.done.set(key, result))
    else:
        draft.lost = lost._replace(work=lost.work.set(key, following), rounds=(*lost.rounds, key))


def _with_item(draft: Draft, fan: Fan, key: str, item: int, following: Work | None, result: JSON) -> Fan:
    if following is not None:
        return with_progress(fan, key, following)
    again = tuple(index for index in fan.again if index != item)
    return with_result(draft.run, fan._replace(again=again), item, result)


def _without_work(lost: Lost, key: str) -> Lost:
    return lost._replace(work=lost.work.delete(key)) if key in lost.work else lost
