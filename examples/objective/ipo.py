"""An objective of one's own: identity preference optimization (IPO, arXiv 2310.12036), online.

    h = log-ratio to the reference of the better completion − that of the worse
    L = Σ over groups (h − 1/(2τ))² / (groups in the optimizer step)

Where DPO's sigmoid pulls ever further once winner and loser are told apart, the square stops at a
gap of 1/(2τ). Log-ratios are means over tokens, as in TRL's `loss_type = "ipo"`.

    sppo-cli up quickstart --set objective.name=examples.objective.ipo:Ipo \\
        --set objective.params.tau=0.1

from the folder in which `examples` lies, as for a scorer of one's own. Everything else of a run
stays as it is: tickets, engines, weight syncs, ranks, checkpoints. A test:
tests/integration/test_own_objective.py.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from sppo.config import ObjectiveConfig
from sppo.kernels import segment_sum
from sppo.learner.objectives import ObjectiveBatch, Scored, Selection


class Ipo:
    """Best against worst of each group."""

    scope = "group"  # a pair lies in one group: that much must be seen together
    needs = frozenset({"reference"})  # and log-probs under the model that the run began with

    def __init__(self, settings: ObjectiveConfig) -> None:
        self._gap = 1 / (2 * float(settings.params.get("tau", 0.1)))

    def select(self, scored: Scored) -> Selection:
        """Before anything goes through the model: which completions are worth it, and what for."""
        assert scored.rewards_N is not None, "this example takes rewards"
        sign_N = torch.zeros_like(scored.rewards_N)
        for begin, end in itertools.pairwise(scored.group_offsets.tolist()):
            rewards_K = scored.rewards_N[begin:end]
            if rewards_K.max() > rewards_K.min():  # else nobody is better
                sign_N[begin + int(rewards_K.argmax())] = 1
                sign_N[begin + int(rewards_K.argmin())] = -1
        keep_N = sign_N != 0
        pairs_G = segment_sum(keep_N.long(), scored.group_offsets)
        return Selection(keep_N=keep_N, fed_N=keep_N, idle_G=pairs_G == 0, target_N=sign_N)

    def loss(self, batch: ObjectiveBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """A pure function of log-probs. Divide by the counts of the whole mini-batch."""
        assert batch.reference_T is not None
        assert batch.target_N is not None
        gap_N = segment_sum(batch.logprob_T - batch.reference_T, batch.cu_seqlens) / batch.length_N
        h_P = gap_N[batch.target_N > 0] - gap_N[batch.target_N < 0]  # a pair a group, in order
        loss = ((h_P - self._gap) ** 2).sum() / max(batch.groups, 1)
        return loss, {"h_P": h_P.detach()}

    def summary(self, stats: dict[str, Tensor]) -> dict[str, float | None]:
        """Metrics of a step, of the figures of all its parts laid end to end."""
        h_P = stats.get("h_P")
        return {"ipo_gap": None if h_P is None or not len(h_P) else float(h_P.mean())}
