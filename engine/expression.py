"""JSONata, deterministic and bounded: the only module that touches the library.

The library is fast and nearly complete, and it is not to be trusted: it overflows its stack, reads the real clock,
allocates without limit, and its compiled objects panic on any thread but their own. So an expression is parsed and
rewritten first (`engine.syntax`, `engine.references`, `engine.instrument`), is handed only what it refers to
(`engine.program`), counts what it does (`engine.bounds`), and every failure leaves here with a code.

A path that is referred to must exist. Where that is certain to matter it is checked before anything runs; behind a
condition (`a ? b : c`, `and`, `or`, inside a function, a step or a predicate) when it is reached.

Numbers are the library's: whole results are `int`, others `float`; whole numbers in the data above 2^53 are refused
where the library would change them silently. An expression that is a path of names and nothing else does not need
the library and hands on exactly what is there.
"""

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NoReturn, cast

import jsonata

from engine.bounds import DATA, PASSED_ON, RESULT, Meter, failed, limit, measure
from engine.chance import Chance, Moment
from engine.errors import ClockExceeded, ExpressionError
from engine.guards import guard
from engine.instrument import Instrumented
from engine.json_types import JSON, UNDEFINED, Undefined
from engine.program import Program, exists, gather, program_of
from engine.references import Reference
from engine.syntax import end_of_embedded

__all__ = [
    "Expression", "Moment", "Template", "compile_expression", "compile_template", "evaluate", "render",
]  # fmt: skip

CLOCK_MS: Final = 400
MAX_RECURSION: Final = 2_000
MAX_COMPILED: Final = 4_096


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked expression: its text and what it refers to. Holds nothing of the library's, so it belongs to no
    thread and can be pickled.
    """

    source: str
    references: tuple[Reference, ...]


def compile_expression(source: str) -> Expression:
    """Checks an expression's size (8 KiB), nesting (100), chains (500 operators), syntax and references.

    Raises `ExpressionError` EXPRESSION_INVALID, with the place in the text.
    """
    return Expression(source, _accepted(source).references)


@lru_cache(maxsize=4096)
def _accepted(source: str) -> Program:
    """The program of a text that the library can compile too. What it compiles is dropped here, so that a thread that
    only checks expressions keeps nothing of the library's.
    """
    program = program_of(source)
    _fresh(program.plain)
    return program


def evaluate(expression: Expression, scope: Mapping[str, object], moment: Moment) -> JSON | Undefined:
    """The value of an expression, UNDEFINED when it has none.

    `scope` maps the roots (`__context__` …) to their values: JSON, or a mapping of JSON. Only what the expression
    refers to is looked at.

    Raises `ExpressionError`: EXPRESSION_UNDEFINED when a required path does not exist, EXPRESSION_LIMIT when a count
    is exceeded, EXPRESSION_RESULT when the result is not JSON, EXPRESSION_FAILED for the rest; and `ClockExceeded`
    when counting was not enough.
    """
    program = program_of(expression.source)
    for reference in program.strict:
        if not exists(reference, scope):
            raise _missing(reference)
    if program.direct is not None:
        value = _followed(program.direct, scope)
        if not isinstance(value, Undefined):
            measure(value, PASSED_ON)
            return cast(JSON, _copied(value))
    missing = frozenset(number for number, reference in enumerate(program.lazy) if not exists(reference, scope))
    bindings, leaves = gather(program, scope)
    for leaf in leaves:
        measure(leaf, DATA)
    bindings["__now"] = moment.now_ms
    run = _Run(program, missing, moment.seed)
    text = program.careful if missing else program.plain
    return _result(_evaluated(expression.source, text, bindings, run))


def _followed(reference: Reference, scope: Mapping[str, object]) -> Any:
    """What stands at a path of names, or UNDEFINED where JSONata's ways with lists are needed to tell."""
    value: Any = scope[reference.root]
    for member in reference.path:
        if not isinstance(value, Mapping):
            return UNDEFINED
        value = value[member]
    if isinstance(value, list) and reference.path:
        return UNDEFINED
    if isinstance(value, Mapping) and not isinstance(value, dict):
        return dict(sorted(value.items()))
    return value


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value


