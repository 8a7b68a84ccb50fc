"""What the library's built-in functions may be used for, and which of them need our help.

Some read the real clock, real chance or code from text. Some take, or yield, something out of all proportion to what
they are given (a pad of a billion, the keys of ten thousand objects), and the library does not look at its own clock
meanwhile. And the result of some is always small, so that it need not be counted.
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
    "keys": 1,
    "spread": 1,
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
