"""Scorers of learners' tests. Their processes import this file, so it must be light."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def judge(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[Any]:
    """Prefers the larger sum of tokens: the engine writes a number, the tokenizer words."""
    values = [sum(int(word.strip("w")) for word in c.split()) for c in completions]
    return [[0.5 if a == b else float(a > b) for b in values] for a in values]


def even(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """Rewards even sums of tokens."""
    return [float(int(c) % 2 == 0) for c in completions]


def huge(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """Finite rewards of which no float32 holds the square."""
    return [3e19 * i for i, _ in enumerate(completions)]


def longer(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[list[float]]:
    """Prefers the longer; contradicts itself where it is asked to."""
    certain = 0.9 if "contradict" in question else 1.0
    return [
        [0.5 if len(a) == len(b) else certain * float(len(a) > len(b)) for b in completions]
        for a in completions
    ]
