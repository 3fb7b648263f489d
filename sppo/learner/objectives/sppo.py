"""Self-Play Preference Optimization: each completion's log-ratio is regressed on its target.

    residual_i = Δ_i − η A_i                                    modes with a target A
    residual_i = δ_i − mean of δ over the group, δ_i = Δ_i − η s_i        `centered`
    L = Σ_i w_i residual_i² / (completions in the optimizer step)

Sources: arXiv 2405.00675 (eq. 4.4 and 4.7), verl `recipe/sppo`, uclaml/SPPO, TRL, arXiv 2503.18929.
Targets are in `targets`, weights in `correction`, the sums in `sppo.kernels`.

Where a target depends on weights (a win rate over w̃, a soft mean), it is known only once every
completion of its group has gone through the model. Everywhere else it is fixed beforehand, and
completions that `objective.select` leaves out are not fed at all. Which ones are left out never
depends on weights.

Shape suffixes: T completion tokens, N completions, E those that take part, G groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sppo import kernels
from sppo.config import ObjectiveConfig
from sppo.kernels import LossStats
from sppo.kernels.segments import segment_sum
from sppo.learner.objectives import scores, targets, terms
from sppo.learner.objectives.base import Need, ObjectiveBatch, Scope, Scored, Selection, Stats
from sppo.learner.objectives.correction import Correction, correct, is_plain
from sppo.learner.objectives.scores import Read
from sppo.learner.objectives.summary import summarise


class Sppo:
    """The objective `sppo`."""

    def __init__(self, settings: ObjectiveConfig) -> None:
        self._settings = settings

    @property
    def scope(self) -> Scope:
        """Targets and means are those of a group."""
        return "group"

    @property
    def needs(self) -> frozenset[Need]:
        """The anchor; the reference for the KL term; comparisons for a target made of them."""
        settings = self._settings
        by_rank = settings.label == "hard"  # only which is better matters
        compares = settings.target == "half" and not by_rank and settings.link == "none"
        found: set[Need] = {"anchor", "preferences"} if compares else {"anchor"}
        return frozenset(found) | terms.needs(settings)

    def select(self, scored: Scored) -> Selection:
        """Select completions, and fix targets unless they depend on weights."""
        settings, read = self._settings, scores.read(self._settings, scored)
        compared = read.preferences if settings.label == "pair" else None
        keep_E = targets.select_completions(
            settings.select, read.scores(), read.group_ids_E, compared
        )
        keep_N = read.spread(keep_E)
        signal_G = read.signal()
        if settings.select == "best_worst":
            kept_G = segment_sum(keep_N.long(), scored.group_offsets.cpu())
            signal_G &= kept_G > 1
        fixed = self._fixed(read)
        regularised = terms.present(settings) or settings.target == "batch_softmean"
        return Selection(
            keep_N=keep_N,
            fed_N=keep_N if fixed else read.eligible_N,
            idle_G=torch.zeros_like(signal_G) if regularised else ~signal_G,
            target_N=read.spread(self._targets(read, keep_E, None)) if fixed else None,
        )

    def loss(self, batch: ObjectiveBatch) -> tuple[Tensor, Stats]:
        """The regression of the kept completions, and the terms."""
        return self.evaluate(batch)[:2]

    def evaluate(
        self, batch: ObjectiveBatch
    ) -> tuple[Tensor, dict[str, Tensor], ObjectiveBatch, Correction]:
        """Loss and figures, and the kept completions with their correction."""
        settings, kept, correction = self._settings, batch.kept(), None
        if not is_plain(settings):
            correction = correct(settings, kept)
        target_N = kept.target_N
        if target_N is None:
            target_N = self._weighted_targets(batch)[batch.keep_N.cpu()].to(kept.logprob_T.device)
        regression, found = self._regress(kept, target_N, correction)
        if correction is None:
            correction = Correction.of_loss(found)
        weight_T = correction.token_weights(kept.cu_seqlens) / max(batch.completions, 1)
        loss, figures = terms.add(regression, settings, kept, weight_T)
        figures |= {"loss": regression.detach()} | self._figures(kept, found)
        return loss, figures | correction.figures(settings, kept), kept, correction

    def summary(self, stats: Stats) -> dict[str, float | None]:
        """See `summary`."""
        return summarise(stats)

    def _fixed(self, read: Read) -> bool:
        """Whether targets are known before any weight is."""
        settings = self._settings
        return (
            (settings.weight == "none" and settings.reject == "none")
            or settings.anchor == "behavior"
            or settings.target == "batch_softmean"
            or settings.label != "group"
            or (settings.target == "centered" and read.preferences is None)
        )

    def _targets(self, read: Read, keep_E: Tensor, weights_E: Tensor | None) -> Tensor:
        """A [E]; for `centered` the scores."""
        settings = self._settings
        if settings.label != "group":
            return targets.pair_targets(
                settings.label,
                kept_N=keep_E,
                scores_N=read.scores(),
                group_ids_N=read.group_ids_E,
                preferences=read.preferences,
            )
        if settings.target == "centered":
            return read.scores(weights_E)
        return targets.compute_targets(
            settings.target,
            eta=settings.eta,
            group_ids_N=read.group_ids_E,
            rewards_N=read.rewards_E,
            preferences=read.preferences,
            weights_N=weights_E,
        )

    def _weighted_targets(self, batch: ObjectiveBatch) -> Tensor:
        read = scores.read(self._settings, batch)
        keep_E = batch.keep_N.cpu()[read.eligible_N]
        weights_E = correct(self._settings, batch).weight_N.cpu()[read.eligible_N]
        return read.spread(self._targets(read, keep_E, weights_E))

    def _regress(
        self, kept: ObjectiveBatch, target_N: Tensor, correction: Correction | None
    ) -> tuple[Tensor, LossStats]:
        """The weighted squares. Weights of tokens act on what each adds to Δ."""
        settings = self._settings
        assert kept.anchor_T is not None
        logprob_T, mask_T, by_token = kept.logprob_T, None, settings.weight == "token"
        if correction is not None:
            mask_T = correction.accepted_T
            if by_token:
                logprob_T = kept.anchor_T + correction.weighted(logprob_T - kept.anchor_T)
        return kernels.sppo_loss(
            logprob_T,
            kept.anchor_T,
            kept.behavior_T,
            mask_T,
            kept.cu_seqlens,
            target_N,
            eta=settings.eta,
            group_offsets=kept.group_offsets,
            centered=settings.target == "centered",
            weight_mode="none" if by_token else settings.weight,
            cap=None if by_token else settings.weight_cap or None,
            length_normalized=settings.length_normalize,
            normalizer=max(kept.completions, 1),
            backend=kept.kernels,
        )

    def _figures(self, kept: ObjectiveBatch, found: LossStats) -> dict[str, Tensor]:
        """Of completions whose weight is not 0."""
        counts_N = found.weight_N != 0
        figures = {"residual_N": found.residual_N[counts_N], "target_N": found.target_N[counts_N]}
        if not kept.own_anchor:
            figures["delta_N"] = found.delta_N[counts_N]
        return figures
