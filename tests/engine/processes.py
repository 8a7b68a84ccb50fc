"""Random processes that are sound by construction: blocks inside blocks, each with one way in and one way out."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.documents import (
    Document,
    action,
    arrow,
    batch,
    child,
    confirm,
    delay,
    document,
    event_split,
    expr,
    join,
    policy_join,
    put,
    route,
    split,
    step,
    wait_signal,
)

# A block is a tuple: its kind, then its parts.
Block = Any

LEAVES = st.sampled_from(
    [
        ("set",),
        ("action",),
        ("human",),
        ("child",),
        ("batch", 0),
        ("batch", 3),
        ("delay",),
        ("signal",),
        ("keyed",),
        ("keyed each", 3),
        ("keyed repeat", 2),
        ("skip", True),
        ("skip", False),
        ("each", 0),
        ("each", 3),
        ("repeat", "until", 1),
        ("repeat", "until", 3),
        ("repeat", "while", 0),
        ("repeat", "while", 2),
    ]
)
RIVALS = st.sampled_from(["delay", "signal", "keyed", "human"])


def blocks() -> st.SearchStrategy[Block]:
    """A block of any shape. What a run does may depend on the order of what happens."""
    return _nested(lambda inner: st.one_of(_steady(inner), _racing(inner)))


def steady_blocks() -> st.SearchStrategy[Block]:
    """A block in which nothing races: every order of what happens comes to the same end."""
    return _nested(_steady)


def _nested(around: Any) -> st.SearchStrategy[Block]:
    return st.recursive(LEAVES, around, max_leaves=8)


def _steady(inner: st.SearchStrategy[Block]) -> st.SearchStrategy[Block]:
    several = st.lists(inner, min_size=2, max_size=3)
    return st.one_of(
        st.tuples(st.just("sequence"), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(st.just("parallel"), several),
        st.tuples(st.just("exclusive"), st.booleans(), inner, inner),
        st.tuples(st.just("inclusive"), st.lists(st.tuples(st.booleans(), inner), min_size=1, max_size=3)),
        st.tuples(st.just("loop"), st.integers(1, 3), inner),
        st.tuples(st.just("route"), st.integers(0, 3), several),
        st.tuples(st.just("policy"), st.just("ALL_SETTLED"), st.none(), st.booleans(), several),
        st.tuples(st.just("caught"), st.booleans(), inner),
    )


def _racing(inner: st.SearchStrategy[Block]) -> st.SearchStrategy[Block]:
    several = st.lists(inner, min_size=2, max_size=3)
    return st.one_of(
        st.tuples(st.just("event"), st.lists(st.tuples(RIVALS, inner), min_size=2, max_size=3)),
        st.tuples(st.just("policy"), st.just("ANY"), st.none(), st.booleans(), several),
        st.tuples(st.just("policy"), st.just("N_OF_M"), st.integers(1, 2), st.booleans(), several),
    )


@dataclass
class _Writer:
    parts: list[Document] = field(default_factory=list)
    count: int = 0

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def add(self, *parts: Document) -> None:
        self.parts.extend(parts)

    def block(self, block: Block, source: str, **fields: Any) -> str:
        """Writes the block after `source`; gives the step that ends it. `fields` go on the arrow into it."""
        kind, *rest = block
        if kind == "sequence":
            for part in rest[0]:
                source = self.block(part, source, **fields)
                fields = {}
            return source
        write = {
            "parallel": self._branches,
            "inclusive": self._branches,
            "exclusive": self._branches,
            "loop": self._loop,
            "route": self._route,
            "policy": self._policy,
            "event": self._event,
            "caught": self._caught,
        }.get(kind)
        if write is not None:
            return write(kind, rest, source, fields)
        name = self.name(kind.replace(" ", ""))
        self.add(_leaf(kind, name, rest), arrow(f"{source} -> {name}", **fields))
        return name

    def _branches(self, kind: str, rest: list[Any], source: str, fields: dict[str, Any]) -> str:
        upper = kind.upper()
        begin, end = self.name("split"), self.name("join")
        self.add(split(begin, upper), join(end, upper), arrow(f"{source} -> {begin}", **fields))
        for conditions, inner in self._conditions(kind, rest):
            last = self.block(inner, begin, **conditions)
            self.add(arrow(f"{last} -> {end}"))
        return end

    def _conditions(self, kind: str, rest: list[Any]) -> list[tuple[dict[str, Any], Block]]:
        otherwise = {"isDefault": True}
        match kind:
            case "parallel":
                return [({}, inner) for inner in rest[0]]
            case "exclusive":
                holds, one, other = rest
                return [({"condition": str(holds).lower()}, one), (otherwise, other)]
            case _:
                chosen = [({"condition": str(holds).lower()}, inner) for holds, inner in rest[0]]
                return [*chosen, (otherwise, ("set",))]

    def _loop(self, kind: str, rest: list[Any], source: str, fields: dict[str, Any]) -> str:
        rounds, inner = rest
        again, decide, counter = self.name("again"), self.name("decide"), self.name("counter")
        path = f"rounds_{counter}"
        count = step(
            counter,
            "SYS_SET",
            assignments=[{"targetPath": path, "value": expr(f"(__context__.{path} ?? 0) + 1")}],
        )
        self.add(join(again, "EXCLUSIVE"), split(decide, "EXCLUSIVE"), count)
        self.add(arrow(f"{source} -> {again}", **fields))
        last = self.block(inner, again)
        after = self.name("after")
        self.add(
            put(after, **{after: 1}),
            arrow(f"{last} -> {counter}"),
            arrow(f"{counter} -> {decide}"),
            arrow(f"{decide} -> {again}", condition=f"__context__.{path} % {rounds} != 0"),
            arrow(f"{decide} -> {after}", isDefault=True),
        )
        return after

    def _route(self, kind: str, rest: list[Any], source: str, fields: dict[str, Any]) -> str:
        """A number that no branch has chooses the default."""
        chosen, inners = rest
        begin, end = self.name("route"), self.name("join")
        self.add(route(begin, expr(f"'branch' & {chosen}")), join(end, "EXCLUSIVE"))
        self.add(arrow(f"{source} -> {begin}", **fields))
        for at, inner in enumerate([("set",), *inners]):
            branch = {"branchKey": f"branch{at}"} if at else {"isDefault": True}
            self.add(arrow(f"{self.block(inner, begin, **branch)} -> {end}"))
        return end

    def _policy(self, kind: str, rest: list[Any], source: str, fields: dict[str, Any]) -> str:
        policy, n, cancel, inners = rest
        begin, end = self.name("split"), self.name("join")
        self.add(split(begin), policy_join(end, policy, n, cancel), arrow(f"{source} -> {begin}", **fields))
        for inner in inners:
            self.add(arrow(f"{self.block(inner, begin)} -> {end}"))
        return end

    def _event(self, kind: str, rest: list[Any], source: str, fields: dict[str, Any]) -> str:
        """Whoever comes first is followed by a block of its own."""
        begin, end = self.name("race"), self.name("join")
        self.add(event_split(begin), join(end, "EXCLUSIVE"), arrow(f"{source} -> {begin}", **fields))
        for rival, inner in rest[0]:
            last = self.block(("sequence", [(rival,), inner]), begin)
            self.add(arrow(f"{last} -> {end}"))
        return end

    def _caught(self, kind: str, rest: list[Any], source: str, fields: dict[str, Any]) -> str:
        """An action that fails for good, or does not, and what is done about it."""
        fails, inner = rest
        tried, end = self.name("tried"), self.name("join")
        parameters = expr("__context__.nothing_is_here") if fails else None
        self.add(action(tried, parameters=parameters), join(end, "EXCLUSIVE"))
        self.add(arrow(f"{source} -> {tried}", **fields), arrow(f"{tried} -> {end}"))
        self.add(arrow(f"{self.block(inner, tried, on='ERROR')} -> {end}"))
        return end


def _leaf(kind: str, name: str, rest: list[Any]) -> Document:
    mapping = [{"targetPath": f"seen.{name}", "value": True}]
    match kind:
        case "set":
            return put(name, **{name: 1})
        case "action":
            return action(name, outputMapping=mapping)
        case "human":
            return confirm(name, outputMapping=mapping)
        case "child":
            return child(name, outputMapping=mapping)
        case "delay":
            return delay(name, outputMapping=mapping)
        case "signal" | "keyed" | "keyed each" | "keyed repeat":
            return _wait(kind, name, rest, mapping)
        case "skip":
            return action(name, skipIf=str(rest[0]).lower(), outputMapping=mapping)
        case "each":
            iterable = {"type": "EXPRESSION", "expr": {"src": _numbers(rest[0])}}
            return action(name, forEach={"iterable": iterable, "concurrency": 2}, outputMapping=mapping)
        case "repeat":
            word, rounds = rest
            condition = f"__iteration__ < {rounds}" if word == "while" else f"__iteration__ + 1 >= {rounds}"
            return action(name, repeat={word: condition}, outputMapping=mapping)
        case _:
            return batch(name, _numbers(rest[0]), concurrency=2, outputMapping=mapping)


def _wait(kind: str, name: str, rest: list[Any], mapping: Any) -> Document:
    """A wait; or waits under a correlation key: one, one for each item, or one after the other."""
    match kind:
        case "signal":
            return wait_signal(name, outputMapping=mapping)
        case "keyed":
            return wait_signal(name, correlationKey="one", outputMapping=mapping)
        case "keyed each":
            each = {"iterable": {"type": "EXPRESSION", "expr": {"src": _numbers(rest[0])}}, "concurrency": 2}
            return wait_signal(name, correlationKey=expr("__index__"), forEach=each, outputMapping=mapping)
        case _:
            again = {"until": f"__iteration__ + 1 >= {rest[0]}"}
            return wait_signal(name, correlationKey=expr("__iteration__"), repeat=again, outputMapping=mapping)


def _numbers(count: int) -> str:
    return f"[1..{count}]" if count else "[]"


def written_out(block: Block) -> Document:
    """The definition of a block."""
    writer = _Writer()
    last = writer.block(block, "start")
    writer.add(arrow(f"{last} -> end"))
    return document(*writer.parts, limits={"maxStepVisits": 1000})
