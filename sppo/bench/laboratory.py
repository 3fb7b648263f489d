"""Policies small enough to enumerate, for the laboratory of `sppo.bench.objective`.

Shape suffixes: A arms (completions of one token), N completions of enumerated groups, G groups, K
completions of a group, P orders of them.

An exact expectation is an enumeration whose importance weights hold the probabilities: with
behaviour log-probs chosen so that ρ = N · density, the mean of w · residual² over N enumerated
completions is their expectation under that density.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sppo.kernels import sppo_loss
from sppo.learner.objectives.targets import win_rates

ARMS = 12
ETA = 2.0


class Lab:
    """An anchor, another policy that is stale, and scores for 12 arms."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.log_anchor_A = torch.log_softmax(self._normal(ARMS), -1)
        self.log_other_A = torch.log_softmax(self.log_anchor_A + self._normal(ARMS), -1)
        self.score_A = torch.rand(ARMS, dtype=torch.float64, generator=self.generator)
        self.log_z = float(torch.logsumexp(self.log_anchor_A + ETA * self.score_A, -1))
        self.ratio_A = (self.log_anchor_A - self.log_other_A).exp()

    def _normal(self, n: int) -> Tensor:
        return torch.randn(n, dtype=torch.float64, generator=self.generator)

    def samplers(self) -> dict[str, Tensor]:
        """Log-probabilities of full support."""
        reverse_A = torch.log_softmax(-2 * (self.log_anchor_A + ETA * self.score_A), -1)
        uniform_A = torch.full((ARMS,), -math.log(ARMS), dtype=torch.float64)
        return {
            "the anchor": self.log_anchor_A,
            "uniform": uniform_A,
            "stale": self.log_other_A,
            "adverse": reverse_A,
        }

    def expected_loss(
        self, logprob_A: Tensor, log_nu_A: Tensor, target_A: Tensor, ratio_A: Tensor | None = None
    ) -> Tensor:
        """E_ν[w residual²] exactly; w = 1 or the given ratios."""
        weight_A = log_nu_A.exp() * ARMS * (1 if ratio_A is None else ratio_A)
        return self._loss(logprob_A, self.log_anchor_A, weight_A, target_A, None)

    def expected_centered_loss(
        self, logprob_A: Tensor, log_nu_A: Tensor, k: int, ratio_A: Tensor | None = None
    ) -> Tensor:
        """The expectation of `centered` over all groups of k independent draws from ν."""
        arms_GK = torch.cartesian_prod(*[torch.arange(ARMS)] * k)
        density_G = log_nu_A[arms_GK].sum(-1).exp() * len(arms_GK)
        weight_GK = density_G[:, None].expand_as(arms_GK)
        if ratio_A is not None:
            weight_GK = weight_GK * ratio_A[arms_GK]
        arms_N = arms_GK.flatten()
        offsets = torch.arange(0, len(arms_N) + 1, k)
        return self._loss(
            logprob_A[arms_N],
            self.log_anchor_A[arms_N],
            weight_GK.flatten(),
            self.score_A[arms_N],
            offsets,
        )

    def _loss(
        self,
        logprob_N: Tensor,
        anchor_N: Tensor,
        weight_N: Tensor,
        target_N: Tensor,
        offsets: Tensor | None,
    ) -> Tensor:
        return sppo_loss(
            logprob_N,
            anchor_N,
            anchor_N - weight_N.log(),
            None,
            torch.arange(len(logprob_N) + 1),
            target_N,
            eta=ETA,
            group_offsets=offsets,
            centered=offsets is not None,
            weight_mode="sequence",
            cap=math.inf,
        )[0]

    def gradient(self, loss: Callable[[Tensor], Tensor], log_pi_A: Tensor | None = None) -> Tensor:
        """∂loss/∂θ at a policy, by default the anchor; θ are the logits."""
        theta_A = (self.log_anchor_A if log_pi_A is None else log_pi_A).clone().requires_grad_()
        loss(torch.log_softmax(theta_A, -1)).backward()  # type: ignore[no-untyped-call]
        assert theta_A.grad is not None
        return theta_A.grad

    def score_gradient(self, coefficient_A: Tensor) -> Tensor:
        """Σ_a coefficient_a ∇θ log π(a) at the anchor: ∇θ log π(a) = 1[a] − π."""
        return coefficient_A - coefficient_A.sum() * self.log_anchor_A.exp()

    def draw(self, log_nu_A: Tensor, k: int, *, groups: int) -> Tensor:
        """[groups, A] how often each arm came up in k draws."""
        arms_GK = torch.multinomial(
            log_nu_A.exp(), groups * k, replacement=True, generator=self.generator
        )
        index_GK = arms_GK.view(groups, k)
        return torch.zeros(groups, ARMS, dtype=torch.float64).scatter_add_(
            1, index_GK, torch.ones(groups, k, dtype=torch.float64)
        )


