"""The expression language's words.

The library shows neither its tokens nor its syntax tree, so the text is read here, the same way: whether a slash
divides or opens a regular expression is decided by the parser, which asks for one token at a time. Where the library
is lax (a quote inside a bare name, say) this reader refuses, so that both always see the same words.
"""

import re
from dataclasses import dataclass
from typing import Literal

from engine.errors import ExpressionError

TokenKind = Literal["operator", "string", "number", "value", "name", "quoted", "variable", "regex", "end"]

_SPACE = " \t\n\r"
_DOUBLE = ("..", ":=", "!=", ">=", "<=", "**", "~>", "?:", "??")
_SINGLE = ".[]{}(),@#;:?+-*/%|=<>^&!~"
_NUMBER = re.compile(r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[Ee][-+]?[0-9]+)?")
_WORD = re.compile(r"\$\$?\w*|\w+")
_HEX = re.compile(r"[0-9a-fA-F]{4}")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
MAX_EXACT_INTEGER = 2**53


@dataclass(frozen=True, slots=True)
class Token:
    """One word: what it is, its text (a string's is decoded, a regex's is as written), and where it starts."""

    kind: TokenKind
    text: str
    at: int


def invalid(message: str, at: int) -> ExpressionError:
    """The error for text that is not a usable expression; `at` counts characters from 0, the message from 1."""
    return ExpressionError("EXPRESSION_INVALID", f"{message} (at character {at + 1})")


class Lexer:
    """Reads `source` from `start` on, one token at a time."""

    def __init__(self, source: str, start: int = 0) -> None:
        self.source = source
        self.position = start

    def next(self, after_operand: bool) -> Token:
        """The next token; a slash after an operand divides, elsewhere it opens a regular expression.

        Raises `ExpressionError` EXPRESSION_INVALID where no token can be read.
        """
        self._skip_space_and_comments()
        at = self.position
        if at >= len(self.source):
            return Token("end", "", at)
        char = self.source[at]
        if char == "/" and not after_operand:
            return self._regex(at)
        if self.source[at : at + 2] in _DOUBLE:
            self.position += 2
            return Token("operator", self.source[at : at + 2], at)
        if char in _SINGLE:
            self.position += 1
            return Token("operator", char, at)
        if char in "\"'":
            return self._string(at, char)
        if char == "`":
            return self._quoted(at)
        if char in "0123456789":
            return self._number(at)
        return self._word(at)

    def _skip_space_and_comments(self) -> None:
        source, at = self.source, self.position
        while at < len(source):
            if source[at] in _SPACE:
                at += 1
            elif source.startswith("/*", at):
                end = source.find("*/", at + 2)
                if end < 0:
                    raise invalid("a comment is not closed", at)
                at = end + 2
            else:
                break
        self.position = at

    def _regex(self, at: int) -> Token:
        source, depth, index = self.source, 0, at + 1
        while index < len(source):
            char = source[index]
            if char == "/" and depth == 0 and self._backslashes_before(index) % 2 == 0:
                break
            if source[index - 1] != "\\":
                depth += (char in "([{") - (char in ")]}")
            index += 1
        else:
            raise invalid("a regular expression is not closed", at)
        if index == at + 1:
            raise invalid("a regular expression is empty", at)
        index += 1
        while index < len(source) and source[index] in "im":
            index += 1
        self.position = index
        return Token("regex", source[at:index], at)

    def _backslashes_before(self, index: int) -> int:
        count = 0
        while self.source[index - count - 1] == "\\":
            count += 1
        return count

    def _string(self, at: int, quote: str) -> Token:
        source, index, decoded = self.source, at + 1, list[str]()
        while index < len(source):
            char = source[index]
            if char == quote:
                self.position = index + 1
                text = "".join(decoded).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
                return Token("string", text, at)
            if char != "\\":
                decoded.append(char)
                index += 1
                continue
            escape = source[index + 1 : index + 2]
            if escape in _ESCAPES and escape:
                decoded.append(_ESCAPES[escape])
                index += 2
            elif escape == "u" and _HEX.fullmatch(source[index + 2 : index + 6]):
                decoded.append(chr(int(source[index + 2 : index + 6], 16)))
                index += 6
            else:
                raise invalid("a string holds an escape that does not exist", index)
        raise invalid("a string is not closed", at)

    def _quoted(self, at: int) -> Token:
        end = self.source.find("`", at + 1)
        if end < 0:
            raise invalid("a quoted name is not closed", at)
        self.position = end + 1
        return Token("quoted", self.source[at + 1 : end], at)

    def _number(self, at: int) -> Token:
        match = _NUMBER.match(self.source, at)
        text = match.group() if match else ""
        value = float(text)
        if value == float("inf"):
            raise invalid("a number is too large", at)
        if text.isdecimal() and int(text) > MAX_EXACT_INTEGER:
            raise invalid("a whole number above 2^53 cannot be kept exactly; write it as a string", at)
        self.position = at + len(text)
        return Token("number", text, at)

    def _word(self, at: int) -> Token:
        match = _WORD.match(self.source, at)
        end = match.end() if match else at
        following = self.source[end : end + 1]
        if match is None or (following and following not in _SPACE and following not in _SINGLE):
            raise invalid("this character cannot stand in a name unless the name is in backticks", end)
        text = match.group()
        self.position = end
        if text.startswith("$"):
            return Token("variable", text[1:], at)
        if text in ("and", "or", "in"):
            return Token("operator", text, at)
        if text in ("true", "false", "null"):
            return Token("value", text, at)
        return Token("name", text, at)
