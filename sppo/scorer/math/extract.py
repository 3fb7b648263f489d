"""Where a text states its answer: the reference of a row, and the answer of a completion."""

from __future__ import annotations

import re

from sppo.scorer.math.normal import tidy
from sppo.scorer.math.quantity import quantity
from sppo.scorer.math.shapes import is_name, point, sides
from sppo.scorer.numbers import box, stated

TAIL = 8000
"""Characters at the end of a completion in which an answer outside a box is looked for."""

MOST_VERBS = 4
"""Of a sentence: in "the number of ways that are even is 4" there are two."""

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\\\|\\?[{}]")
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:(\d)(?!\d)|([A-Za-z])(?![A-Za-z]))")
_REFERENCE_BOX = re.compile(r"\\boxed\s+([^${}]+)\$")
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_SAYS = re.compile(
    r"\b(?:answers?|solutions?)\s*(?:\*\*)?\s*(?:(?:is|are|=)(?![A-Za-z])|:)[\s:*]*"
    r"|\banswer\b[^.\n$]{0,60}?\s(?:is|are)\b[\s:*]*",
    re.IGNORECASE,
)
_END = re.compile(r"[.!?](?=\s|$)|[。！？]|\n\s*\n|\n(?=\s*[A-Z#*])")
_MATH = re.compile(
    r"(?<!\\)\$\$(.+?)(?<!\\)\$\$"
    r"|(?<![\\$])\$(?!\$)((?:[^$\\\n]|\\.|\n(?!\n)){1,600}?)\$(?!\d)"
    r"|\\\((.+?)\\\)|\\\[(.+?)\\\]",
    re.DOTALL,
)
_JOINT = re.compile(
    r"(?:[\s,;.$]|\\[,;)(\]\[ ]|\\q?quad(?![A-Za-z])|\b(?:and|or)\b"
    r"|\\text\s*\{\s*(?:and|or|,)\s*\}){0,12}",
)
_FILLER = re.compile(
    r"^[\s:*,]*(?:(?:simply|just|therefore|thus|then|hence|indeed|exactly|equal to|given by)\b"
    r"[\s:*,]*)*",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r",?\s+(?:since|because|as|which|so|where|when|who|that is|i\.e\.)\s")
_VAGUE = re.compile(r"\b(?:than|least|most|between|or|not|about|approximately|around|if)\b", re.I)
_PROSE = re.compile(r"(?:[A-Za-z]{2,}\W+){2}")
_IS = re.compile(r"(?<![\w\\])(?:is|are|equals|be)(?![\w\\])[\s:]*(?=\S)")
_SIGNED = re.compile(r"[=$]\s*-\s*\\?$")


def reference_of(text: str) -> str:
    """The answer of a row: what its last box holds, what stands behind its `####`, or all of it.

    Raises ValueError where there is none.
    """
    found = _boxes(text)
    if found is None and (bare := _REFERENCE_BOX.findall(text)):
        found = bare[-1]
    if found is None and "####" in text:
        found = text.rpartition("####")[2].strip().partition("\n")[0]
    if found is None and (bare_box := _last_bare(text)):
        found = bare_box
    found = text if found is None else found
    if not found.strip() or ("\\boxed" in found and found is text):
        raise ValueError(f"the answer {text!r:.200} holds no answer")
    return found.strip()


def answer_of(text: str, *, cut: bool = False) -> str | None:
    """The answer that a completion gives, as it is written; None where it gives none.

    In this order: its last closed box, with a minus sign before it, or last boxes where only `and`,
    `or` and commas stand between them; what stands behind `####`; `<answer>`; the sentence that
    says "answer is"; the mathematics that ends its last line, or else the last number. Of a text
    that was `cut` off, what stands at its very end is no answer, nor is a last number.
    """
    found = _boxes(text, signed=True)
    if found is not None:
        return found
    if "\\boxed" in text or "\\fbox" in text:
        return _last_bare(text)
    text = text[-TAIL:]
    if "####" in text:
        line, ended, _ = text.rpartition("####")[2].lstrip().partition("\n")
        return None if cut and not ended else _sentence(line.rstrip())
    if tags := _TAG.findall(text):
        return _sentence(tags[-1].strip())
    said = [found.end() for found in _SAYS.finditer(text)]
    if said and (rest := text[said[-1] :].strip()):
        first = _first_sentence(rest)
        return None if cut and first == rest else _sentence(first)
    return None if cut else _at_the_end(text)


