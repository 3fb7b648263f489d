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
from sppo.learner import batching, objective, targets
from sppo.learner.batching import MicroBatch
from sppo.learner.model import Policy, Snapshot
from sppo.learner.objective import LossStats
from sppo.learner.optim import Optimizer
from sppo.learner.targets import Item
from sppo.types import Group, Version


@dataclass(slots=True)
class _Totals:
    """What the micro-batches of one optimizer step add up to."""

    stats: list[LossStats] = field(default_factory=list)
    log_rho_T: list[Tensor] = field(default_factory=list)
    gap_T: list[Tensor] = field(default_factory=list)
    """|learner − engine| log-prob of tokens sampled wholly at the engines' version."""
    loss: float = 0.0
    kl_sum: float = 0.0
    weightless: int = 0
    """Groups whose trained completions all have weight 0."""
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

    def train(
        self, groups: Sequence[Group], version: Version, published: Version | None = None
    ) -> Iterator[dict[str, Any]]:
        """One batch at the weights of `version`: yields the metrics of each optimizer step after it was taken.

        `published` is what generators run; where it is not `version`, the policy's snapshot "anchor" holds it.
        """
        started = time.monotonic()
        published = published or version
        items = targets.prepare(groups, self._config)
        size = len(items) // self._config.mini_batches
        parts = [items[i * size : (i + 1) * size] for i in range(self._config.mini_batches)]
        anchors = self._anchors(parts, version, published)
        anchor_s = time.monotonic() - started
        for number, (part, anchor) in enumerate(zip(parts, anchors, strict=True), start=1):
            step = _Step(self._config, self._policy, part, anchor, version, published, number)
            step.differentiate()
            norm, clipped = self._optimizer.step(version.n + number)
            self._policy.refresh()
            yield step.summary() | {
                "step": version.n + number,
                "grad_norm": norm,
                "grad_clipped": clipped,
                "lr": self._optimizer.learning_rate(version.n + number),
                "anchor_s": anchor_s if number == 1 else 0.0,
            }

    @torch.no_grad()
    def mismatch(self, groups: Sequence[Group], version: Version, snapshot: Snapshot | None = None) -> float | None:
        """Mean |engine − learner| log-prob over completions sampled wholly at `version`; None if there are none.

        The weights of `version` are those of the snapshot, or the policy's own.
        """
        fresh = [g for g in groups if any(_whole(c, version) for c in g.completions)]
        if not fresh:
            return None
        with self._policy.using(snapshot):
            gaps = [
                (self._policy.logprobs(batch)[0] - batch.behavior_T).abs()[_at_version(batch, fresh, version)]
                for batch in _plan(fresh, range(len(fresh)), self._config, self._policy.device)
            ]
        return float(torch.cat(gaps).mean())

    def _anchors(self, parts: Sequence[list[Item]], version: Version, published: Version) -> list[list[Tensor] | None]:
        """Anchor log-probs of each micro-batch of each mini-batch, before any weight moves; None: taken from the step.

        The first mini-batch is its own anchor, unless the anchor is a snapshot of older weights.
        """
        if self._config.anchor == "behavior":
            return [None] * len(parts)
        if self._config.anchor == "iteration" and published.n != version.n:
            with self._policy.using("anchor"):
                return [self._score(part) for part in parts]
        return [None, *[self._score(part) for part in parts[1:]]]

    def _score(self, items: Sequence[Item]) -> list[Tensor]:
        return _score(self._policy, _micro_batches(items, self._config, self._policy.device))


