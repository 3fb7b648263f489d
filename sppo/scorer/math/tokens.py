"""LaTeX of an answer as tokens."""

from __future__ import annotations

import re

MOST = 400
"""Tokens of the longest expression that is read."""


class Unreadable(ValueError):  # noqa: N818 - caught where it is read
    """Not an expression of this grammar, or one that may be read in two ways."""


_TOKEN = re.compile(
    r"\s*(?:(?P<number>[1-9]\d{0,2}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"|(?P<command>\\[A-Za-z]+)|(?P<symbol>[A-Za-z])|(?P<sign>\*\*|[-+*/^_(){}\[\]|!%'])"
    r"|\\(?P<brace>[{}|]))"
)
_WORD = re.compile(r"(?<!\\)(?<![A-Za-z\\])[A-Za-z]{2,}")
_FUNCTIONS = ("arcsin", "arccos", "arctan", "sqrt", "sin", "cos", "tan", "cot", "sec", "csc",
              "ln", "log", "exp", "pi")  # fmt: skip
_PLAIN_FUNCTION = re.compile(rf"(?<![A-Za-z\\])({'|'.join(_FUNCTIONS)})(?![A-Za-z])")
_COMMAND = re.compile(r"\\[A-Za-z]+")


def tokens(text: str) -> list[str]:
    """Numbers, commands, letters and signs. Raises Unreadable for anything else, words among it."""
    if has_word(text):
        raise Unreadable("words")
    text = _PLAIN_FUNCTION.sub(r"\\\1 ", text)
    found: list[str] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        token = _TOKEN.match(text, at)
        if token is None or len(found) >= MOST:
            raise Unreadable(text[at : at + 20])
        at = token.end()
        word = token[token.lastgroup or 0].replace("**", "^")
        beside = found[-1:] and found[-1][-1:].isdigit() and found[-2:-1] not in (["_"], ["^"])
        if token.lastgroup == "number" and beside:
            raise Unreadable("two numbers beside each other")
        found.append("|" if token.lastgroup == "brace" and word == "|" else word)
        if token.lastgroup == "brace" and word != "|":
            raise Unreadable("a set")
    return found


def has_word(text: str) -> bool:
    """Whether a text holds a word: abc and xyz are products, odd is none."""
    plain = _COMMAND.sub(" ", _PLAIN_FUNCTION.sub(" ", text))
    return any(len(word) > 2 and "".join(sorted(word)) != word for word in _WORD.findall(plain))
