"""The selective scan of Mamba's layers (arXiv 2312.00752) where no package of kernels is installed.

    h_t = exp(Δ_t A) ∘ h_{t-1} + Δ_t x_t B_t          y_t = h_t C_t + D x_t, times silu(z_t)

Transformers then goes token by token, and its backward pass makes a tensor of the whole sequence
for each of them. Here the states of a segment of the sequence exist at a time, from forward to
backward just the ones between segments; within one, blocks of tokens go side by side.

Shape suffixes: B rows, D channels, L tokens of a row, T tokens of a segment, N numbers of a
channel's state.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

SEGMENT, BLOCK = 512, 32
"""Tokens."""
NAME = "mamba_selective_scan"
"""Among the functions of Transformers' modules."""


def install(module: Any) -> None:
    """Have a model's layers that scan do it as here, unless kernels are installed."""
    if importlib.util.find_spec("mamba_ssm") is not None:
        return
    for part in module.modules():
        code = sys.modules[type(part).__module__]
        if hasattr(part, "A_log") and hasattr(code, NAME):
            part.forward = _by_segments(part.forward, code)


def _by_segments(forward: Callable[..., Any], code: Any) -> Callable[..., Any]:
    @wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        theirs = getattr(code, NAME)
        setattr(code, NAME, selective_scan)
        try:
            return forward(*args, **kwargs)
        finally:
            setattr(code, NAME, theirs)

    return run


def selective_scan(
    x_BDL: Tensor, dt_BDL: Tensor, A_DN: Tensor, B_BNL: Tensor, C_BNL: Tensor, D: Tensor | None,
    z: Tensor | None, delta_bias: Tensor | None, delta_softplus: bool, return_last_state: bool,
    **_: Any,
) -> Any:  # fmt: skip
    """[B, D, L] in the dtype of `x_BDL`, computed in float32; and, if asked for, the last state
    [B, D, N].
    """
    dt_BDL = dt_BDL.float()
    if delta_bias is not None:
        dt_BDL = dt_BDL + delta_bias.float()[:, None]
    if delta_softplus:
        dt_BDL = functional.softplus(dt_BDL)
    inputs = (dt_BDL, dt_BDL * x_BDL.float(), B_BNL.float(), C_BNL.float())
    state_BDN, outputs = dt_BDL.new_zeros(*dt_BDL.shape[:2], A_DN.shape[1]), []
    for parts in zip(*(torch.split(value, SEGMENT, -1) for value in inputs), strict=True):
        y_BDT, state_BDN = _kept_short(A_DN, state_BDN, *parts)
        outputs.append(y_BDT)
    y_BDL = torch.cat(outputs, -1)
    if D is not None:
        y_BDL = y_BDL + x_BDL * D[:, None]
    if z is not None:
        y_BDL = y_BDL * functional.silu(z)
    y_BDL = y_BDL.to(x_BDL.dtype)
    return (y_BDL, state_BDN) if return_last_state else y_BDL


def _kept_short(*args: Tensor) -> tuple[Tensor, Tensor]:
    if not torch.is_grad_enabled():
        return _segment(*args)
    found: tuple[Tensor, Tensor] = checkpoint(
        _segment, *args, use_reentrant=False, preserve_rng_state=False
    )
    return found


def _segment(
    A_DN: Tensor, state_BDN: Tensor, dt_BDT: Tensor, fed_BDT: Tensor, B_BNT: Tensor, C_BNT: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs [B, D, T], and the state after the last token."""
    a_BDTN = torch.exp(dt_BDT[..., None] * A_DN[:, None])
    b_BDTN = fed_BDT[..., None] * B_BNT.transpose(1, 2)[:, None]
    h_BDTN: Tensor = _Recurrence.apply(a_BDTN, b_BDTN, state_BDN)  # type: ignore[no-untyped-call]
    return torch.einsum("bdtn,bnt->bdt", h_BDTN, C_BNT), h_BDTN[:, :, -1]


class _Recurrence(torch.autograd.Function):
    """h_t = a_t h_{t-1} + b_t, after a given state; its gradient is the same, backwards."""

    @staticmethod
    def forward(ctx: Any, a_BDTN: Tensor, b_BDTN: Tensor, state_BDN: Tensor) -> Tensor:
        b_BDTN = b_BDTN.clone()
        b_BDTN[:, :, 0].addcmul_(a_BDTN[:, :, 0], state_BDN)
        h_BDTN = _recurrence(a_BDTN, b_BDTN)
        ctx.save_for_backward(a_BDTN, h_BDTN, state_BDN)
        return h_BDTN

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        a_BDTN, h_BDTN, state_BDN = ctx.saved_tensors
        later = torch.zeros_like(a_BDTN)
        later[:, :, 1:] = a_BDTN.flip(2)[:, :, :-1]
        g_BDTN = _recurrence(later, gradients[0].flip(2)).flip(2)
        before = torch.cat([state_BDN[:, :, None], h_BDTN[:, :, :-1]], 2)
        return g_BDTN * before, g_BDTN, g_BDTN[:, :, 0] * a_BDTN[:, :, 0]


def _recurrence(a_BDTN: Tensor, b_BDTN: Tensor) -> Tensor:
    """h_t = a_t h_{t-1} + b_t from nothing: in all blocks at once, then from block to block."""
    length = a_BDTN.shape[2]
    more = (0, 0, 0, -length % BLOCK)
    decay, h = (
        torch.unflatten(functional.pad(value, more), 2, (-1, BLOCK)) for value in (a_BDTN, b_BDTN)
    )  # copies, even of what is as long as it was
    if isinstance(h, FakeTensor):  # it has no values, and no step takes memory
        return h.flatten(2, 3)[:, :, :length]
    for i in range(1, BLOCK):
        h[:, :, :, i].addcmul_(decay[:, :, :, i], h[:, :, :, i - 1])
        decay[:, :, :, i] *= decay[:, :, :, i - 1]  # of all that came before in its block
    for k in range(1, h.shape[2]):
        h[:, :, k].addcmul_(decay[:, :, k], h[:, :, k - 1, -1:])
    return h.flatten(2, 3)[:, :, :length]
