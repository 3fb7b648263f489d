"""How an answer is put together: its elements, sides, rows and ends."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sppo.scorer.math.quantity import UNITS
from sppo.scorer.numbers import number

Matrix = tuple[str, list[list[str]]]
"""The kind (a determinant is none of the others) and the rows."""

_ENVIRONMENT = re.compile(
    r"\\begin\{([pbvBV]?)(?:small)?(matrix|array)\}(?:\{[lcr| ]*\})?(.*)\\end\{.*?\}", re.DOTALL
)
_BASED = re.compile(r"\(?([0-9A-Fa-f]+)\)?\s*_\s*\{?\s*(\d+|[a-z]+)\s*\}?")
_BASES = {
    word: n
    for n, word in enumerate(
        re.findall(r"\w+", "two three four five six seven eight nine ten eleven twelve"), start=2
    )
}
_AND = re.compile(r"(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")
_NAME = re.compile(
    r"(?:\\?[A-Za-z]+(?:_\{?\w+\}?)?'*|[A-Za-z]\^\{-1\})\s*(?:\(\s*-?\w(?:\s*,\s*\w)*\s*\))?"
    r"|\(\s*[A-Za-z](?:_\{?\w+\}?)?(?:\s*,\s*[A-Za-z](?:_\{?\w+\}?)?)*\s*\)"
    r"|\\angle\s*[A-Z]{1,3}|[A-Za-z ]{3,40}|\|[A-Z]{2}\||\\overline\{[A-Z]{2}\}"
    r"|[A-Z]+(?:_\{?\w+\}?)?(?:\s*:\s*[A-Z]+(?:_\{?\w+\}?)?)+|\\frac\{[A-Z]{2}\}\{[A-Z]{2}\}"
)
_SIDES = re.compile(r"(?<![<>!\\:])=(?!=)")
_ORDER = re.compile(r"<=|>=|<|>|\\le(?![A-Za-z])|\\ge(?![A-Za-z])")
_MEMBER = re.compile(r"^\s*[A-Za-z](?:_\{?\w+\}?)?\s*\\in(?![A-Za-z])\s*")
_VARIABLE = re.compile(r"[A-Za-z](?:_\{?\w+\}?)?|\\(?:theta|alpha|beta|lambda|mu)")
_UNIT_TAIL = re.compile(
    r"(?:\s+|(?<=[\d})]))(?:(?:square|cubic|sq|cu)\.?\s+)?([A-Za-z]{1,12})(?:\s*\^\s*\{?\s*[23]\s*\}?)?$"
)
_OPEN, _CLOSE = "([{", ")]}"


def split(text: str, separators: str) -> list[str]:
    """Parts between separators outside all brackets; the commas of thousands are none."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        if c in _OPEN:
            depth += 1
        elif c in _CLOSE:
            depth -= 1
        elif c in separators and depth <= 0 and not _thousands(text, i):
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


def _thousands(text: str, at: int) -> bool:
    return (
        text[at] == ","
        and re.search(r"(?<![\d.])[1-9]\d{0,2}(?:,\d{3})*$", text[max(0, at - 20) : at]) is not None
        and re.match(r",\d{3}(?!\d)", text[at:]) is not None
    )


def elements(text: str) -> list[str] | None:
    """The members of a set or a list, signs of both kinds written out: `\\pm 3` is 3 and -3."""
    inner = text.strip()
    if inner.startswith("\\{") and inner.endswith("\\}"):
        inner = inner[2:-2]
    parts = split(_AND.sub(",", inner), ",;")
    parts = [part for part in parts if part]
    found: list[str] = []
    for part in parts:
        if "\\pm" in part or "\\mp" in part:
            for plus, minus in (("+", "-"), ("-", "+")):
                signed = re.sub(r"\\pm(?![A-Za-z])", plus, part)
                found.append(re.sub(r"\\mp(?![A-Za-z])", minus, signed).strip())
        else:
            found.append(part)
    if len(found) < 2 or any("=" not in x for x in found):
        return found or None
    names = {sides(x)[0].replace(" ", "") for x in found}
    return [sides(x)[-1] for x in found] if len(names) == 1 else found


def inside_set(text: str) -> str:
    """What a variable is said to be in: `x \\in [2, 3]` is `[2, 3]`."""
    return _MEMBER.sub("", text)


def union(text: str) -> list[str]:
    """The intervals of a union, also of inequalities with an `or` between them."""
    if _ORDER.search(text) and not _SIDES.search(text):
        text = re.sub(r"(?<![A-Za-z\\])or(?![A-Za-z])", r"\\cup ", text)
    return [part.strip() for part in re.split(r"\\cup(?![A-Za-z])", text)]


def bracketed(text: str) -> tuple[str, list[str]] | None:
    """The brackets around all of a text, and the parts between its commas."""
    text = text.strip()
    angled = re.fullmatch(r"\\langle(.*)\\rangle", text)
    if angled:
        return "<>", split(angled[1], ",;")
    if len(text) < 3 or text[0] not in "([" or text[-1] not in ")]":
        return None
    depth = 0
    for i, c in enumerate(text):
        depth += (c in _OPEN) - (c in _CLOSE)
        if depth == 0 and i < len(text) - 1:
            return None
    parts = split(text[1:-1], ",;")
    return (text[0] + text[-1], parts) if len(parts) > 1 else None


