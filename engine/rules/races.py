"""Whether branches that run at the same time write the same place of the context: then the last one wins.

Two writes race when the place of one is, or holds, that of the other. Appending to the same list loses nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from engine.enclosure import NOWHERE, OPENING, immediate_dominators
from engine.problems import Severity
from engine.rules.examined import Examined, Finding
from engine.rules.outputs import is_disabled
from engine.steps import ChildStep, DelayStep, JoinStep, SetStep, Step, StepType, ValueMapping, WorkStep

MOST_VISITS = 100_000


@dataclass(frozen=True, slots=True)
class Written:
    """A place of the context that a step writes, and the path of the mapping that does."""

    step: int
    path: str
    target: tuple[str, ...]
    append: bool

    def races(self, other: "Written") -> bool:
        """Whether it matters which of the two comes last."""
        if self.append and other.append and self.target == other.target:
            return False
        length = min(len(self.target), len(other.target))
        return self.target[:length] == other.target[:length]


def context_write_race(examined: Examined) -> Iterator[Finding]:
    """Branches that run at the same time do not write the same path. Looks no further than it can in a short time."""
    writes = {at: found for at, step in examined.first_steps if (found := _written(at, step))}
    end = next((at for at, step in examined.first_steps if step.type is StepType.END), None)
    if end is None or not _worth_looking(writes):
        return
    flow = examined.flow
    closing = immediate_dominators(flow.preceding, flow.following, end)
    left = MOST_VISITS
    told: set[str] = set()
    for at, step in examined.first_steps:
        if step.type not in OPENING or closing[at] == NOWHERE:
            continue
        branches = _branches(examined, at, closing[at], left)
        left -= sum(map(len, branches))
        for one, other in _racing(branches, writes, left):
            left -= 1
            if other.path not in told:
                told.add(other.path)
                yield _finding(examined, one, other)
        if left <= 0:
            return


def _written(at: int, step: Step) -> tuple[Written, ...]:
    if is_disabled(step):
        return ()
    fields: dict[str, tuple[ValueMapping, ...]] = {}
    if isinstance(step, SetStep):
        fields["assignments"] = step.assignments
    if isinstance(step, ChildStep):
        fields["contextProjection"] = step.context_projection
    if isinstance(step, WorkStep | SetStep | DelayStep | JoinStep):
        fields["outputMapping"] = step.output_mapping
    return tuple(
        Written(
            at, f"steps[{at}].{name}[{index}].targetPath", tuple(each.target_path.split(".")), each.mode == "append"
        )
        for name, mappings in fields.items()
        for index, each in enumerate(mappings)
    )


def _worth_looking(writes: dict[int, tuple[Written, ...]]) -> bool:
    """Whether two steps write below the same name at all."""
    first: dict[str, int] = {}
    return any(first.setdefault(each.target[0], at) != at for at, found in writes.items() for each in found)


def _branches(examined: Examined, split: int, closing: int, most: int) -> list[set[int]]:
    """The steps of each branch of a split up to where all branches have come together again."""
    inclusive = examined.steps[split].type is StepType.GATEWAY_INCLUSIVE_SPLIT
    branches = []
    for out in examined.outgoing[split]:
        transition = examined.transitions[out]
        if inclusive and transition.is_default:
            continue  # taken only when no other branch is
        target = examined.position[transition.to_step_id]
        seen = {target} - {closing}
        stack = list(seen)
        while stack and most > 0:
            most -= 1
            for beyond in examined.flow.following[stack.pop()]:
                if beyond not in (closing, split) and beyond not in seen:
                    seen.add(beyond)
                    stack.append(beyond)
        branches.append(seen)
    return branches if most > 0 else []


def _racing(
    branches: list[set[int]], writes: dict[int, tuple[Written, ...]], most: int
) -> Iterator[tuple[Written, Written]]:
    """Pairs of writes, of steps that have no branch in common, in the order of the document."""
    holding: dict[int, int] = {}
    for number, branch in enumerate(branches):
        for at in branch:
            if at in writes:
                holding[at] = holding.get(at, 0) | 1 << number
    by_name: dict[str, list[Written]] = {}
    for at in sorted(holding):
        for each in writes[at]:
            for earlier in by_name.get(each.target[0], ()):
                most -= 1
                if most < 0:
                    return
                if not holding[earlier.step] & holding[at] and earlier.races(each):
                    yield earlier, each
                    break
            by_name.setdefault(each.target[0], []).append(each)


def _finding(examined: Examined, one: Written, other: Written) -> Finding:
    first, second = examined.steps[one.step].id, examined.steps[other.step].id
    message = f'"{first}" writes {".".join(one.target)[:200]} in a branch beside this one; the last of the two wins'
    return Finding(other.path, message, Severity.WARNING, (first, second))
