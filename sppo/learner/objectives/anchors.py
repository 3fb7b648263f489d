"""The policy that log-ratios are taken against: which weights it is at a step, and when it is
renewed. Sources: docs/objective.md, "Anchors".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Source = Literal["policy", "behavior", "snapshot"]
"""Where a batch's anchor log-probs come from: the weights at which it arrived, the engine's own
report, or the policy's snapshot "anchor".
"""


class Anchor(Protocol):
    """Which weights the anchor is. `n` and `published` are optimizer steps since the base model."""

    @property
    def keeps(self) -> bool:
        """Whether the published weights are kept as the policy's snapshot "anchor"."""

    def source(self, n: int, published: int) -> Source:
        """For a batch that arrives at step `n` while generators run `published`."""

    def publishes(self, before: int, after: int) -> bool:
        """Whether generators get new weights after the steps (before, after]."""


@dataclass(frozen=True, slots=True)
class Proximal:
    """The learner's weights when the batch arrived."""

    keeps: bool = False

    def source(self, n: int, published: int) -> Source:
        """Always the policy's own."""
        return "policy"

    def publishes(self, before: int, after: int) -> bool:
        """After every batch."""
        return True


@dataclass(frozen=True, slots=True)
class Behavior:
    """Whatever sampled the tokens."""

    keeps: bool = False

    def source(self, n: int, published: int) -> Source:
        """Always the engine's report."""
        return "behavior"

    def publishes(self, before: int, after: int) -> bool:
        """After every batch."""
        return True


@dataclass(frozen=True, slots=True)
class Iteration:
    """A snapshot that is renewed every `steps` optimizer steps, as generators' weights are."""

    steps: int
    keeps: bool = True

    def source(self, n: int, published: int) -> Source:
        """The snapshot, but for the batch right after it was taken, whose policy it is."""
        return "policy" if n == published else "snapshot"

    def publishes(self, before: int, after: int) -> bool:
        """Once for each iteration."""
        return after // self.steps > before // self.steps


def make(name: str, iteration_steps: int) -> Anchor:
    """By its name in `objective.anchor`. Raises ValueError for one that is not there."""
    kinds: dict[str, Anchor] = {
        "proximal": Proximal(),
        "behavior": Behavior(),
        "iteration": Iteration(iteration_steps),
    }
    if name not in kinds:
        raise ValueError(f"anchor {name!r}: there are {', '.join(kinds)}")
    return kinds[name]