def _missing(reference: Reference) -> ExpressionError:
    return ExpressionError("EXPRESSION_UNDEFINED", f"{reference} does not exist")


def _result(value: Any) -> JSON | Undefined:
    if value is jsonata.UNDEFINED:
        return UNDEFINED
    measure(value, RESULT)
    return cast(JSON, value)


class _Run:
    """One evaluation: what it has used, the chance it draws, and which lazy references are missing."""

    __slots__ = ("_chance", "_missing", "_program", "_seed", "breach", "meter")

    def __init__(self, program: Program, missing: frozenset[int], seed: str) -> None:
        self.meter = Meter()
        self.breach: BaseException | None = None
        self._program = program
        self._missing = missing
        self._seed = seed
        self._chance: Chance | None = None

    def chance(self) -> Chance:
        if self._chance is None:
            self._chance = Chance(self._seed)
        return self._chance

    def need(self, number: int) -> None:
        if number in self._missing:
            raise _missing(self._program.lazy[number])


def _refuse_function() -> NoReturn:
    raise ExpressionError("EXPRESSION_RESULT", "the result is a function, or holds one")


class _OfThread(threading.local):
    """What belongs to one thread: the library's compiled objects, latest last, and the evaluation under way. A
    thread that ends drops its own.
    """

    def __init__(self) -> None:
        self.compiled: OrderedDict[str, jsonata.Jsonata] = OrderedDict()
        self.run: _Run | None = None


_THREAD = _OfThread()


def _hook(work: Callable[..., Any]) -> Callable[..., Any]:
    """A function for the library to call. It keeps what is raised, because the library keeps only the text."""

    def call(*arguments: Any) -> Any:
        run = _THREAD.run
        if run is None:
            raise failed("the library called back outside of an evaluation")
        try:
            return work(run, *arguments)
        except BaseException as error:
            run.breach = error
            raise

    return call


_HOOKS: Final[dict[str, Callable[..., Any]]] = {
    "__tick": _hook(lambda run: run.meter.tick()),
    "__group": _hook(lambda run: run.meter.group()),
    "__weigh": _hook(lambda run, value: run.meter.weigh(value)),
    "__pick": _hook(lambda run, indices: run.meter.pick(indices)),
    "__range": _hook(lambda run, low, high: run.meter.range(low, high)),
    "__guard": _hook(lambda _, name, *arguments: guard(name, *arguments)),
    "__need": _hook(lambda run, number: run.need(number)),
    "__function": _hook(lambda _: _refuse_function()),
    "__random": _hook(lambda run: run.chance().random()),
    "__uuid": _hook(lambda run: run.chance().uuid()),
    "__shuffle": _hook(lambda run, items: run.chance().shuffled(items)),
}


def _compiled(instrumented: Instrumented) -> jsonata.Jsonata:
    """This thread's compiled object for a text."""
    cache = _THREAD.compiled
    compiled = cache.get(instrumented.text)
    if compiled is not None:
        cache.move_to_end(instrumented.text)
        return compiled
    compiled = cache[instrumented.text] = _fresh(instrumented)
    if len(cache) > MAX_COMPILED:
        cache.popitem(last=False)
    return compiled


def _fresh(instrumented: Instrumented) -> jsonata.Jsonata:
    try:
        compiled = jsonata.Jsonata(instrumented.text)
    except BaseException as error:  # noqa: BLE001 - an edge: the library's panic is no Exception
        _let_pass(error)
        raise ExpressionError("EXPRESSION_INVALID", _described(error, instrumented)) from None
    compiled.set_output_convert_nulls(False)
    compiled.set_runtime_bounds(CLOCK_MS, MAX_RECURSION)
    for name, hook in _HOOKS.items():
        compiled.register_function(name, hook)
    return compiled


