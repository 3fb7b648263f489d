"""[objective]: what the learner minimises (docs/objective.md)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from sppo.config.fields import (
    Coefficient,
    Count,
    Positive,
    Scale,
    Settings,
    Share,
    Table,
    plain_table,
)
from sppo.config.objectives import GROUPED, READS, WIN_RATE, check_name, having

WEIGHT_CAPS = {"geometric": 1.2, "masked": 1.2, "sequence": 2.0, "token": 2.0}
REJECT_BOUNDS = {"geometric": (1 / 1.2, 1.2), "token": (0.5, 2.0)}


class ObjectiveConfig(Settings):
    name: str = "sppo"
    """`sppo`, `inpo`, `rspo`, `dpo` or `grpo` (docs/objective.md says when to choose which), or
    your own as `package.module:Class`.
    """
    eta: Scale = 1.0
    """Inverse temperature of the target."""
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
    group, from the pair's own win probability, or ±1/2. For `inpo`: ±1/2, or with `pair` the
    probability less 1/2.
    """
    anchor: Literal["proximal", "iteration", "behavior"] = "proximal"
    """The policy that log-ratios are taken against: the learner's weights when the batch arrived, a
    snapshot that is refreshed every `iteration_steps`, or whatever sampled the tokens.
    """
    iteration_steps: Positive = 100
    """Optimizer steps of one iteration: between snapshots of `anchor` = "iteration", only then do
    generators get new weights; `reference_every` and `optimizer.restart` count in them too.
    """
    reference_every: Count = 0
    """Iterations after which the reference becomes the policy of that moment; 0 keeps the model
    that the run began with.
    """
    weight: Literal["geometric", "sequence", "masked", "token", "none"] = "geometric"
    """Off-policy weight of a completion with importance ratio ρ: clipped ρ^(1/tokens), truncated ρ,
    1 or 0, the truncated ratio of each token, or 1.
    """
    weight_cap: Coefficient = 0.0
    """Cap of the weight, above 1: `geometric` and `masked` keep [1/cap, cap]; 0 takes 1.2, for
    `sequence` and `token` 2.
    """
    reject: Literal["none", "geometric", "token"] = "none"
    """Leave out completions whose ρ^(1/tokens), or tokens whose own ratio, lies outside
    [`reject_low`, `reject_high`].
    """
    reject_low: Share = 0.0
    """Lowest ratio that is kept, at most 1; 0 takes 1/1.2 for `geometric`, 1/2 for `token`."""
    reject_high: Coefficient = 0.0
    """Highest ratio that is kept, at least 1; 0 takes 1.2 for `geometric`, 2 for `token`."""
    length_normalize: bool = False
    """Regress the mean instead of the sum of a completion's token log-ratios."""
    kl_coef: Coefficient = 0.0
    """Weight of the KL divergence from the reference, summed over tokens."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """How that divergence is estimated: log-ratio, half its square, or e^d − d − 1 (clamped)."""
    entropy_coef: Coefficient = 0.0
    """Weight of the entropy bonus, summed over tokens."""
    temperature: Literal["sampling"] | Annotated[float, Field(ge=0.01, le=1e3)] = "sampling"
    """What logits are divided by before log-probs are taken: as in sampling, or a number. Another
    than `sampling.temperature` has no off-policy correction: only with `weight` and `reject`
    "none".
    """
    truncated: Literal["train", "mask", "zero"] = "train"
    """Completions that were cut at `sampling.max_tokens`: trained, left out of loss and means, or
    scored 0.
    """
    max_reward: Annotated[float, Field(gt=0, le=1e30)] = 1e6
    """Largest magnitude of a reward; a group with a larger one is refused."""
    beta: Annotated[float, Field(gt=0, le=1e6)] = 0.1
    """`dpo`: scale of the log-ratios, the strength of the pull to the reference."""
    kappa: Share = 0.0
    """`inpo`: share of the reference in the anchor, the rest is `anchor`; the paper has 1/3."""
    reverse_kl_coef: Coefficient = 0.0
    """`rspo`: weight λ of the reverse KL divergence from the reference."""
    clip_low: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """`grpo`: ratios of tokens are clipped at 1 − this from below."""
    clip_high: Coefficient = 0.2
    """`grpo`: ratios of tokens are clipped at 1 + this from above."""
    params: Table = Field(default_factory=dict)
    """Of your own objective, as it likes."""

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        return check_name(value)

    @field_validator("params", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return plain_table(value)

    @model_validator(mode="after")
    def _fits(self) -> ObjectiveConfig:
        chosen = (self.target, self.select)
        if self.name in GROUPED and self.label != "group" and chosen != ("half", "best_worst"):
            raise ValueError(
                f"label = {self.label!r} needs target = 'half' and select = 'best_worst', "
                f"not {self.target!r} and {self.select!r}"
            )
        if 0 < self.weight_cap <= 1:
            raise ValueError(
                f"weight_cap = {self.weight_cap} must be above 1, or 0 for the mode's own"
            )
        if self.reject == "none" and (self.reject_low or self.reject_high):
            raise ValueError("reject_low and reject_high need reject = 'geometric' or 'token'")
        if 0 < self.reject_high < 1:
            raise ValueError(
                f"reject_high = {self.reject_high} must be at least 1, or 0 for the mode's own"
            )
        return self

    @property
    def reject_bounds(self) -> tuple[float, float]:
        """The ratios between which `reject` keeps."""
        low, high = REJECT_BOUNDS.get(self.reject, (0.0, float("inf")))
        return self.reject_low or low, self.reject_high or high

    @property
    def may_have_reference(self) -> bool:
        """Whether log-probs under a reference are wanted, as far as is known without torch."""
        if self.kl_coef or self.name in ("rspo", "dpo"):
            return True
        return self.kappa > 0 if self.name == "inpo" else self.name not in READS

    @property
    def needs_preferences(self) -> bool:
        """Whether the scorer must compare completions instead of rewarding them, as far as our own
        objectives go.
        """
        if self.link != "none":
            return False
        if self.name == "inpo":
            return self.label == "pair"
        by_rank = self.label == "hard"  # only which is better matters
        return self.name in GROUPED and not by_rank and bool(having(self, self.name, WIN_RATE))