def _boxes(text: str, *, signed: bool = False) -> str | None:
    """What the last closed box holds; several that are listed make a list. With `signed` the minus
    sign of `= -\\boxed{5}` belongs to it.
    """
    last = box(text)
    if last is None:
        return None
    spans: list[tuple[int, int]] = []
    for found in list(_BOXED.finditer(text))[-8:]:
        end = _closing(text, found.end())
        if end is not None and not (spans and end <= spans[-1][1]):
            spans.append((found.start(), end))
    parts = [last]
    while len(spans) > 1 and _JOINT.fullmatch(text[spans[-2][1] + 1 : spans[-1][0]]):
        spans.pop()
        start = _BOXED.match(text, spans[-1][0])
        assert start is not None
        parts.insert(0, text[start.end() : spans[-1][1]])
    if signed and len(parts) == 1 and spans and _SIGNED.search(text[: spans[-1][0]]):
        return f"-({last.strip()})"
    return ", ".join(dict.fromkeys(part.strip() for part in parts))


def _closing(text: str, start: int) -> int | None:
    """Where the brace that was opened before `start` is closed."""
    depth = 1
    for found in _BRACE.finditer(text, start, start + 5000):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return found.start()
    return None


def _last_bare(text: str) -> str | None:
    """TeX boxes a single token where no brace stands: `\\boxed 5`."""
    last = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    found = _BARE_BOX.match(text, last) if last >= 0 else None
    return None if found is None else found[1] or found[2]


def _first_sentence(text: str) -> str:
    """The text up to where its first sentence ends, mathematics not looked into."""
    hidden = _MATH.sub(lambda m: "x" * len(m[0]), text)
    end = _END.search(hidden)
    return text[: end.start()] if end else text


def _sentence(text: str) -> str:
    """The answer in a sentence that is known to give it: its mathematics if it begins with it or
    holds nothing else, else all of it. Of "The largest $n$ is 34" it is what stands behind the
    "is".
    """
    for _ in range(MOST_VERBS):
        if (rest := _behind_is(text)) is None:
            break
        text = rest
    found = list(_MATH.finditer(text))
    if not found:
        return _said(text)
    leads = _FILLER.fullmatch(text[: found[0].start()]) is not None
    runs = _runs(text, found)
    outside = _MATH.sub(" ", text)
    if leads or len(runs) == 1:
        behind = re.match(r"\s*(%|percent\b)", text[found[-1].end() :])
        if re.search(r"\d", outside) and not leads:
            return text
        return runs[0] + (" %" if behind and len(runs) == 1 else "")
    return text


def _behind_is(text: str) -> str | None:
    """What a sentence says that something is; None where it says it of a number, or in words."""
    hidden = _MATH.sub(lambda m: "x" * len(m[0]), text)
    verb = _IS.search(hidden)
    if verb is None:
        return None
    named, rest = text[: verb.start()], text[verb.end() :]
    first = _MATH.search(text)
    leads = first is not None and _FILLER.fullmatch(text[: first.start()]) is not None
    said_of_number = re.search(r"\d", named if leads else hidden[: verb.start()])
    if said_of_number or not named.strip() or _VAGUE.search(hidden[: verb.start()]):
        return None
    return rest if re.search(r"\d|\$|\\[(\[]", rest) else None


def _said(text: str) -> str:
    """The answer in a sentence without marked mathematics: its last number where it is prose."""
    if "\\" in text:
        return text
    text = _CLAUSE.split(text, maxsplit=1)[0]
    text = _FILLER.sub("", text, count=1)
    if _PROSE.search(text) and not _VAGUE.search(text) and (value := stated(text)) is not None:
        return str(value) if quantity(tidy(text)) is None else text
    return text


def _runs(text: str, found: list[re.Match[str]]) -> list[str]:
    """Pieces of mathematics; those that are only listed make one: $2$ and $3$ are `2, 3`."""
    runs: list[str] = []
    for i, piece in enumerate(found):
        inside = next(group for group in piece.groups() if group is not None)
        joined = i > 0 and _JOINT.fullmatch(text[found[i - 1].end() : piece.start()])
        if runs and joined and not _is_step(runs[-1]):
            runs[-1] += f", {inside}"
        else:
            runs.append(inside)
    return runs


def _is_step(piece: str) -> bool:
    """Whether a piece of mathematics is an equation that names nothing: 5x = 30."""
    parts = sides(piece)
    return len(parts) > 1 and not is_name(parts[0]) and point(piece) is None


def _at_the_end(text: str) -> str | None:
    """What a text without any mark ends with: mathematics with no digit behind it, or the number
    that can be read with certainty.
    """
    line = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    found = list(_MATH.finditer(line))
    if found and not re.search(r"\d", line[found[-1].end() :]):
        return _runs(line, found)[-1]
    value = stated(text)
    if value is not None:
        return str(value)
    whole = text.strip()
    return whole if "\n" not in whole and len(whole) <= 200 else None
