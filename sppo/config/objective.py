"""[objective]: what the learner minimises (docs/objective.md)."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from sppo.config.fields import Coefficient, Positive, Scale, Settings


class ObjectiveConfig(Settings):
    eta: Scale = 1.0
    """Inverse temperature of the SPPO target."""
    target: Literal["centered", "softmean", "batch_softmean", "half"] = "centered"
    """What is subtracted from the score, docs/objective.md: the group's mean residual, the soft
    mean of the group or of the whole batch, or 1/2 from a win rate.
    """
    link: Literal["none", "bradley-terry"] = "none"
    """`bradley-terry` turns rewards into preferences σ((r_i − r_j) / link_temperature)."""
    link_temperature: Scale = 1.0
    """τ of the link, in units of reward."""
    select: Literal["all", "best_worst"] = "all"
    """Completions of a group that are trained. `best_worst` biases the estimate
    (docs/objective.md).
    """
    label: Literal["group", "pair", "hard"] = "group"
    """With `target` = "half" and `select` = "best_worst": the target from the win rate over the
    group, from the pair's own win probability, or ±1/2.
    """
    anchor: Literal["proximal", "iteration", "behavior"] = "proximal"
    """The policy that log-ratios are taken against: the learner's weights when the batch arrived, a
    snapshot that is refreshed every `iteration_steps`, or whatever sampled the tokens.
    """
    iteration_steps: Positive = 100
    """Optimizer steps between snapshots of `anchor` = "iteration"; generators get new weights only
    then.
    """
    weight: Literal["geometric", "sequence", "masked", "none"] = "geometric"
    """Off-policy weight of a completion with importance ratio ρ: clipped ρ^(1/tokens), truncated ρ,
    1 or 0, or 1.
    """
    weight_cap: Coefficient = 0.0
    """Cap of the weight, above 1: `geometric` and `masked` keep [1/cap, cap]; 0 takes 1.2, for
    `sequence` 2.
    """
    length_normalize: bool = False
    """Regress the mean instead of the sum of a completion's token log-ratios."""
    kl_coef: Coefficient = 0.0
    """Weight of the KL divergence from the model that the run began with (k3 estimate, summed over
    tokens).
    """
    entropy_coef: Coefficient = 0.0
    """Weight of the entropy bonus, summed over tokens."""

    @model_validator(mode="after")
    def _fits(self) -> ObjectiveConfig:
        if self.label != "group" and (self.target, self.select) != ("half", "best_worst"):
            raise ValueError(
                f"label = {self.label!r} needs target = 'half' and select = 'best_worst', "
                f"not {self.target!r} and {self.select!r}"
            )
        if 0 < self.weight_cap <= 1:
            raise ValueError(
                f"weight_cap = {self.weight_cap} must be above 1, or 0 for the mode's own"
            )
        return self

    @property
    def needs_preferences(self) -> bool:
        """Whether the scorer must compare completions instead of rewarding them."""
        by_rank = self.label == "hard"  # only which is better matters
        return self.target == "half" and not by_rank and self.link == "none"
