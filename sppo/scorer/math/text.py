"""Answers that are no mathematics: the letter of a choice, a time of day, words."""

from __future__ import annotations

import re

_CHOICE = re.compile(r"\(?\s*([A-Ja-j])\s*\)?")
_ANSWERING = re.compile(
    r"(?:\(\s*([A-J])\s*\)|([A-J])\s*[).:])(?:\s.*)?|(?:option|choice)\s+\(?([A-J])\)?",
    re.IGNORECASE,
)
_TIME = re.compile(
    r"(\d{1,2}):([0-5]\d)\s*(?:([ap])\s*\.?\s*m\b\.?)?(?:\s*[A-Z]{2,3})?", re.IGNORECASE
)
_WORDY = re.compile(r"[A-Za-z0-9 ,.'’:;\"/&-]+")
_JOINING = re.compile(r"\b(?:and|or)\b", re.IGNORECASE)
_WORD = re.compile("[A-Za-z]{3}")
_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")


def as_choice(text: str, *, answering: bool = False) -> str:
    """The letter of a choice, in upper case, or ""; of an answer also where words follow it."""
    found = _CHOICE.fullmatch(text)
    if found:
        return found[1].upper()
    found = _ANSWERING.fullmatch(text) if answering else None
    return (found[1] or found[2] or found[3]).upper() if found else ""


def as_time(text: str) -> tuple[int, int, str] | None:
    """Hour, minute and `a` or `p`, or "" where it is not said."""
    found = _TIME.fullmatch(text.strip())
    return (int(found[1]), int(found[2]), (found[3] or "").lower()) if found else None


def words(text: str) -> tuple[str, ...] | None:
    """The words of a text that has a word of three letters and no mathematics; None for others."""
    if not _WORDY.fullmatch(text):
        return None
    if re.search(r"\d\s*[-/]\s*\d", text) or not _WORD.search(_JOINING.sub(" ", text)):
        return None
    said = re.findall(r"[a-z0-9]+", text.lower().replace("'", ""))
    return tuple(word for word in said if word not in ("the", "a", "an", "and"))


def squeezed(text: str) -> str:
    """Without the spaces that change nothing: those not between digits."""
    return _SPACE.sub("", text.strip()).replace("{}", "")
