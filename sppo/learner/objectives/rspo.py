"""Regularized Self-Play Policy Optimization: `sppo`, and a pull to the reference by a reverse KL.

    L = L_sppo + λ · Σ_i w_i D_i² / 2 / (completions in the optimizer step)
    D_i = Σ_t (log π_θ − log π_ref)

Source: arXiv 2503.00030, which adds a divergence from the reference to the self-play loss; its
reverse KL, KL(π_θ ‖ π_ref), is an expectation under the policy itself, and our completions are
samples of it. The square is that expectation's surrogate: its gradient is w_i D_i ∇log π_θ(y_i),
whose mean under the policy is ∇KL(π_θ ‖ π_ref). Without targets, `objective.kl_coef` (k3) pulls by
the forward KL; both together are the paper's best run.

Fixed point with an exact partition: log π = (log π_a + η s + (λ/2) log π_ref) / (1 + λ/2) + const.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sppo.config import ObjectiveConfig
from sppo.kernels import segment_sum
from sppo.learner.objectives.base import Need, ObjectiveBatch, Scope, Scored, Selection, Stats
from sppo.learner.objectives.sppo import Sppo
from sppo.learner.objectives.summary import mean


class Rspo:
    """The objective `rspo`."""

    def __init__(self, settings: ObjectiveConfig) -> None:
        self._settings, self._sppo = settings, Sppo(settings)

    @property
    def scope(self) -> Scope:
        """As `sppo`."""
        return self._sppo.scope

    @property
    def needs(self) -> frozenset[Need]:
        """The reference, besides what `sppo` needs."""
        return self._sppo.needs | {"reference"}

    def select(self, scored: Scored) -> Selection:
        """As `sppo`; the pull gives groups without signal a gradient too."""
        found = self._sppo.select(scored)
        return replace(found, idle_G=torch.zeros_like(found.idle_G))

    def loss(self, batch: ObjectiveBatch) -> tuple[Tensor, Stats]:
        """The loss of `sppo` and the pull."""
        loss, figures, kept, correction = self._sppo.evaluate(batch)
        assert kept.reference_T is not None
        gap_N = segment_sum(correction.weighted(kept.logprob_T - kept.reference_T), kept.cu_seqlens)
        pull = (correction.weight_N * gap_N**2).sum() / 2 / max(batch.completions, 1)
        return loss + self._settings.reverse_kl_coef * pull, figures | {"gap_N": gap_N.detach()}

    def summary(self, stats: Stats) -> dict[str, float | None]:
        """That of `sppo`, and an estimate of KL(π_θ ‖ π_ref) in nats a completion."""
        return self._sppo.summary(stats) | {"reverse_kl": mean(stats, "gap_N")}
