"""One batch: mini-batches, each one optimizer step over micro-batches of whole groups.

Shape suffixes: T completion tokens of a micro-batch, N its completions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sppo.config import LearnerConfig
from sppo.learner import batching
from sppo.learner.batching import MicroBatch
from sppo.learner.model import Policy
from sppo.learner.objective import LossTerms, effective_sample_size, sppo_loss
from sppo.learner.optim import Optimizer
from sppo.types import Group, Version


@dataclass(slots=True)
class _Totals:
    """What the micro-batches of one optimizer step add up to."""

    terms: list[LossTerms] = field(default_factory=list)
    log_rho_T: list[Tensor] = field(default_factory=list)
    gap_T: list[Tensor] = field(default_factory=list)
    """|anchor − behaviour| of tokens sampled wholly at the anchor's version."""
    entropy_sum: float = 0.0
    tokens: int = 0
    fed: int = 0
    padding: int = 0


class Trainer:
    """Trains a policy on batches of groups."""

    def __init__(self, config: LearnerConfig, policy: Policy, optimizer: Optimizer) -> None:
        self._config = config
        self._policy = policy
        self._optimizer = optimizer

    def train(self, groups: Sequence[Group], version: Version) -> Iterator[dict[str, Any]]:
        """One batch at the weights of `version`: yields the metrics of each optimizer step after it was taken."""
        size = len(groups) // self._config.mini_batches
        parts = [groups[i * size : (i + 1) * size] for i in range(self._config.mini_batches)]
        # The first mini-batch is its own anchor. For the others the anchor is computed before any weight moves.
        anchors: list[list[Tensor] | None] = [None]
        anchors += [[self._score(batch)[0] for batch in self._micro_batches(part)] for part in parts[1:]]
        for number, (part, anchor) in enumerate(zip(parts, anchors, strict=True), start=1):
            yield self._optimizer_step(part, anchor, version, version.n + number)

    def mismatch(self, groups: Sequence[Group], version: Version) -> float | None:
        """Mean |engine − learner| log-prob over completions sampled wholly at `version`; None if there are none."""
        gaps = []
        for batch in self._micro_batches(groups):
            logprob_T, _ = self._score(batch)
            gaps.append((logprob_T - batch.behavior_T).abs()[self._at_version(batch, groups, version)])
        gap_T = torch.cat(gaps)
        return float(gap_T.mean()) if len(gap_T) else None

    def _optimizer_step(
        self, groups: Sequence[Group], anchors: list[Tensor] | None, version: Version, n: int
    ) -> dict[str, Any]:
        started = time.monotonic()
        totals = _Totals()
        completions = sum(len(g.completions) for g in groups)
        for i, batch in enumerate(self._micro_batches(groups)):
            # Where Δ ≡ 0, groups whose scores are all equal have residual 0: they are measured, not differentiated.
            differentiate = anchors is not None or any(_has_signal(groups[i]) for i in batch.groups)
            with torch.set_grad_enabled(differentiate):
                logprob_T, entropy_T = self._policy.logprobs(batch, entropy=True)
            anchor_T = logprob_T.detach() if anchors is None else anchors[i]
            terms = sppo_loss(
                logprob_T,
                anchor_T,
                batch.behavior_T,
                batch.cu_seqlens,
                batch.rewards_N,
                batch.group_ids_N,
                eta=self._config.eta,
                target=self._config.target,
                weight=self._config.weight,
                cap=self._config.weight_cap,
                normalizer=completions,
            )
            if differentiate:
                terms.loss.backward()  # type: ignore[no-untyped-call]
            assert entropy_T is not None
            self._add(totals, batch, groups, version, terms, anchor_T, entropy_T)
        norm, clipped = self._optimizer.step(n)
        self._policy.refresh()
        record = _summarise(totals, groups, version, own_anchor=anchors is None)
        return record | {
            "step": n,
            "grad_norm": norm,
            "grad_clipped": clipped,
            "lr": self._optimizer.learning_rate(n),
            "step_s": time.monotonic() - started,
        }

    def _add(
        self, totals: _Totals, batch: MicroBatch, groups: Sequence[Group], version: Version, terms: LossTerms,
        anchor_T: Tensor, entropy_T: Tensor,
    ) -> None:  # fmt: skip
        difference_T = anchor_T - batch.behavior_T
        totals.terms.append(terms)
        totals.log_rho_T.append(difference_T)
        totals.gap_T.append(difference_T.abs()[self._at_version(batch, groups, version)])
        totals.entropy_sum += float(entropy_T.sum())
        totals.tokens += len(anchor_T)
        totals.fed += batch.tokens_BL.numel()
        totals.padding += batch.padding

    def _micro_batches(self, groups: Sequence[Group]) -> Iterator[MicroBatch]:
        """Whole groups in each; those whose scores differ apart from those whose scores are all equal."""
        share = self._config.share_prompt
        for signal in (True, False):
            chosen = [i for i, g in enumerate(groups) if _has_signal(g) is signal]
            for part in batching.plan([groups[i] for i in chosen], self._config.micro_batch_tokens, share):
                members = [chosen[i] for i in part]
                yield batching.collate(groups, members, share_prompt=share, device=self._policy.device)

    @torch.no_grad()
    def _score(self, batch: MicroBatch) -> tuple[Tensor, Tensor | None]:
        return self._policy.logprobs(batch)

    def _at_version(self, batch: MicroBatch, groups: Sequence[Group], version: Version) -> Tensor:
        """[T] True for tokens of completions that `version` sampled from beginning to end."""
        whole = [all(s.version == version for s in c.spans) for i in batch.groups for c in groups[i].completions]
        return torch.repeat_interleave(torch.tensor(whole, device=batch.cu_seqlens.device), batch.cu_seqlens.diff())


