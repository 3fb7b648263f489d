"""The figures of an optimizer step: what micro-batches add up to on each rank, and the metrics that
rank 0 makes of it (`sppo.metrics`).

The objective's own figures are summed up by itself (`Objective.summary`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sppo.learner.gaps import Gaps
from sppo.learner.objectives import Objective
from sppo.learner.objectives.base import Stats
from sppo.learner.shares import Item
from sppo.types import Group, Version

_SUMS = ("loss", "entropy_sum", "fed", "padding")


@dataclass(slots=True)
class Totals:
    """What the micro-batches of one optimizer step add up to, on this rank."""

    stats: dict[str, list[Tensor]] = field(default_factory=dict)
    """The objective's figures."""
    gaps: list[Gaps] = field(default_factory=list)
    """Of the tokens sampled wholly at the engines' version."""
    loss: float = 0.0
    flat: bool = False
    """Whether the objective gave a loss without a gradient."""
    entropy_sum: float = 0.0
    fed: int = 0
    """Tokens that went through the model, padding included."""
    padding: int = 0

    def add(self, loss: float, stats: Stats) -> None:
        """What the objective said of a part."""
        self.loss += loss
        for name, values in stats.items():
            self.stats.setdefault(name, []).append(values.detach().reshape(-1).float())

    def pack(self) -> dict[str, Any]:
        """For the rank that makes metrics of it: sums by name, and arrays as bytes."""
        arrays = {name: torch.cat(parts).cpu() for name, parts in self.stats.items()}
        return {
            **{name: getattr(self, name) for name in _SUMS},
            "stats": {name: values.numpy().tobytes() for name, values in arrays.items()},
            "gaps": Gaps.join(self.gaps).pack(),
        }


def gaps(measured: Sequence[dict[str, Any]]) -> Gaps:
    """Every rank's."""
    return Gaps.join([Gaps.unpack(packed["gaps"]) for packed in measured])


def metrics(
    items: Sequence[Item], fed: Sequence[Item], measured: Sequence[dict[str, Any]],
    objective: Objective, version: Version, *, comparable: bool,
) -> dict[str, Any]:  # fmt: skip
    """A step's metrics, but for those of the update, from every rank's totals and the groups of all
    of them. `version` is the policy's before the step.

    Groups that did not go through the model are counted with what the engine said of them, if that
    is `comparable`: −log μ for the entropy.
    """
    sums = {name: sum(packed[name] for packed in measured) for name in _SUMS}
    within = {id(item) for item in fed}
    unseen = [c for item in items if id(item) not in within for c in item.trained]
    trained = [c for item in items for c in item.trained]
    seen = [c for item in fed for c in item.trained]
    tokens = sum(len(c.token_ids) for c in trained)
    entropy, told = sums["entropy_sum"], sum(len(c.token_ids) for c in seen)
    if comparable:
        entropy -= sum(float(c.behavior_logprobs.sum()) for c in unseen)
        told = tokens
    own = objective.summary(_joined(measured))
    return {
        "loss": sums["loss"],
        **_of_groups([item.group for item in items], version),
        "measured_share": len(seen) / len(trained) if trained else 0.0,
        "entropy": entropy / told if told else None,
        "tokens": tokens,
        "padding_share": sums["padding"] / sums["fed"] if sums["fed"] else 0.0,
        "length_mean": tokens / len(trained) if trained else 0.0,
        **{name: value for name, value in own.items() if name != "loss" or value is not None},
    }


def _of_groups(groups: Sequence[Group], version: Version) -> dict[str, Any]:
    """What the groups tell by themselves."""
    completions = [c for g in groups for c in g.completions]
    rewards = [float(r) for g in groups if g.rewards is not None for r in g.rewards]
    stale = [version.n - min(v.n for v in g.versions()) for g in groups if _same_epoch(g, version)]
    return {
        "no_signal_share": sum(not g.has_signal for g in groups) / len(groups),
        **_of_comparisons(groups),
        "staleness_mean": sum(stale) / len(stale) if stale else None,
        "staleness_max": max(stale) if stale else None,
        "foreign_epoch_groups": len(groups) - len(stale),
        "reward_mean": sum(rewards) / len(rewards) if rewards else None,
        "generated_length_mean": sum(len(c.token_ids) for c in completions) / len(completions),
        "truncated_share": sum(c.finish_reason == "length" for c in completions) / len(completions),
        "tickets": [g.uid for g in groups],
    }


def _of_comparisons(groups: Sequence[Group]) -> dict[str, Any]:
    """How much of what could be compared was; None of a scorer that gives rewards."""
    matrices_KK = [g.preferences for g in groups if g.preferences is not None]
    if not matrices_KK:
        return {"compared_share": None, "unmet": None}
    pairs = sum(k * (k - 1) for k in map(len, matrices_KK))
    missing = sum(int(np.isnan(matrix_KK).sum()) for matrix_KK in matrices_KK)
    return {
        "compared_share": 1 - missing / pairs if pairs else None,
        "unmet": sum(g.unmet for g in groups),
    }


def _joined(measured: Sequence[dict[str, Any]]) -> Stats:
    """The objective's figures of all ranks, end to end."""
    names = {name for packed in measured for name in packed["stats"]}
    return {
        name: torch.cat(
            [
                torch.frombuffer(bytearray(data), dtype=torch.float32)
                for packed in measured
                if (data := packed["stats"].get(name))
            ]
            or [torch.zeros(0)]
        )
        for name in sorted(names)
    }


def _same_epoch(group: Group, version: Version) -> bool:
    return all(v.epoch == version.epoch for v in group.versions())
