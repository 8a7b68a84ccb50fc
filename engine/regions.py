"""Regions: a split, its branches, and a join that does not wait for all of them.

Each activation of such a split is a region of its own, `split#visit`; the tokens of a branch carry its scope,
`split#visit/transition`. When the join has gone on, the region is forgotten: what still comes from it is late and is
swallowed, and does not hold up the end of the run.
"""

from engine.draft import Draft, described
from engine.errors import EngineError
from engine.json_types import JSON
from engine.keys import visit_key
from engine.plan import Edge, InclusiveSplitNode, JoinPlan, ParallelJoinNode, ParallelSplitNode
from engine.protocol import Failure
from engine.state import Region, Token
from engine.withdrawal import withdraw_branch


def open_region(
    draft: Draft, node: ParallelSplitNode | InclusiveSplitNode, visit: int, chosen: tuple[Edge, ...]
) -> None:
    """A token for every chosen transition, each in a branch of its own."""
    key = visit_key(node.id, visit)
    region = Region(node.id, draft.scope, draft.error, tuple(edge.id for edge in chosen))
    draft.regions = draft.regions.set(key, region)
    draft.ready.extend(Token(edge.id, f"{key}/{edge.id}", draft.error) for edge in chosen)


def arrive_at_policy(draft: Draft, node: ParallelJoinNode, edge: Edge | None) -> None:
    """A token of a branch has come to the join of its region, where one that comes late is swallowed; or the token
    that the join sends itself when it may go on. Raises `EngineError`, and nothing has changed then but what came.
    """
    if edge is None or node.policy is None:
        raise AssertionError("a join with a policy is entered by a transition")
    if draft.race:
        _go_on(draft, node, node.policy, draft.race)
        return
    source = draft.plan.nodes[edge.source].id
    _note(draft, node, node.policy, draft.scope, {"output": draft.outputs.get(source)})


def fail_branch(draft: Draft, scope: str, failure: Failure) -> bool:
    """In a region whose join settles a failure ends only its branch, and so it does in a branch that nobody waits for
    any more; tells whether it was so.
    """
    while scope:
        region = draft.regions.get(scope.rpartition("/")[0])
        if region is None:
            withdraw_branch(draft, scope)
            return True
        node = _join_of(draft, region)
        if node.policy is not None and node.policy.settles:
            withdraw_branch(draft, scope)
            _note(draft, node, node.policy, scope, {"error": described(failure)})
            return True
        scope = region.scope
    return False


def close_region(draft: Draft, node: ParallelJoinNode, key: str) -> Region:
    """Forgets a region whose join goes on; with `cancelRemaining` what is left of it is withdrawn."""
    region = draft.regions[key]
    draft.regions = draft.regions.delete(key)
    if node.policy is not None and node.policy.cancels:
        for late in region.branches:
            withdraw_branch(draft, f"{key}/{late}")
    return region


def is_late(draft: Draft, scope: str) -> bool:
    """Whether a region that the branch is in has gone on without it."""
    while scope:
        region = draft.regions.get(scope.rpartition("/")[0])
        if region is None:
            return True
        scope = region.scope
    return False


def is_inside(draft: Draft, scope: str, outer: str) -> bool:
    """Whether a branch is, or is inside of, another one; everything is inside of no branch."""
    if not outer:
        return True
    while scope:
        if scope == outer:
            return True
        region = draft.regions.get(scope.rpartition("/")[0])
        if region is None:
            return False
        scope = region.scope
    return False


def enclosing_scope(draft: Draft, index: int) -> str:
    """The innermost branch, of the regions that are open, that a step of the plan is in; empty for none."""
    plan = draft.plan
    found, size = "", -1
    for key, region in sorted(draft.regions.items()):
        split = plan.node(region.split)
        closed_by = getattr(split, "closed_by", None)
        for edge in split.outgoing:
            branch = 0 if closed_by is None else plan.beyond([edge.target], closed_by)
            if branch >> index & 1 and (size < 0 or branch.bit_count() < size):
                found, size = f"{key}/{edge.id}", branch.bit_count()
    return found


def _join_of(draft: Draft, region: Region) -> ParallelJoinNode:
    split = draft.plan.node(region.split)
    closed_by = split.closed_by if isinstance(split, ParallelSplitNode | InclusiveSplitNode) else None
    join = None if closed_by is None else draft.plan.nodes[closed_by]
    if not isinstance(join, ParallelJoinNode):
        raise AssertionError(f"{region.split} opens no region")
    return join


def _note(draft: Draft, node: ParallelJoinNode, policy: JoinPlan, scope: str, result: dict[str, JSON]) -> None:
    """Takes down how a branch came to its join. With the last one needed the join sends itself a token that is in no
    branch of its own region: what then fails is the join, not a branch.
    """
    key, _, branch = scope.rpartition("/")
    region = draft.regions.get(key)
    if region is None or branch in region.arrived or is_late(draft, region.scope):
        return
    region = region._replace(arrived=region.arrived.set(branch, result))
    draft.regions = draft.regions.set(key, region)
    opened = len(region.branches)
    if len(region.arrived) == min(opened, opened if policy.need is None else policy.need):
        draft.ready.appendleft(Token(node.incoming[0].id, region.scope, region.error, key))


def _go_on(draft: Draft, node: ParallelJoinNode, policy: JoinPlan, key: str) -> None:
    visit = draft.enter(node)
    before = draft.outputs
    if policy.settles:
        draft.outputs = before.set(node.id, _settled(draft.regions[key]))
    try:
        draft.passed(node, visit)
    except EngineError:
        draft.outputs = before
        raise
    close_region(draft, node, key)
    draft.race = ""
    draft.send(*node.outgoing)


def _settled(region: Region) -> list[JSON]:
    """What an ALL_SETTLED join gives: the branches in their order, each with its output or its error."""
    settled: list[JSON] = []
    for branch in region.branches:
        result = region.arrived[branch]
        status = "FAILED" if "error" in result else "COMPLETED"
        settled.append({"transitionId": branch, "status": status, **result})
    return settled
