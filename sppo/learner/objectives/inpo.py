"""Iterative Nash Policy Optimization: gaps of log-ratios within pairs are regressed to ±η/2.

    g_i = Σ_t (log π_θ − κ log π_ref − (1 − κ) log π_a)
    L = Σ_groups mean over pairs (i, j) of w_i w_j (g_i − g_j − η z_ij)² / (groups in the step)

z_ij = +1/2 where y_i is preferred, −1/2 where y_j is, 0 for a tie; with `objective.label = "pair"`
the probability itself, P_ij − 1/2, which has the same expected gradient and less variance.

Source: arXiv 2407.00617, eq. 10, where our η is their 1/η, our κ their τ/η, and π_a the policy of
the last iteration (`objective.anchor = "iteration"`). It needs no partition: the difference drops
it. With the reference renewed every `objective.reference_every` steps the regularised games are
solved one after another, each about the solution of the last: COMAL (arXiv 2410.23223, `nash_loss`
of its code). Pairs of the whole group, or best against worst with `objective.select`; only pairs
that the scorer compared.

Fixed point of soft labels against a fixed opponent: π ∝ π_ref^κ π_a^(1 − κ) exp(η P(y ≻ ·)).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sppo.config import ObjectiveConfig
from sppo.kernels import segment_sum
from sppo.learner.objectives import scores, terms
from sppo.learner.objectives.base import Need, ObjectiveBatch, Scope, Scored, Selection, Stats
from sppo.learner.objectives.correction import correct
from sppo.learner.objectives.pairs import all_pairs, whole_groups
from sppo.learner.objectives.scores import Read
from sppo.learner.objectives.summary import mean, summarise
from sppo.learner.objectives.targets import select_completions


class Inpo:
    """The objective `inpo`."""

    def __init__(self, settings: ObjectiveConfig) -> None:
        self._settings = settings

    @property
    def scope(self) -> Scope:
        """A pair lies in one group."""
        return "group"

    @property
    def needs(self) -> frozenset[Need]:
        """The anchor, and the reference by as much as it counts; comparisons where P_ij does."""
        settings = self._settings
        found: set[Need] = {"anchor"}
        if settings.kappa:
            found.add("reference")
        if settings.label == "pair" and settings.link == "none":
            found.add("preferences")
        return frozenset(found) | terms.needs(settings)

    def select(self, scored: Scored) -> Selection:
        """Every pair, or best and worst. Groups that have none stay out."""
        settings, read = self._settings, scores.read(self._settings, scored)
        keep_E = select_completions(
            settings.select, read.scores(), read.group_ids_E, read.preferences
        )
        keep_N = whole_groups(read.spread(keep_E), scored.group_offsets.cpu())
        signal_G = read.signal()
        pulled = settings.kappa or terms.present(settings)
        kept_G = segment_sum(keep_N.long(), scored.group_offsets.cpu())
        idle_G = kept_G == 0 if pulled else ~signal_G | (kept_G == 0)
        return Selection(keep_N=keep_N, fed_N=keep_N, idle_G=idle_G)

    def loss(self, batch: ObjectiveBatch) -> tuple[Tensor, Stats]:
        """The squares of all pairs, and the terms."""
        settings, kept = self._settings, batch.kept()
        correction = correct(settings, kept)
        i_P, j_P, group_P, target_P = self._pairs(kept)
        gap_N = segment_sum(correction.weighted(self._gaps(kept)), kept.cu_seqlens)
        if settings.length_normalize:
            gap_N = gap_N / correction.counted(kept).clamp(min=1)
        residual_P = gap_N[i_P] - gap_N[j_P] - settings.eta * target_P
        weight_P = correction.weight_N[i_P] * correction.weight_N[j_P]
        pairs_G = torch.bincount(group_P, minlength=len(kept.group_offsets) - 1)
        groups = max(batch.groups, 1)
        squares = (weight_P * residual_P**2 / pairs_G[group_P]).sum() / groups
        weight_T = correction.token_weights(kept.cu_seqlens) / max(batch.completions, 1)
        loss, figures = terms.add(squares, settings, kept, weight_T)
        figures |= {
            "loss": squares.detach(),
            "residual_N": residual_P.detach(),
            "target_N": target_P,
            "right_P": (gap_N[i_P] - gap_N[j_P]).detach().mul(target_P).gt(0).float(),
        }
        if not kept.own_anchor:
            figures["delta_N"] = gap_N.detach()
        return loss, figures | correction.figures(settings, kept)

    def summary(self, stats: Stats) -> dict[str, float | None]:
        """Residuals and targets are those of pairs; the share of pairs ordered as preferred."""
        return summarise(stats) | {"pair_accuracy": mean(stats, "right_P")}

    def _gaps(self, kept: ObjectiveBatch) -> Tensor:
        """What each token adds to g."""
        kappa, anchor_T = self._settings.kappa, kept.anchor_T
        assert anchor_T is not None
        if not kappa:
            return kept.logprob_T - anchor_T
        assert kept.reference_T is not None
        return kept.logprob_T - kappa * kept.reference_T - (1 - kappa) * anchor_T

    def _pairs(self, kept: ObjectiveBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(first [P], second [P], group [P], z [P]) of the pairs that were compared."""
        i_P, j_P, group_P = all_pairs(kept.group_offsets)
        read = scores.read(self._settings, kept, whole=False)
        target_P = self._labels(read, i_P.cpu(), j_P.cpu())
        target_P = target_P.to(kept.logprob_T)
        met_P = ~target_P.isnan()
        return i_P[met_P], j_P[met_P], group_P[met_P], target_P[met_P]

    def _labels(self, read: Read, i_P: Tensor, j_P: Tensor) -> Tensor:
        """z [P] on the CPU, NaN for a pair that was not compared."""
        if read.rewards_E is not None:
            ahead_P = read.rewards_E[i_P] - read.rewards_E[j_P]
        else:
            assert read.preferences is not None
            upper = [_upper(matrix_KK) for matrix_KK in read.preferences]
            ahead_P = torch.cat(upper) - 0.5
        if self._settings.label != "pair":
            ahead_P = torch.where(ahead_P.isnan(), ahead_P, torch.sign(ahead_P) / 2)
        return ahead_P


def _upper(matrix_KK: Tensor) -> Tensor:
    """Entries above the diagonal, in the order of `all_pairs`."""
    i_P, j_P = torch.triu_indices(len(matrix_KK), len(matrix_KK), offset=1)
    return matrix_KK[i_P, j_P]