class _Step:
    """One optimizer step over one mini-batch."""

    def __init__(
        self, config: LearnerConfig, policy: Policy, items: Sequence[Item], anchors: list[Tensor] | None,
        version: Version, published: Version, number: int,
    ) -> None:  # fmt: skip
        self._config, self._policy, self._items, self._anchors = config, policy, items, anchors
        self._version, self._published, self._number = version, published, number
        self._fed = [item.fed for item in items]
        self._normalizer = sum(int(item.keep_K.sum()) for item in items)
        self._totals = _Totals()
        self._own_anchor = anchors is None and config.anchor != "behavior"
        self._started = time.monotonic()

    def differentiate(self) -> None:
        """Forward and backward over every micro-batch: the gradients are then in the policy's master weights."""
        references = self._references()
        for i, batch in enumerate(_micro_batches(self._items, self._config, self._policy.device)):
            self._micro_batch(i, batch, references[i] if references else None)

    def _references(self) -> list[Tensor] | None:
        if not self._config.kl_coef:
            return None
        with self._policy.using("reference"):
            return _score(self._policy, _micro_batches(self._items, self._config, self._policy.device))

    def _micro_batch(self, i: int, batch: MicroBatch, reference_T: Tensor | None) -> None:
        items = [self._items[g] for g in batch.groups]
        differentiate = self._has_gradient(items)
        with torch.set_grad_enabled(differentiate):
            logprob_T, entropy_T = self._policy.logprobs(batch, entropy=True)
            assert entropy_T is not None
            anchor_T = self._anchor(i, batch, logprob_T)
            loss, stats, keep_T = self._loss(batch, items, logprob_T, anchor_T)
            self._totals.loss += float(loss.detach())
            weight_T = torch.repeat_interleave(stats.weight_N, stats.length_N.long()) / self._normalizer
            if reference_T is not None:
                kl_T = objective.kl_k3(logprob_T, reference_T)[keep_T]
                loss = loss + self._config.kl_coef * (weight_T * kl_T).sum()
                self._totals.kl_sum += float(kl_T.detach().sum())
            if self._config.entropy_coef:
                loss = loss - self._config.entropy_coef * (weight_T * entropy_T[keep_T]).sum()
        if differentiate:
            loss.backward()  # type: ignore[no-untyped-call]
        sizes = torch.tensor([0] + [int(item.keep_K.sum()) for item in items], device=stats.weight_N.device)
        self._totals.weightless += int((objective.segment_sum(stats.weight_N, sizes.cumsum(0)) == 0).sum())
        self._add(batch, stats, logprob_T.detach(), anchor_T, entropy_T.detach(), keep_T)

    def _has_gradient(self, items: Sequence[Item]) -> bool:
        """Where Δ ≡ 0, groups whose scores are all equal have residual 0: they are measured, not differentiated."""
        extra = self._config.kl_coef or self._config.entropy_coef or self._config.target == "batch_softmean"
        return not self._own_anchor or bool(extra) or any(item.group.has_signal for item in items)

    def _anchor(self, i: int, batch: MicroBatch, logprob_T: Tensor) -> Tensor:
        if self._config.anchor == "behavior":
            return batch.behavior_T
        return logprob_T.detach() if self._anchors is None else self._anchors[i]

    def _loss(
        self, batch: MicroBatch, items: Sequence[Item], logprob_T: Tensor, anchor_T: Tensor
    ) -> tuple[Tensor, LossStats, Tensor]:
        """The loss of the kept completions, and which tokens are theirs [T]."""
        config = self._config
        _, log_rho_N, length_N = objective.sequence_log_ratios(
            logprob_T.detach(), anchor_T, batch.behavior_T, None, batch.cu_seqlens
        )
        weight_N, _ = objective.sequence_weights(config.weight, log_rho_N, length_N, cap=config.weight_cap or None)
        target_N = targets.resolve(items, config, weight_N)
        keep_N = torch.cat([item.keep_K for item in items]).to(target_N.device)
        keep_T = torch.repeat_interleave(keep_N, batch.cu_seqlens.diff())
        kept_before = torch.nn.functional.pad(keep_N.long().cumsum(0), (1, 0))
        loss, stats = objective.sppo_loss(
            logprob_T[keep_T],
            anchor_T[keep_T],
            batch.behavior_T[keep_T],
            None,
            torch.nn.functional.pad(batch.cu_seqlens.diff()[keep_N].cumsum(0), (1, 0)),
            target_N[keep_N],
            eta=config.eta,
            group_offsets=kept_before[batch.group_offsets],
            centered=config.target == "centered",
            weight_mode=config.weight,
            cap=config.weight_cap or None,
            length_normalized=config.length_normalize,
            normalizer=self._normalizer,
        )
        return loss, stats, keep_T

    def _add(
        self, batch: MicroBatch, stats: LossStats, logprob_T: Tensor, anchor_T: Tensor, entropy_T: Tensor,
        keep_T: Tensor,
    ) -> None:  # fmt: skip
        totals = self._totals
        totals.stats.append(stats)
        totals.log_rho_T.append((anchor_T - batch.behavior_T)[keep_T])
        if self._config.anchor != "behavior" or self._number == 1:
            at_T = logprob_T if self._config.anchor == "behavior" else anchor_T
            fresh_T = _at_version(batch, self._fed, self._published)
            totals.gap_T.append((at_T - batch.behavior_T).abs()[fresh_T])
        totals.entropy_sum += float(entropy_T[keep_T].sum())
        totals.tokens += int(keep_T.sum())
        totals.fed += batch.tokens_BL.numel()
        totals.padding += batch.padding

    def summary(self) -> dict[str, Any]:
        """The step's metrics, but for those of the update."""
        totals, groups = self._totals, [item.group for item in self._items]
        joined = {name: torch.cat([getattr(s, name) for s in totals.stats]) for name in LossStats.__slots__}
        log_rho_T, gap_T = torch.cat(totals.log_rho_T), torch.cat(totals.gap_T or [torch.zeros(0)])
        completions = [c for g in groups for c in g.completions]
        rewards = [float(r) for g in groups if g.rewards is not None for r in g.rewards]
        stale = [self._version.n - min(v.n for v in g.versions()) for g in groups if _same_epoch(g, self._version)]
        return {
            "loss": totals.loss,
            "residual_mean": float(joined["residual_N"].mean()),
            "residual_std": _std(joined["residual_N"]),
            "delta_mean": None if self._own_anchor else float(joined["delta_N"].mean()),
            "delta_std": None if self._own_anchor else _std(joined["delta_N"]),
            "target_mean": float(joined["target_N"].mean()),
            "no_signal_share": sum(not g.has_signal for g in groups) / len(groups),
            "groups_without_weight": totals.weightless,
            "weight_mean": float(joined["weight_N"].mean()),
            "weight_clipped_share": float(joined["clipped_N"].float().mean()),
            "effective_sample_size": objective.effective_sample_size(joined["weight_N"]),
            "log_rho_mean": float(joined["log_rho_N"].mean()),
            "log_rho_std": _std(joined["log_rho_N"]),
            "log_rho_token_mean": float(log_rho_T.mean()),
            "log_rho_token_std": _std(log_rho_T),
            "staleness_mean": sum(stale) / len(stale) if stale else None,
            "staleness_max": max(stale) if stale else None,
            "foreign_epoch_groups": len(groups) - len(stale),
            "mismatch": float(gap_T.mean()) if len(gap_T) else None,
            "kl": totals.kl_sum / totals.tokens if self._config.kl_coef else None,
            "entropy": totals.entropy_sum / totals.tokens,
            "reward_mean": sum(rewards) / len(rewards) if rewards else None,
            "tokens": totals.tokens,
            "padding_share": totals.padding / totals.fed,
            "length_mean": totals.tokens / self._normalizer,
            "generated_length_mean": sum(len(c.token_ids) for c in completions) / len(completions),
            "truncated_share": sum(c.finish_reason == "length" for c in completions) / len(completions),
            "tickets": [g.uid for g in groups],
            "step_s": time.monotonic() - self._started,
        }


