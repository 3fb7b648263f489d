"""What scorers and engines refuse: said once and counted, and the end of the run where nothing is
scored any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sppo.errors import ScorerError, ScorerSpent
from sppo.types import DeadLetter, Member

IN_A_ROW = 16
"""Tickets given up one after another, with no group scored meanwhile, after which the learner
stops.
"""

Tell = Callable[..., None]
"""Sends an event: its kind, and its fields by name."""


def _silent(kind: str, **fields: Any) -> None:
    """For those who listen to nobody."""


class DeadLetters:
    """Tickets that were given up, as the learner comes to know of them."""

    def __init__(self, tell: Tell = _silent) -> None:
        self._tell = tell
        self._known: set[str] = set()
        self._in_a_row = 0
        self._scored = False
        self.last = ""
        """Uid and reason of the newest."""

    def __contains__(self, uid: object) -> bool:
        return uid in self._known

    def scored(self) -> None:
        """A group has come in."""
        self._scored = True

    def note(self, letters: Iterable[DeadLetter], *, said: bool = False) -> list[DeadLetter]:
        """Those of the letters that are new. What an earlier life of the learner has `said` is not
        said again.

        Raises ScorerError with the newest reason when `IN_A_ROW` came without a scored group in
        between.
        """
        new = [letter for letter in letters if letter.uid not in self._known]
        for letter in new:
            self._known.add(letter.uid)
            self.last = f"{letter.uid}: {letter.reason}"
            if not said:
                self._tell("dead", uid=letter.uid, reason=letter.reason)
        # Groups and letters are looked at in turns, so the order within one turn is not known.
        self._in_a_row = 0 if self._scored or said else self._in_a_row + len(new)
        self._scored = False
        if self._in_a_row >= IN_A_ROW:
            raise ScorerError(
                f"{self._in_a_row} tickets in a row were given up and none was scored meanwhile; "
                f"the last, {self.last}"
            )
        return new


class Refusals:
    """Attempts that were refused and will be made again, as the generators' heartbeats tell of
    them.

    The `count` of an event is how many it stands for.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._counts: dict[str, int] = {}
        """Refusals of each life of a generator."""

    def hear(self, members: Iterable[Member]) -> None:
        """Tell the newest reason of each generator that has refused more than before.

        Raises ScorerSpent where one says that nothing more will be scored.
        """
        for member in members:
            if member.spent:
                raise ScorerSpent(member.spent)
            more = member.refusals - self._counts.get(member.life, 0)
            if more > 0:
                self._counts[member.life] = member.refusals
                uid, _, reason = member.refusal.partition(": ")
                self._tell("refusal", uid=uid, reason=f"{member.name}: {reason}", count=more)
