"""Rule scorers: 1 for a right completion, 0 for a wrong one (reasoning-gym grades in between, closest-number compares).

Each takes the question, its completions, and `data` with at least `answer`.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def exact_match(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """Whether the whole completion, trimmed, is the answer."""
    answer = str(data["answer"]).strip()
    return [float(text.strip() == answer) for text in completions]


def last_number(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """Whether the last number in the completion is the last number in the answer; thousands' commas are ignored."""
    wanted = _answer(data)
    return [float(_last(text) == wanted) for text in completions]


def closest_number(
    question: str, completions: Sequence[str], data: Mapping[str, Any]
) -> list[float] | list[list[float]]:
    """Preferences: the completion whose last number is closer to the answer wins, with 1/2 for a tie.

    A completion without a number is the furthest of all. For one completion it returns what `last_number` does.
    """
    if len(completions) == 1:
        return last_number(question, completions, data)
    wanted = _answer(data)
    found = [_last(text) for text in completions]
    miss = [math.inf if number is None else abs(number - wanted) for number in found]
    return [[0.5 if a == b else float(a < b) for b in miss] for a in miss]


def boxed_answer(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """Whether the last \\boxed{...} of the completion is the answer, or the answer's own \\boxed{...}; spaces apart."""
    wanted = _boxed(str(data["answer"])) or str(data["answer"])
    return [float((_boxed(text) or "").replace(" ", "") == wanted.replace(" ", "")) for text in completions]


def _boxed(text: str) -> str | None:
    """What stands in the last \\boxed{...}, its braces balanced."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for i in range(start + len("\\boxed"), len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[start + len("\\boxed{") : i]
    return None


def reasoning_gym_score(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """The score of the reasoning-gym dataset that the question came from, in [0, 1]."""
    verify = _verifier(str(data["metadata"]["source_dataset"]))
    return [float(verify(text.strip(), data)) for text in completions]


@functools.cache
def _verifier(dataset: str) -> Any:
    import reasoning_gym

    return reasoning_gym.get_score_answer_fn(dataset)


def _answer(data: Mapping[str, Any]) -> float:
    wanted = _last(str(data["answer"]))
    if wanted is None:
        raise ValueError(f"the answer {data['answer']!r} holds no number")
    return wanted


def _last(text: str) -> float | None:
    found = _NUMBER.findall(text.replace(",", ""))
    return float(found[-1]) if found else None