def minimise(loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Log-probabilities at the minimum. Each round begins without the history that stalled the one
    before.
    """
    theta_A = torch.zeros(ARMS, dtype=torch.float64, requires_grad=True)
    # The line search stops at the precision of the loss; steps by the gradient alone go on to that
    # of the gradient.
    for search in ("strong_wolfe", "strong_wolfe", None):
        optimizer = torch.optim.LBFGS(
            [theta_A],
            max_iter=500,
            tolerance_grad=1e-16,
            tolerance_change=1e-20,
            line_search_fn=search,
        )

        def closure(optimizer: torch.optim.LBFGS = optimizer) -> Tensor:
            optimizer.zero_grad()
            value = loss(torch.log_softmax(theta_A, -1))
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return torch.log_softmax(theta_A.detach(), -1)


def gap(found_A: Tensor, wanted_A: Tensor) -> float:
    return float((found_A - wanted_A).abs().max())


def rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def flat(weight_GA: Tensor) -> tuple[Tensor, Tensor]:
    """Group ids and weights [N] of a table of groups."""
    return torch.arange(len(weight_GA)).repeat_interleave(weight_GA.shape[1]), weight_GA.flatten()


def random_game(k: int, generator: torch.Generator) -> Tensor:
    """Random win probabilities, intransitive in general."""
    upper_KK = torch.rand(k, k, dtype=torch.float64, generator=generator).triu(1)
    return upper_KK + (1 - upper_KK.T).tril(-1) + torch.eye(k, dtype=torch.float64) / 2


def partial_errors(
    matrix_KK: Tensor, asked: Sequence[tuple[int, int]], weight_K: Tensor | None = None, *,
    naive: bool = False,
) -> Tensor:  # fmt: skip
    """[P, K] how far win rates are from those of the whole matrix where only these positions are
    compared, in each of the P = K! orders of the completions. `naive` takes the mean over itself
    and those it met.
    """
    k = len(matrix_KK)
    order_PK = torch.tensor(list(itertools.permutations(range(k))))
    hidden_KK = ~torch.eye(k, dtype=torch.bool)
    for i, j in asked:
        hidden_KK[i, j] = hidden_KK[j, i] = False
    tables = [
        matrix_KK[order_K][:, order_K].masked_fill(hidden_KK, torch.nan) for order_K in order_PK
    ]
    if naive:
        found_N = torch.cat([table_KK.nanmean(1) for table_KK in tables])
    else:
        ids_N = torch.arange(len(order_PK)).repeat_interleave(k)
        weight_N = None if weight_K is None else weight_K[order_PK].flatten()
        found_N = win_rates(tables, ids_N, weight_N)
    whole_K = win_rates([matrix_KK], torch.zeros(k, dtype=torch.int64), weight_K)
    return torch.zeros_like(found_N.view_as(order_PK)).scatter(
        1, order_PK, found_N.view_as(order_PK) - whole_K[order_PK]
    )


def largest_mean(error_PK: Tensor) -> float:
    """The largest bias of a completion."""
    return float(error_PK.mean(0).abs().max())


def nash(game_33: Tensor) -> Tensor:
    """The interior equilibrium: the mixture against which every row wins half the time."""
    k = len(game_33)
    system = torch.cat([game_33 - 0.5, torch.ones(1, k, dtype=torch.float64)])
    wanted = torch.tensor([[0.0]] * k + [[1.0]], dtype=torch.float64)
    mixture_31: Tensor = torch.linalg.lstsq(system, wanted).solution
    return mixture_31[:, 0]
