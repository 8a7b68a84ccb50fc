"""Who runs before whom: what a step can rely on when it is reached.

Sets of steps are ints, a bit for each position in the document, so that five thousand steps stay cheap.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property

from engine.reach import components, plan_order
from engine.rules.outputs import is_disabled, may_be_left_out
from engine.steps import JoinStep, Step, StepType

MOST_EVALUATIONS_PER_STEP = 40
MOST_SPLIT_TESTS = 50_000
MOST_VISITS = 50_000

_CONCURRENT = frozenset({StepType.GATEWAY_PARALLEL_SPLIT, StepType.GATEWAY_INCLUSIVE_SPLIT})
_ENDS = frozenset({StepType.END, StepType.SYS_TERMINATE})


class Flow:
    """A graph of steps by position, with the one that starts (None: there is none).

    `ways` are the transitions out of each step: where to, and whether it is taken on success. `regions` gives the
    split of each join that has a policy. What would take too long in a graph made to be tangled is cut short, always
    towards "perhaps".
    """

    def __init__(
        self,
        steps: Sequence[Step],
        ways: Sequence[Sequence[tuple[int, bool]]],
        start: int | None,
        regions: Mapping[int, int],
    ) -> None:
        self._types = [step.type for step in steps]
        self._steps = steps
        self._ways = ways
        self._start = start
        self._regions = regions
        self.following = [[target for target, _ in out] for out in ways]
        self._entering: list[list[tuple[int, bool]]] = [[] for _ in ways]
        for source, out in enumerate(ways):
            for target, succeeded in out:
                self._entering[target].append((source, succeeded))
        self.preceding = [[source for source, _ in entering] for entering in self._entering]
        self._tests_left = MOST_SPLIT_TESTS
        self._visits_left = MOST_VISITS

    @cached_property
    def reachable(self) -> int:
        """Steps that a token from START can come to."""
        return 0 if self._start is None else self._closure([self._start], self.following)

    @cached_property
    def finishing(self) -> int:
        """Steps from which a token can come to an END or a SYS_TERMINATE."""
        return self._closure([at for at, kind in enumerate(self._types) if kind in _ENDS], self.preceding)

    @cached_property
    def descendants(self) -> list[int]:
        """Per step, the steps that a token from it can come to; itself only when it lies on a cycle."""
        found = [0] * len(self.following)
        for component in reversed(components(self.following)):
            members = beyond = 0
            for node in component:
                members |= 1 << node
                for target in self.following[node]:
                    beyond |= 1 << target | found[target]
            for node in component:
                found[node] = beyond | (members if len(component) > 1 else 0)
        return found

    @cached_property
    def surely_before(self) -> list[int]:
        """Per reachable step, the steps that have completed whenever it is reached, itself not included.

        A step that may be left out, and one that is left by a transition for errors, has perhaps not completed. A
        join of all branches has waited for all of its incoming transitions, so it can rely on each of them; any
        other step only on what all of its incoming transitions have in common, and a join with a policy on what had
        completed before its split. The sets begin with everything and shrink to a fixpoint. A graph so tangled that
        this takes too long gets the answer "nothing is sure".
        """
        everything = (1 << len(self._ways)) - 1
        before = [everything] * len(self._ways)
        if self._start is None:
            return before
        order = [node for node in plan_order(self.following, self._start) if self.reachable >> node & 1]
        closing = {split: join for join, split in self._regions.items()}
        waiting = deque(order)
        queued = self.reachable
        left = MOST_EVALUATIONS_PER_STEP * len(order)
        while waiting:
            node = waiting.popleft()
            queued &= ~(1 << node)
            left -= 1
            if left < 0:
                return [0] * len(self._ways)
            value = self._met(node, before, everything)
            if value != before[node]:
                before[node] = value
                for target in (*self.following[node], *([closing[node]] if node in closing else [])):
                    if not queued >> target & 1:
                        queued |= 1 << target
                        waiting.append(target)
        return before

    def _met(self, node: int, before: list[int], everything: int) -> int:
        if node == self._start:
            return 0
        together = self._waits_for_all(node)
        value = 0 if together else everything
        for source, succeeded in self._entering[node]:
            if self.reachable >> source & 1:
                after = before[source] | (self._sure[source] if succeeded else 0)
                value = value | after if together else value & after
        split = self._regions.get(node)
        if split is not None:
            value &= before[split] | self._sure[split]
        return value & ~(1 << node)

    def _waits_for_all(self, node: int) -> bool:
        step = self._steps[node]
        return isinstance(step, JoinStep) and step.join.policy == "ALL"

    @cached_property
    def _sure(self) -> list[int]:
        """Per step, itself, unless a token may go on from it without its having been done."""
        return [0 if may_be_left_out(step) else 1 << at for at, step in enumerate(self._steps)]

    @cached_property
    def without_error(self) -> int:
        """The steps that a token can come to which is on no error path."""
        ways = [[target for target, succeeded in out if succeeded] for out in self._ways]
        for join, split in self._regions.items():
            ways[split] = [*ways[split], join]
        fresh = [at for at in range(len(self._ways)) if self._forgets_errors(at)]
        return self._closure(fresh if self._start is None else [self._start, *fresh], ways)

    @cached_property
    def with_error(self) -> int:
        """The steps that a token on an error path can come to."""
        caught = [target for out in self._ways for target, succeeded in out if not succeeded]
        kept = [target for target in caught if not self._forgets_errors(target)]
        ways = [[target for target in out if not self._forgets_errors(target)] for out in self.following]
        return self._closure(kept, ways)

    def _forgets_errors(self, node: int) -> bool:
        return self._types[node] is StepType.GATEWAY_INCLUSIVE_JOIN or self._waits_for_all(node)

    def surely(self, earlier: int, place: int) -> bool:
        """Whether one step has completed whenever the other is reached."""
        return bool(self.surely_before[place] >> earlier & 1)

    def always(self, step: int) -> bool:
        """Whether no execution ends without this step."""
        ends = [at for at, kind in enumerate(self._types) if kind in _ENDS and self.reachable >> at & 1]
        return bool(ends) and all(self.surely(step, end) for end in ends)

    def maybe(self, earlier: int, place: int) -> bool:
        """Whether one step may have completed when the other is reached: by a path, or in a parallel branch.

        Errs on the side of maybe.
        """
        if is_disabled(self._steps[earlier]):
            return False
        for target, succeeded in self._ways[earlier]:
            if succeeded and (target == place or self.descendants[target] >> place & 1):
                return True
        return not self.surely_before[earlier] >> place & 1 and self._at_once(earlier, place)

    def _at_once(self, one: int, other: int) -> bool:
        """Whether two steps lie in different branches of a split that sends several tokens."""
        for union, branches in self._branches:
            self._tests_left -= 1
            if self._tests_left < 0:
                return True
            if union >> one & 1 and union >> other & 1:
                self._tests_left -= len(branches)
                holding_one = [at for at, branch in enumerate(branches) if branch >> one & 1]
                holding_other = [at for at, branch in enumerate(branches) if branch >> other & 1]
                if len(holding_one) > 1 or len(holding_other) > 1 or holding_one != holding_other:
                    return True
        return False

    @cached_property
    def _branches(self) -> list[tuple[int, list[int]]]:
        """Per split that sends several tokens: the steps of each branch up to the joins that all branches reach."""
        joins = sum(1 << at for at in range(len(self._ways)) if self._gathers(at))
        found = []
        for at, kind in enumerate(self._types):
            targets = self.following[at]
            if kind not in _CONCURRENT or len(targets) < 2:
                continue
            branches = [self.descendants[target] | 1 << target for target in targets]
            closing = joins
            union = 0
            for branch in branches:
                closing &= branch
                union |= branch
            if self._escapes(targets, closing):
                closing = 0
            beyond = self._with_descendants(closing)
            found.append((union & ~beyond, [branch & ~beyond for branch in branches]))
        return found

    def _gathers(self, node: int) -> bool:
        """Whether what comes after a join comes after all of its branches: none of them is left running."""
        step = self._steps[node]
        if not isinstance(step, JoinStep):
            return step.type is StepType.GATEWAY_INCLUSIVE_JOIN
        return step.join.policy in ("ALL", "ALL_SETTLED") or step.join.cancel_remaining

    def _escapes(self, targets: Sequence[int], closing: int) -> bool:
        """Whether a token can come to an END past the joins; also when that takes too long to find out."""
        seen = closing
        stack = list(targets)
        while stack:
            node = stack.pop()
            if seen >> node & 1:
                continue
            seen |= 1 << node
            self._visits_left -= 1
            if self._visits_left < 0 or self._types[node] is StepType.END:
                return True
            stack.extend(self.following[node])
        return False

    def _with_descendants(self, nodes: int) -> int:
        """The given steps and all that come after any of them; nothing when that takes too long to find out."""
        found = nodes
        left = nodes
        while left:
            self._visits_left -= 1
            if self._visits_left < 0:
                return 0
            node = (left & -left).bit_length() - 1
            found |= self.descendants[node]
            left &= ~(1 << node) & ~self.descendants[node]
        return found

    @staticmethod
    def _closure(roots: Sequence[int], following: Sequence[Sequence[int]]) -> int:
        seen = sum(1 << root for root in dict.fromkeys(roots))
        stack = list(roots)
        while stack:
            for target in following[stack.pop()]:
                if not seen >> target & 1:
                    seen |= 1 << target
                    stack.append(target)
        return seen
