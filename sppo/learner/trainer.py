"""Trains a policy on batches of groups, and compares it with the engines.

    batch ── what is fed, by whom ──▶ log-probs that stand still ──▶ step, step, ... ──▶ records

A batch is trained in `learner.mini_batches` disjoint mini-batches, `learner.epochs` times over;
each is one optimizer step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from sppo.config import RunConfig
from sppo.learner import batching, feed, objectives, shares, summary
from sppo.learner.feed import ByCompletion
from sppo.learner.gaps import Gaps
from sppo.learner.groups import InHand
from sppo.learner.model import Snapshot
from sppo.learner.objectives import Objective, anchors
from sppo.learner.optim import Optimizer, Update
from sppo.learner.orders import AnyPolicy, Mismatch, Packed, Rank, Train
from sppo.learner.ranks import Ranks, Solo
from sppo.learner.shares import Item, Share
from sppo.learner.step import Fixed, Step
from sppo.types import Group, Version


class Trainer:
    """One rank's; rank 0 calls `train` and `mismatch`."""

    def __init__(
        self, config: RunConfig, policy: AnyPolicy, optimizer: Optimizer,
        team: Ranks | None = None, objective: Objective | None = None,
    ) -> None:  # fmt: skip
        self._config = config
        self._policy = policy
        self._optimizer = optimizer
        self._team = team or Solo()
        self._objective = objective or objectives.make(config.objective)
        self._anchor = anchors.make(config.objective.anchor, config.objective.iteration_steps)
        self._comparable = config.policy_temperature == config.sampling.temperature
        """Whether a step's log-probs are at the temperature at which engines report theirs."""
        self.gaps = Gaps.join([])
        """|engine − learner| of the last batch's tokens, where engines and learner had equal
        weights.
        """

    def train(
        self, groups: Sequence[Group], version: Version, published: Version | None = None
    ) -> Iterator[dict[str, Any]]:
        """One batch at the weights of `version`: yields the metrics of each optimizer step after it
        was taken, or skipped: `skipped` then says why.

        `published` is what generators run; where it is not `version`, the policy's snapshot
        "anchor" holds it.
        """
        started, published = time.monotonic(), published or version
        learner = self._config.learner
        seed = f"{self._config.seed} {version.n}"
        items = shares.select(self._objective, groups)
        steps = shares.mini_batches(items, learner.mini_batches, learner.epochs, seed)
        fed = [
            shares.fed_items(part, own_anchor=self._own(i, version, published), seed=version.n)
            for i, part in enumerate(steps)
        ]
        taken = self._rank(groups).stream(self._order(steps, fed, version, published))
        self.gaps = Gaps.join([])
        for i, (part, seen, (measured, update)) in enumerate(zip(steps, fed, taken, strict=True)):
            anchor_s = 0.0 if i else measured[0]["anchor_s"]
            gaps = summary.gaps(measured)
            self.gaps = Gaps.join([self.gaps, gaps])
            at = Version(epoch=version.epoch, n=version.n + i)
            record = summary.metrics(
                part, seen, measured, self._objective, at, comparable=self._comparable
            )
            yield _finished(
                record
                | {
                    "mismatch": gaps.mean,
                    "step": at.n + 1,
                    "grad_norm": update.norm,
                    "grad_clipped": update.clipped,
                    "lr": self._optimizer.learning_rate(at.n + 1),
                    "anchor_s": anchor_s,
                    "step_s": time.monotonic() - started - anchor_s,
                },
                update,
            )
            started = time.monotonic()

    def take_steps(
        self, shares: Sequence[Sequence[Packed]], sizes: Sequence[Mapping[str, int]],
        groups: Mapping[str, Group], version: Version, published: Version,
    ) -> Iterator[tuple[list[dict[str, Any]], Update]]:  # fmt: skip
        """Every rank: an optimizer step for each of its shares. Yields every rank's totals (on rank
        0), and what became of the weights.
        """
        started = time.monotonic()
        own = [Share.unpack(*share, groups) for share in zip(shares, sizes, strict=True)]
        fixed = self._fixed([share.items for share in own], version, published)
        anchor_s = time.monotonic() - started
        stands = fixed.source != "behavior" and "anchor" in self._objective.needs
        for i, share in enumerate(own):
            there = self._comparable and (stands or (i == 0 and published.n == version.n))
            step = Step(
                self._objective, self._config.learner, self._policy, self._team, share, fixed,
                first=i == 0, engines=published if there else None,
            )  # fmt: skip
            flaw = step.differentiate()
            n = version.n + i + 1
            update = self._optimizer.skip(n, flaw) if flaw else self._optimizer.step(n)
            self._policy.refresh()
            yield self._team.gather(step.totals.pack() | {"anchor_s": anchor_s}), update

    def _own(self, i: int, version: Version, published: Version) -> bool:
        """Whether the policy is its own anchor in step `i` of the batch."""
        return i == 0 and self._anchor.source(version.n, published.n) == "policy"

    def _order(
        self, steps: Sequence[list[Item]], fed: Sequence[list[Item]], version: Version,
        published: Version,
    ) -> Train:  # fmt: skip
        """Each rank's share of what is fed. Losses are normalised over all of `steps`."""
        dealt = shares.deal(fed, self._team.size, self._config.learner.share_prompt)
        return Train(
            shares=[[[item.pack() for item in items] for items in ranks] for ranks in dealt],
            sizes=[asdict(shares.Sizes.of(items)) for items in steps],
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
    def _fixed(self, parts: Sequence[list[Item]], version: Version, published: Version) -> Fixed:
        """Log-probs under anchor and reference, before any weight moves. The first step that is its
        own anchor adds its own.
        """
        needs, fixed = self._objective.needs, Fixed(self._anchor.source(version.n, published.n))
        if "anchor" in needs and fixed.source != "behavior":
            own = fixed.source == "policy"
            there = {item.group.uid for item in parts[0]} if own else set()
            with self._policy.using(None if own else "anchor"):
                for part in parts[own:]:
                    self._score([i for i in part if i.group.uid not in there], fixed.anchor)
        if "reference" in needs:
            with self._policy.using("reference"):
                for part in parts:
                    self._score(part, fixed.reference)
        return fixed

    def _score(self, items: Sequence[Item], known: ByCompletion) -> None:
        """Add the log-probs of those that are not known, in the micro-batches of a step."""
        config, new = self._config.learner, [item for item in items if item not in known]
        rows = self._policy.family.rows(config.share_prompt)
        schedule = feed.schedule(
            new, self._objective.scope, config, self._team, rows, own_anchor=False
        )
        for parts in schedule.all():
            batch, members = feed.lay_out(new, parts, rows, self._policy.device)
            logprob_T, _ = self._policy.logprobs(batch)
            if members:
                known.add(members, logprob_T)

    @torch.no_grad()
    def mismatch(
        self, groups: Sequence[Group], version: Version, snapshot: Snapshot | None = None
    ) -> Gaps:
        """|engine − learner| log-prob of the tokens of completions sampled wholly at `version`.

        The weights of `version` are those of the snapshot, or the policy's own.
        """
        fresh = [g for g in _told(groups) if any(c.whole(version) for c in g.completions)]
        if not fresh:
            return Gaps.join([])
        items = [
            Item.of(g, [True] * (k := len(g.completions)), [True] * k, None, idle=False)
            for g in fresh
        ]
        ranks = shares.deal([items], self._team.size, self._config.learner.share_prompt)[0]
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
        config, groups, found = self._config.learner, _told(groups), []
        rows = self._policy.family.rows(config.share_prompt)
        with self._policy.using(snapshot):
            plan = batching.plan(groups, config.micro_batch_tokens, rows)
            for parts in [*plan, *([[]] * (self._team.most([len(plan)])[0] - len(plan)))]:
                batch = batching.collate(groups, parts, rows=rows, device=self._policy.device)
                gap_T = (self._policy.logprobs(batch, sampled=True)[0] - batch.behavior_T).abs()
                whole = [
                    c.whole(version)
                    for part in parts
                    for c in groups[part.group].completions[part.start : part.stop]
                ]
                lengths = batch.cu_seqlens.diff()
                fresh_T = torch.tensor(whole, dtype=torch.bool, device=lengths.device)
                fresh_T = fresh_T.repeat_interleave(lengths)
                found.append(Gaps.of(gap_T, batch.cu_seqlens, fresh_T))
        return [Gaps.unpack(packed) for packed in self._team.gather(Gaps.join(found).pack())]


def _told(groups: Sequence[Group]) -> list[Group]:
    """Without completions that have no token, and groups of such alone: no row can hold them."""
    kept = [g.only([i for i, c in enumerate(g.completions) if len(c.token_ids)]) for g in groups]
    return [group for group in kept if group.completions]


def _finished(record: dict[str, Any], update: Update) -> dict[str, Any]:
    """A step that was skipped has no figure that is not a number."""
    if not update.flaw:
        return record | {"skipped": None}
    figure = "" if math.isfinite(record["loss"]) else f" (loss {record['loss']})"
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }
    return plain | {"skipped": update.flaw + figure}
