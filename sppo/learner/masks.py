"""Attention masks of rows in which completions share a prompt, for every kind of layer that a model
has.

Transformers builds each layer's mask from a function of two token indices: causal, within a window,
within a chunk. Such a row needs the same function of the tokens' *positions*, for keys of the
prompt and of the query's own completion. So the two functions that turn rules into tensors are
wrapped once, and `rows` lends them the row that is computed; a forward without `rows` is
Transformers' own. No list of families is needed for windows: their models name the rule.

Shape suffixes: B rows, L tokens of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor

from sppo.learner.batching import MicroBatch

_BATCH: ContextVar[MicroBatch | None] = ContextVar("_BATCH", default=None)
_IMPLEMENTATIONS = ("sdpa", "eager")


@contextmanager
def rows(batch: MicroBatch) -> Iterator[None]:
    """Within it, models that attend by `sdpa` or `eager` mask as this batch's rows need."""
    _install()
    token = _BATCH.set(batch)
    try:
        yield
    finally:
        _BATCH.reset(token)


def allowed(batch: MicroBatch, rule: Callable[..., Any], b: Any, h: Any, q: Any, k: Any) -> Tensor:
    """Whether query q of row b may see key k under a layer's rule of positions. Padding sees itself
    alone.
    """
    position, segment = batch.positions_BL, batch.segments_BL
    own, other = segment[b, q], segment[b, k]
    related = (own >= 0) & ((own == other) | (other == 0))
    seen: Tensor = (related & rule(b, h, position[b, q], position[b, k])) | (q == k)
    return seen


def _install() -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    for name in _IMPLEMENTATIONS:
        plain = ALL_MASK_ATTENTION_FUNCTIONS[name]
        if not getattr(plain, "knows_rows", False):
            AttentionMaskInterface.register(name, _wrapped(plain))


def _wrapped(plain: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(plain)
    def mask(*args: Any, **kwargs: Any) -> Tensor | None:
        batch = _BATCH.get()
        if batch is None:
            found: Tensor | None = plain(*args, **kwargs)
            return found
        if kwargs.get("use_vmap"):
            raise NotImplementedError(
                "a mask that depends on more than positions cannot be built for shared prompts"
            )
        shared = {
            "mask_function": partial(allowed, batch, kwargs["mask_function"]),
            "attention_mask": None,
            "allow_is_causal_skip": False,
        }
        made: Tensor | None = plain(*args, **(kwargs | shared))
        return made

    mask.knows_rows = True  # type: ignore[attr-defined]
    return mask


def ones(batch: MicroBatch) -> Tensor:
    """A padding mask [B, L] without padding: it keeps a model from reading packed sequences out of
    the positions.
    """
    return torch.ones_like(batch.tokens_BL)