def _evaluated(source: str, text: Instrumented, bindings: dict[str, Any], run: _Run) -> Any:
    compiled = _compiled(text)
    outer, _THREAD.run = _THREAD.run, run
    try:
        return compiled.evaluate(None, bindings)
    except BaseException as raised:  # noqa: BLE001 - an edge: the library's panic is no Exception
        error = raised if run.breach is None else run.breach
        _let_pass(error)
        if isinstance(error, jsonata.JsonataInternalError) or not isinstance(error, Exception):
            _THREAD.compiled.pop(text.text, None)
        raise _translated(error, source, text) from None
    finally:
        _THREAD.run = outer
        # A traceback keeps this frame alive, perhaps until another thread lets go of it; what the frame holds would
        # be dropped there.
        del compiled


def _let_pass(error: BaseException) -> None:
    """Raises again what is none of the library's: an interrupt, say. Its panic is no `Exception` either."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error


def _translated(error: BaseException, source: str, text: Instrumented) -> ExpressionError | ClockExceeded:
    if isinstance(error, ExpressionError):
        return error
    match getattr(error, "code", None):
        case "TIMEOUT":
            return ClockExceeded(source)
        case "STACK_OVERFLOW":
            return limit(f"functions call each other deeper than {MAX_RECURSION} levels")
        case _:
            return failed(_described(error, text))


def _described(error: BaseException, text: Instrumented) -> str:
    """The library's error as a message: its code, its words, and the place in the author's text where there is one."""
    if isinstance(error, UnicodeEncodeError):
        return "the data holds text that is not Unicode"
    code = str(getattr(error, "code", type(error).__name__))
    words = str(error) or type(error).__name__
    message = words if words.startswith(code) else f"{code}: {words}"
    position = getattr(error, "position", -1)
    if isinstance(position, int) and position > 0:
        index = bisect_left(text.places, (position, -1))
        message += f" (near character {text.places[max(0, index - 1)][1] + 1})"
    return message[:500]


@dataclass(frozen=True, slots=True)
class Template:
    """Text with expressions in it, in order."""

    source: str
    parts: tuple[str | Expression, ...]

    @property
    def references(self) -> tuple[Reference, ...]:
        """What all its expressions refer to."""
        return tuple(reference for part in self.parts if isinstance(part, Expression) for reference in part.references)


def compile_template(source: str) -> Template:
    """Splits `Dear {{ __context__.name }}`; braces inside an expression belong to it.

    Raises `ExpressionError` EXPRESSION_INVALID.
    """
    parts: list[str | Expression] = []
    at = 0
    while (start := source.find("{{", at)) >= 0:
        if start > at:
            parts.append(source[at:start])
        end = end_of_embedded(source, start + 2)
        parts.append(compile_expression(source[start + 2 : end]))
        at = end + 2
    if at < len(source):
        parts.append(source[at:])
    return Template(source, tuple(parts))


def render(template: Template, scope: Mapping[str, object], moment: Moment) -> str:
    """The text with every expression's value in its place: a string as it is, anything else as `$string` writes it.

    Raises like `evaluate`, and EXPRESSION_UNDEFINED when an expression has no value.
    """
    rendered: list[str] = []
    for number, part in enumerate(template.parts):
        if isinstance(part, str):
            rendered.append(part)
            continue
        value = evaluate(part, scope, moment.at(str(number)))
        if isinstance(value, Undefined):
            raise ExpressionError("EXPRESSION_UNDEFINED", f"{part.source.strip()} is undefined")
        rendered.append(value if isinstance(value, str) else _written(value))
    return "".join(rendered)


_STRING_OF = Instrumented("$string($__value)", ((0, 0),))


def _written(value: JSON) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    run = _Run(program_of("null"), frozenset(), "")
    return cast(str, _evaluated("$string", _STRING_OF, {"__value": value}, run))
