"""One batch: mini-batches, each one optimizer step over micro-batches of whole groups.

With several ranks (`sppo.learner.ranks`) each takes a share of the groups of every mini-batch,
balanced by tokens. All go through the model equally often, because the weights are gathered each
time: a rank that has nothing left feeds an empty micro-batch. The loss is normalised over the whole
mini-batch, so gradients are those of one rank.

Shape suffixes: T completion tokens of a micro-batch, N its completions.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sppo import kernels
from sppo.config import LearnerConfig, ObjectiveConfig, RunConfig
from sppo.kernels import LossStats
from sppo.learner import batching, objective, targets
from sppo.learner.batching import MicroBatch
from sppo.learner.gaps import Gaps
from sppo.learner.groups import InHand
from sppo.learner.model import Snapshot
from sppo.learner.optim import Optimizer
from sppo.learner.orders import AnyPolicy, Mismatch, Packed, Rank, Train
from sppo.learner.ranks import Ranks, Solo
from sppo.learner.targets import Item
from sppo.types import Completion, Group, Version

_NONE = torch.zeros(0)
PROBED_SHARE = 8
"""One in so many of the groups that need not go through the model does, for its metrics."""


@dataclass(slots=True)
class _Totals:
    """What the micro-batches of one optimizer step add up to, on this rank."""

    stats: list[LossStats] = field(default_factory=list)
    log_rho_T: list[Tensor] = field(default_factory=list)
    gaps: list[Gaps] = field(default_factory=list)
    """Of the tokens sampled wholly at the engines' version."""
    loss: float = 0.0
    kl_sum: float = 0.0
    weightless: int = 0
    """Groups whose trained completions all have weight 0."""
    entropy_sum: float = 0.0
    fed: int = 0
    padding: int = 0

    def pack(self) -> dict[str, Any]:
        """For the rank that makes metrics of it: sums by name, and arrays as bytes."""
        sums = {name: getattr(self, name) for name in _SUMS}
        arrays = {
            name: [getattr(s, name).float() for s in self.stats] for name in LossStats.__slots__
        }
        arrays |= {"log_rho_T": self.log_rho_T}
        packed = {
            name: torch.cat(parts).cpu().numpy().tobytes() if parts else b""
            for name, parts in arrays.items()
        }
        return sums | packed | {"gaps": Gaps.join(self.gaps).pack()}


_SUMS = ("loss", "kl_sum", "weightless", "entropy_sum", "fed", "padding")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """This rank's part of one mini-batch."""

    items: list[Item]
    normalizer: int
    """Trained completions of the whole mini-batch."""


