"""Document → filter: three vocabularies and JSONata, mixed as one likes, into one normal form.

Nothing is guessed and nothing is left for the event to find out: what could never hold, would always hold, or means
nothing is refused when the filter is saved, with every problem and its path.
"""

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Final

from engine.errors import ExpressionError
from engine.event_values import beyond_event
from engine.expression import Expression, compile_expression
from engine.filters.faults import Faults, FilterError, FilterRule
from engine.filters.operands import OperandReader, misfit
from engine.filters.paths import Path, parse_path
from engine.filters.table import BY_NAME, RULES, TYPE_NAMES, FieldType, OperandKind, Operator, Spelling
from engine.filters.tree import EVERYTHING, Combinator, Comparison, ExpressionCondition, Filter, Group, Several
from engine.json_types import JSON, UNDEFINED, Undefined
from engine.schema import clipped
from engine.values import Const

MOST_CONDITIONS: Final = 200
DEEPEST_GROUP: Final = 10

_GROUP_MEMBERS = {"combinator", "operator", "conditions", "options"}
_OPERATOR_MEMBERS = {"type", "operation", "rightType", "singleValue"}
_OPTION_MEMBERS = {"caseSensitive", "typeValidation", "version"}


@dataclass(frozen=True, slots=True)
class _Options:
    """What a group or condition says for all that is in it."""

    case_sensitive: bool = False
    loose: bool = False


@dataclass(frozen=True, slots=True)
class _Written:
    """A condition as it stands in the document, whatever its vocabulary; each part with its path."""

    left: tuple[JSON, str]
    operator: tuple[JSON, str]
    type: tuple[JSON, str]
    right: tuple[JSON | Undefined, str]
    right_type: tuple[JSON, str] = (None, "")
    single: tuple[JSON, str] = (None, "")


def parse(document: JSON, at: str = "") -> Filter:
    """The filter that a document says; null and `{}` are the filter that every event passes.

    Raises `FilterError` (FILTER_INVALID) with every problem; paths begin with `at`.
    """
    if document is None or document == {}:
        return EVERYTHING
    reader = _Reader()
    tree = reader.read(document, at, _Options(), 1)
    if reader.faults.problems:
        raise FilterError(tuple(reader.faults.problems))
    return tree


