"""Rule scorers: 1 for a right completion, 0 for a wrong one (reasoning-gym grades in between,
closest-number compares).

Each takes the question, its completions, and `data` with at least `answer`. Where a rule cannot
tell, it pays nothing; docs/scorers.md says what it can tell.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from sppo.config import ScorerConfig
from sppo.scorer.code import cases
from sppo.scorer.math.extract import reference_of
from sppo.scorer.numbers import box, number, stated
from sppo.tasks.rows import kind


def exact_match(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """Whether the whole completion, trimmed, is the answer; an empty answer is never matched."""
    answer = _text(data).strip()
    return [float(bool(answer) and text.strip() == answer) for text in completions]


def last_number(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """Whether the number that the completion answers with is the answer's: the last one, unless it
    says which.
    """
    wanted = _number(data)
    return [float(stated(text) == wanted) for text in completions]


def closest_number(
    question: str, completions: Sequence[str], data: Mapping[str, Any]
) -> list[float] | list[list[float]]:
    """Preferences: the completion whose number is closer to the answer wins, with 1/2 for a tie.

    A completion without a number is the furthest of all. For one completion it returns what
    `last_number` does.
    """
    if len(completions) == 1:
        return last_number(question, completions, data)
    wanted = _number(data)
    found = [stated(text) for text in completions]
    miss = [math.inf if number is None else abs(number - wanted) for number in found]
    return [[0.5 if a == b else float(a < b) for b in miss] for a in miss]


def boxed_answer(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """Whether the last closed \\boxed{...} of the completion is the answer, or the answer's own
    \\boxed{...}.

    Two boxes are equal as the same number, or as the same text but for spaces. An empty answer is
    never matched.
    """
    answer = _text(data)
    boxed = box(answer)
    wanted = answer.rpartition("####")[2] if boxed is None else boxed
    return [float(_same(box(text), wanted)) for text in completions]


def _same(found: str | None, wanted: str) -> bool:
    if found is None or not found.strip() or not wanted.strip():
        return False
    if _squeezed(found) == _squeezed(wanted):
        return True
    value = number(found)
    return value is not None and value == number(wanted)


def _squeezed(text: str) -> str:
    """Without the spaces and the LaTeX commands that change nothing; a space between digits
    stays.
    """
    text = (
        re.sub(r"\\(?:left|right|!|,|;)(?![A-Za-z])", "", text)
        .replace("\\dfrac", "\\frac")
        .replace("\\tfrac", "\\frac")
    )
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text.strip())


def reasoning_gym_score(
    question: str, completions: Sequence[str], data: Mapping[str, Any]
) -> list[float]:
    """The score of the reasoning-gym dataset that the question came from, in [0, 1]."""
    verify = _verifier(str(data["metadata"]["source_dataset"]))
    return [float(verify(text.strip(), data)) for text in completions]


@functools.cache
def _verifier(dataset: str) -> Any:
    import reasoning_gym

    return reasoning_gym.get_score_answer_fn(dataset)


def readable(scorer: ScorerConfig) -> Callable[[Mapping[str, Any]], None] | None:
    """What raises ValueError for a row whose answer the run's rule cannot read; None for other
    scorers, which read what they like.
    """
    if scorer.url:
        return None
    if scorer.name == "code":
        tests = str(scorer.options.get("tests", cases.COLUMN))
        return lambda data: _told(scorer, lambda: cases.read(data, tests))
    reader = _READERS.get(scorer.name)
    if reader is None:
        return None

    def read(data: Mapping[str, Any]) -> None:
        if "answer" not in data:
            raise ValueError(
                f"scorer.name = {scorer.name!r} needs an answer, and there is no column "
                f"'answer' (task.answer names another); there are {', '.join(data)}"
            )
        _told(scorer, lambda: reader(data))

    return read


def _told(scorer: ScorerConfig, read: Callable[[], object]) -> None:
    """Read, and name the scorer that could not."""
    try:
        read()
    except ValueError as error:
        raise ValueError(f"scorer.name = {scorer.name!r}: {error}") from error


def _number(data: Mapping[str, Any]) -> Fraction:
    """The number in the answer. Raises ValueError."""
    wanted = stated(_text(data))
    if wanted is None:
        raise ValueError(
            f"the answer {data['answer']!r:.200} holds no number that can be read with certainty"
        )
    return wanted


def _text(data: Mapping[str, Any]) -> str:
    """The answer as text. Raises ValueError for what is neither text nor a number."""
    answer = data["answer"]
    if isinstance(answer, bool) or not isinstance(answer, (str, int, float)):
        raise ValueError(f"the answer is {kind(answer)}; it must be text or a number")
    return str(answer)


def _reference(data: Mapping[str, Any]) -> str:
    """The answer that the `math` scorer compares with. Raises ValueError."""
    return reference_of(_text(data))


_READERS: Mapping[str, Callable[[Mapping[str, Any]], object]] = {
    "math": _reference,
    "exact-match": _text,
    "boxed-answer": _text,
    "last-number": _number,
    "closest-number": _number,
}
