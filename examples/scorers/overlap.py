"""A scorer that is a class, with options and batches:

[scorer]
name = "overlap:Overlap"
options = { field = "answer", ignore = ["the", "a"] }
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any


class Overlap:
    """Rewards the share of a reference's words that a completion has (ROUGE-1 recall)."""

    batch = 32
    """Groups that it takes at a time; what a model would put into one forward pass."""

    def __init__(self, *, field: str = "answer", ignore: Sequence[str] = ()) -> None:
        """Cheap: options are checked by making the object."""
        self._field = field
        self._ignore = list(ignore)

    def setup(self) -> None:
        """Once in each process: the place to load a model."""
        self._stop_words = frozenset(word.lower() for word in self._ignore)

    def score(self, requests: Sequence[Any]) -> list[dict[str, Any]]:
        return [self._one(request) for request in requests]

    def _one(self, request: Any) -> dict[str, Any]:
        wanted = self._words(str(request.data[self._field]))
        shared = [sum((wanted & self._words(text)).values()) for text in request.completions]
        rewards = [n / max(1, wanted.total()) for n in shared]
        return {"rewards": rewards, "details": [{"shared": n} for n in shared]}

    def _words(self, text: str) -> Counter[str]:
        return Counter(w for w in text.lower().split() if w not in self._stop_words)

    def close(self) -> None:
        """At the end: the place to give back what `setup` took."""
