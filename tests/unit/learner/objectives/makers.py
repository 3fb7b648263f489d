"""Batches of an objective, small enough for plain Python."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sppo.config import ObjectiveConfig
from sppo.learner.objectives import Objective, ObjectiveBatch, Scored, Selection, make
from sppo.learner.objectives.base import Stats

LENGTHS = [3, 1, 4, 2, 5, 2, 3, 1, 2]
SIZES = [2, 3, 4]
OFFSETS = [0, 2, 5, 9]


def settings(**changes: Any) -> ObjectiveConfig:
    """Defaults, but for what is named."""
    return ObjectiveConfig(**changes)


def offsets(sizes: list[int]) -> Tensor:
    """[0, s_1, s_1 + s_2, ...]"""
    return torch.tensor([0, *torch.tensor(sizes).cumsum(0).tolist()])


def preferences(seed: int, sizes: list[int]) -> tuple[Tensor, ...]:
    """Random and intransitive in general, [K, K] for each group."""
    generator = torch.Generator().manual_seed(1000 + seed)
    made = []
    for k in sizes:
        upper = torch.rand(k, k, dtype=torch.float64, generator=generator).triu(1)
        made.append(upper + (1 - upper.T).tril(-1) + torch.eye(k, dtype=torch.float64) / 2)
    return tuple(made)


def random_batch(seed: int = 0, *, compared: bool = False, **changes: Any) -> ObjectiveBatch:
    """Three groups of a policy that has moved from anchor, reference and what sampled; float64."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(LENGTHS)

    def near(center_T: Tensor, by: float) -> Tensor:
        noise_T = torch.randn(total, dtype=torch.float64, generator=generator)
        return center_T + by * noise_T

    anchor_T = -3 * torch.rand(total, dtype=torch.float64, generator=generator) - 1
    given: dict[str, Any] = {
        "logprob_T": near(anchor_T, 0.1),
        "entropy_T": torch.rand(total, dtype=torch.float64, generator=generator),
        "anchor_T": anchor_T,
        "behavior_T": near(anchor_T, 0.3),
        "reference_T": near(anchor_T, 0.4),
        "cu_seqlens": offsets(LENGTHS),
        "group_offsets": offsets(SIZES),
        "keep_N": torch.ones(len(LENGTHS), dtype=torch.bool),
        "target_N": None,
        "rewards_N": torch.randn(len(LENGTHS), dtype=torch.float64, generator=generator),
        "preferences": None,
        "finished_N": torch.ones(len(LENGTHS), dtype=torch.bool),
        "completions": len(LENGTHS),
        "tokens": total,
        "groups": len(SIZES),
        "own_anchor": False,
    }
    if compared:
        given |= {"rewards_N": None, "preferences": preferences(seed, SIZES)}
    return ObjectiveBatch(**(given | changes))


def scored(batch: ObjectiveBatch) -> Scored:
    """What a batch was before it went through the model."""
    return Scored(
        rewards_N=batch.rewards_N,
        preferences=batch.preferences,
        group_offsets=batch.group_offsets,
        length_N=batch.length_N,
        finished_N=batch.finished_N,
    )


def fed(batch: ObjectiveBatch, selection: Selection) -> ObjectiveBatch:
    """The batch as the learner makes it of a selection."""
    target_N, keep_N = selection.target_N, selection.keep_N
    lengths_N = batch.length_N
    kept_G = [bool(part.any()) for part in torch.split(keep_N, batch.group_offsets.diff().tolist())]
    passed = replace(batch, keep_N=selection.fed_N, target_N=target_N).kept()
    return replace(
        passed,
        keep_N=keep_N[selection.fed_N],
        completions=int(keep_N.sum()),
        tokens=int(lengths_N[keep_N].sum()),
        groups=sum(kept_G),
    )


def evaluate(objective: Objective, batch: ObjectiveBatch) -> tuple[Tensor, Stats]:
    """Select, feed, and the loss."""
    return objective.loss(fed(batch, objective.select(scored(batch))))


def value(changes: dict[str, Any], batch: ObjectiveBatch) -> float:
    """The loss of these settings."""
    return float(evaluate(make(settings(**changes)), batch)[0])


def gradient(objective: Objective, batch: ObjectiveBatch) -> Tensor:
    """∂loss/∂log π_θ [T]."""
    logprob_T = batch.logprob_T.clone().requires_grad_()
    loss, _ = evaluate(objective, replace(batch, logprob_T=logprob_T))
    loss.backward()  # type: ignore[no-untyped-call]
    assert logprob_T.grad is not None
    return logprob_T.grad


def numeric_gradient(function: Callable[[Tensor], float], at_T: Tensor) -> Tensor:
    """Central differences."""
    step, found_T = 1e-5, torch.zeros_like(at_T)
    for t in range(len(at_T)):
        bump_T = torch.zeros_like(at_T)
        bump_T[t] = step
        found_T[t] = (function(at_T + bump_T) - function(at_T - bump_T)) / (2 * step)
    return found_T


def off_differences(objective: Objective, batch: ObjectiveBatch) -> float:
    """Relative error of the gradient against finite differences."""

    def at(moved_T: Tensor) -> float:
        return float(evaluate(objective, replace(batch, logprob_T=moved_T))[0])

    numeric_T = numeric_gradient(at, batch.logprob_T)
    return float((gradient(objective, batch) - numeric_T).norm() / numeric_T.norm())


def spans() -> list[range]:
    """Tokens of each completion."""
    cuts = offsets(LENGTHS).tolist()
    return [range(a, b) for a, b in itertools.pairwise(cuts)]


def groups() -> list[range]:
    """Completions of each group."""
    return [range(a, b) for a, b in itertools.pairwise(OFFSETS)]


def summed(one_T: Tensor | None, two_T: Tensor | None) -> list[float]:
    """Σ (one − two) of each completion, in plain Python."""
    assert one_T is not None
    assert two_T is not None
    one, two = one_T.tolist(), two_T.tolist()
    return [sum(one[t] - two[t] for t in span) for span in spans()]
