"""Scores as an objective reads them: cut completions masked or scored 0, rewards linked.

Shape suffixes: N completions as they were given, E those of them that take part, G groups, K
completions of one group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sppo.config import ObjectiveConfig
from sppo.learner.objectives.targets import bradley_terry, compute_scores, unmet


class Given(Protocol):
    """What both `Scored` and `ObjectiveBatch` hold."""

    @property
    def rewards_N(self) -> Tensor | None:  # noqa: N802 - named by its shape
        """Scalar rewards."""

    @property
    def preferences(self) -> tuple[Tensor, ...] | None:
        """[K, K] for each group."""

    @property
    def group_offsets(self) -> Tensor:
        """[G + 1]"""

    @property
    def finished_N(self) -> Tensor:  # noqa: N802
        """False where a completion was cut."""

    @property
    def length_N(self) -> Tensor:  # noqa: N802
        """Tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """The scores of the completions that take part, on the CPU. Exactly one of `rewards_E` and
    `preferences` is there.
    """

    eligible_N: Tensor
    """False for empty completions, for cut ones where they are masked, and for those that met
    none of the others.
    """
    group_ids_E: Tensor
    rewards_E: Tensor | None
    preferences: tuple[Tensor, ...] | None
    """[K, K] for each group that has an eligible completion, NaN where two were not compared."""
    groups: int

    def scores(self, weights_E: Tensor | None = None) -> Tensor:
        """s [E]: rewards, or win rates under the weights."""
        return compute_scores(
            group_ids_N=self.group_ids_E,
            rewards_N=self.rewards_E,
            preferences=self.preferences,
            weights_N=weights_E,
        )

    def spread(self, values_E: Tensor) -> Tensor:
        """[E] to [N], 0 (or False) elsewhere."""
        values_N = torch.zeros(len(self.eligible_N), dtype=values_E.dtype)
        values_N[self.eligible_N] = values_E
        return values_N

    def signal(self) -> Tensor:
        """[G] True for groups of which any two eligible completions were told apart."""
        found_G = torch.zeros(self.groups, dtype=torch.bool)
        for i, g in enumerate(sorted(set(self.group_ids_E.tolist()))):
            if self.preferences is not None:
                known = self.preferences[i][~self.preferences[i].isnan()]
                found_G[g] = bool((known != 0.5).any())
            elif self.rewards_E is not None:
                rewards_K = self.rewards_E[self.group_ids_E == g]
                found_G[g] = bool((rewards_K != rewards_K[0]).any())
        return found_G


def read(settings: ObjectiveConfig, given: Given, *, whole: bool = True) -> Read:
    """The scores under `objective.truncated` and `objective.link`. `whole`: of each group all is
    there that took part, and not only what the objective kept of it.
    """
    finished_N, sizes_G = given.finished_N.cpu().bool(), given.group_offsets.cpu().diff()
    eligible_N = given.length_N.cpu() > 0
    if settings.truncated == "mask":
        eligible_N = eligible_N & finished_N
    ids_N = torch.repeat_interleave(torch.arange(len(sizes_G)), sizes_G)
    rewards_E, preferences = None, None
    if given.preferences is not None:
        matrices = [matrix_KK.cpu() for matrix_KK in given.preferences]
        preferences, eligible_N = _comparisons(
            settings, matrices, eligible_N, finished_N, sizes_G, whole=whole
        )
    elif given.rewards_N is not None:
        rewards_N = given.rewards_N.cpu()
        if settings.truncated == "zero":
            rewards_N = torch.where(finished_N, rewards_N, 0.0)
        rewards_E = rewards_N[eligible_N]
        if settings.link == "bradley-terry":
            linked = bradley_terry(
                rewards_E, ids_N[eligible_N], temperature=settings.link_temperature
            )
            rewards_E, preferences = None, tuple(linked)
    return Read(
        eligible_N=eligible_N,
        group_ids_E=ids_N[eligible_N],
        rewards_E=rewards_E,
        preferences=preferences,
        groups=len(sizes_G),
    )


def _comparisons(
    settings: ObjectiveConfig,
    matrices: Sequence[Tensor],
    eligible_N: Tensor,
    finished_N: Tensor,
    sizes_G: Tensor,
    *,
    whole: bool,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """[K, K] of each group's completions that take part, and which of all these are [N]: the
    eligible ones but for those that met no other.

    A cut one scored 0 loses to every finished one that it met and draws with its like. One that the
    scorer compared with nobody needs no comparison for that: it does with all who met somebody.
    """
    found, there = [], []
    parts = (torch.split(values_N, sizes_G.tolist()) for values_N in (eligible_N, finished_N))
    for matrix_KK, eligible_K, finished_K in zip(matrices, *parts, strict=True):
        at = eligible_K.nonzero()[:, 0]
        matrix_KK = matrix_KK[at][:, at]
        if settings.truncated == "zero":
            matrix_KK = _cut_lost(matrix_KK, finished_K[at], whole=whole)
        met_K = ~unmet(matrix_KK) | (not whole)
        if met_K.any():
            found.append(matrix_KK[met_K][:, met_K])
        there.append(torch.zeros_like(eligible_K).index_fill(0, at[met_K], True))
    return tuple(found), torch.cat(there) if there else eligible_N


def _cut_lost(matrix_KK: Tensor, finished_K: Tensor, *, whole: bool) -> Tensor:
    """The matrix in which cut completions have lost, NaN where that says nothing."""
    unread_K = unmet(matrix_KK)
    by_rule_K, there_K = unread_K & ~finished_K, ~(unread_K & finished_K & whole)
    stands_KK = (finished_K[:, None] & finished_K) | matrix_KK.isnan()
    stands_KK &= ~((by_rule_K[:, None] | by_rule_K) & there_K[:, None] & there_K)
    finished_K = finished_K.to(matrix_KK)
    ahead_KK = (1 + finished_K[:, None] - finished_K) / 2
    return torch.where(stands_KK, matrix_KK, ahead_KK)