@torch.no_grad()
def _score(policy: Policy, batches: Iterator[MicroBatch]) -> list[Tensor]:
    return [policy.logprobs(batch)[0] for batch in batches]


def _micro_batches(items: Sequence[Item], config: LearnerConfig, device: str) -> Iterator[MicroBatch]:
    """Whole groups in each; those whose scores differ apart from those whose scores are all equal."""
    for signal in (True, False):
        chosen = [i for i, item in enumerate(items) if item.group.has_signal is signal]
        yield from _plan([item.fed for item in items], chosen, config, device)


def _plan(groups: Sequence[Group], chosen: Sequence[int], config: LearnerConfig, device: str) -> Iterator[MicroBatch]:
    for part in batching.plan([groups[i] for i in chosen], config.micro_batch_tokens, config.share_prompt):
        members = [chosen[i] for i in part]
        yield batching.collate(groups, members, share_prompt=config.share_prompt, device=device)


def _whole(completion: Any, version: Version) -> bool:
    return all(span.version == version for span in completion.spans)


def _at_version(batch: MicroBatch, groups: Sequence[Group], version: Version) -> Tensor:
    """[T] True for tokens of completions that `version` sampled from beginning to end."""
    whole = [_whole(c, version) for i in batch.groups for c in groups[i].completions]
    return torch.repeat_interleave(torch.tensor(whole, device=batch.cu_seqlens.device), batch.cu_seqlens.diff())


def _same_epoch(group: Group, version: Version) -> bool:
    return all(v.epoch == version.epoch for v in group.versions())


def _std(values: Tensor) -> float:
    """Standard deviation; 0 for a single value."""
    return float(values.std()) if len(values) > 1 else 0.0
