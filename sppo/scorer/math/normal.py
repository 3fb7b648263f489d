"""One way to write what LaTeX and people write in many: the text of an answer made plain."""

from __future__ import annotations

import re
import unicodedata

LONGEST = 1000
"""Characters of an answer that is looked at; a longer one is equal to nothing."""

_SIGNS = str.maketrans({
    "−": "-", "–": "-", "﹣": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ",
    "÷": r"\div ", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ", "∓": r"\mp ", "°": r"^\circ ",
    "θ": r"\theta ", "∅": r"\emptyset ", "′": "'", "“": '"', "”": '"', "’": "'",
    "\u00a0": " ", "\u2009": " ", "\u202f": " ", "。": ".",
})  # fmt: skip
_DOUBLED = re.compile(
    r"(?<!\\)\\\\(?=(?:[dtc]?frac|sqrt|binom|left|right|text|mbox|mathrm|mathbf|overline|quad|boxed|pi|theta"
    r"|infty|angle|cdot|times|div|pm|cup|in|circ|le|leq|ge|geq|log|ln|sin|cos|tan|cot|sec|csc)"
    r"(?![A-Za-z]))"
)
"""A command with two backslashes, as in a string of JSON: no row of a matrix begins so."""
_POWERS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_POWER = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|(\d+|[A-Za-z]))")
_NOTHING = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|mathstrut)(?![A-Za-z])"
    r"|\\[!,;:>]|\\(?:qquad|quad|hfill)(?![A-Za-z])|(?<!\\)~|(?<!\\)\$|\\[()\[\]](?![A-Za-z])"
    r"|\\(?:q?quad|thinspace)(?![A-Za-z])"
)
_STYLE = re.compile(
    r"\\(?:mathbf|mathrm|mathit|mathsf|mathcal|boldsymbol|bm|textnormal|textbf|textit|textrm|"
    r"texttt|textup|mbox|hbox|text|operatorname\*?|rm|bf)\s*\{([^{}]*)\}"
)
_SYNONYMS = (
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:leq|leqslant)(?![A-Za-z])"), r"\\le"),
    (re.compile(r"\\(?:geq|geqslant)(?![A-Za-z])"), r"\\ge"),
    (re.compile(r"\\neq(?![A-Za-z])"), r"\\ne"),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"\\(?:varnothing)(?![A-Za-z])"), r"\\emptyset"),
    (re.compile(r"\\(?:lbrace)(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\(?:rbrace)(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\\(?:vert|lvert|rvert)(?![A-Za-z])|\\mid(?![A-Za-z])"), "|"),
    (re.compile(r"(?<![A-Za-z\\])infinity(?![A-Za-z])"), r"\\infty"),
    (re.compile(r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree(?![A-Za-z])"), r"^\\circ "),
    (re.compile(r"\\\{\s*\\\}"), r"\\emptyset "),
    (re.compile(r"\{\s*,\s*\}"), ","),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\(?:#|&)"), " "),
    (re.compile(r"\s*\^\s*"), "^"),
)
_LETTERS = {"m": "meters", "g": "grams", "s": "seconds", "h": "hours", "l": "liters", "L": "liters"}
_FRAC = re.compile(r"\\frac\s*(?:(\d)\s*(\d)|(\d)\s*(?=\{)|(\{[^{}]*\})\s*(\d))")
_SQRT = re.compile(r"\\sqrt\s*(\d|[A-Za-z](?![A-Za-z]))")


def tidy(text: str) -> str:
    """The answer in its plainest form; empty where it holds none, or is too long to be one."""
    text = peeled(text)
    if len(text) > LONGEST:
        return ""
    if "\\\\begin{" in text:
        text = text.replace("\\\\", "\\")  # all of it is such a string
    text = _DOUBLED.sub(r"\\", unicodedata.normalize("NFC", text))
    text = _ROOT.sub(lambda m: rf"\sqrt{{{m[1] or m[2]}}}", text)
    text = _POWER.sub(lambda m: "^{" + m[0].translate(_POWERS) + "}", text).translate(_SIGNS)
    text = "".join(_ascii(c) for c in text)
    text = text.replace("\\\\", r"\newline ").replace("\\$", "¤").replace("\\ ", " ")
    text = _NOTHING.sub(" ", _grouped(text)).replace("¤", "$")
    for _ in range(4):
        text, changed = _STYLE.subn(_styled, text)
        if not changed:
            break
    for pattern, plain in _SYNONYMS:
        text = pattern.sub(plain, text)
    text = _SQRT.sub(r"\\sqrt{\1}", _FRAC.sub(_braced, text))
    return peeled(re.sub(r"\s+", " ", text))


def _grouped(text: str) -> str:
    r"""1\,000 is a thousand, and so is 1\!000 of \!'s that only move things closer."""
    return re.sub(r"(?<=\d)(?:\\[,;:]|\{\s*,\s*\}\\!|,\\!|\\!)\s*(?=\d{3}(?!\d))", ",", text)


def _ascii(c: str) -> str:
    """A digit of any script, and a full-width sign, as ASCII."""
    if c.isascii():
        return c
    if c.isdecimal():
        return str(unicodedata.decimal(c))
    wide = 0xFF01 <= ord(c) <= 0xFF5E
    return chr(ord(c) - 0xFEE0) if wide else c


def _styled(found: re.Match[str]) -> str:
    """What stands in \\text{...}: words set off by spaces, a unit of one letter as its word."""
    inside = found[1].strip()
    behind_number = found.string[: found.start()].rstrip()[-1:] in "0123456789}"
    if behind_number and inside in _LETTERS:
        return f" {_LETTERS[inside]} "
    return inside if len(inside) == 1 else f" {inside} "


def _braced(found: re.Match[str]) -> str:
    if found[1]:
        return rf"\frac{{{found[1]}}}{{{found[2]}}}"
    if found[3]:
        return rf"\frac{{{found[3]}}}"
    return rf"\frac{found[4]}{{{found[5]}}}"


def peeled(text: str) -> str:
    """Without spaces, full stops and math delimiters around it, nor the braces and parentheses that
    hold all of it, however many there are.
    """
    text = text.strip().strip("*_`").rstrip(".").strip()
    for opening, closing in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        inner = text[len(opening) : -len(closing)]
        if (
            len(text) > 2 * len(opening)
            and text.startswith(opening)
            and text.endswith(closing)
            and opening not in inner
        ):
            text = inner.strip().rstrip(".").strip()
    return _unwrapped(text)


_PAIRS = {"(": ")", "{": "}"}


def _unwrapped(text: str) -> str:
    """Without the parentheses around a whole that is no pair, in one pass: there may be thousands
    of them.
    """
    if not text[:1] or text[0] not in _PAIRS:
        return text
    partner: dict[int, int] = {}
    stack: list[int] = []
    for i, c in enumerate(text):
        escaped = i > 0 and text[i - 1] == "\\"
        if c in "({" and not escaped:
            stack.append(i)
        elif c in ")}" and not escaped:
            if not stack or _PAIRS[text[stack[-1]]] != c:
                return text
            partner[stack.pop()] = i
    layers = [(0, len(text) - 1)]
    while partner.get(layers[-1][0]) == layers[-1][1]:
        first, last = layers[-1][0] + 1, layers[-1][1] - 1
        while first < last and text[first] == " ":
            first += 1
        while first < last and text[last] == " ":
            last -= 1
        layers.append((first, last))
    first, last = layers[-1]
    if top_level_comma(text[first : last + 1]):  # the parentheses of a pair stay
        first, last = next((at for at in layers if text[at[0]] == "("), (first, last))
    return text[first : last + 1].strip()


def top_level_comma(text: str) -> bool:
    """Whether a comma or semicolon stands outside all brackets."""
    depth = 0
    for c in text:
        depth += (c in "([{") - (c in ")]}")
        if depth == 0 and c in ",;":
            return True
    return False
