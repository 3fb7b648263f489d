"""The `math` scorer: 1 for a completion whose answer equals the reference as mathematics, or 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sppo.scorer.math.child import Child
from sppo.scorer.math.compare import same
from sppo.scorer.math.extract import answer_of, reference_of
from sppo.tasks.rows import kind
from sppo.types import ScoreRequest

REMEMBERED = 4096


class Math:
    """Rewards 1 and 0 for the answers of a group; docs/scorers/math.md says what is equal to what.

    math = Math(deadline_s=1.0)
    math.score(request)["rewards"]
    math.close()
    """

    def __init__(self, *, deadline_s: float = 1.0) -> None:
        """`deadline_s` are the seconds that math-verify may compute for one verdict. Raises
        ValueError.
        """
        if not 0 < deadline_s <= 60:
            raise ValueError(
                f"scorer.options.deadline_s = {deadline_s:g}: expected seconds above 0, at most 60"
            )
        self._child = Child(deadline_s=deadline_s)
        self._late = False
        self._remembered = lru_cache(REMEMBERED)(self._verdict)

    def setup(self) -> None:
        """Import math-verify, which takes a second."""
        self._child.load()

    def score(self, request: ScoreRequest) -> dict[str, Any]:
        """Rewards [K] in {0, 1}; the details name the answer that was read and why it got nothing.

        Raises ValueError where the row has no reference.
        """
        reference = self.reference(request.data)
        reasons = request.finish_reasons or [""] * len(request.completions)
        details = [
            self._detail(reference, text, cut=reason == "length")
            for text, reason in zip(request.completions, reasons, strict=True)
        ]
        rewards: Sequence[float] = [float(detail.pop("right")) for detail in details]
        return {"rewards": rewards, "details": details}

    def reference(self, data: Mapping[str, Any]) -> str:
        """The reference of a row. Raises ValueError where it holds none."""
        if "answer" not in data:
            raise ValueError(
                f"the row has no answer (task.answer names its column); it has "
                f"{', '.join(sorted(data))}"
            )
        value = data["answer"]
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"the answer is {kind(value)}; it must be text or a number")
        return reference_of(str(value))

    def close(self) -> None:
        """End the process of math-verify."""
        self._child.close()

    def _detail(self, reference: str, completion: str, *, cut: bool) -> dict[str, Any]:
        answer = answer_of(completion, cut=cut)
        if answer is None:
            return {"right": False, "answer": None, "why": "no answer found"}
        right, late = self._remembered(reference, answer)
        detail: dict[str, Any] = {"right": right, "answer": answer[:200]}
        return {**detail, "why": "no verdict in time"} if late else detail

    def _verdict(self, reference: str, answer: str) -> tuple[bool, bool]:
        """Whether they are equal, and whether that could not be told in time."""
        self._late = False
        return same(reference, answer, self._symbolic), self._late

    def _symbolic(self, reference: str, answer: str) -> bool:
        verdict = self._child.equal(reference, answer)
        self._late = self._late or verdict is None
        return verdict is True
