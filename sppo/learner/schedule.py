"""When what happens: decided by the count of optimizer steps alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sppo.config import RunConfig
from sppo.learner.objectives import anchors
from sppo.learner.objectives.anchors import Anchor
from sppo.types import Group, Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Of one run. `before` and `after` are step counts around one batch."""

    steps: int
    """At which the run ends."""
    mini_batches: int
    """Steps of the first time that a batch is trained."""
    steps_per_batch: int
    """Of all times."""
    groups_per_step: int
    """Groups of one batch."""
    lookahead_steps: int
    """Batches of tickets in flight beyond the one in use."""
    anchor: Anchor
    reference_every: int
    """0: the reference is never renewed."""
    steps_compare: bool
    """Whether steps see the engines' tokens at the engines' temperature."""
    evaluate_every: int
    save_every: int

    @classmethod
    def of(cls, config: RunConfig) -> Schedule:
        """As a run's settings say."""
        learner = config.learner
        return cls(
            steps=learner.steps,
            mini_batches=learner.mini_batches,
            steps_per_batch=learner.steps_per_batch,
            groups_per_step=learner.groups_per_step,
            lookahead_steps=learner.lookahead_steps,
            anchor=anchors.make(config.objective.anchor, config.objective.iteration_steps),
            reference_every=config.objective.reference_every * config.objective.iteration_steps,
            steps_compare=config.policy_temperature == config.sampling.temperature,
            evaluate_every=config.eval.every_steps,
            save_every=learner.checkpoint_every,
        )

    def over(self, n: int) -> bool:
        """Whether no step is left."""
        return n >= self.steps

    def outstanding(self, n: int) -> int:
        """Most tickets that are out and not trained: for the batch in use and `lookahead_steps`
        more, none beyond the last step.
        """
        batches_left = (self.steps - n) // self.steps_per_batch
        return min(self.lookahead_steps + 1, batches_left) * self.groups_per_step

    def stale(
        self, groups: Sequence[Group], version: Version, published: Version, most: int
    ) -> list[Group]:
        """Those of a batch at `version` that are more than `most` steps old when their mini-batch
        is first trained, and would be younger if they were made again, now that generators run
        `published`. Groups of another life have no age.
        """
        size = max(1, len(groups) // self.mini_batches)
        found = []
        for i, group in enumerate(groups):
            sampled = group.versions()
            oldest = min(v.n for v in sampled)
            ours = all(v.epoch == version.epoch for v in sampled)
            if ours and version.n + i // size - oldest > most and oldest < published.n:
                found.append(group)
        return found

    def publishes(self, before: int, after: int) -> bool:
        """Whether generators get the new weights."""
        return self.over(after) or self.anchor.publishes(before, after)

    def renews_reference(self, before: int, after: int) -> bool:
        """Whether the policy becomes the objective's reference."""
        return self.reference_every > 0 and _crossed(before, after, self.reference_every)

    def evaluates(self, before: int, after: int) -> bool:
        """Whether the published weights answer the held-out questions."""
        return self.over(after) or _crossed(before, after, self.evaluate_every)

    def probes(self, before: int, after: int, *, doubtful: bool) -> bool:
        """Whether weights are kept to measure parity at them: with an evaluation, and until doubt
        is gone. Where published weights are kept anyway their groups are seen by the steps, if
        these can compare.
        """
        due = doubtful or _crossed(before, after, self.evaluate_every)
        return due and not self.over(after) and not (self.anchor.keeps and self.steps_compare)

    def saves(self, before: int, after: int) -> bool:
        """Whether a checkpoint is due; the one at the end comes after the last evaluation."""
        return _crossed(before, after, self.save_every) and not self.over(after)


def _crossed(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]."""
    return after // every > before // every
