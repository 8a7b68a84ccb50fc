"""The last net: the clock, threads, and whatever the library may throw."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ClockExceeded, EngineError, ExpressionError
from engine.expression import _THREAD, MAX_COMPILED, Moment, compile_expression, evaluate

MOMENT = Moment(0, "seed")


def test_what_no_count_stops_is_stopped_by_the_clock() -> None:
    scope: dict[str, object] = {"__context__": {"n": list(range(60_000))}}
    source = "$count(__context__.n[-1 in __context__.n])"
    started = time.perf_counter()
    with pytest.raises(ClockExceeded) as caught:
        evaluate(compile_expression(source), scope, MOMENT)
    assert caught.value.source == source
    assert not isinstance(caught.value, EngineError)
    assert time.perf_counter() - started < 2


def test_an_expression_can_be_evaluated_after_the_clock_stopped_one() -> None:
    assert evaluate(compile_expression("1 + 1"), {}, MOMENT) == 2


class InterruptingSeed(str):
    """A seed that is interrupted while it is used, as a signal would interrupt it."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        raise KeyboardInterrupt


def test_an_interrupt_is_not_taken_for_the_expression_s_fault() -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(compile_expression("$random()"), {}, Moment(0, InterruptingSeed("s")))


def test_a_panic_of_the_library_is_an_error_with_a_code() -> None:
    expression = compile_expression("40 + 2")
    assert evaluate(expression, {}, MOMENT) == 42
    own, caught = dict(_THREAD.compiled), list[BaseException]()

    def use_another_thread_s_object() -> None:
        _THREAD.compiled.update(own)
        try:
            evaluate(expression, {}, MOMENT)
        except BaseException as error:  # noqa: BLE001 - to be looked at below
            caught.append(error)
        _THREAD.compiled.clear()
        assert evaluate(expression, {}, MOMENT) == 42
        caught.append(AssertionError("went on"))

    thread = threading.Thread(target=use_another_thread_s_object)
    thread.start()
    thread.join()
    panic, end = caught
    assert isinstance(panic, ExpressionError)
    assert panic.code == "EXPRESSION_FAILED"
    assert str(end) == "went on"


def test_threads_share_expressions_but_nothing_of_the_library_s() -> None:
    expressions = [compile_expression(f"__context__.a + {number}") for number in range(MAX_COMPILED + 50)]
    faults: list[object] = []
    before, threading.excepthook = threading.excepthook, faults.append
    unraisable, sys.unraisablehook = sys.unraisablehook, faults.append

    def work() -> int:
        scope: dict[str, object] = {"__context__": {"a": 1}}
        results = [evaluate(expression, scope, MOMENT) for expression in expressions * 2]
        return sum(result for result in results if isinstance(result, int))

    try:
        for _ in range(2):
            with ThreadPoolExecutor(3) as pool:
                sums = [future.result() for future in [pool.submit(work) for _ in range(3)]]
            assert len(set(sums)) == 1
        work()
    finally:
        threading.excepthook, sys.unraisablehook = before, unraisable
    assert faults == []