def _summarise(totals: _Totals, groups: Sequence[Group], version: Version, *, own_anchor: bool) -> dict[str, Any]:
    terms = totals.terms
    residual_N = torch.cat([t.residual_N for t in terms])
    delta_N = torch.cat([t.delta_N for t in terms])
    weight_N = torch.cat([t.weight_N for t in terms])
    log_rho_N = torch.cat([t.log_rho_N for t in terms])
    log_rho_T = torch.cat(totals.log_rho_T)
    gap_T = torch.cat(totals.gap_T)
    completions = [c for g in groups for c in g.completions]
    stale = [version.n - min(v.n for v in g.versions()) for g in groups if _same_epoch(g, version)]
    return {
        "loss": float(sum(float(t.loss.detach()) for t in terms)),
        "residual_mean": float(residual_N.mean()),
        "residual_std": float(residual_N.std()),
        "delta_mean": None if own_anchor else float(delta_N.mean()),
        "delta_std": None if own_anchor else float(delta_N.std()),
        "target_mean": float(torch.cat([t.target_N for t in terms]).mean()),
        "no_signal_share": sum(not _has_signal(g) for g in groups) / len(groups),
        "weight_mean": float(weight_N.mean()),
        "weight_clipped_share": float(torch.cat([t.clipped_N for t in terms]).float().mean()),
        "effective_sample_size": effective_sample_size(weight_N),
        "log_rho_mean": float(log_rho_N.mean()),
        "log_rho_std": float(log_rho_N.std()),
        "log_rho_token_mean": float(log_rho_T.mean()),
        "log_rho_token_std": float(log_rho_T.std()),
        "staleness_mean": sum(stale) / len(stale) if stale else None,
        "staleness_max": max(stale) if stale else None,
        "foreign_epoch_groups": len(groups) - len(stale),
        "mismatch": float(gap_T.mean()) if len(gap_T) else None,
        "entropy": totals.entropy_sum / totals.tokens,
        "reward_mean": float(sum(float(g.rewards.sum()) for g in groups) / len(completions)),
        "tokens": totals.tokens,
        "padding_share": totals.padding / totals.fed,
        "length_mean": totals.tokens / len(completions),
        "truncated_share": sum(c.finish_reason == "length" for c in completions) / len(completions),
        "tickets": [g.uid for g in groups],
    }


def _has_signal(group: Group) -> bool:
    return bool((group.rewards != group.rewards[0]).any())


def _same_epoch(group: Group, version: Version) -> bool:
    return all(v.epoch == version.epoch for v in group.versions())
