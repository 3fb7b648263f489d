"""Weights under the names and in the layouts of the model's files, as engines know them.

Transformers 5 holds some weights otherwise than a checkpoint does: a layer's experts as one tensor,
parts renamed. It knows the way back, which its own `save_pretrained` takes; engines are given
weights the same way.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from torch import Tensor


def as_stored(module: Any, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Named weights of this model, all of them, as its files hold them. Copies those that differ,
    and has at most one layer's in hand.
    """
    for _, layer in groupby(weights, lambda named: _layer(named[0])):
        yield from _reverted(module, dict(layer)).items()


def _layer(name: str) -> str:
    """What stands before a weight's name within its layer; empty for those outside of layers."""
    parts = name.split(".")
    at = next((i for i, part in enumerate(parts) if part.isdecimal()), -1)
    return ".".join(parts[: at + 1])


def as_parameters(module: Any, weights: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """The other way round. Raises ValueError unless these are the model's weights, all of them."""
    found = dict(weights)
    own = {name: p.shape for name, p in module.named_parameters()}
    if {name: w.shape for name, w in found.items()} == own:
        return found
    config = copy.deepcopy(module.config)
    config._attn_implementation = "eager"  # the engine's own is known to that engine alone
    made, report = type(module).from_pretrained(
        None, config=config, state_dict=found, dtype=module.dtype, output_loading_info=True
    )
    wrong = {*report["unexpected_keys"], *(k for k in report["missing_keys"] if k in own)}
    wrong |= {key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]}
    if wrong or report["error_msgs"]:
        raise ValueError(
            f"the learner's weights are not this model's: {', '.join(sorted(wrong)[:3])}"
        )
    return {name: p.detach() for name, p in made.named_parameters()}


def _reverted(module: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    from transformers.core_model_loading import revert_weight_conversion

    reverted: dict[str, Tensor] = revert_weight_conversion(module, weights)
    return reverted
