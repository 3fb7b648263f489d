"""One pass or two, on one rank or two: the same gradient for every objective, whatever the size of
a group.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sppo.config import RunConfig
from sppo.learner import objectives
from sppo.learner.batching import MicroBatch
from sppo.learner.model import Policy
from sppo.learner.objectives.base import Scope
from sppo.learner.optim import Optimizer, Update
from sppo.learner.ranks import Ranks, Solo
from sppo.types import Completion, Group, Version, VersionSpan
from tests import makers
from tests.unit.learner import teams
from tests.unit.learner.tiny import VOCABULARY, compared, moved, policy, settings

LOADING = threading.Lock()
"""Transformers loads one model at a time in a process."""
WHOLE = 10_000
"""Micro-batch tokens with which nothing is cut."""
CASES: dict[str, dict[str, Any]] = {
    "sppo": {},
    "sppo, soft mean": {"target": "softmean", "weight": "sequence", "anchor": "iteration"},
    "sppo, best and worst": {"target": "half", "select": "best_worst", "compared": True},
    "sppo, terms": {"kl_coef": 0.1, "entropy_coef": 0.05},
    "sppo, batch soft mean": {"target": "batch_softmean", "weight": "none"},
    "inpo": {"name": "inpo", "eta": 4.0, "compared": True, "anchor": "iteration"},
    "rspo": {"name": "rspo", "reverse_kl_coef": 0.1, "anchor": "iteration"},
    "dpo": {"name": "dpo"},
    "grpo": {"name": "grpo", "kl_coef": 0.1, "anchor": "iteration"},
}


class Wider:
    """An objective that asks to see more than it needs."""

    def __init__(self, inner: objectives.Objective, scope: Scope) -> None:
        self.scope = scope
        self.needs, self.select = inner.needs, inner.select
        self.loss, self.summary = inner.loss, inner.summary


def far(groups: list[Group]) -> list[Group]:
    """Sampled by something near the policy."""
    return [
        replace(
            g,
            completions=tuple(
                replace(c, behavior_logprobs=(c.behavior_logprobs / 5 - 3.6).astype(np.float32))
                for c in g.completions
            ),
        )
        for g in groups
    ]


def train(
    path: str, groups: list[Group], config: RunConfig, team: Ranks, scope: Scope | None
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """This rank's gradients of one step, before clipping, and on rank 0 its record."""
    with LOADING:
        policy_, objective = policy(path), objectives.make(config.objective)
        for snapshot in ("anchor", "reference"):
            policy_.keep(snapshot, device="cpu")  # type: ignore[arg-type]
        moved(policy_)
    optimizer, kept = Optimizer(config, policy_.master, team), {}

    def keep(_: int) -> Update:
        kept.update({k: p.grad.clone() for k, p in policy_.master.items() if p.grad is not None})
        return Update(norm=1.0)

    optimizer.step = keep  # type: ignore[method-assign]
    seen = objective if scope is None else Wider(objective, scope)
    now = Version(epoch=makers.V0.epoch, n=1)
    published = makers.V0 if config.objective.anchor == "iteration" else now
    return kept, teams.train(config, policy_, team, groups, now, published, optimizer, seen)


def gradient(
    path: str, groups: list[Group], *, scope: Scope | None = None, size: int = 1, **changes: Any
) -> tuple[Tensor, dict[str, Any]]:
    """Of all weights end to end, the sum over ranks."""
    config = settings(**changes)
    if size == 1:
        kept, records = train(path, groups, config, Solo(), scope)
        return _flat(kept), records[0]
    found = teams.together(size, lambda team: train(path, groups, config, team, scope))
    return sum((_flat(kept) for kept, _ in found), torch.zeros(())), found[0][1][0]


def _flat(kept: dict[str, Tensor]) -> Tensor:
    return torch.cat([kept[name].flatten().double() for name in sorted(kept)])


def case(name: str, groups: list[Group]) -> tuple[list[Group], dict[str, Any]]:
    changes = dict(CASES[name])
    groups = far(groups)
    return (compared(groups) if changes.pop("compared", False) else groups), changes


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_two_passes_are_one(path: str, groups: list[Group], name: str, size: int) -> None:
    # Given a step in which every group lies whole in a micro-batch
    groups, changes = case(name, groups)
    one, expected = gradient(path, groups, micro_batch_tokens=WHOLE, **changes)
    assert float(one.norm()) > 0
    # When the loss must see the whole batch, in micro-batches that hold it whole, or cut anywhere
    for budget in (WHOLE, 12):
        two, record = gradient(
            path, groups, scope="batch", size=size, micro_batch_tokens=budget, **changes
        )
        # Then gradient and figures are those of one pass
        assert apart(two, one) < 1e-6, budget
        for figure, value in expected.items():
            if not figure.endswith(("_s", "padding_share")) and isinstance(value, float):
                assert record[figure] == pytest.approx(value, rel=1e-4, abs=1e-5), figure


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_a_group_that_is_cut_is_trained_as_a_whole(
    path: str, groups: list[Group], name: str, size: int
) -> None:
    groups, changes = case(name, groups)
    one, _ = gradient(path, groups, micro_batch_tokens=WHOLE, **changes)
    for budget in (1, 12):  # every completion alone; some groups cut
        two, _ = gradient(path, groups, size=size, micro_batch_tokens=budget, **changes)
        assert apart(two, one) < 1e-6, budget


def large(completions: int) -> Group:
    """A group of completions of eight tokens after a prompt of four."""
    rng = np.random.default_rng(1)
    made = tuple(
        Completion(
            token_ids=rng.integers(0, VOCABULARY, 8).astype(np.int32),
            behavior_logprobs=np.full(8, -4.0, np.float32),
            spans=(VersionSpan(version=makers.V0, start=0, end=8),),
            finish_reason="stop",
        )
        for _ in range(completions)
    )
    return Group(
        gid="train-000000000.g.1", uid="train-000000000", stream="train", generator="g",
        prompt_ids=np.asarray([1, 2, 3, 4], np.int32), completions=made,
        rewards=rng.random(completions).astype(np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("share_prompt", [True, False])
def test_memory_does_not_grow_with_the_completions_of_a_group(
    path: str, share_prompt: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given micro-batches of 40 tokens, and what autograd keeps for the backward of each
    fed: list[int] = []
    held = [0, 0]
    plain = Policy.logprobs

    def counted(self: Policy, batch: MicroBatch, **options: Any) -> Any:
        fed.append(batch.tokens_BL.numel())
        return plain(self, batch, **options)

    class Saved:
        def __init__(self, values: Tensor) -> None:
            self.values, self.size = values, values.numel()
            held[0] += self.size
            held[1] = max(held)

        def __del__(self) -> None:
            held[0] -= self.size

    monkeypatch.setattr(Policy, "logprobs", counted)
    peaks = []
    for completions in (8, 64):
        held[:] = [0, 0]
        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.values):
            found, record = gradient(
                path, [large(completions)], groups_per_step=1, micro_batch_tokens=40,
                share_prompt=share_prompt,
            )  # fmt: skip
        peaks.append(held[1])
        # Then the group is trained, in micro-batches of that size
        assert float(found.norm()) > 0
        assert (record["skipped"], record["tokens"]) == (None, 8 * completions)
    assert max(fed) <= 40
    # And eight times the completions hold no more for the backward
    assert peaks[1] < 1.1 * peaks[0]