class _Reader:
    """Reads one document. Where something is wrong it notes it and goes on."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._nodes = 0

    def read(self, raw: JSON, path: str, options: _Options, depth: int) -> Filter:
        """The filter at a path; `depth` counts the groups from the top."""
        if not isinstance(raw, dict):
            return self._wrong(path, "a filter is a group or a condition, so an object")
        if not self._count(path, 1):
            return EVERYTHING
        if "conditions" in raw or _combinator(raw.get("combinator", raw.get("operator"))) is not None:
            return self._group(raw, path, options, depth)
        if raw.get("type") == "expr":
            return self._expression(raw, path)
        written = self._written(raw, path)
        return EVERYTHING if written is None else self._comparison(written, self._options(raw, path, options))

    def _count(self, path: str, more: int) -> bool:
        """Whether there is room for so many more conditions, groups and references in lists: each may cost a look at
        the whole payload.
        """
        before, self._nodes = self._nodes, self._nodes + more
        if before <= MOST_CONDITIONS < self._nodes:
            message = f"a filter has at most {MOST_CONDITIONS} conditions, groups and references in lists"
            self.faults.add(path, FilterRule.SIZE, message)
        return self._nodes <= MOST_CONDITIONS

    def _group(self, raw: dict[str, JSON], path: str, options: _Options, depth: int) -> Filter:
        self._only(raw, path, _GROUP_MEMBERS)
        key = "operator" if "operator" in raw else "combinator"
        combinator = _combinator(raw.get(key))
        if combinator is None:
            self._wrong(_below(path, key), "a group says AND or OR, in `combinator` or `operator`")
        if "combinator" in raw and "operator" in raw:
            self._wrong(_below(path, "combinator"), "a group has a `combinator` or an `operator`, not both")
        conditions, place = raw.get("conditions"), _below(path, "conditions")
        if not isinstance(conditions, list):
            return self._wrong(place, "a group has a list of conditions")
        if not conditions and key == "combinator":
            self._wrong(place, "a group with a `combinator` has at least one condition")
        if depth > DEEPEST_GROUP:
            self.faults.add(path, FilterRule.SIZE, f"groups are nested at most {DEEPEST_GROUP} deep")
            return EVERYTHING
        inherited = self._options(raw, path, options)
        parts = []
        for index, part in enumerate(conditions):
            parts.append(self.read(part, f"{place}[{index}]", inherited, depth + 1))
            if self._nodes > MOST_CONDITIONS:
                break
        return Group(combinator or Combinator.AND, tuple(parts)) if parts else EVERYTHING

    def _written(self, raw: dict[str, JSON], path: str) -> _Written | None:
        forms = [key for key in ("variable", "leftValue", "field") if key in raw]
        if not forms:
            self._wrong(path, "a condition has a `variable`, a `leftValue` or a `field`; a group has `conditions`")
            return None
        form = forms[0]
        if form == "leftValue":
            return self._written_by_ui(raw, path)
        self._only(raw, path, {form, "operator", "value", "type", "options"})
        return _Written(
            left=(raw[form], _below(path, form)),
            operator=(raw.get("operator"), _below(path, "operator")),
            type=(raw.get("type"), _below(path, "type")),
            right=(raw.get("value", UNDEFINED), _below(path, "value")),
        )

    def _written_by_ui(self, raw: dict[str, JSON], path: str) -> _Written | None:
        self._only(raw, path, {"id", "leftValue", "operator", "rightValue", "options"})
        if not isinstance(raw.get("id", ""), str):
            self._wrong(_below(path, "id"), "an id is text")
        operator, place = raw.get("operator"), _below(path, "operator")
        if not isinstance(operator, dict):
            self._wrong(place, "next to a `leftValue` the operator is an object: type, operation")
            return None
        self._only(operator, place, _OPERATOR_MEMBERS)
        if not isinstance(operator.get("singleValue", False), bool):
            self._wrong(_below(place, "singleValue"), "`singleValue` is true or false")
        return _Written(
            left=(raw["leftValue"], _below(path, "leftValue")),
            operator=(operator.get("operation"), _below(place, "operation")),
            type=(operator.get("type"), _below(place, "type")),
            right=(raw.get("rightValue", UNDEFINED), _below(path, "rightValue")),
            right_type=(operator.get("rightType"), _below(place, "rightType")),
            single=(operator.get("singleValue"), _below(place, "singleValue")),
        )

    def _comparison(self, written: _Written, options: _Options) -> Filter:
        left = self._left(*written.left)
        spelling = self._spelling(*written.operator)
        declared = self._type(*written.type)
        if spelling is None or declared is None:
            return EVERYTHING
        as_type = self._fitting(spelling, declared, written.type[1])
        if as_type is None:
            return EVERYTHING
        condition = _normal(left, spelling.operator, as_type, options)
        raw, path = written.right
        if not isinstance(spelling.operand, Undefined):
            self._no_operand(written, spelling.name)
            return replace(condition, right=Const(spelling.operand))
        if RULES[spelling.operator].operand is OperandKind.NONE:
            self._no_operand(written, spelling.name)
            return condition
        if written.single[0] is True:
            self._operand(written.single[1], f"{spelling.name} has a right side, so it is not of a single value")
        if isinstance(raw, Undefined):
            self._operand(path, f"{spelling.name} needs {RULES[spelling.operator].operand}")
            return condition
        right = OperandReader(condition, path, self.faults).read(raw)
        self._check_right_type(written, right)
        if isinstance(right, Several):
            self._count(path, sum(isinstance(item, Path) for item in right.items))
        return replace(condition, right=right)

    def _left(self, raw: JSON, path: str) -> Path:
        found = parse_path(raw) if isinstance(raw, str) else "the left side is a path into the payload, as text"
        if isinstance(found, Path):
            return found
        self.faults.add(path, FilterRule.PATH, found)
        return Path(())

    def _spelling(self, raw: JSON, path: str) -> Spelling | None:
        spelling = BY_NAME.get(raw) if isinstance(raw, str) else None
        if spelling is None:
            near = get_close_matches(raw[:40], BY_NAME, 1) if isinstance(raw, str) else []
            hint = f"; did you mean {near[0]}?" if near else ""
            what = (
                f"there is no operator {clipped(raw, 40)!r}"
                if isinstance(raw, str)
                else "an operator's name is needed here"
            )
            self.faults.add(path, FilterRule.OPERATOR, f"{what}{hint}")
        return spelling

    def _type(self, raw: JSON, path: str) -> FieldType | None:
        if raw is None:
            return FieldType.ANY
        found = TYPE_NAMES.get(raw) if isinstance(raw, str) else None
        if found is None:
            self.faults.add(path, FilterRule.TYPE, f"a type is one of {', '.join(TYPE_NAMES)}")
        return found

    def _fitting(self, spelling: Spelling, declared: FieldType, path: str) -> FieldType | None:
        """The type that a condition has: the declared one, or the one that its operator implies."""
        types = RULES[spelling.operator].types if spelling.type is None else (spelling.type,)
        if declared in types:
            return declared
        if declared is FieldType.ANY and len(types) == 1:
            return types[0]
        accepted = ", ".join(types)
        self.faults.add(path, FilterRule.TYPE, f"{spelling.name} is for {accepted}, not for {declared}")
        return None

    def _no_operand(self, written: _Written, name: str) -> None:
        """A value that would not be looked at is a mistake, unless it is empty or the condition says that it has
        a single value (editors leave there what was typed before).
        """
        raw, path = written.right
        if written.single[0] is not True and not isinstance(raw, Undefined) and raw is not None and raw != "":
            self._operand(path, f"{name} has no right side; this value would not be looked at")

    def _check_right_type(self, written: _Written, right: object) -> None:
        raw, path = written.right_type
        if raw is None:
            return
        as_type = self._type(raw, path)
        if as_type is None or not isinstance(right, Const):
            return
        why = misfit(right.value, as_type, False)
        if why is not None:
            self._operand(written.right[1], f"{why}, as `rightType` says it is")

    def _expression(self, raw: dict[str, JSON], path: str) -> Filter:
        self._only(raw, path, {"type", "expr", "default"})
        default = raw.get("default")
        if "default" in raw and not isinstance(default, bool):
            self._wrong(_below(path, "default"), "the default of a condition is true or false")
        written, place = raw.get("expr"), _below(path, "expr")
        if isinstance(written, dict):
            self._only(written, place, {"type", "src"})
            if written.get("type", "jsonata") != "jsonata":
                self._wrong(_below(place, "type"), "the expression language is jsonata")
            written, place = written.get("src"), _below(place, "src")
        if not isinstance(written, str):
            return self._wrong(place, "an expression is JSONata text, or {src}")
        try:
            expression = compile_expression(written)
            self._check_expression(expression, place)
        except ExpressionError as error:
            self.faults.add(place, FilterRule.EXPRESSION, error.message)
            return EVERYTHING
        return ExpressionCondition(expression, default if isinstance(default, bool) else None)

    def _check_expression(self, expression: Expression, path: str) -> None:
        for message in beyond_event(expression):
            self.faults.add(path, FilterRule.EXPRESSION, message)
        if not expression.references:
            message = "the expression does not look at __trigger__, so it would say the same of every event"
            self.faults.add(path, FilterRule.EXPRESSION, message)

    def _options(self, raw: dict[str, JSON], path: str, inherited: _Options) -> _Options:
        options, place = raw.get("options"), _below(path, "options")
        if "options" not in raw:
            return inherited
        if not isinstance(options, dict):
            self._wrong(place, "options are an object")
            return inherited
        self._only(options, place, _OPTION_MEMBERS)
        case_sensitive = options.get("caseSensitive", inherited.case_sensitive)
        if not isinstance(case_sensitive, bool):
            self._wrong(_below(place, "caseSensitive"), "`caseSensitive` is true or false")
        validation = options.get("typeValidation", "loose" if inherited.loose else "strict")
        if validation not in ("strict", "loose"):
            self._wrong(_below(place, "typeValidation"), "`typeValidation` is strict or loose")
        version = options.get("version", 1)
        if version not in (1, 2) or isinstance(version, bool):
            self._wrong(_below(place, "version"), "`version` is 1 or 2")
        return _Options(case_sensitive is True, validation == "loose")

    def _only(self, raw: dict[str, JSON], path: str, allowed: set[str]) -> None:
        for key in raw:
            if key not in allowed:
                self._wrong(
                    _below(path, clipped(key, 80)), f"unknown field; allowed here: {', '.join(sorted(allowed))}"
                )

    def _operand(self, path: str, message: str) -> None:
        self.faults.add(path, FilterRule.OPERAND, message)

    def _wrong(self, path: str, message: str) -> Filter:
        self.faults.add(path, FilterRule.SHAPE, message)
        return EVERYTHING


def _normal(left: Path, operator: Operator, as_type: FieldType, options: _Options) -> Comparison:
    """A condition without what does not matter to it, so that equal filters are equal values."""
    rule = RULES[operator]
    emptiness = operator in (Operator.IS_EMPTY, Operator.IS_NOT_EMPTY)
    if not rule.typed or (emptiness and as_type not in (FieldType.ARRAY, FieldType.OBJECT)):
        as_type = FieldType.ANY
    converts = as_type is not FieldType.ANY and rule.operand not in (OperandKind.NONE, OperandKind.NAME)
    return Comparison(
        left=left,
        operator=operator,
        type=as_type,
        case_sensitive=options.case_sensitive and rule.cased and as_type is not FieldType.ARRAY,
        loose=options.loose and converts,
    )


def _combinator(raw: JSON) -> Combinator | None:
    return Combinator(raw.upper()) if isinstance(raw, str) and raw.upper() in ("AND", "OR") else None


def _below(path: str, member: str) -> str:
    return f"{path}.{member}" if path else member
