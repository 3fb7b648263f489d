"""From scored groups to what is trained: which completions, and toward which target.

Shape suffixes: N completions of several groups laid end to end, K completions of one group.

Where a target depends on off-policy weights (a win rate over w̃, a soft mean), it is known only
once every completion of its group has gone through the model. Everywhere else it is fixed
beforehand, and completions that `objective.select` leaves out are not fed at all. Which ones are left
out never depends on weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sppo.config import ObjectiveConfig
from sppo.errors import SppoError
from sppo.learner import objective
from sppo.types import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One group on its way through a batch."""

    group: Group
    """As it was scored."""
    fed: Group
    """With the completions that go through the model."""
    keep_K: Tensor
    """[K of fed] True for completions that are trained."""
    target_K: Tensor | None
    """[K of fed] A, or the score where the target is `centered`; None until weights are known."""


def prepare(groups: Sequence[Group], config: ObjectiveConfig) -> list[Item]:
    """Select completions and fix targets as far as they do not depend on weights.

    Give the whole batch: `batch_softmean` subtracts one soft mean from all of it. Raises SppoError
    when some groups have rewards and others preferences.
    """
    ids_N = _ids(groups)
    rewards_N, preferences = _scored(groups, config)
    scores_N = objective.compute_scores(
        group_ids_N=ids_N, rewards_N=rewards_N, preferences=preferences
    )
    keep_N = objective.select_completions(config.select, scores_N, ids_N)
    unweighted = (
        config.weight == "none"
        or config.anchor == "behavior"
        or config.target == "batch_softmean"
        or config.label != "group"
        or (config.target == "centered" and preferences is None)
    )
    target_N = _targets(groups, config, keep_N, None) if unweighted else None
    sizes = [len(g.completions) for g in groups]
    kept = torch.split(keep_N, sizes)
    fixed = torch.split(target_N, sizes) if target_N is not None else [None] * len(groups)
    return [
        item(group, keep_K, None if target_K is None else target_K[keep_K])
        for group, keep_K, target_K in zip(groups, kept, fixed, strict=True)
    ]


def item(group: Group, keep_K: Tensor, target_K: Tensor | None) -> Item:
    """A group of which the completions `keep_K` [K] are trained, toward `target_K` if that is known
    already.
    """
    if target_K is None:
        return Item(group=group, fed=group, keep_K=keep_K, target_K=None)
    kept = tuple(c for c, keep in zip(group.completions, keep_K.tolist(), strict=True) if keep)
    return Item(
        group=group,
        fed=replace(group, completions=kept, rewards=None, preferences=None),
        keep_K=torch.ones(len(kept), dtype=torch.bool),
        target_K=target_K,
    )


def resolve(items: Sequence[Item], config: ObjectiveConfig, weights_N: Tensor) -> Tensor:
    """Targets [N] of these items, whole groups with the weights of their fed completions."""
    fixed = [item.target_K for item in items if item.target_K is not None]
    if fixed:  # `prepare` fixes all or none
        return torch.cat(fixed).to(weights_N.device)
    keep_N = torch.cat([item.keep_K for item in items])
    return _targets([item.group for item in items], config, keep_N, weights_N.cpu()).to(
        weights_N.device
    )


def _targets(
    groups: Sequence[Group], config: ObjectiveConfig, keep_N: Tensor, weights_N: Tensor | None
) -> Tensor:
    """A [N]; for `centered` the scores."""
    ids_N = _ids(groups)
    rewards_N, preferences = _scored(groups, config)
    if config.label != "group":
        scores_N = objective.compute_scores(
            group_ids_N=ids_N, rewards_N=rewards_N, preferences=preferences
        )
        return objective.pair_targets(
            config.label,
            kept_N=keep_N,
            scores_N=scores_N,
            group_ids_N=ids_N,
            preferences=preferences,
        )
    if config.target == "centered":
        return objective.compute_scores(
            group_ids_N=ids_N, rewards_N=rewards_N, preferences=preferences, weights_N=weights_N
        )
    return objective.compute_targets(
        config.target,
        eta=config.eta,
        group_ids_N=ids_N,
        rewards_N=rewards_N,
        preferences=preferences,
        weights_N=weights_N,
    )


def _scored(
    groups: Sequence[Group], config: ObjectiveConfig
) -> tuple[Tensor | None, list[Tensor] | None]:
    """(rewards [N], None) or (None, one [K, K] for each group): the link makes preferences of
    rewards.
    """
    compared = [g for g in groups if g.preferences is not None]
    if config.link == "none" and not compared:
        return torch.cat([torch.tensor(g.rewards) for g in groups]), None
    matrices = []
    for group in groups:
        if group.preferences is not None:
            matrices.append(torch.tensor(group.preferences))
        elif config.link == "bradley-terry":
            rewards_K = torch.tensor(group.rewards)
            ids_K = torch.zeros(len(rewards_K), dtype=torch.int64)
            matrices += objective.bradley_terry(
                rewards_K, ids_K, temperature=config.link_temperature
            )
        else:
            raise SppoError(
                f"group {group.uid} has rewards, group {compared[0].uid} of the same batch "
                f"preferences: a scorer must "
                "return one or the other; objective.link = 'bradley-terry' makes preferences of "
                "rewards"
            )
    return None, matrices


def _ids(groups: Sequence[Group]) -> Tensor:
    return torch.tensor([i for i, g in enumerate(groups) for _ in g.completions])
