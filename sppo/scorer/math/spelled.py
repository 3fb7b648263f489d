"""Numbers that are written as words: English and Chinese."""

from __future__ import annotations

import re

_ONES = {
    word: n
    for n, word in enumerate(
        re.findall(
            r"\w+",
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
            "fifteen sixteen seventeen eighteen nineteen",
        )
    )
}
_TENS = {
    word: 10 * n
    for n, word in enumerate(
        re.findall(r"\w+", "twenty thirty forty fifty sixty seventy eighty ninety"), start=2
    )
}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_LONGEST = 12
_CHINESE = {
    **{c: n for n, c in enumerate("零一二三四五六七八九")},
    "〇": 0,
    "两": 2,
    "兩": 2,
}
_PLACES = {"十": 10, "百": 100, "千": 1000}
_MYRIADS = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}


def spelled(text: str) -> int | None:
    """The whole number that a text spells, words behind it left out (`twelve apples`); None if it
    does not begin with one.
    """
    text = text.strip().strip(".")
    if text and all(c in _CHINESE or c in _PLACES or c in _MYRIADS for c in text):
        return _chinese(text)
    words = re.split(r"[\s-]+", text.lower())
    sign = -1 if words[0] in ("negative", "minus") else 1
    words = words[1:] if sign < 0 else words
    known = [*_ONES, *_TENS, *_SCALES, "hundred", "and"]
    count = next((i for i, word in enumerate(words) if word not in known), len(words))
    rest = words[count:]
    if not 0 < count <= _LONGEST or words[count - 1] == "and":
        return None
    if len(rest) > 3 or not all(word.isalpha() for word in rest):
        return None
    value = _english(words[:count])
    return None if value is None else sign * value


def _english(words: list[str]) -> int | None:
    total, part, last = 0, 0, ""
    for word in words:
        if word in _ONES:
            if last in _ONES or (last in _TENS and not 0 < _ONES[word] < 10):
                return None
            part += _ONES[word]
        elif word in _TENS:
            if last in _ONES or last in _TENS:
                return None
            part += _TENS[word]
        elif word == "hundred":
            if not 0 < part < 100:
                return None
            part *= 100
        elif word in _SCALES:
            if not part or (total and total < _SCALES[word]):
                return None
            total, part = total + part * _SCALES[word], 0
        elif last not in ("hundred", *_SCALES):
            return None  # an "and" that joins two numbers
        last = word
    return total + part


def _chinese(text: str) -> int | None:
    if len(text) > 1 and all(c in _CHINESE for c in text):
        return int("".join(str(_CHINESE[c]) for c in text))
    total, section, digit = 0, 0, -1
    for c in text:
        if c in _CHINESE:
            if digit > 0:
                return None
            digit = _CHINESE[c]
        elif c in _PLACES:
            section, digit = section + max(digit, 1) * _PLACES[c], -1
        else:
            total, section, digit = (total + section + max(digit, 0)) * _MYRIADS[c], 0, -1
    return total + section + max(digit, 0)