def point(text: str) -> list[str] | None:
    """Coordinates: of (1, 2), of (x, y) = (1, 2), and of x = 1, y = 2."""
    found = bracketed(text)
    if found and found[0] == "()":
        return found[1]
    parts = sides(text)
    if len(parts) == 2 and (left := bracketed(parts[0])) and (found := bracketed(parts[1])):
        return found[1] if all(_VARIABLE.fullmatch(x) for x in left[1]) else None
    pairs = [sides(part) for part in split(_AND.sub(",", text), ",;") if part]
    names = [pair[0] for pair in pairs]
    if len(pairs) < 2 or any(len(pair) != 2 for pair in pairs) or len(set(names)) < len(names):
        return None
    named = all(_VARIABLE.fullmatch(name) for name in names)
    return [value for _, value in sorted((pair[0], pair[1]) for pair in pairs)] if named else None


def matrix(text: str) -> Matrix | None:
    """Rows of a matrix; round and square brackets are the same, bars are a determinant."""
    found = _ENVIRONMENT.fullmatch(text.strip().strip("()[]").strip())
    if found is None or "\\begin" in found[3]:
        return None
    rows = [row for row in re.split(r"\\newline ", found[3]) if row.strip()]
    return found[1].lower() if found[1] in "vV" else "", [
        [cell.strip() for cell in row.split("&")] for row in rows
    ]


def based(text: str) -> tuple[str, int] | None:
    """Digits and the base that stands below them."""
    found = _BASED.fullmatch(text.strip())
    if found is None or not re.search(r"\d", found[1]):
        return None
    base = int(found[2]) if found[2].isdigit() else _BASES.get(found[2], 0)
    return (found[1].lstrip("0") or "0", base) if 2 <= base <= 36 else None


def sides(text: str) -> list[str]:
    """What stands between signs of equality; those below a sum or in other braces are none."""
    parts, start, depth = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in _OPEN) - (c in _CLOSE)
        if c == "=" and depth <= 0 and _SIDES.match(text, i):
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


def is_name(text: str) -> bool:
    """Whether a side of an equation only names what is asked for: x, f(x), (x, y), \\angle ABC."""
    return _NAME.fullmatch(text.strip()) is not None and number(text) is None


@dataclass(frozen=True, slots=True)
class Interval:
    """Ends of an interval and its brackets; `name` of the variable, where one is said."""

    brackets: str
    low: str
    high: str
    name: str = ""


def interval(text: str) -> Interval | None:
    """An interval, or an inequality in one variable that is one."""
    found = bracketed(text)
    if found:
        return Interval(found[0], *found[1]) if len(found[1]) == 2 and found[0] != "<>" else None
    signs = ["<" if s == "<" else ">" if s == ">" else "<=" if s in ("<=", "\\le") else ">="
             for s in _ORDER.findall(text)]  # fmt: skip
    parts = [part.strip() for part in _ORDER.split(text)]
    if len(signs) == 2 and _VARIABLE.fullmatch(parts[1]) and signs[0][0] == signs[1][0]:
        if signs[0][0] == ">":
            parts, signs = parts[::-1], [s.replace(">", "<") for s in signs[::-1]]
        brackets = ("(" if signs[0] == "<" else "[") + (")" if signs[1] == "<" else "]")
        return Interval(brackets, parts[0], parts[2], parts[1])
    if len(signs) != 1:
        return None
    if _VARIABLE.fullmatch(parts[1]) and not _VARIABLE.fullmatch(parts[0]):
        parts = parts[::-1]
        signs = [signs[0].replace("<", "~").replace(">", "<").replace("~", ">")]
    if not _VARIABLE.fullmatch(parts[0]):
        return None
    closed = signs[0].endswith("=")
    if signs[0][0] == "<":
        return Interval("(" + ("]" if closed else ")"), "-\\infty", parts[1], parts[0])
    return Interval(("[" if closed else "(") + ")", parts[1], "\\infty", parts[0])


def without_unit(text: str) -> str:
    """The expression before a unit: 5\\sqrt{3} cm, 12\\pi square units, 30^\\circ."""
    if not re.search(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])", text):
        text = re.sub(r"\s*\^\\circ\s*$", "", text)
    found = _UNIT_TAIL.search(text)
    known = found is not None and (
        found[1].lower() in ("unit", "units") or (found[1].lower() in UNITS and len(found[1]) > 1)
    )
    return text[: found.start()].strip() if found and known and found.start() else text


def without_letter(text: str, unit: str) -> str:
    """The number before this very unit, of one letter: 5 m."""
    found = re.search(r"(?<=\d)\s*([A-Za-z])$", text)
    same = found is not None and UNITS.get(found[1].lower()) == unit
    return text[: found.start()] if found and same else text
