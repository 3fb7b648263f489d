"""Optimizer steps that were left out because they are not finite: what becomes of their groups, and
when they end the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sppo.errors import SppoError


class Skips:
    """Those of one life."""

    def __init__(self, most: int) -> None:
        """`most` in a row end the run."""
        self._most = most
        self._in_a_row = 0
        self._last = ""

    def sort_out(self, steps: Sequence[dict[str, Any]]) -> dict[str, str]:
        """Why each ticket is lost that no step of this batch has trained.

        The record of a step then names the tickets that it was the first to train, so that all
        records together name each ticket once.
        """
        trained: set[str] = set()
        lost: dict[str, str] = {}
        for step in steps:
            tickets, flaw = step["tickets"], step.get("skipped")
            if flaw:
                self._in_a_row += not lost.keys() >= set(tickets)  # once, whatever the epochs
                self._last = f"step {step['step']}: {flaw}"
                lost |= {uid: self._last for uid in tickets if uid not in lost}
                step["tickets"] = []
                continue
            self._in_a_row = 0
            step["tickets"] = [uid for uid in tickets if uid not in trained]
            trained |= set(tickets)
        return {uid: reason for uid, reason in lost.items() if uid not in trained}

    def check(self) -> None:
        """Raises SppoError with what to look at when too many were left out in a row."""
        if self._in_a_row >= self._most:
            raise SppoError(
                f"{self._in_a_row} optimizer steps in a row were skipped (optimizer.max_skipped = "
                f"{self._most}); the last, {self._last}; look at the rewards of their groups "
                "(objective.max_reward), at optimizer.lr, and at the loss before"
            )
