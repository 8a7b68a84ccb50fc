"""The definitions that are measured, as documents of the language."""

import itertools
from typing import Any

Document = dict[str, Any]

BRANCHES = 10
LIMITS = {"maxSteps": 1_000_000}


def step(step_id: str, step_type: str, **fields: Any) -> Document:
    """A step; its name is its id."""
    return {"id": step_id, "type": step_type, "name": step_id, **fields}


def arrow(source: str, target: str, **fields: Any) -> Document:
    """A transition."""
    return {"id": f"{source}-{target}", "fromStepId": source, "toStepId": target, **fields}


def expression(source: str) -> Document:
    """A JSONata value."""
    return {"type": "expr", "expr": {"src": source}}


def put(step_id: str, target: str, value: Any) -> Document:
    """A SYS_SET of one value."""
    return step(step_id, "SYS_SET", assignments=[{"targetPath": target, "value": value}])


def definition(steps: list[Document], transitions: list[Document], **fields: Any) -> Document:
    """The steps between START and END, whose ids are `start` and `end`."""
    return {
        "limits": LIMITS,
        "steps": [step("start", "START"), *steps, step("end", "END")],
        "stepTransitions": transitions,
        **fields,
    }


def line(steps: list[Document], **fields: Any) -> Document:
    """Steps that follow one another."""
    ids = ["start", *(each["id"] for each in steps), "end"]
    arrows = [arrow(source, target) for source, target in itertools.pairwise(ids)]
    return definition(steps, arrows, **fields)


def chain(count: int) -> Document:
    """`count` steps, one after the other, each writing a constant; they share fifty targets."""
    return line([put(f"s{at}", f"k{at % 50}", at + 1) for at in range(count)])


def parallel(count: int) -> Document:
    """`count` steps in ten branches between a split and a join, each writing a constant."""
    steps = [step("split", "GATEWAY_PARALLEL_SPLIT"), step("join", "GATEWAY_PARALLEL_JOIN")]
    arrows = [arrow("start", "split"), arrow("join", "end")]
    for branch in range(BRANCHES):
        before = "split"
        for at in range(count // BRANCHES):
            name = f"s{branch}_{at}"
            steps.append(put(name, f"k{branch}", at + 1))
            arrows.append(arrow(before, name))
            before = name
        arrows.append(arrow(before, "join"))
    return definition(steps, arrows)


MIXED_BLOCK = 20


def mixed(count: int, action_key: str, salt: int, *, reckoned: bool = True) -> Document:
    """About `count` steps as people write them: blocks of twenty, in a row.

    Each block has a parallel part with three actions, an exclusive choice, an inclusive choice, and values that are
    `reckoned` by expressions, or else constants and references. No two expressions have the same text, nor do those
    of two salts, so that nothing compiled earlier can be used again.
    """
    steps: list[Document] = []
    arrows: list[Document] = []
    before = "start"
    for at in range(count // MIXED_BLOCK):
        block = _Block(f"b{at}", salt * count + at, action_key, reckoned)
        steps += block.steps
        arrows += [arrow(before, block.first), *block.arrows]
        before = block.last
    return definition(steps, [*arrows, arrow(before, "end")])


class _Block:
    """Twenty steps with one way in and one way out."""

    def __init__(self, name: str, number: int, action_key: str, reckoned: bool) -> None:
        self.name = name
        self.reckoned = reckoned
        self.number = number
        self.action_key = action_key
        self.steps: list[Document] = []
        self.arrows: list[Document] = []
        self.first = self._add("take", "SYS_SET", assignments=self._writes("order.total", "order.paid"))
        joined = self._parallel(self.first)
        chosen = self._choice(joined)
        included = self._inclusion(chosen)
        noted = self._add("note", "SYS_SET", assignments=self._writes("note.text", "note.size"))
        reported = self._add("report", "SYS_ACTION", **self._call("take"))
        booked = self._add("book", "SYS_ACTION", **self._call("note"))
        self.last = self._add("leave", "SYS_SET", assignments=self._writes("left.at", "left.by"))
        path = (included, noted, reported, booked, self.last)
        self.arrows += [arrow(source, target) for source, target in itertools.pairwise(path)]

    def _parallel(self, before: str) -> str:
        split = self._add("split", "GATEWAY_PARALLEL_SPLIT")
        join = self._add("join", "GATEWAY_PARALLEL_JOIN")
        self.arrows.append(arrow(before, split))
        for branch in range(3):
            act = self._add(f"act{branch}", "SYS_ACTION", **self._call("take"))
            self.arrows += [arrow(split, act), arrow(act, join)]
        return join

    def _choice(self, before: str) -> str:
        split = self._add("choose", "GATEWAY_EXCLUSIVE_SPLIT")
        join = self._add("chosen", "GATEWAY_EXCLUSIVE_JOIN")
        left = self._add("left", "SYS_ACTION", **self._call("take"))
        right = self._add("right", "SYS_SET", assignments=self._writes("order.left", "order.right"))
        condition = f"__context__.order.total > {self.number}"
        self.arrows += [
            arrow(before, split),
            arrow(split, left, condition=condition),
            arrow(split, right, isDefault=True),
            arrow(left, join),
            arrow(right, join),
        ]
        return join

    def _inclusion(self, before: str) -> str:
        split = self._add("include", "GATEWAY_INCLUSIVE_SPLIT")
        join = self._add("included", "GATEWAY_INCLUSIVE_JOIN")
        self.arrows.append(arrow(before, split))
        for way in range(4):
            part = self._add(f"way{way}", "SYS_SET", assignments=self._writes(f"way.a{way}", f"way.b{way}"))
            last = way == 3
            condition: Document = (
                {"isDefault": True} if last else {"condition": f"__context__.order.total % {way + 2} = {self.number}"}
            )
            self.arrows += [arrow(split, part, **condition), arrow(part, join)]
        return join

    def _add(self, name: str, step_type: str, **fields: Any) -> str:
        added = step(f"{self.name}_{name}", step_type, **fields)
        self.steps.append(added)
        return str(added["id"])

    def _writes(self, first: str, second: str) -> list[Document]:
        return [
            {"targetPath": first, "value": self._value(f"__context__.n * {self.number} + {len(self.steps)}", "n")},
            {"targetPath": second, "value": {"type": "const", "value": self.number}},
        ]

    def _call(self, seen: str) -> Document:
        source = f'"{self.name} " & $string(__context__.n + {self.number} + {len(self.steps)})'
        return {"actionKey": self.action_key, "parameters": {"text": self._value(source, "text"), "of": seen}}

    def _value(self, source: str, path: str) -> Document:
        if self.reckoned:
            return expression(source)
        return {"type": "field", "ref": {"source": "CONTEXT", "path": path}}
