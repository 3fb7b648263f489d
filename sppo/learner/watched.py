"""An objective under observation: every term of the loss, for each completion.

Shape suffixes: T completion tokens, N completions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sppo.config import ObjectiveConfig
from sppo.learner.objectives import Objective, ObjectiveBatch
from sppo.learner.objectives.base import Need, Scope, Scored, Selection, Stats
from sppo.learner.objectives.terms import KL

FIGURES = {
    "delta_N": "delta", "target_N": "target", "weight_N": "weight", "clipped_N": "clipped",
    "residual_N": "residual",
}  # fmt: skip
"""What an objective says of each completion that it trained, or of each that has a weight, and what
it is called here.
"""
PAIRED = ("residual_N", "target_N")
"""Those that are of pairs where an objective has figures of pairs (`_P`)."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One call of the loss, detached."""

    batch: ObjectiveBatch
    stats: Stats
    gradient_T: Tensor
    """dL/dlogprob."""


class Watched:
    """Does what the objective does, and keeps what it saw while `open`."""

    def __init__(self, objective: Objective, settings: ObjectiveConfig) -> None:
        self._objective, self._settings = objective, settings
        self.open = False
        self.seen: list[Seen] = []

    @property
    def scope(self) -> Scope:
        """The objective's."""
        return self._objective.scope

    @property
    def needs(self) -> frozenset[Need]:
        """The objective's."""
        return self._objective.needs

    def select(self, scored: Scored) -> Selection:
        """The objective's."""
        return self._objective.select(scored)

    def summary(self, stats: Stats) -> dict[str, float | None]:
        """The objective's."""
        return self._objective.summary(stats)

    def loss(self, batch: ObjectiveBatch) -> tuple[Tensor, Stats]:
        """The objective's."""
        if self.open:
            self._watch(batch)
        return self._objective.loss(batch)

    @torch.enable_grad()
    def _watch(self, batch: ObjectiveBatch) -> None:
        leaf_T = batch.logprob_T.detach().requires_grad_()
        alone = replace(batch, logprob_T=leaf_T, entropy_T=batch.entropy_T.detach())
        loss, stats = self._objective.loss(alone)
        gradient_T = torch.zeros_like(leaf_T)
        if loss.requires_grad:
            (gradient_T,) = torch.autograd.grad(loss, leaf_T)
        plain = {name: values.detach().float().cpu() for name, values in stats.items()}
        self.seen.append(Seen(replace(alone, logprob_T=leaf_T.detach()), plain, gradient_T))

    def completions(self) -> Iterator[dict[str, Any]]:
        """Of each completion that went through the model: ticket (`uid`), position among those of
        its group that did (`at`), whether it is trained, sums of log-probs in nats, and the terms.
        """
        for seen in self.seen:
            yield from self._of(seen)

    def others(self) -> dict[str, list[float]]:
        """Figures of the objective that are of no single completion, such as those of pairs."""
        found: dict[str, list[float]] = {}
        for seen in self.seen:
            for name, values in seen.stats.items():
                if not name.endswith(("_N", "_T")) or name in _paired(seen):
                    found.setdefault(name, []).extend(values.reshape(-1).tolist())
        return found

    def _of(self, seen: Seen) -> Iterator[dict[str, Any]]:
        batch = seen.batch
        figures = self._figures(seen)
        tokens: dict[str, Sequence[Tensor]] = {
            name: torch.split(values_T, batch.length_N.tolist())
            for name, values_T in self._tokens(seen).items()
        }
        trained = iter(figures)
        for n, ((uid, at), keep) in enumerate(zip(batch.names, batch.keep_N.tolist(), strict=True)):
            own = {name: parts[n] for name, parts in tokens.items()}
            yield {
                "uid": uid, "at": at, "trained": keep,
                **{name: float(values.sum()) for name, values in own.items() if name in SUMS},
                **{name: _mean(values) for name, values in own.items() if name not in SUMS},
                **(next(trained) if keep else {}),
                "tokens": {name: values.tolist() for name, values in own.items()},
            }  # fmt: skip

    def _tokens(self, seen: Seen) -> dict[str, Tensor]:
        """[T] each, those that there are."""
        batch = seen.batch
        found = {
            "logprob": batch.logprob_T, "anchor": batch.anchor_T, "behavior": batch.behavior_T,
            "reference": batch.reference_T, "gradient": seen.gradient_T, "entropy": batch.entropy_T,
        }  # fmt: skip
        if batch.reference_T is not None:
            found["kl"] = KL[self._settings.kl_estimator](batch.logprob_T, batch.reference_T)
        return {name: values.float().cpu() for name, values in found.items() if values is not None}

    def _figures(self, seen: Seen) -> list[dict[str, float | None]]:
        """Of each trained completion, in order, with its part of the loss where that is a weighted
        square.
        """
        count = int(seen.batch.keep_N.sum())
        weight_N = seen.stats.get("weight_N")
        counts_N = torch.ones(count, dtype=torch.bool)
        if weight_N is not None and len(weight_N) == count:
            counts_N = weight_N != 0
        rows: list[dict[str, float | None]] = [{} for _ in range(count)]
        for name, called in FIGURES.items():
            given = None if name in _paired(seen) else seen.stats.get(name)
            for row, value in zip(rows, _spread(given, counts_N), strict=True):
                row[called] = value
        if seen.batch.own_anchor:
            rows = [row | {"delta": 0.0} for row in rows]
        squares = [_square(row, seen.batch.completions) for row in rows]
        total = seen.stats["loss"].sum().item() if "loss" in seen.stats else math.nan
        if all(square is not None for square in squares):
            adds_up = math.isclose(
                sum(s or 0.0 for s in squares), total, rel_tol=1e-3, abs_tol=1e-7
            )
            for row, square in zip(rows, squares, strict=True):
                row["loss"] = square if adds_up else None
        return rows


SUMS = ("logprob", "anchor", "behavior", "reference", "gradient")
"""Of these a completion has the sum over its tokens, of the others the mean."""


def _paired(seen: Seen) -> Sequence[str]:
    return PAIRED if any(name.endswith("_P") for name in seen.stats) else ()


def _square(row: dict[str, float | None], completions: int) -> float | None:
    """w · residual² / completions; 0 for one without weight, None where there is no residual."""
    counts, residual = row["weight"], row["residual"]
    if counts == 0:
        return 0.0
    if counts is None or residual is None:
        return None
    return counts * residual**2 / max(completions, 1)


def _spread(values: Tensor | None, counts_N: Tensor) -> list[float | None]:
    """[N] a figure of all, or of those that count; None elsewhere, and for one of neither."""
    if values is not None and len(values) == len(counts_N):
        return values.tolist()
    if values is None or len(values) != int(counts_N.sum()):
        return [None] * len(counts_N)
    given = iter(values.tolist())
    return [next(given) if counts else None for counts in counts_N.tolist()]


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None
