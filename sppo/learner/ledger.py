"""Which tickets this line of checkpoints has used: the truth about what was trained.

Training tickets are numbered 0, 1, 2, …. Settled ones are kept as a low-water mark and the few
above it.
"""

from __future__ import annotations

from typing import Any

from sppo.tasks.tickets import training_index, training_uid


class Ledger:
    """Issued, used and dead training tickets."""

    def __init__(self) -> None:
        self.next_index = 0
        """Index of the next ticket to issue."""
        self._floor = 0
        self._above: set[int] = set()
        self.trained = 0
        self.dead = 0
        self.again = 0
        """Groups that were made again because they were too old to be trained."""

    def issue(self) -> int:
        """Take the next index."""
        self.next_index += 1
        return self.next_index - 1

    def settled(self, uid: str) -> bool:
        """Whether this ticket was used or given up."""
        index = training_index(uid)
        return index < self._floor or index in self._above

    def use(self, uids: list[str]) -> None:
        """These tickets enter an optimizer step. Raises ValueError if one has been settled
        before.
        """
        for uid in uids:
            self._settle(uid)
            self.trained += 1

    def give_up(self, uid: str) -> None:
        """This ticket became a dead letter."""
        self._settle(uid)
        self.dead += 1

    def open(self) -> list[int]:
        """Indices issued and not settled: outstanding."""
        return [i for i in range(self._floor, self.next_index) if i not in self._above]

    @property
    def outstanding(self) -> int:
        """Tickets issued and neither used nor given up."""
        return self.next_index - self._floor - len(self._above)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "next_index": self.next_index,
            "floor": self._floor,
            "above": sorted(self._above),
            "trained": self.trained,
            "dead": self.dead,
            "again": self.again,
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Ledger:
        """Inverse of `state`."""
        ledger = cls()
        ledger.next_index, ledger._floor = int(state["next_index"]), int(state["floor"])
        ledger._above = set(state["above"])
        ledger.trained, ledger.dead = int(state["trained"]), int(state["dead"])
        ledger.again = int(state.get("again", 0))
        return ledger

    def _settle(self, uid: str) -> None:
        if self.settled(uid):
            raise ValueError(f"ticket {uid} was settled before")
        index = training_index(uid)
        assert index < self.next_index, f"{training_uid(index)} was never issued"
        self._above.add(index)
        while self._floor in self._above:
            self._above.remove(self._floor)
            self._floor += 1
