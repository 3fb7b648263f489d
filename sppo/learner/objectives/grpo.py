"""Group Relative Policy Optimization: a clipped policy gradient with rewards normalised in their
group.

    A_i = (s_i − mean of s over the group) / (std of s over the group + 1e-4)
    r_t = π_θ / π_a of a token
    L = − Σ_t w_t min(r_t A_i, clip(r_t, 1 − clip_low, 1 + clip_high) A_i) / (tokens in the step)

With `objective.length_normalize` it is the mean over completions of the mean over their tokens, as
in the paper; by default the mean over tokens (DAPO, verl's default, TRL `loss_type = "bnpo"`).

Sources: arXiv 2402.03300; DAPO, arXiv 2503.14476, for two bounds and the mean over tokens; TRL
`GRPOTrainer` and verl `compute_policy_loss_vanilla`, whose weights of the engine's mismatch are our
`objective.weight`. No critic. The standard deviation is the unbiased one; a group whose scores are
all equal has A = 0.

`eta`, `target` and `label` do not act; where the scorer compares, scores are win rates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sppo.config import ObjectiveConfig
from sppo.learner.objectives import scores, terms
from sppo.learner.objectives.base import Need, ObjectiveBatch, Scope, Scored, Selection, Stats
from sppo.learner.objectives.correction import correct
from sppo.learner.objectives.summary import mean, summarise
from sppo.learner.objectives.targets import group_mean, select_completions

EPSILON = 1e-4
"""TRL's; verl adds 1e-6."""


class Grpo:
    """The objective `grpo`."""

    def __init__(self, settings: ObjectiveConfig) -> None:
        self._settings = settings

    @property
    def scope(self) -> Scope:
        """Advantages are fixed beforehand, so that each completion stands for itself."""
        return "completion"

    @property
    def needs(self) -> frozenset[Need]:
        """The anchor, against which ratios are clipped; the reference for the KL term."""
        return terms.needs(self._settings) | {"anchor"}

    def select(self, scored: Scored) -> Selection:
        """The advantage of each completion, of its whole group."""
        settings, read = self._settings, scores.read(self._settings, scored)
        found_E, ids_E = read.scores(), read.group_ids_E
        keep_N = read.spread(select_completions(settings.select, found_E, ids_E))
        signal_G = read.signal()
        return Selection(
            keep_N=keep_N,
            fed_N=keep_N,
            idle_G=torch.zeros_like(signal_G) if terms.present(settings) else ~signal_G,
            target_N=read.spread(advantages(found_E, ids_E)),
        )

    def loss(self, batch: ObjectiveBatch) -> tuple[Tensor, Stats]:
        """The clipped surrogate of every token, and the terms."""
        settings, kept = self._settings, batch.kept()
        assert kept.anchor_T is not None
        assert kept.target_N is not None
        correction = correct(settings, kept)
        advantage_T = torch.repeat_interleave(kept.target_N, kept.length_N)
        ratio_T = torch.exp(kept.logprob_T - kept.anchor_T)
        bounded_T = ratio_T.clamp(1 - settings.clip_low, 1 + settings.clip_high)
        gain_T = torch.minimum(ratio_T * advantage_T, bounded_T * advantage_T)
        weight_T = correction.token_weights(kept.cu_seqlens) * self._share(batch, kept)
        surrogate = -(weight_T * gain_T).sum()
        loss, figures = terms.add(surrogate, settings, kept, weight_T)
        clipped_T = bounded_T.detach() * advantage_T < ratio_T.detach() * advantage_T
        figures |= {
            "loss": surrogate.detach(),
            "target_N": kept.target_N,
            "surrogate_clipped_T": clipped_T.float(),
        }
        if not kept.own_anchor:
            figures["delta_T"] = (kept.logprob_T - kept.anchor_T).detach()
        return loss, figures | correction.figures(settings, kept)

    def summary(self, stats: Stats) -> dict[str, float | None]:
        """Targets are advantages; the share of tokens at a bound, and mean log r of a token."""
        return summarise(stats) | {
            "surrogate_clipped_share": mean(stats, "surrogate_clipped_T"),
            "delta_token_mean": mean(stats, "delta_T"),
        }

    def _share(self, batch: ObjectiveBatch, kept: ObjectiveBatch) -> Tensor:
        """[T] what a token counts in the mean over the mini-batch."""
        if not self._settings.length_normalize:
            return torch.full_like(kept.logprob_T, 1 / max(batch.tokens, 1))
        length_N = kept.length_N.to(kept.logprob_T.dtype)
        return torch.repeat_interleave(1 / (length_N * max(batch.completions, 1)), kept.length_N)


def advantages(scores_N: Tensor, group_ids_N: Tensor) -> Tensor:
    """(s − mean) / (std + ε) of each completion's group, unbiased; 0 in a group of one."""
    centered_N = scores_N - group_mean(scores_N, group_ids_N)
    size_N = torch.ones_like(scores_N)
    count_N = torch.bincount(group_ids_N)[group_ids_N].to(scores_N.dtype)
    biased_N = group_mean(centered_N**2, group_ids_N, size_N)
    std_N = (biased_N * count_N / (count_N - 1).clamp(min=1)).sqrt()
    return centered_N / (std_N + EPSILON)