class Trainer:
    """Trains a policy on batches of groups."""

    def __init__(
        self,
        config: RunConfig,
        policy: AnyPolicy,
        optimizer: Optimizer,
        team: Ranks | None = None,
    ) -> None:
        self._run = config
        self._config, self._objective = config.learner, config.objective
        self._policy = policy
        self._optimizer = optimizer
        self._team = team or Solo()
        self.gaps = Gaps.join([])
        """|engine − learner| of the last batch's tokens, where engines and learner had equal
        weights.
        """

    def train(
        self, groups: Sequence[Group], version: Version, published: Version | None = None
    ) -> Iterator[dict[str, Any]]:
        """One batch at the weights of `version`: yields the metrics of each optimizer step after it
        was taken.

        `published` is what generators run; where it is not `version`, the policy's snapshot
        "anchor" holds it.
        """
        started = time.monotonic()
        published = published or version
        items = targets.prepare(groups, self._objective)
        size = len(items) // self._config.mini_batches
        parts = [items[i * size : (i + 1) * size] for i in range(self._config.mini_batches)]
        fed = [self._with_a_gradient(parts[0], version, published), *parts[1:]]
        order = self._order(parts, fed, version, published)
        steps = self._rank(groups).stream(order)
        self.gaps = Gaps.join([])
        for number, (part, seen, (measured, norm, clipped)) in enumerate(
            zip(parts, fed, steps, strict=True), start=1
        ):
            if number == 1:
                anchor_s = measured[0]["anchor_s"]
            gaps = Gaps.join([Gaps.unpack(m["gaps"]) for m in measured])
            self.gaps = Gaps.join([self.gaps, gaps])
            yield _summary(part, seen, measured, self._objective, version) | {
                "mismatch": gaps.mean,
                "step": version.n + number,
                "grad_norm": norm,
                "grad_clipped": clipped,
                "lr": self._optimizer.learning_rate(version.n + number),
                "anchor_s": anchor_s if number == 1 else 0.0,
                "step_s": time.monotonic() - started - (anchor_s if number == 1 else 0.0),
            }
            started = time.monotonic()

    def take_steps(
        self, shares: Sequence[Sequence[Packed]], normalizers: Sequence[int],
        groups: Mapping[str, Group], version: Version, published: Version,
    ) -> Iterator[tuple[list[dict[str, Any]], float, bool]]:  # fmt: skip
        """Every rank: an optimizer step for each of its shares. Yields every rank's totals (on rank
        0), the norm, and whether it was clipped.
        """
        started = time.monotonic()
        own = [unpack_share(*share, groups) for share in zip(shares, normalizers, strict=True)]
        anchors = self._anchors([share.items for share in own], version, published)
        anchor_s = time.monotonic() - started
        for number, (share, anchor) in enumerate(zip(own, anchors, strict=True), start=1):
            step = _Step(self._run, self._policy, self._team, share, anchor, published, number)
            step.differentiate()
            norm, clipped = self._optimizer.step(version.n + number)
            self._policy.refresh()
            yield (
                self._team.gather(
                    step.totals.pack() | {"anchor_s": anchor_s, "own_anchor": step.own_anchor}
                ),
                norm,
                clipped,
            )

    def _with_a_gradient(
        self, items: list[Item], version: Version, published: Version
    ) -> list[Item]:
        """The groups of a batch's first mini-batch that go through the model.

        Where Δ ≡ 0 the gradient of a group whose scores are all equal is zero, so it stays out, but
        for a sample of such groups that tells of the metrics of the others.
        """
        config = self._objective
        own_anchor = config.anchor == "proximal" or (
            config.anchor == "iteration" and published.n == version.n
        )
        if not own_anchor or _regularised(config):
            return items
        idle = [i for i, item in enumerate(items) if not item.group.has_signal]
        probed = random.Random(version.n).sample(idle, -(-len(idle) // PROBED_SHARE))
        out = set(idle) - set(probed)
        return [item for i, item in enumerate(items) if i not in out]

    def _order(
        self, parts: Sequence[list[Item]], fed: Sequence[list[Item]], version: Version,
        published: Version,
    ) -> Train:  # fmt: skip
        """Each rank's share of what is fed. The loss is normalised over all of `parts`."""
        split = [_balance(part, self._team.size, self._config.share_prompt) for part in fed]
        return Train(
            shares=[[[_packed(item) for item in items] for items in ranks] for ranks in split],
            normalizers=[_trained(part) for part in parts],
            version=str(version),
            published=str(published),
        )

    def _rank(self, groups: Sequence[Group]) -> Rank:
        """Rank 0 with these groups in hand."""
        return Rank(
            team=self._team, policy=self._policy, optimizer=self._optimizer, trainer=self,
            groups=InHand(self._team, groups),
        )  # fmt: skip

    @torch.no_grad()
    def mismatch(
        self, groups: Sequence[Group], version: Version, snapshot: Snapshot | None = None
    ) -> Gaps:
        """|engine − learner| log-prob of the tokens of completions sampled wholly at `version`.

        The weights of `version` are those of the snapshot, or the policy's own.
        """
        fresh = [g for g in groups if any(_whole(c, version) for c in g.completions)]
        if not fresh:
            return Gaps.join([])
        items = [
            targets.item(g, torch.ones(len(g.completions), dtype=torch.bool), None) for g in fresh
        ]
        ranks = _balance(items, self._team.size, self._config.share_prompt)
        order = Mismatch(
            groups=[[(item.group.uid, item.group.gid) for item in share] for share in ranks],
            version=str(version),
            snapshot=snapshot,
        )
        return Gaps.join(list(self._rank(fresh).stream(order)))

    @torch.no_grad()
    def measure(
        self, groups: Sequence[Group], version: Version, snapshot: Snapshot | None
    ) -> list[Gaps]:
        """Every rank: the gaps of the tokens of its groups that are of `version`; every rank's on
        rank 0.
        """
        gaps = []
        with self._policy.using(snapshot):
            plan = batching.plan(groups, self._config.micro_batch_tokens, self._config.share_prompt)
            for members in _rounds(plan, self._team):
                batch = _collate(groups, members, self._config, self._policy.device)
                gap_T = (self._policy.logprobs(batch)[0] - batch.behavior_T).abs()
                if members:
                    gaps.append(
                        Gaps.of(gap_T, batch.cu_seqlens, _at_version(batch, groups, version))
                    )
        return [Gaps.unpack(packed) for packed in self._team.gather(Gaps.join(gaps).pack())]

    def _anchors(
        self, parts: Sequence[list[Item]], version: Version, published: Version
    ) -> list[list[Tensor] | None]:
        """Anchor log-probs of each micro-batch of each mini-batch, before any weight moves; None:
        taken from the step.

        The first mini-batch is its own anchor, unless the anchor is a snapshot of older weights.
        """
        if self._objective.anchor == "behavior":
            return [None] * len(parts)
        if self._objective.anchor == "iteration" and published.n != version.n:
            with self._policy.using("anchor"):
                return [self._score(part) for part in parts]
        return [None, *[self._score(part) for part in parts[1:]]]

    def _score(self, items: Sequence[Item]) -> list[Tensor]:
        return _score(
            self._policy, _micro_batches(items, self._config, self._team, self._policy.device)
        )


class _Step:
    """One optimizer step over this rank's share of a mini-batch."""

    def __init__(
        self, config: RunConfig, policy: AnyPolicy, team: Ranks, share: Share,
        anchors: list[Tensor] | None,
        published: Version, number: int,
    ) -> None:  # fmt: skip
        self._config, self._objective = config.learner, config.objective
        self._policy, self._team, self._anchors = policy, team, anchors
        self._items, self._normalizer = share.items, share.normalizer
        self._published, self._number = published, number
        self._fed = [item.fed for item in share.items]
        self.own_anchor = anchors is None and config.objective.anchor != "behavior"
        self.totals = _Totals()

    def differentiate(self) -> None:
        """Forward and backward over every micro-batch: the gradients are then in the policy's
        master weights.
        """
        references = self._references()
        for i, (signal, batch) in enumerate(self._batches()):
            self._micro_batch(i, signal, batch, references[i] if references else None)

    def _batches(self) -> Iterator[tuple[bool, MicroBatch]]:
        return _micro_batches(self._items, self._config, self._team, self._policy.device)

    def _references(self) -> list[Tensor] | None:
        if not self._objective.kl_coef:
            return None
        with self._policy.using("reference"):
            return _score(self._policy, self._batches())

    def _micro_batch(
        self, i: int, signal: bool, batch: MicroBatch, reference_T: Tensor | None
    ) -> None:
        items = [self._items[g] for g in batch.groups]
        differentiate = signal or self._has_gradient()
        with torch.set_grad_enabled(differentiate):
            logprob_T, entropy_T = self._policy.logprobs(batch, entropy=True)
            assert entropy_T is not None
            if not items:  # an empty share of this round: only the collectives count
                if differentiate:
                    (0.0 * (logprob_T.sum() + entropy_T.sum())).backward()  # type: ignore[no-untyped-call]
                return
            anchor_T = self._anchor(i, batch, logprob_T)
            loss, stats, keep_T = self._loss(batch, items, logprob_T, anchor_T)
            self.totals.loss += float(loss.detach())
            weight_T = (
                torch.repeat_interleave(stats.weight_N, stats.length_N.long()) / self._normalizer
            )
            if reference_T is not None:
                kl_T = objective.kl_k3(logprob_T, reference_T)[keep_T]
                loss = loss + self._objective.kl_coef * (weight_T * kl_T).sum()
                self.totals.kl_sum += float(kl_T.detach().sum())
            if self._objective.entropy_coef:
                loss = loss - self._objective.entropy_coef * (weight_T * entropy_T[keep_T]).sum()
        if differentiate:
            loss.backward()  # type: ignore[no-untyped-call]
        sizes = torch.tensor(
            [0] + [int(item.keep_K.sum()) for item in items], device=stats.weight_N.device
        )
        self.totals.weightless += int(
            (kernels.segment_sum(stats.weight_N, sizes.cumsum(0)) == 0).sum()
        )
        self._add(batch, stats, logprob_T.detach(), anchor_T, entropy_T.detach(), keep_T)

    def _has_gradient(self) -> bool:
        """Where Δ ≡ 0, groups whose scores are all equal have residual 0: they are measured, not
        differentiated.
        """
        return not self.own_anchor or _regularised(self._objective)

    def _anchor(self, i: int, batch: MicroBatch, logprob_T: Tensor) -> Tensor:
        if self._objective.anchor == "behavior":
            return batch.behavior_T
        return logprob_T.detach() if self._anchors is None else self._anchors[i]

    def _loss(
        self, batch: MicroBatch, items: Sequence[Item], logprob_T: Tensor, anchor_T: Tensor
    ) -> tuple[Tensor, LossStats, Tensor]:
        """The loss of the kept completions, and which tokens are theirs [T]."""
        config, kernel = self._objective, self._config.kernels
        _, log_rho_N, length_N = kernels.sequence_log_ratios(
            logprob_T.detach(),
            anchor_T,
            batch.behavior_T,
            None,
            batch.cu_seqlens,
            backend=kernel,
        )
        weight_N, _ = kernels.sequence_weights(
            config.weight, log_rho_N, length_N, cap=config.weight_cap or None
        )
        target_N = targets.resolve(items, config, weight_N)
        keep_N = torch.cat([item.keep_K for item in items]).to(target_N.device)
        keep_T = torch.repeat_interleave(keep_N, batch.cu_seqlens.diff())
        kept_before = torch.nn.functional.pad(keep_N.long().cumsum(0), (1, 0))
        loss, stats = kernels.sppo_loss(
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
            backend=kernel,
        )
        return loss, stats, keep_T

    def _add(
        self, batch: MicroBatch, stats: LossStats, logprob_T: Tensor, anchor_T: Tensor,
        entropy_T: Tensor,
        keep_T: Tensor,
    ) -> None:  # fmt: skip
        totals = self.totals
        totals.stats.append(stats)
        totals.log_rho_T.append((anchor_T - batch.behavior_T)[keep_T])
        if self._objective.anchor != "behavior" or self._number == 1:
            at_T = logprob_T if self._objective.anchor == "behavior" else anchor_T
            fresh_T = _at_version(batch, self._fed, self._published)
            totals.gaps.append(Gaps.of((at_T - batch.behavior_T).abs(), batch.cu_seqlens, fresh_T))
        totals.entropy_sum += float(entropy_T[keep_T].sum())
        totals.fed += batch.tokens_BL.numel()
        totals.padding += batch.padding


def _regularised(config: ObjectiveConfig) -> bool:
    """Whether a group whose scores are all equal has a gradient even where Δ ≡ 0."""
    return bool(config.kl_coef or config.entropy_coef or config.target == "batch_softmean")


def _trained(items: Sequence[Item]) -> int:
    return sum(int(item.keep_K.sum()) for item in items)


def _trained_completions(items: Sequence[Item]) -> list[Completion]:
    return [
        c
        for item in items
        for c, keep in zip(item.fed.completions, item.keep_K.tolist(), strict=True)
        if keep
    ]


def _summary(
    items: Sequence[Item], fed: Sequence[Item], measured: Sequence[dict[str, Any]],
    config: ObjectiveConfig,
    version: Version,
) -> dict[str, Any]:  # fmt: skip
    """A step's metrics, but for those of the update, from every rank's totals and the groups of all
    of them.

    Groups that did not go through the model are counted with what the engine said of them: −log μ
    for the entropy.
    """
    groups = [item.group for item in items]
    within = {id(item) for item in fed}
    unseen = _trained_completions([item for item in items if id(item) not in within])
    unseen_entropy = -sum(float(c.behavior_logprobs.sum()) for c in unseen)
    tokens = sum(len(c.token_ids) for c in _trained_completions(items))
    sums = {name: sum(m[name] for m in measured) for name in _SUMS}
    joined = {
        name: torch.cat(
            [torch.frombuffer(bytearray(m[name]), dtype=torch.float32) for m in measured if m[name]]
            or [_NONE]
        )
        for name in (*LossStats.__slots__, "log_rho_T")
    }
    own_anchor = measured[0]["own_anchor"]
    completions = [c for g in groups for c in g.completions]
    rewards = [float(r) for g in groups if g.rewards is not None for r in g.rewards]
    stale = [version.n - min(v.n for v in g.versions()) for g in groups if _same_epoch(g, version)]
    return {
        "loss": sums["loss"],
        "residual_mean": float(joined["residual_N"].mean()),
        "residual_std": _std(joined["residual_N"]),
        "delta_mean": None if own_anchor else float(joined["delta_N"].mean()),
        "delta_std": None if own_anchor else _std(joined["delta_N"]),
        "target_mean": float(joined["target_N"].mean()),
        "no_signal_share": sum(not g.has_signal for g in groups) / len(groups),
        "groups_without_weight": sums["weightless"],
        "weight_mean": float(joined["weight_N"].mean()),
        "weight_clipped_share": float(joined["clipped_N"].mean()),
        "effective_sample_size": kernels.effective_sample_size(joined["weight_N"]),
        "log_rho_mean": float(joined["log_rho_N"].mean()),
        "log_rho_std": _std(joined["log_rho_N"]),
        "log_rho_token_mean": float(joined["log_rho_T"].mean()),
        "log_rho_token_std": _std(joined["log_rho_T"]),
        "staleness_mean": sum(stale) / len(stale) if stale else None,
        "staleness_max": max(stale) if stale else None,
        "foreign_epoch_groups": len(groups) - len(stale),
        "measured_share": _trained(fed) / _trained(items),
        "kl": sums["kl_sum"] / tokens if config.kl_coef else None,
        "entropy": (sums["entropy_sum"] + unseen_entropy) / tokens,
        "reward_mean": sum(rewards) / len(rewards) if rewards else None,
        "tokens": tokens,
        "padding_share": sums["padding"] / sums["fed"],
        "length_mean": tokens / _trained(items),
        "generated_length_mean": sum(len(c.token_ids) for c in completions) / len(completions),
        "truncated_share": sum(c.finish_reason == "length" for c in completions) / len(completions),
        "tickets": [g.uid for g in groups],
    }


def unpack_share(packed: Sequence[Packed], normalizer: int, groups: Mapping[str, Group]) -> Share:
    """Inverse of `_packed`, on the rank whose share it is."""

    def item(one: Packed) -> Item:
        target = one["target"]
        target_K = None if target is None else torch.tensor(target, dtype=torch.float32)
        return targets.item(
            groups[one["uid"]], torch.tensor(one["keep"], dtype=torch.bool), target_K
        )

    return Share(items=[item(one) for one in packed], normalizer=normalizer)


def _packed(item: Item) -> dict[str, Any]:
    """What another rank needs besides the group itself. Where the target is known, `keep_K` is of
    the fed ones.
    """
    group = item.group
    keep = item.keep_K.tolist()
    if item.target_K is not None:
        fed = {id(c) for c in item.fed.completions}
        keep = [id(c) in fed for c in group.completions]
    target = None if item.target_K is None else item.target_K.tolist()
    return {"uid": group.uid, "gid": group.gid, "keep": keep, "target": target}


def _balance(items: Sequence[Item], ranks: int, share_prompt: bool) -> list[list[Item]]:
    """Items for each rank, in their order: the longest first, each to the rank that has fewest
    tokens so far.
    """
    tokens = [sum(batching.row_tokens(item.fed, share_prompt)) for item in items]
    loads, owners = [0] * ranks, [0] * len(items)
    for i in sorted(range(len(items)), key=lambda i: -tokens[i]):
        owners[i] = loads.index(min(loads))
        loads[owners[i]] += tokens[i]
    return [
        [item for item, owner in zip(items, owners, strict=True) if owner == rank]
        for rank in range(ranks)
    ]


@torch.no_grad()
def _score(policy: AnyPolicy, batches: Iterator[tuple[bool, MicroBatch]]) -> list[Tensor]:
    return [policy.logprobs(batch)[0] for _, batch in batches]


def _micro_batches(
    items: Sequence[Item], config: LearnerConfig, team: Ranks, device: str
) -> Iterator[tuple[bool, MicroBatch]]:
    """Whole groups in each; those whose scores differ (True) apart from those whose scores are all
    equal.

    As many of each kind on every rank.
    """
    fed = [item.fed for item in items]
    for signal in (True, False):
        chosen = [i for i, item in enumerate(items) if item.group.has_signal is signal]
        plan = batching.plan(
            [fed[i] for i in chosen], config.micro_batch_tokens, config.share_prompt
        )
        for members in _rounds([[chosen[i] for i in part] for part in plan], team):
            yield signal, _collate(fed, members, config, device)


def _rounds(plan: Sequence[list[int]], team: Ranks) -> list[list[int]]:
    """The plan, with empty parts at its end where another rank's is longer."""
    return [*plan, *([[]] * (team.most([len(plan)])[0] - len(plan)))]


def _collate(
    groups: Sequence[Group], members: Sequence[int], config: LearnerConfig, device: str
) -> MicroBatch:
    if not members:
        return batching.empty(device)
    return batching.collate(groups, members, share_prompt=config.share_prompt, device=device)


def _whole(completion: Any, version: Version) -> bool:
    return all(span.version == version for span in completion.spans)


def _at_version(batch: MicroBatch, groups: Sequence[Group], version: Version) -> Tensor:
    """[T] True for tokens of completions that `version` sampled from beginning to end."""
    whole = [_whole(c, version) for i in batch.groups for c in groups[i].completions]
    return torch.repeat_interleave(
        torch.tensor(whole, device=batch.cu_seqlens.device), batch.cu_seqlens.diff()
    )


def _same_epoch(group: Group, version: Version) -> bool:
    return all(v.epoch == version.epoch for v in group.versions())


def _std(values: Tensor) -> float:
    """Standard deviation; 0 for a single value."""
    return float(values.std()) if len(values) > 1 else 0.0
