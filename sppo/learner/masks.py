"""What each kind of layer may see in rows that hold several completions.

Transformers builds each layer's mask from a function of two token indices: causal, within a window,
within a chunk. Such rows need the same function of the tokens' *positions*, for keys of the prompt
and of the query's own completion. So the functions that turn rules into masks are wrapped once, and
`rows` lends them the rows that are computed; a forward without `rows` is Transformers' own. No list
of families is needed for windows: their models name the rule. A model asks once for each kind of
layer, and the mask goes to its layers as an argument, so it is there when they are computed again.

    attention    what a layer gets
    packed       `pieces.Pieces`, or a BlockMask (`blocks`) where FlexAttention is compiled
    sdpa, eager  one number for each pair of tokens of a row, in the computing dtype

Shape suffixes: B rows, L tokens of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from sppo.learner import blocks, pieces
from sppo.learner.batching import MicroBatch


@dataclass(frozen=True, slots=True)
class _Lent:
    batch: MicroBatch
    flex: bool


_LENT: ContextVar[_Lent | None] = ContextVar("_LENT", default=None)


@contextmanager
def rows(batch: MicroBatch, *, flex: bool) -> Iterator[None]:
    """Within it, models mask as this batch's rows need; with `flex` for FlexAttention where they
    take it.
    """
    install()
    token = _LENT.set(_Lent(batch, flex))
    try:
        yield
    finally:
        _LENT.reset(token)


def install() -> None:
    """Make the masks known to Transformers."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    makers = {"sdpa": _dense, "eager": _dense, "packed": _packed}
    for name, maker in makers.items():
        plain = ALL_MASK_ATTENTION_FUNCTIONS["sdpa" if name == "packed" else name]
        known = name in ALL_MASK_ATTENTION_FUNCTIONS and ALL_MASK_ATTENTION_FUNCTIONS[name]
        if not getattr(known, "knows_rows", False):
            AttentionMaskInterface.register(name, _wrapped(plain, maker))


def _wrapped(plain: Callable[..., Any], maker: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(plain)
    def mask(*args: Any, **kwargs: Any) -> Any:
        lent = _LENT.get()
        if lent is None:
            return plain(*args, **kwargs)
        if kwargs.get("use_vmap"):
            raise NotImplementedError(
                "a mask that depends on more than positions cannot be built for shared prompts"
            )
        return maker(lent, kwargs["mask_function"], kwargs["dtype"])

    mask.knows_rows = True  # type: ignore[attr-defined]
    return mask


def _packed(lent: _Lent, rule: Callable[..., Any], dtype: torch.dtype) -> Any:
    if lent.flex:
        return blocks.block_mask(lent.batch, rule)
    return pieces.cut(lent.batch.spans, rule, dtype, lent.batch.tokens_BL.device)


def _dense(lent: _Lent, rule: Callable[..., Any], dtype: torch.dtype) -> Tensor:
    """[B, 1, L, L] to be added to scores. Padding sees itself alone."""
    batch = lent.batch
    device, (b, length) = batch.tokens_BL.device, batch.tokens_BL.shape
    at = torch.arange(length, device=device)
    one = torch.zeros(1, 1, 1, 1, dtype=torch.int64, device=device)
    row = torch.arange(b, device=device)[:, None, None, None]
    seen = allowed(batch, rule, row, one, at[:, None], at) | (at[:, None] == at)
    return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(
        ~seen, torch.finfo(dtype).min
    )


def allowed(batch: MicroBatch, rule: Callable[..., Any], b: Any, h: Any, q: Any, k: Any) -> Tensor:
    """Whether query q of row b may see key k under a layer's rule of positions."""
    position, segment = batch.positions_BL, batch.segments_BL
    own, other = segment[b, q], segment[b, k]
    related = (own >= 0) & ((own == other) | (batch.prompts_BL[b, q] == other))
    seen: Tensor = related & rule(b, h, position[b, q], position[b, k])
    return seen


def ones(batch: MicroBatch) -> Tensor:
    """A padding mask [B, L] without padding: it keeps a model from reading packed sequences out of
    the positions.
    """
    return torch.ones_like(batch.tokens_BL)
