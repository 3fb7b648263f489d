"""A scorer that is a function: scorer.name = "function:score", beside the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def score(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """1 for a text that names the row's answer, less a little for each word."""
    answer = str(data["answer"])
    return [float(answer in text.split()) - 0.001 * len(text.split()) for text in completions]


def brief(request: Any) -> dict[str, Any]:
    """With one parameter it sees all of the request. Shorter is better, and what was cut off loses
    to everything; pairs of cut ones are not compared.
    """
    lengths = [
        None if reason == "length" else n
        for n, reason in zip(request.lengths, request.finish_reasons, strict=True)
    ]

    def beats(a: int | None, b: int | None) -> float | None:
        if a is None and b is None:
            return None
        if a is None or b is None:
            return float(b is None)
        return 0.5 + 0.5 * ((a < b) - (a > b))

    return {
        "preferences": [[beats(a, b) for b in lengths] for a in lengths],
        "details": [{"tokens": n} for n in request.lengths],
    }
