"""What a judge's answer says: the probability that the first answer is better, or a rating.

A verdict is A, B, or C for a tie. Where the endpoint gives log-probs, the probabilities are those
of the token in which the verdict stands, over all that mean the same (`A`, ` A`, `**A`), made to
add up to 1; a tie counts half. Of a rating that is one digit it is the mean over the ten digits.
NaN: the answer cannot be read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEAST_MASS = 0.1
"""An answer that does not say its verdict is read from the log-probs of its first token, if the
verdicts have so much of its probability.
"""
_WORTH = {"A": 1.0, "B": 0.0, "C": 0.5, "TIE": 0.5}
_AROUND = " \t\r\n*_`'\"()[]{}<>.:,;#▁Ġ"

_LETTER = r"(?P<said>[ABC]|[Tt]ie|TIE)\b(?!')"
_NO_ARTICLE = r"(?!\s+(?!because|since|is|as|wins|over|by)[a-z])"
_NAMED = r"(?i:verdict|winner|choice|decision|(?:better|best|preferred|final)(?: one)?)"
_MARKS = r"[\s*_`'\"(\[:=]{0,20}"
_KIND = r"(?i:answer|response|option)"
_FORMS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\[\[\s*{_LETTER}\s*\]\]",
        rf"(?:{_NAMED}|{_KIND}\s*(?::|is)){_MARKS}(?:(?:is|{_KIND})\b{_MARKS}){{0,2}}{_LETTER}{_NO_ARTICLE}",
        rf"\b{_KIND}\s+{_LETTER}\s+(?:is|was)\s+(?:\w+ )?(?:better|best|preferred|superior)\b",
        rf"(?:^|\n)\W{{0,20}}(?:{_KIND}\s+)?{_LETTER}(?:\W{{0,20}}(?:$|\n)|[.:,;)\]*-]|\s+(?:is|wins|because|since)\b)",
    )
)
_NUMBER = re.compile(r"(?<![\w.,/-])-?\d+(?:\.\d+)?(?![\w%]|[.,]\d)")
_IN_BRACKETS = re.compile(r"\[\[\s*(-?\d+(?:\.\d+)?)\s*\]\]")
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token of the judge's answer."""

    text: str
    top: Mapping[str, float]
    """Log-probs in nats of the likeliest tokens in its place, itself among them."""


def preference(text: str, tokens: Sequence[Token]) -> float:
    """Probability that the first answer is better."""
    found = _verdict(text)
    token = _at(tokens, found[1]) if found else tokens[0] if tokens else None
    if token is not None and (found or not _named(token.text)):
        mass = {"A": 0.0, "B": 0.0, "C": 0.0, "TIE": 0.0}
        for variant, logprob in token.top.items():
            if (name := _named(variant)) in mass:
                mass[name] += math.exp(logprob)
        whole = sum(mass.values())
        if whole >= (LEAST_MASS if found is None else 1e-9):
            return min(1.0, max(0.0, sum(_WORTH[name] * p for name, p in mass.items()) / whole))
    return _WORTH[found[0]] if found else math.nan


def rating(text: str, tokens: Sequence[Token]) -> float:
    """The number that the answer gives: the one in [[ ]], else the last."""
    text = _blank(text)
    bracketed = list(_IN_BRACKETS.finditer(text))
    found = bracketed[-1] if bracketed else None
    numbers = [] if found else list(_NUMBER.finditer(_without_scale(text)))
    if found:
        said, start = found[1], found.start(1)
    elif numbers:
        said, start = numbers[-1][0], numbers[-1].start()
    else:
        return math.nan
    token = _at(tokens, start) if len(said) == 1 else None
    if token is not None:
        mass = dict.fromkeys("0123456789", 0.0)
        for variant, logprob in token.top.items():
            if (name := variant.strip(_AROUND)) in mass:
                mass[name] += math.exp(logprob)
        if whole := sum(mass.values()):
            return sum(int(digit) * p for digit, p in mass.items()) / whole
    return float(said)


def _verdict(text: str) -> tuple[str, int] | None:
    """The verdict in an answer, and where it stands; the last of the surest form."""
    text = _blank(text)
    for form in _FORMS:
        if found := list(form.finditer(text)):
            return found[-1]["said"].upper(), found[-1].start("said")
    return None


def _blank(text: str) -> str:
    """With what was thought aloud as spaces, so that places stay where they are."""
    return _THOUGHT.sub(lambda match: " " * len(match[0]), text)


def _without_scale(text: str) -> str:
    """`7/10` and `7 out of 10` as 7."""
    return re.sub(r"(\d)([\s,]*(?:/|out of|of)\s*\d+)", lambda m: m[1] + " " * len(m[2]), text)


def _at(tokens: Sequence[Token], place: int) -> Token | None:
    """The token that holds the character at this place."""
    end = 0
    for token in tokens:
        end += len(token.text)
        if place < end:
            return token
    return None


def _named(variant: str) -> str:
    """The verdict that a token is, if it is one."""
    bare = variant.strip(_AROUND)
    return bare if bare in ("A", "B", "C") else "TIE" if bare.upper() == "TIE" else ""