def test_the_process_ends_quietly_after_threads_used_expressions() -> None:
    program = """
import threading
from engine.expression import Moment, compile_expression, evaluate
def work():
    compile_expression("1 + 1 + 1")
    print(evaluate(compile_expression("__each__ + 1"), {"__each__": 1}, Moment(0, "s")))
thread = threading.Thread(target=work)
thread.start()
thread.join()
work()
checking = threading.Event()
def check_only():
    compile_expression("__each__ + 2")
    checking.set()
    threading.Event().wait()
threading.Thread(target=check_only, daemon=True).start()
checking.wait()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("2\n2\n", "")


WORDS = [
    "1", "0", "-", "2.5", "1e300", '"a"', '"é😀\\u0000"', "'", '"', "`a b`", "`", "true", "null", "and", "or", "in",
    "__context__", "__context__.a", "__steps__.s.x", "__each__", "__index__", ".", "..", "[", "]", "{", "}",
    "(", ")", ",", ";", ":", "?", "?:", "??", ":=", "~>", "=", "!=", "<", ">=", "+", "*", "**", "/", "%", "&", "|",
    "^(", "@$v", "#$i", "$", "$$", "$x", "$f", "function($x){", "λ($f, $x)<nn:n>{", "/a+/", "/(/", "/*", "*/", "!",
    "~", "\x00", "\n", "$sum", "$map(", "$filter(", "$reduce(", "$string(", "$append(", "$pad(", "$join(",
    "$replace(", "$split(", "$sort(", "$formatNumber(", "$formatInteger(", "$fromMillis(", "$toMillis(",
    "$shuffle(", "$distinct(", "$zip(", "$spread(", "$merge(", "$each(", "$match(", "$lookup(", "$random()",
    "$now()", "$eval(", "$error(", "name", "é", "__x__", "$__v",
]  # fmt: skip
SCOPE: dict[str, object] = {
    "__context__": {"a": [{"b": 1}, {"b": [2, "x"]}], "s": "text"},
    "__steps__": {"s": {"x": None}},
    "__each__": {"a": 1},
    "__index__": 3,
}


CODES = {"EXPRESSION_INVALID", "EXPRESSION_FAILED", "EXPRESSION_LIMIT", "EXPRESSION_UNDEFINED", "EXPRESSION_RESULT"}


def outcome(source: str) -> str | None:
    """The code that an expression ends with; anything but a coded error or a clock that ran out gets through."""
    try:
        evaluate(compile_expression(source), SCOPE, MOMENT)
    except ExpressionError as error:
        return error.code
    except ClockExceeded:
        return None
    return None


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=30))
def test_no_heap_of_words_does_more_than_fail_with_a_code(words: list[str]) -> None:
    assert outcome(" ".join(words)) in {*CODES, None}


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_no_text_does_more_than_fail_with_a_code(text: str) -> None:
    assert outcome(text) in {*CODES, None}


FUNCTIONS = [
    "sum", "count", "string", "append", "zip", "merge", "keys", "reverse", "sort", "shuffle", "distinct", "pad", "join",
    "replace", "split", "substring", "match", "contains", "formatNumber", "formatInteger", "fromMillis", "toMillis",
    "number", "power", "round", "lookup", "spread", "type", "not",
]  # fmt: skip


def _combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operator = st.sampled_from(["+", "-", "*", "/", "%", "&", "=", "<", " and ", " or ", " in ", "~>", "??", "?:", "."])
    function = st.sampled_from(FUNCTIONS)
    return st.one_of(
        st.builds("({}{}{})".format, inner, operator, inner),
        st.builds("${}({})".format, function, inner),
        st.builds("${}({},{})".format, function, inner, inner),
        st.builds("${}({},{},{})".format, function, inner, inner, inner),
        st.builds("[{},{}]".format, inner, inner),
        st.builds('{{"k":{},"l":{}}}'.format, inner, inner),
        st.builds("({}).({})".format, inner, inner),
        st.builds("({})[{}]".format, inner, inner),
        st.builds("({} ? {} : {})".format, inner, inner, inner),
        st.builds("($x := {}; {})".format, inner, inner),
        st.builds("$map({}, function($x){{{}}})".format, inner, inner),
        st.builds("$reduce({}, function($x, $y){{{}}})".format, inner, inner),
        st.builds("({})^({})".format, inner, inner),
        st.builds("({}) ~> |{}|{}|".format, inner, inner, inner),
    )


WELL_FORMED = st.recursive(
    st.sampled_from(
        ["1", "-1", "0.5", "1e300", '"ab"', '""', "null", "true", "__context__.a", "__context__.s", "__steps__.s.x",
         "__each__", "__index__", "[]", "{}", "[1..5]", "/a/", "$x", "$y", "$sum", "function($x){$x}", '"[Y]"', '"w"']
    ),
    _combined,
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(WELL_FORMED)
def test_no_well_formed_expression_does_more_than_fail_with_a_code(source: str) -> None:
    assert outcome(source) in {*CODES, None}
