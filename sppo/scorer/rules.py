"""Rule scorers: 1 for a right completion, 0 for a wrong one (reasoning-gym grades in between).

Each takes the question, its completions, and `data` with at least `answer`.
"""

from __future__ import annotations

import functools
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
    wanted = _last(str(data["answer"]))
    if wanted is None:
        raise ValueError(f"the answer {data['answer']!r} holds no number")
    return [float(_last(text) == wanted) for text in completions]


def reasoning_gym_score(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """The score of the reasoning-gym dataset that the question came from, in [0, 1]."""
    verify = _verifier(str(data["metadata"]["source_dataset"]))
    return [float(verify(text.strip(), data)) for text in completions]


@functools.cache
def _verifier(dataset: str) -> Any:
    import reasoning_gym

    return reasoning_gym.get_score_answer_fn(dataset)


def _last(text: str) -> float | None:
    found = _NUMBER.findall(text.replace(",", ""))
    return float(found[-1]) if found else None
