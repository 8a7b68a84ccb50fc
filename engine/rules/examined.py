"""What rules look at: a definition with its indices, built once, and what a rule says about it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from engine.catalogue import Catalogue
from engine.definition import Definition, Transition
from engine.enclosure import OPENING, Regions
from engine.problems import Problem, Severity
from engine.reach import plan_order
from engine.rules.flow import Flow
from engine.rules.hints import Hints
from engine.sites import Sites, read_sites
from engine.steps import JoinStep, Step, StepType


@dataclass(frozen=True, slots=True)
class Finding:
    """One breach of a rule; the table of rules adds the rule's name and code to make it a `Problem`."""

    path: str
    message: str
    severity: Severity = Severity.ERROR
    step_ids: tuple[str, ...] = ()
    transition_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule with its stable name and code, and the function that finds its breaches in document order."""

    name: str
    code: str
    check: Callable[["Examined"], Iterator[Finding]]

    def problems(self, examined: "Examined") -> Iterator[Problem]:
        """Every breach, as problems."""
        for finding in self.check(examined):
            yield problem(self.name, self.code, finding)


def problem(rule: str, code: str, finding: Finding) -> Problem:
    """A finding under a rule's name and code."""
    return Problem(
        rule=rule,
        code=code,
        message=finding.message,
        path=finding.path,
        severity=finding.severity,
        step_ids=finding.step_ids,
        transition_ids=finding.transition_ids,
    )


@dataclass(frozen=True)
class Examined:
    """A definition as rules see it. Steps and transitions are named by their position in the document.

    `position` finds a step by id; of steps that share an id only the first is in the graph, so that a doubled id is
    one finding and not ten. `outgoing` and `incoming` hold, per step, positions of transitions whose ends exist.
    """

    definition: Definition
    catalogue: Catalogue | None
    sites: Sites
    position: Mapping[str, int]
    outgoing: tuple[tuple[int, ...], ...]
    incoming: tuple[tuple[int, ...], ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps, in document order."""
        return self.definition.steps

    @property
    def transitions(self) -> tuple[Transition, ...]:
        """All transitions, in document order."""
        return self.definition.step_transitions

    @cached_property
    def first_steps(self) -> tuple[tuple[int, Step], ...]:
        """Steps with their positions, without repetitions of an id."""
        return tuple((at, step) for at, step in enumerate(self.steps) if self.position[step.id] == at)

    @cached_property
    def start(self) -> int | None:
        """The step where executions begin, if there is one."""
        return next((at for at, step in self.first_steps if step.type is StepType.START), None)

    @cached_property
    def ways(self) -> tuple[tuple[tuple[int, bool], ...], ...]:
        """Per step, where its transitions lead to, and whether they are taken on success."""
        return tuple(
            tuple(
                (self.position[self.transitions[at].to_step_id], self.transitions[at].on == "SUCCESS")
                for at in outgoing
            )
            for outgoing in self.outgoing
        )

    @cached_property
    def regions(self) -> Regions:
        """What a split and a join may enclose."""
        following = [[target for target, _ in out] for out in self.ways]
        preceding: list[list[int]] = [[] for _ in following]
        for source, targets in enumerate(following):
            for target in targets:
                preceding[target].append(source)
        splits = {at for at, step in self.first_steps if step.type in OPENING}
        return Regions(following, preceding, self.start or 0, splits)

    @cached_property
    def closed(self) -> Mapping[int, int]:
        """Join with a policy → split, where the two enclose a region."""
        joins = {at for at, step in self.first_steps if isinstance(step, JoinStep) and step.join.policy != "ALL"}
        if self.start is None or not joins:
            return {}
        return self.regions.close([at for at in plan_order(self.regions.following, self.start) if at in joins])

    @cached_property
    def flow(self) -> Flow:
        """Who runs before whom."""
        return Flow(self.steps, self.ways, self.start, self.closed)

    @cached_property
    def hints(self) -> Hints:
        """Suggestions for names that are not there."""
        return Hints()

    def transition_ids(self, positions: tuple[int, ...]) -> tuple[str, ...]:
        """The ids of transitions."""
        return tuple(self.transitions[at].id for at in positions)


def examine(definition: Definition, catalogue: Catalogue | None) -> Examined:
    """The view of a definition that every rule shares."""
    position: dict[str, int] = {}
    for at, step in enumerate(definition.steps):
        position.setdefault(step.id, at)
    outgoing: list[list[int]] = [[] for _ in definition.steps]
    incoming: list[list[int]] = [[] for _ in definition.steps]
    for at, transition in enumerate(definition.step_transitions):
        source, target = position.get(transition.from_step_id), position.get(transition.to_step_id)
        if source is not None and target is not None:
            outgoing[source].append(at)
            incoming[target].append(at)
    return Examined(
        definition=definition,
        catalogue=catalogue,
        sites=read_sites(definition),
        position=position,
        outgoing=tuple(map(tuple, outgoing)),
        incoming=tuple(map(tuple, incoming)),
    )


def not_checked(path: str, what: str) -> Finding:
    """A rule that applies here but could not look at what it needs."""
    return Finding(path, f"not checked: {what}", Severity.NOT_CHECKED)
