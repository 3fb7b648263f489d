"""Numbers in what a model writes, read exactly or not at all.

`number` reads a text that is one number; `stated` finds the number that a whole completion answers
with. Both give a Fraction, so that nothing is rounded, or None wherever the text leaves room for
another reading: a rule pays for no answer that it is not sure of. What is read how stands in
docs/scorers.md.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

MAX_LENGTH = 200
"""Characters of the longest text that is taken for a number."""
MAX_EXPONENT = 300

_SIGNS = str.maketrans("−－﹣–＋．／％＄￥٫٬", "----+./%$¥.,")
_VULGAR = {
    chr(c): " " + unicodedata.normalize("NFKC", chr(c)).replace("⁄", "/")
    for c in (*range(0xBC, 0xBF), *range(0x2150, 0x215F))
}
_VULGAR_TABLE = str.maketrans(_VULGAR)
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{\s*(-?\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
_TEXT_UNIT = re.compile(r"\\(?:text|mathrm|textrm|mbox)\s*\{[^{}\d]*\}(?:\^\{?[23]\}?|[²³])?\s*$")
_DEGREES = re.compile(r"(?:\^\s*(?:\\circ|\{\s*\\circ\s*\})|°)\s*[CF]?$")
_LATEX = (
    ("\\$", "$"),
    ("\\%", "%"),
    ("{,}", ","),
    ("\\,", "\u202f"),
    ("\\!", ""),
    ("\\left", ""),
    ("\\right", ""),
)

_DIGITS = r"(?:[1-9]\d{0,2}(?:,\d{3})+|\d{1,3}(?:[\u00a0\u2009\u202f']\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_UNITS = r"(?:\s+[^\W\d_]{2,}(?:\^?[23]|[²³])?){1,4}"
_NUMBER = re.compile(
    rf"""(?:[A-Za-z]\w{{0,15}}\s*=\s*)?                # x =
    (?P<sign>[+-]?)\s?[$€£¥₹]?\s?(?P<sign2>[+-]?)
    (?:(?P<whole>\d+)\s+(?P<part>\d+)/(?P<of>\d+)      # 2 1/2
      |(?P<over>{_DIGITS})\s?/\s?(?P<under>{_DIGITS})
      |10\s*(?:\^|\*\*)\s*\{{?(?P<power>[+-]?\d+)\}}?
      |(?P<plain>{_DIGITS})
       (?:[eE](?P<e>[+-]?\d+)
         |\s*(?:\\times|\\cdot|[×·*x])\s*10\s*(?:\^|\*\*)\s*\{{?(?P<ten>[+-]?\d+)\}}?)?)
    (?:\s?%|\s?[€£¥₹])?(?P<units>{_UNITS})?""",
    re.VERBOSE,
)
_FACTORS = {
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
_CJK_DIGITS = frozenset("十百千万亿萬億兆分点點")
_CHANGES = frozenset(  # words behind a number that make another one of it
    """pi sqrt squared cubed factorial half halves third thirds quarter quarters fifth fifths
    tenth tenths hundredth hundredths over divided multiplied minus plus choose mod modulo root
    power hundreds thousands millions billions""".split()  # noqa: SIM905
)


def number(text: str) -> Fraction | None:
    """The number that a text is, its units left out; None if it is not exactly one."""
    if len(text) > MAX_LENGTH:
        return None
    if text.isdecimal():
        return Fraction(int(text))
    text = _TEXT_UNIT.sub("", _plain(text).strip())
    text = _DEGREES.sub("", text.translate(_SIGNS).translate(_VULGAR_TABLE))
    found = _NUMBER.fullmatch(text.strip().rstrip("."))
    if found is None or (found["sign"] and found["sign2"]):
        return None
    value = _value(found)
    words = (found["units"] or "").lower().split()
    if value is None or _CHANGES & {word.rstrip("^23²³") for word in words}:
        return None
    value = -value if "-" in (found["sign"], found["sign2"]) else value
    return value * _FACTORS[words[0]] if words and words[0] in _FACTORS else value


def _plain(text: str) -> str:
    """Without the LaTeX that changes no number; a fraction of whole numbers as 1/2."""
    for latex, plain in _LATEX:
        text = text.replace(latex, plain)
    return _FRACTION.sub(_solidus, text)


def _solidus(found: re.Match[str]) -> str:
    mixed = found.string[: found.start()].rstrip()[-1:].isdecimal()
    return f"{' ' if mixed else ''}{found[1] or found[2]}/{found[3] or found[4]}"


def _value(found: re.Match[str]) -> Fraction | None:
    """What the digits say, without sign and units."""
    exponent = int(found["power"] or found["e"] or found["ten"] or 0)
    if abs(exponent) > MAX_EXPONENT:
        return None
    if found["whole"]:
        over, under = Fraction(int(found["part"])), Fraction(int(found["of"]))
        return int(found["whole"]) + over / under if 0 < over < under else None
    if found["over"]:
        under = _decimal(found["under"])
        return _decimal(found["over"]) / under if under else None
    digits = Fraction(1) if found["power"] else _decimal(found["plain"])
    return digits * Fraction(10) ** exponent if exponent else digits


def _decimal(digits: str) -> Fraction:
    whole, _, part = re.sub(r"[^\d.]", "", digits).partition(".")
    return Fraction(int(whole + part or 0), 10 ** len(part))


# Where a completion states its answer -------------------------------------------------------------

_BRACE = re.compile(r"\\boxed\s*\{|\\\\(?!boxed)|\\?[{}]")
_CALCULATION = re.compile(r"<<[^<>]{0,200}>>")  # GSM8K's notes: 48/2 = <<48/2=24>>24
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,40}>")
_ANSWER_IS = re.compile(r"\banswer\s+is\b[\s:*]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[。！？\n]")
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_CJK_EDGE = re.compile(rf"(?<=[{_CJK}])(?=[^{_CJK}])|(?<=[^{_CJK}])(?=[{_CJK}])")
_SPACE = re.compile(r"[ \t\r\u3000—…]+")  # without the spaces that group digits
_SYMBOLS = frozenset(
    [
        r"+",
        r"-",
        r"*",
        r"/",
        r"×",
        r"÷",
        r"^",
        r"·",
        r"x",
        r"\times",
        r"\cdot",
        r"\div",
        r"<",
        r">",
        r"≤",
        r"≥",
        r"≠",
        r"\le",
        r"\ge",
        r"\ne",
        r"±",
        r"\pm",
        r"√",
        r"\sqrt",
    ]
)
_BEFORE = _SYMBOLS | {
    "not",
    "negative",
    "minus",
    "plus",
    "times",
    "log",
    "ln",
    "sin",
    "cos",
    "tan",
    "sqrt",
}
_LISTING = frozenset(("and", "or", "to", "&", "through"))
_KEPT_BEFORE, _KEPT_BEHIND = "+-.$€£¥₹√±<>≤≥≠\\^/!|", "!%°€£¥₹²³^√/\\+-|"


def box(text: str) -> str | None:
    """What stands in the last closed \\boxed{...} or \\fbox{...}, its braces balanced; None if
    there is none.
    """
    if "box" not in text:
        return None
    last: tuple[int, int] | None = None
    opened: list[tuple[int, bool]] = []
    text = text.replace("\\fbox", "\\boxed")
    for found in _BRACE.finditer(text):
        if found[0] in ("\\\\", "\\{", "\\}"):
            continue  # a new line, or a brace that is printed
        if found[0] != "}":
            opened.append((found.end(), found[0] != "{"))
        elif opened:
            start, is_box = opened.pop()
            if is_box and (last is None or start > last[0]):
                last = (start, found.start())
    return None if last is None else text[last[0] : last[1]]


def stated(text: str) -> Fraction | None:
    """The number that a completion answers with; None if there is none, or none that can be read
    with certainty.

    It is what the last box holds; without a box, the last number behind the last `####`, or of the
    sentence that says "answer is"; without these, the last number of all.
    """
    boxed = box(text)
    whole = number(text if boxed is None else boxed)
    if boxed is not None or whole is not None:
        return whole
    if "\\boxed" in text or "\\fbox" in text:
        return None  # a box that was never closed: the answer was cut off
    text = _TAG.sub(" ", _CALCULATION.sub("", text)) if "<" in text else text
    _, mark, behind = text.rpartition("####")
    if mark:
        return _last(behind.strip().partition("\n")[0])
    said = [found.end() for found in _ANSWER_IS.finditer(text)]
    return _last(_SENTENCE_END.split(text[said[-1] :], maxsplit=1)[0] if said else text)


def _last(text: str) -> Fraction | None:
    """The last number of a text, if it can be read with certainty."""
    line = next((line for line in reversed(text.split("\n")) if _has_digit(line)), "")
    words = ["", "", *_SPACE.split(_CJK_EDGE.sub(" ", _plain(line).translate(_SIGNS))), ""]
    at = next((i for i in reversed(range(len(words))) if _has_digit(words[i])), None)
    return None if at is None else _read(words[at - 2], words[at - 1], words[at], words[at + 1])


def _has_digit(text: str) -> bool:
    return any(c.isdecimal() or c in _VULGAR for c in text)


def _read(earlier: str, previous: str, word: str, following: str) -> Fraction | None:
    """The number that a word is, between its neighbours of the same line."""
    core, before = _bare(word), _bare(previous)
    if previous in ("×", "x", "*", "\\times", "\\cdot") and core.startswith("10"):
        return number(f"{_bare(earlier)} {previous} {core}")  # 1.5 × 10^3
    doubts = (
        previous.lower() in _BEFORE
        or following.lower() in _SYMBOLS
        or following[:1] in _CJK_DIGITS,
        previous.endswith((",", ";")) and _has_digit(previous),  # 2, 3
        previous.lower() in _LISTING and _has_digit(earlier),  # 2 or 3
        re.fullmatch(r"\d{1,3}", before) and re.match(r"\d{3}\b", core),  # 1 000: one number or two
    )
    if any(doubts):
        return None
    if re.fullmatch(r"[+-]?\d+", before) and re.fullmatch(
        r"\d+/\d+", core.translate(_VULGAR_TABLE).strip()
    ):
        core = f"{before} {core}"  # 2 1/2
    if word[-1:].isalnum() and _bare(following).lower() in _FACTORS.keys() | _CHANGES:
        core = f"{core} {_bare(following)}"  # 5 million
    return number(core)


def _bare(word: str) -> str:
    """A word without quotes, brackets, emphasis, full stops and what it is the value of."""
    word = re.sub(r"\\[()\[\]]", "", word).rpartition("=")[2]
    label, _, rest = word.rpartition(":")
    word = rest if label and not _has_digit(label) else word
    first, end = 0, len(word)
    while end > 0 and not word[end - 1].isalnum() and word[end - 1] not in _KEPT_BEHIND:
        end -= 1
    while first < end and not word[first].isalnum() and word[first] not in _KEPT_BEFORE:
        first += 1
    return re.sub(r"^\$+", "$", word[first:end])
