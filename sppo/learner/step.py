"""One optimizer step on this rank: forward and backward of its share, up to the gradients.

    with_gradient      forward ── loss ── backward            micro-batch by micro-batch
    without_gradient   forward ── loss
    twice              forward of all ── loss ── dL/dlogprob;  then forward ── backward of each

With several ranks (`sppo.learner.ranks`) all go through the model equally often, because the
weights are gathered each time: a rank that has nothing left feeds an empty micro-batch. The loss is
normalised over the whole mini-batch, so gradients are those of one rank.

Shape suffixes: T completion tokens, N completions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sppo.config import LearnerConfig
from sppo.learner import feed, gathered
from sppo.learner.batching import MicroBatch
from sppo.learner.feed import ByCompletion, Parts, Tokens
from sppo.learner.gaps import Gaps
from sppo.learner.objectives import Objective, ObjectiveBatch
from sppo.learner.objectives.anchors import Source
from sppo.learner.orders import AnyPolicy
from sppo.learner.ranks import Ranks
from sppo.learner.shares import Item, Share
from sppo.learner.summary import Totals
from sppo.types import Version

FLAWS = ("", "a loss without a gradient", "the loss is not finite")


class Fixed:
    """Log-probs that stand still during a batch."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.anchor = ByCompletion()
        self.reference = ByCompletion()


