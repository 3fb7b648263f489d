"""What an objective is: the mathematics of one mini-batch, and what must be known to evaluate it.

    scored groups ── select ──▶ what is fed ── forward ──▶ ObjectiveBatch ── loss ──▶ gradient

A loss is a pure function of an `ObjectiveBatch`. It never knows of micro-batches or ranks: where
every unit of its scope lies whole in one micro-batch it is evaluated there; elsewhere on the
log-probs of the whole mini-batch as leaves, and each micro-batch then goes backward with its part
of dL/dlogprob. Both give the same gradient.

Shape suffixes: T completion tokens laid end to end, N completions, G groups, K completions of one
group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from sppo.kernels import Backend

Scope = Literal["completion", "group", "batch"]
"""What a loss must see together."""
Need = Literal["anchor", "reference", "preferences"]
"""What an `ObjectiveBatch` must hold besides: log-probs under the anchor policy, log-probs under
the reference, comparisons instead of rewards.
"""
Stats = Mapping[str, Tensor]
"""By name a float tensor of one dimension (a value for each completion, token, pair or group), or a
scalar. Those of all micro-batches and ranks are laid end to end for `Objective.summary`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Whole groups as they were scored, before anything goes through the model."""

    rewards_N: Tensor | None
    """Scalar rewards; None if the scorer compared."""
    preferences: tuple[Tensor, ...] | None
    """[K, K] for each group: the probability that the row's completion is preferred to the
    column's, NaN where the two were not compared; None if the scorer gave rewards.
    """
    group_offsets: Tensor
    """[G + 1] offsets of the groups in N."""
    length_N: Tensor
    """Tokens of each completion."""
    finished_N: Tensor
    """True where a completion ended by itself, False where it was cut at `sampling.max_tokens`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What an objective wants of the groups of one batch."""

    keep_N: Tensor
    """True for completions that are trained: the optimizer step is normalised over them."""
    fed_N: Tensor
    """True for completions that go through the model. It may hold more than `keep_N` does: those
    whose log-probs the target of another depends on.
    """
    idle_G: Tensor
    """True for groups whose gradient is zero where the policy is its own anchor. They stay out of
    the model then, but for a sample.
    """
    target_N: Tensor | None = None
    """Numbers that are fixed beforehand, handed on as `ObjectiveBatch.target_N`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveBatch:
    """Whole units of an objective's scope, on one device. Only fed completions are in it."""

    logprob_T: Tensor
    """log π_θ in nats at the objective's temperature. Carries the gradient."""
    entropy_T: Tensor
    """Entropy of π_θ in nats. Carries the gradient."""
    anchor_T: Tensor | None
    """log π_a; None unless needed."""
    behavior_T: Tensor
    """log μ, as the engine reported it."""
    reference_T: Tensor | None
    """log π_ref; None unless needed."""
    cu_seqlens: Tensor
    """[N + 1] offsets of the completions in T."""
    group_offsets: Tensor
    """[G + 1] offsets of the groups in N."""
    keep_N: Tensor
    """True for completions that are trained."""
    target_N: Tensor | None
    """What `Objective.select` fixed beforehand."""
    rewards_N: Tensor | None
    preferences: tuple[Tensor, ...] | None
    """As in `Scored`."""
    finished_N: Tensor
    completions: int
    """Trained completions of the whole mini-batch, all micro-batches and ranks: the normaliser."""
    tokens: int
    """Tokens of those."""
    groups: int
    """Groups of the whole mini-batch that have a trained completion."""
    own_anchor: bool
    """Whether anchor and policy are the same weights, so that every log-ratio is zero."""
    kernels: Backend = "auto"
    names: Sequence[tuple[str, int]] = ()
    """[N] ticket, and position among the completions of its group that are fed; empty where a
    batch was put together of several ranks' parts. No loss depends on it.
    """

    @property
    def length_N(self) -> Tensor:  # noqa: N802 - named by its shape
        """Tokens of each completion."""
        return self.cu_seqlens.diff()

    def kept(self) -> ObjectiveBatch:
        """The trained completions alone."""
        keep_N = self.keep_N
        if bool(keep_N.all()):
            return self
        keep_T = torch.repeat_interleave(keep_N, self.length_N)

        def of(keep: Tensor, values: Tensor | None) -> Tensor | None:
            return None if values is None else values[keep]

        preferences = None
        if self.preferences is not None:
            kept_K = torch.split(keep_N, self.group_offsets.diff().tolist())
            pairs = zip(self.preferences, kept_K, strict=True)
            preferences = tuple(matrix_KK[keep_K][:, keep_K] for matrix_KK, keep_K in pairs)
        return replace(
            self,
            logprob_T=self.logprob_T[keep_T],
            entropy_T=self.entropy_T[keep_T],
            anchor_T=of(keep_T, self.anchor_T),
            behavior_T=self.behavior_T[keep_T],
            reference_T=of(keep_T, self.reference_T),
            cu_seqlens=pad(self.length_N[keep_N].cumsum(0), (1, 0)),
            group_offsets=pad(keep_N.long().cumsum(0), (1, 0))[self.group_offsets],
            keep_N=keep_N[keep_N],
            target_N=of(keep_N, self.target_N),
            rewards_N=of(keep_N, self.rewards_N),
            preferences=preferences,
            finished_N=self.finished_N[keep_N],
            names=[name for name, keep in zip(self.names, keep_N.tolist(), strict=False) if keep],
        )


class Objective(Protocol):
    """One game. Made with the run's `ObjectiveConfig` as its only argument."""

    @property
    def scope(self) -> Scope:
        """What must lie in one `ObjectiveBatch`."""

    @property
    def needs(self) -> frozenset[Need]:
        """What an `ObjectiveBatch` must hold."""

    def select(self, scored: Scored) -> Selection:
        """What of a whole batch is trained. Raises SppoError for scores that it cannot use."""

    def loss(self, batch: ObjectiveBatch) -> tuple[Tensor, Stats]:
        """This part's share of the mini-batch's loss, a scalar with a gradient, and its figures.

        Shares of disjoint parts add up to the loss of the whole.
        """

    def summary(self, stats: Stats) -> dict[str, float | None]:
        """Metrics of an optimizer step, from the joined figures of its parts."""
