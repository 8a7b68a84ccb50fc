"""Validating and compiling a definition of a thousand steps, from the stored document to the plan.

Every round takes a document whose expressions have not been seen before, so that no cache of compiled expressions
helps; what compiling the same document again costs is shown beside it.
"""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.definitions import Document, mixed
from bench.figures import Figure, Say
from engine.catalogue import ActionEntry, Catalogue
from engine.compile import compile_document
from engine.validate import has_errors, validate

STEPS = 1_000
ROUNDS = 7
REACH = 100.0
ACTION_KEY = "bench.say"

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "of": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}


def measure(say: Say) -> list[Figure]:
    """Both, for documents never seen and for one seen before."""
    say(f"{STEPS:,} steps, {ROUNDS} documents")
    compiling = [mixed(STEPS, ACTION_KEY, salt) for salt in range(1, ROUNDS + 1)]
    validating = [mixed(STEPS, ACTION_KEY, salt) for salt in range(ROUNDS + 1, 2 * ROUNDS + 1)]
    catalogue = Catalogue(actions={ACTION_KEY: ActionEntry(ACTION_KEY, SCHEMA)})
    _check(validating[0], catalogue)
    cold = _milliseconds(compile_document, compiling)
    warm = _milliseconds(compile_document, compiling[-1:] * ROUNDS)
    plain = [mixed(STEPS, ACTION_KEY, salt, reckoned=False) for salt in range(2 * ROUNDS + 1, 3 * ROUNDS + 1)]
    few = _milliseconds(compile_document, plain)
    checked = _milliseconds(lambda document: validate(document, catalogue), validating[1:])
    contents = _contents(compiling[0])
    return [
        _figure("compile", contents, cold, f"the same again {_shown(warm)}", REACH),
        _figure("compile", _contents(plain[0]), few, "", REACH),
        _figure("validate, all rules", contents, checked),
    ]


def _check(document: Document, catalogue: Catalogue) -> None:
    problems = validate(document, catalogue)
    if has_errors(problems):
        raise AssertionError(f"the definition does not validate: {problems[:3]}")


def _milliseconds(act: Callable[[Document], object], documents: Sequence[Document]) -> list[float]:
    times = []
    for document in documents:
        gc.collect()
        began = time.perf_counter()
        act(document)
        times.append((time.perf_counter() - began) * 1e3)
    return times


def _contents(document: Document) -> str:
    """How many steps, transitions and expressions there are."""
    texts = str(document).count("'type': 'expr'") + sum("condition" in each for each in document["stepTransitions"])
    steps, transitions = len(document["steps"]), len(document["stepTransitions"])
    return f"{steps:,} steps, {transitions:,} transitions, {texts:,} expressions"


def _figure(what: str, contents: str, times: list[float], beside: str = "", reach: float | None = None) -> Figure:
    return Figure(
        part="compile",
        case=f"{what}: {contents}",
        millrace=_shown(times),
        beside=beside,
        goal="" if reach is None else f"≤ {reach:.0f} ms",
        reached=None if reach is None else min(times) <= reach,
        numbers={"milliseconds": times},
    )


def _shown(times: list[float]) -> str:
    return f"{min(times):.0f} ({statistics.median(times):.0f}) ms"
