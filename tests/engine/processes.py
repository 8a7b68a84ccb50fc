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
    document,
    expr,
    join,
    put,
    split,
    step,
)

# A block is a tuple: its kind, then its parts.
Block = Any

LEAVES = st.sampled_from([("set",), ("action",), ("human",), ("child",), ("batch", 0), ("batch", 3)])


def blocks() -> st.SearchStrategy[Block]:
    """A block of any shape."""
    return st.recursive(
        LEAVES,
        lambda inner: st.one_of(
            st.tuples(st.just("sequence"), st.lists(inner, min_size=1, max_size=3)),
            st.tuples(st.just("parallel"), st.lists(inner, min_size=2, max_size=3)),
            st.tuples(st.just("exclusive"), st.booleans(), inner, inner),
            st.tuples(st.just("inclusive"), st.lists(st.tuples(st.booleans(), inner), min_size=1, max_size=3)),
            st.tuples(st.just("loop"), st.integers(1, 3), inner),
        ),
        max_leaves=8,
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
        if kind in {"parallel", "inclusive", "exclusive"}:
            return self._branches(kind, rest, source, fields)
        if kind == "loop":
            return self._loop(rest[0], rest[1], source, fields)
        name = self.name(kind)
        self.add(self._leaf(kind, name, rest), arrow(f"{source} -> {name}", **fields))
        return name

    def _leaf(self, kind: str, name: str, rest: list[Any]) -> Document:
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
            case _:
                return batch(name, f"[1..{rest[0]}]" if rest[0] else "[]", concurrency=2, outputMapping=mapping)

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

    def _loop(self, rounds: int, inner: Block, source: str, fields: dict[str, Any]) -> str:
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


def written_out(block: Block) -> Document:
    """The definition of a block."""
    writer = _Writer()
    last = writer.block(block, "start")
    writer.add(arrow(f"{last} -> end"))
    return document(*writer.parts, limits={"maxStepVisits": 1000})
