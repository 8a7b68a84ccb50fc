"""What the library's built-in functions may be used for, and which of them need our help.

Three kinds need it: those that read the real clock, real chance or code from text; those whose result can be out of
all proportion to what they are given (a pad of a billion, a roman numeral of a billion); and those whose result is
always small, which therefore need not be counted.
"""

from typing import Final

FORBIDDEN: Final = {
    "eval": "it would run text that nobody has checked",
}

# Rewritten where they are called; see `engine.instrument`.
CHANCE: Final = frozenset({"now", "millis", "random", "uuid", "shuffle"})

# name -> how many arguments it needs, so that the guard sees all that matters
GUARDED: Final = {
    "pad": 2,
    "join": 1,
    "replace": 3,
    "split": 2,
    "distinct": 1,
    "formatInteger": 2,
    "formatNumber": 2,
    "fromMillis": 1,
    "toMillis": 1,
}

CALL_ONLY: Final = CHANCE | frozenset(GUARDED)

# The result is a number, a truth value or a short text whatever the arguments are.
SMALL: Final = frozenset(
    {
        "abs", "assert", "average", "boolean", "ceil", "contains", "count", "exists", "floor", "formatBase",
        "length", "max", "min", "not", "number", "parseInteger", "power", "round", "sqrt", "sum", "type",
        "millis", "now", "random", "uuid", "toMillis",
    }
)  # fmt: skip

# They call the functions that they are given and hand none of them back.
HIGHER_ORDER: Final = frozenset(
    {"map", "filter", "reduce", "sift", "each", "sort", "single", "match", "replace", "split", "contains"}
)
