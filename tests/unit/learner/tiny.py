"""A tiny Llama in float32 and batches for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sppo.config import RunConfig
from sppo.learner.model import Logprobs, Policy
from sppo.learner.optim import Optimizer, Update
from sppo.learner.trainer import Trainer
from sppo.types import Group, Version
from tests import makers

VOCABULARY = 61
TEMPERATURE = 0.7


def compared(groups: list[Group], seed: int = 0) -> list[Group]:
    """The same groups with random preferences instead of rewards."""
    rng = np.random.default_rng(seed)
    made = []
    for group in groups:
        k = len(group.completions)
        upper = np.triu(rng.random((k, k)), 1)
        table = upper + np.tril(1 - upper.T, -1) + np.eye(k) / 2
        made.append(replace(group, rewards=None, preferences=table.astype(np.float32)))
    return made


def without_signal(group: Group) -> Group:
    return replace(group, rewards=np.full(len(group.completions), 0.5, np.float32))


def on_policy(model: Policy, groups: list[Group]) -> list[Group]:
    """The same groups as if `model` had sampled them: every importance ratio is 1."""
    made = []
    for group in groups:
        logprobs = [t.detach().numpy() for t in one_by_one(model, group)]
        completions = [
            replace(c, behavior_logprobs=t)
            for c, t in zip(group.completions, logprobs, strict=True)
        ]
        made.append(replace(group, completions=tuple(completions)))
    return made


def policy(path: str) -> Policy:
    return Policy(
        path, device="cpu", logprobs=Logprobs(temperature=TEMPERATURE), compute=torch.float32
    )


def settings(**changes: Any) -> RunConfig:
    base = {"groups_per_step": 6, "lr": 1e-3, "micro_batch_tokens": 64}
    return makers.training(**base | changes)


def one_by_one(model: Policy, group: Group) -> list[Tensor]:
    """Log-probs of each completion by a plain forward of prompt and completion."""
    results = []
    for completion in group.completions:
        tokens = torch.tensor([*group.prompt_ids, *completion.token_ids], dtype=torch.int64)[None]
        logits_TV = (
            model.module(input_ids=tokens).logits[0, len(group.prompt_ids) - 1 : -1] / TEMPERATURE
        )
        target_T = tokens[0, len(group.prompt_ids) :]
        results.append(logits_TV.log_softmax(-1).gather(-1, target_T[:, None])[:, 0])
    return results


def moved(model: Policy, amount: float = 0.02) -> None:
    """Another policy than the one loaded."""
    torch.manual_seed(7)
    for parameter in model.master.values():
        parameter.data.add_(amount * torch.randn_like(parameter))
    model.refresh()


def gradients(path: str, groups: list[Group], **changes: Any) -> dict[str, Tensor]:
    """Gradients of one optimizer step, before clipping."""
    model = policy(path)
    config = settings(max_grad_norm=1e9, **changes)
    trainer = Trainer(config, model, optimizer := Optimizer(config, model.master))
    kept: dict[str, Tensor] = {}

    def keep(_: int) -> Update:
        kept.update({k: p.grad.clone() for k, p in model.master.items() if p.grad is not None})
        return Update(norm=1.0)

    optimizer.step = keep  # type: ignore[method-assign]
    list(trainer.train(groups, makers.V0))
    return kept


def take(
    path: str, groups: list[Group], *, move: bool = False, **changes: Any
) -> tuple[Policy, dict[str, Any]]:
    """One optimizer step at n = 1 of a policy whose snapshots hold the weights that it was loaded
    with.
    """
    model, config = policy(path), settings(**changes)
    for snapshot in ("anchor", "reference"):
        model.keep(snapshot, device="cpu")  # type: ignore[arg-type]
    if move:
        moved(model)
    now = Version(epoch=makers.V0.epoch, n=1)
    published = makers.V0 if config.objective.anchor == "iteration" else now
    records = list(
        Trainer(config, model, Optimizer(config, model.master)).train(groups, now, published)
    )
    return model, records[0]
