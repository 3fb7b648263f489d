"""Online Direct Preference Optimization on the best and the worst completion of each group.

    h = Σ_t (log π_θ − log π_ref)(y_w) − Σ_t (log π_θ − log π_ref)(y_l)
    L = − Σ_pairs log σ(β h) / (pairs in the optimizer step)

Source: arXiv 2305.18290; TRL's `DPOTrainer` with `loss_type = "sigmoid"` on pairs that the policy
has just sampled (TRL `OnlineDPOTrainer`, arXiv 2402.04792).

Winner and loser are the first best and the first worst by reward or win rate, so `objective.select`
does not matter; a group whose scores are all equal has no pair. The minimiser does not depend on
who sampled the pair, so `objective.weight` and `objective.reject` do not act, and no anchor is
needed.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from sppo.config import ObjectiveConfig
from sppo.kernels import segment_sum
from sppo.learner.objectives import scores, terms
from sppo.learner.objectives.base import Need, ObjectiveBatch, Scope, Scored, Selection, Stats
from sppo.learner.objectives.pairs import whole_groups
from sppo.learner.objectives.summary import mean, summarise
from sppo.learner.objectives.targets import pair_targets, select_completions


class Dpo:
    """The objective `dpo`."""

    def __init__(self, settings: ObjectiveConfig) -> None:
        self._settings = settings

    @property
    def scope(self) -> Scope:
        """A pair lies in one group."""
        return "group"

    @property
    def needs(self) -> frozenset[Need]:
        """The reference."""
        return frozenset({"reference"})

    def select(self, scored: Scored) -> Selection:
        """Best and worst; the target is 1/2 for the winner and −1/2 for the loser."""
        read = scores.read(self._settings, scored)
        found_E, ids_E = read.scores(), read.group_ids_E
        keep_E = select_completions("best_worst", found_E, ids_E)
        target_E = pair_targets("hard", kept_N=keep_E, scores_N=found_E, group_ids_N=ids_E)
        keep_N = whole_groups(read.spread(keep_E & (target_E != 0)), scored.group_offsets.cpu())
        kept_G = segment_sum(keep_N.long(), scored.group_offsets.cpu())
        return Selection(
            keep_N=keep_N, fed_N=keep_N, idle_G=kept_G == 0, target_N=read.spread(target_E)
        )

    def loss(self, batch: ObjectiveBatch) -> tuple[Tensor, Stats]:
        """The logistic loss of the pairs, and the terms."""
        settings, kept = self._settings, batch.kept()
        assert kept.reference_T is not None
        assert kept.target_N is not None
        gap_N = segment_sum(kept.logprob_T - kept.reference_T, kept.cu_seqlens)
        if settings.length_normalize:
            gap_N = gap_N / kept.length_N
        wins_N = kept.target_N > 0
        margin_P = settings.beta * (gap_N[wins_N] - gap_N[~wins_N])  # one pair a group, in order
        pairs = max(batch.groups, 1)
        logistic = -logsigmoid(margin_P).sum() / pairs
        weight_T = torch.full_like(kept.logprob_T, 1 / (2 * pairs))
        loss, figures = terms.add(logistic, settings, kept, weight_T)
        figures |= {
            "loss": logistic.detach(),
            "margin_P": margin_P.detach(),
            "right_P": (margin_P.detach() > 0).float(),
            "delta_N": gap_N.detach(),
        }
        return loss, figures

    def summary(self, stats: Stats) -> dict[str, float | None]:
        """`delta_*` are against the reference; the implicit reward's margin and its accuracy."""
        return summarise(stats) | {
            "margin_mean": mean(stats, "margin_P"),
            "pair_accuracy": mean(stats, "right_P"),
        }
