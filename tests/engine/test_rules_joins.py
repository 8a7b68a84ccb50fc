"""What is said about a join with a policy whose branches do not end there alone: it names the step to look at."""

import pytest

from engine.validate import validate
from tests.documents import Document
from tests.engine.definitions import edge, graph

ACTION, FORK, MEET = "SYS_ACTION", "GATEWAY_PARALLEL_SPLIT", "GATEWAY_PARALLEL_JOIN"
KINDS = {"s": "START", "f": FORK, "a": ACTION, "b": ACTION, "m": MEET, "after": ACTION, "e": "END"}
LINES = ("s-f", "f-a", "f-b", "a-m", "b-m", "m-after", "after-e")


def complaint(kinds: dict[str, str], *edges: str | Document, policy: str = "ANY") -> tuple[str, tuple[str, ...]] | None:
    """What JOIN_NEEDS_REGION says about `m`, and the steps that it names."""
    document = graph(kinds, *edges)
    for each in document["steps"]:
        if each["id"] == "m":
            each["join"] = {"policy": policy}
        if each["type"] == ACTION:
            each["actionKey"] = "k"
    found = [problem for problem in validate(document) if problem.rule == "JOIN_NEEDS_REGION"]
    assert len(found) <= 1
    return (found[0].message.rpartition("; ")[2], found[0].step_ids) if found else None


@pytest.mark.parametrize("policy", ["ANY", "ALL_SETTLED"])
def test_nothing_is_said_about_a_region(policy: str) -> None:
    assert complaint(KINDS, *LINES, policy=policy) is None


def test_a_step_that_two_branches_share_is_named() -> None:
    lines = [line for line in LINES if line != "a-m"]
    assert complaint(KINDS, *lines, "a-b") == (
        'two branches of "f" come together at "b", before this join',
        ("m", "f", "b"),
    )


def test_a_step_that_is_entered_from_outside_is_named() -> None:
    assert complaint(KINDS, *LINES, edge("after", "a", on="ERROR")) == (
        '"a", which a branch leads to, is also entered from outside of the branches of "f"',
        ("m", "f", "a"),
    )


def test_a_branch_that_leads_back_is_told_so() -> None:
    said = complaint(KINDS, *LINES, edge("b", "f", on="ERROR"))
    assert said == ('a branch of "f" leads back to it past this join', ("m", "f"))


@pytest.mark.parametrize("kind", [FORK, "GATEWAY_EXCLUSIVE_SPLIT"])
def test_a_join_that_no_single_split_leads_to_is_told_so(kind: str) -> None:
    kinds = {**KINDS, "before": ACTION, "f": kind}
    lines = ("s-before", "before-f", *LINES[1:], edge("before", "m", on="ERROR"))
    assert complaint(kinds, *lines) == (
        "ANY needs one parallel or inclusive split through which every way to this join leads",
        ("m",),
    )
