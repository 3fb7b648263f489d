"""A model's decoder layers, and what they keep between forward and backward.

A layer keeps some thirty values for each token and hidden unit until the backward pass. Computed
again there, it keeps its input alone, for a third more work: activations then grow with one layer,
not with all of them (arXiv 1604.06174).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sppo.errors import ConfigError


def decoder_layers(model: Any, trunk: Any, *, setting: str) -> nn.ModuleList:
    """The list of modules below `trunk` that is as long as the configuration says, or the layers of
    several such lists.

    Raises ConfigError naming the `setting` that needs it if there is none.
    """
    config = model.config.get_text_config()
    count = config.num_hidden_layers
    lists = [m for m in trunk.modules() if isinstance(m, nn.ModuleList)]
    # Where a layer attends twice (LongCat) both attentions count as hidden layers.
    for length in (count, getattr(config, "num_layers", count)):
        if found := [m for m in lists if len(m) == length]:
            return found[0]
    # HRM has two stacks, each run several times.
    if found := [m for m in lists if len(m) == getattr(config, "num_layers_per_stack", None)]:
        return nn.ModuleList(layer for stack in found for layer in stack)
    raise ConfigError(
        f"model.name: {type(model).__name__} has no list of {count} decoder layers; set {setting}"
    )


def recompute(layers: nn.ModuleList) -> None:
    """From now on these layers are computed again in the backward pass.

    What stands around a layer's forward, such as the hooks by which FSDP2 gathers its weights,
    stays outside.
    """
    for layer in layers:
        layer.forward = _again(layer.forward)


def _again(forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        # No random numbers to bring back: dropout is off.
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return run
