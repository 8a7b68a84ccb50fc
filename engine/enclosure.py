"""Regions: a split whose branches all end at one join. Found in the same way for the plan and for the rules, so that
"the validator accepts it" and "it compiles" cannot come apart.

What would take too long in a graph made to be tangled is given up: there is no region then.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from engine.reach import Graph, plan_order
from engine.steps import StepType

# Splits that may open a region.
OPENING = frozenset({StepType.GATEWAY_PARALLEL_SPLIT, StepType.GATEWAY_INCLUSIVE_SPLIT})

MOST_VISITS = 400_000
NOWHERE = -1


def immediate_dominators(following: Graph, preceding: Graph, start: int) -> list[int]:
    """Per node, the last node that every path from `start` to it passes before; NOWHERE for those without a path, the
    start's is itself. Everything is NOWHERE when it takes too long to find out.

    Cooper, Harvey and Kennedy: sets shrink to a fixpoint, along the tree of what is known so far.
    """
    order = plan_order(following, start)
    rank = {node: at for at, node in enumerate(order)}
    found = [NOWHERE] * len(following)
    found[start] = start
    left = MOST_VISITS
    changed = True
    while changed:
        changed = False
        for node in order[1:]:
            meeting = NOWHERE
            for source in preceding[node]:
                if found[source] == NOWHERE:
                    continue
                one, other = source, source if meeting == NOWHERE else meeting
                while one != other:
                    left -= 1
                    if rank[one] > rank[other]:
                        one = found[one]
                    else:
                        other = found[other]
                meeting = one
            if left < 0:
                return [NOWHERE] * len(following)
            if meeting != found[node]:
                found[node] = meeting
                changed = True
    return found


@dataclass(slots=True)
class Regions:
    """Which split opens the region that a join closes: a split belongs to one join at most.

    `splits` are the nodes that may open one. A region's branches all end at the join and nowhere else, are entered
    through the split alone, and have no step in common. Of several splits the nearest one counts.
    """

    following: Graph
    preceding: Graph
    start: int
    splits: Collection[int]
    _dominators: list[int] | None = None
    _left: int = MOST_VISITS
    _taken: set[int] = field(default_factory=set)

    def close(self, joins: Sequence[int]) -> Mapping[int, int]:
        """Join → split, for those of the joins that close a region."""
        found = {}
        for join in joins:
            for split in self.candidates(join):
                obstacle = self.obstacle(split, join)
                if obstacle is None and split not in self._taken:
                    self._taken.add(split)
                    found[join] = split
                if obstacle is None or obstacle[0] == "TANGLED":
                    break
        return found

    def candidates(self, join: int) -> Iterator[int]:
        """The splits through which every path to the join leads, the nearest one first."""
        if self._dominators is None:
            self._dominators = immediate_dominators(self.following, self.preceding, self.start)
        node = self._dominators[join]
        while node != NOWHERE:
            if node in self.splits:
                yield node
            node = NOWHERE if self._dominators[node] == node else self._dominators[node]

    def obstacle(self, split: int, join: int) -> tuple[str, int] | None:
        """Why a split and a join enclose no region: what is wrong, and the step where it is; None when they do.

        SHARED: two branches have the step in common. BACK: a branch leads back to the split. ENTERED: the step is
        entered from outside. TANGLED: it takes too long to find out.
        """
        inside: set[int] = set()
        for target in self.following[split]:
            branch = self._branch(target, join)
            if branch is None:
                return "TANGLED", split
            if split in branch:
                return "BACK", split
            if not inside.isdisjoint(branch):
                return "SHARED", min(inside & branch)
            inside |= branch
        for node in sorted(inside):
            if any(source not in inside and source != split for source in self.preceding[node]):
                return "ENTERED", node
        if not inside or any(source not in inside and source != split for source in self.preceding[join]):
            return "ENTERED", join
        return None

    def _branch(self, target: int, join: int) -> set[int] | None:
        """The nodes from `target` up to the join; None when that takes too long to find out."""
        if target == join:
            return set()
        seen = {target}
        stack = [target]
        while stack:
            self._left -= 1
            if self._left < 0:
                return None
            for beyond in self.following[stack.pop()]:
                if beyond != join and beyond not in seen:
                    seen.add(beyond)
                    stack.append(beyond)
        return seen