class Step:
    """One optimizer step over this rank's share of a mini-batch."""

    def __init__(
        self, objective: Objective, config: LearnerConfig, policy: AnyPolicy, team: Ranks,
        share: Share, fixed: Fixed, *, first: bool, engines: Version | None,
    ) -> None:  # fmt: skip
        """`first`: no step of this batch was taken yet. `engines`: the version of what this step
        compares with what the engines reported, if that can be compared.
        """
        self._objective, self._config = objective, config
        self._policy, self._team = policy, team
        self._rows = policy.family.rows(config.share_prompt)
        self._share, self._fixed, self._engines = share, fixed, engines
        self.own_anchor = first and fixed.source == "policy"
        self._backward = 0
        """Backward passes that are left."""
        self.totals = Totals()

    def differentiate(self) -> str:
        """The gradients are then in the policy's master weights. Returns what is wrong with them,
        the same on every rank; empty if nothing is.
        """
        schedule = feed.schedule(
            self._share.items, self._objective.scope, self._config, self._team, self._rows,
            own_anchor=self.own_anchor,
        )  # fmt: skip
        self._backward = len(schedule.with_gradient) + len(schedule.twice)
        for parts in schedule.with_gradient:
            self._one_pass(parts, differentiate=True)
        for parts in schedule.without_gradient:
            self._one_pass(parts, differentiate=False)
        if schedule.twice:
            self._two_passes(schedule.twice)
        flaw = 2 if not math.isfinite(self.totals.loss) else 1 if self.totals.flat else 0
        return FLAWS[self._team.most([flaw])[0]]

    def _one_pass(self, parts: Parts, *, differentiate: bool) -> None:
        batch, items = self._lay_out(parts)
        with torch.set_grad_enabled(differentiate):
            logprob_T, entropy_T = self._forward(batch)
            loss = 0.0 * (logprob_T.sum() + entropy_T.sum())  # only the collectives count
            if items:
                tokens = self._tokens(items, logprob_T, entropy_T)
                self._count(batch, items, tokens)
                loss = self._evaluate(self._objective_batch(items, tokens), loss)
        if differentiate:
            self._go_back()
            loss.backward()  # type: ignore[no-untyped-call]

    def _two_passes(self, schedule: list[Parts]) -> None:
        logprobs, entropies = ByCompletion(), ByCompletion()
        with torch.no_grad():
            for parts in schedule:
                batch, items = self._lay_out(parts)
                logprob_T, entropy_T = self._forward(batch)
                if items:
                    logprobs.add(items, logprob_T)
                    entropies.add(items, entropy_T)
                    self._count(batch, items, self._tokens(items, logprob_T, entropy_T))
        members = {part.group for parts in schedule for part in parts}
        whole = [item for i, item in enumerate(self._share.items) if i in members]
        seen = None
        if whole:
            tokens = self._tokens(whole, logprobs.of(whole), entropies.of(whole))
            seen = self._objective_batch(whole, tokens)
        cotangents = self._cotangents(seen)
        if cotangents is not None:
            for kept, values_T in zip((logprobs, entropies), cotangents, strict=True):
                kept.add(whole, values_T)  # from here on dL/d of what they held
        entropy = cotangents is not None and bool(cotangents[1].any())
        for parts in schedule:
            batch, items = self._lay_out(parts)
            outputs = [v for v in self._policy.logprobs(batch, entropy=entropy) if v is not None]
            given = [kept.of(items) for kept in (logprobs, entropies)] if items else outputs
            self._go_back()
            torch.autograd.backward(outputs, [g.detach() for g in given[: len(outputs)]])

    def _go_back(self) -> None:
        self._backward -= 1
        self._policy.going_back(last=not self._backward)

    def _cotangents(self, seen: ObjectiveBatch | None) -> gathered.Cotangents | None:
        """dL/dlogprob and dL/dentropy [T] of what this rank has seen."""
        if self._objective.scope == "batch" and self._team.size > 1:
            return gathered.together(self._team, seen, self._differentiate, self._policy.device)
        return None if seen is None else self._differentiate(seen)

    def _differentiate(self, seen: ObjectiveBatch) -> gathered.Cotangents:
        leaves = seen.logprob_T.requires_grad_(), seen.entropy_T.requires_grad_()
        loss = self._evaluate(seen, 0.0 * leaves[0].sum())
        logprob_T, entropy_T = torch.autograd.grad(loss, leaves, allow_unused=True)
        return (
            torch.zeros_like(leaves[0]) if logprob_T is None else logprob_T,
            torch.zeros_like(leaves[1]) if entropy_T is None else entropy_T,
        )

    def _evaluate(self, seen: ObjectiveBatch, zero: Tensor) -> Tensor:
        """The loss; `zero`, which has a gradient of zeros, where the objective gave none."""
        loss, stats = self._objective.loss(seen)
        self.totals.add(float(loss.detach()), stats)
        if torch.is_grad_enabled() and not loss.requires_grad:
            self.totals.flat = True
            return zero
        return loss

    def _forward(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        logprob_T, entropy_T = self._policy.logprobs(batch, entropy=True)
        assert entropy_T is not None
        return logprob_T, entropy_T

    def _lay_out(self, parts: Parts) -> tuple[MicroBatch, list[Item]]:
        return feed.lay_out(self._share.items, parts, self._rows, self._policy.device)

    def _tokens(self, items: list[Item], logprob_T: Tensor, entropy_T: Tensor) -> Tokens:
        needs, fixed, anchor_T = self._objective.needs, self._fixed, None
        if self.own_anchor:
            anchor_T = logprob_T.detach()
            fixed.anchor.add(items, anchor_T)
        elif "anchor" in needs:
            anchor_T = (
                feed.behavior(items, logprob_T.device)
                if fixed.source == "behavior"
                else fixed.anchor.of(items)
            )
        reference_T = fixed.reference.of(items) if "reference" in needs else None
        return Tokens(
            logprob_T=logprob_T, entropy_T=entropy_T, anchor_T=anchor_T, reference_T=reference_T
        )

    def _objective_batch(self, items: list[Item], tokens: Tokens) -> ObjectiveBatch:
        return feed.objective_batch(
            items, tokens, self._share.sizes, own_anchor=self.own_anchor,
            kernels=self._config.kernels,
        )  # fmt: skip

    def _count(self, batch: MicroBatch, items: list[Item], tokens: Tokens) -> None:
        totals, lengths = self.totals, batch.cu_seqlens.diff()
        keep_N = torch.tensor([k for item in items for k in item.keep_K], device=lengths.device)
        keep_T = torch.repeat_interleave(keep_N, lengths)
        totals.entropy_sum += float(tokens.entropy_T.detach()[keep_T].sum())
        totals.fed += batch.tokens_BL.numel()
        totals.padding += batch.padding
        if self._engines is None:
            return
        stands = self._fixed.source != "behavior" and tokens.anchor_T is not None
        at_T = tokens.anchor_T if stands else tokens.logprob_T.detach()
        assert at_T is not None
        whole = [c.whole(self._engines) for item in items for c in item.fed.completions]
        fresh_T = torch.repeat_interleave(torch.tensor(whole, device=lengths.device), lengths)
        totals.gaps.append(Gaps.of((at_T - batch.behavior_T).abs(), batch.cu_seqlens, fresh_T))
