"""Token log-probs from logits that exist already.

Shape suffixes: T tokens, V vocabulary.

    z = softcap(logits) / temperature
    logprob_t = z[t, target_t] − lse_t,   lse_t = log Σ_v exp z[t, v],   entropy_t = lse_t − Σ_v p_tv z_tv

`torch_logits` and `triton_logits` do the work. Where the logits come from a linear head,
`linear_logprob` needs none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sppo.kernels import torch_logits
from sppo.kernels.inputs import (
    DTYPES,
    Backend,
    check_result,
    check_softcap,
    check_target,
    check_values,
    check_whole,
    describe,
    pick_backend,
    spread_temperature,
)
from sppo.kernels.linear_logprob import logprob_of_logits


def logits_logprob(
    logits_TV: Tensor,
    target_T: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    softcap: float | None = None,
    ignore_index: int = -100,
    return_entropy: bool = False,
    inplace_backward: bool = False,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Log-prob of each target, the entropy if asked for, and the log-sum-exp: float32 [T], in nats.

    Tokens whose target is `ignore_index` get log-prob, entropy, log-sum-exp and gradient 0.
    Gradients flow through log-prob and entropy to the logits. With `inplace_backward` the gradient
    overwrites the logits, which must have contiguous rows: a second backward pass then raises
    autograd's RuntimeError. Compiled graphs do without it.

    Raises ValueError as `linear_logprob` does.
    """
    check_whole(logits_TV=logits_TV)
    if logits_TV.ndim != 2 or logits_TV.dtype not in DTYPES or logits_TV.shape[1] == 0:
        raise ValueError(f"logits_TV is {describe(logits_TV)}: expected float [T, V], V above 0")
    tokens, vocabulary = logits_TV.shape
    if inplace_backward and not (
        logits_TV.stride(1) == 1 and (tokens < 2 or logits_TV.stride(0) >= vocabulary)
    ):
        raise ValueError(
            f"logits_TV has strides {logits_TV.stride()}: inplace_backward expects contiguous rows"
        )
    if inplace_backward and logits_TV.is_leaf and logits_TV.requires_grad:
        raise ValueError(
            "logits_TV is a leaf: inplace_backward would overwrite it with its own gradient"
        )
    check_target(target_T, tokens, logits_TV.device)
    check_softcap(softcap)
    temperature_T = spread_temperature(temperature, logits_TV)
    if backend == "reference":
        found = logits_logprob_reference(
            logits_TV, target_T, temperature=temperature, softcap=softcap,
            ignore_index=ignore_index,
            return_entropy=return_entropy,
        )  # fmt: skip
        if not logits_TV.is_cuda:
            check_result(found[2], logits_TV=logits_TV)
        return found
    logprob_T, entropy_T, lse_T = _forward(
        logits_TV, target_T.contiguous(), temperature_T, softcap, ignore_index, return_entropy,
        inplace_backward,
        pick_backend(backend, logits_TV),
    )  # fmt: skip
    return logprob_T, entropy_T if return_entropy else None, lse_T


def logits_logprob_reference(
    logits_TV: Tensor,
    target_T: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    softcap: float | None = None,
    ignore_index: int = -100,
    return_entropy: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The specification of `logits_logprob`, in plain torch."""
    z_TV = logits_TV.to(torch.promote_types(logits_TV.dtype, torch.float32))
    return logprob_of_logits(z_TV, target_T, temperature, softcap, ignore_index, return_entropy)


@torch.library.custom_op("sppo::logits_logprob", mutates_args=())
def _forward(
    logits_TV: Tensor,
    target_T: Tensor,
    temperature_T: Tensor,
    softcap: float | None,
    ignore_index: int,
    return_entropy: bool,
    inplace_backward: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    if backend == "triton":
        from sppo.kernels import triton_logits

        return triton_logits.forward(
            logits_TV, target_T, temperature_T, softcap, ignore_index, return_entropy
        )
    if target_T.device.type == "cpu":
        check_values(target_T, temperature_T, logits_TV.shape[1], ignore_index)
    found = torch_logits.forward(
        logits_TV, target_T, temperature_T, softcap, ignore_index, return_entropy
    )
    if target_T.device.type == "cpu":
        check_result(found[2], logits_TV=logits_TV)
    return found


@_forward.register_fake
def _(
    logits_TV: Tensor,
    target_T: Tensor,
    temperature_T: Tensor,
    softcap: float | None,
    ignore_index: int,
    return_entropy: bool,
    inplace_backward: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    entropy_T = temperature_T.new_empty(target_T.shape if return_entropy else (0,))
    return torch.empty_like(temperature_T), entropy_T, torch.empty_like(temperature_T)


@torch.library.custom_op("sppo::logits_logprob_backward", mutates_args=("into_TV",))
def _backward(
    logits_TV: Tensor | None,
    target_T: Tensor,
    temperature_T: Tensor,
    softcap: float | None,
    ignore_index: int,
    logprob_T: Tensor,
    lse_T: Tensor,
    entropy_T: Tensor,
    grad_T: Tensor,
    entropy_grad_T: Tensor | None,
    into_TV: Tensor,
    backend: str,
) -> None:
    """Write the gradient into `into_TV`; without `logits_TV` that holds the logits, and is
    overwritten.
    """
    logits_TV = into_TV if logits_TV is None else logits_TV
    path: Any = torch_logits
    if backend == "triton":
        from sppo.kernels import triton_logits

        path = triton_logits
    path.backward(
        logits_TV, target_T, temperature_T, softcap, ignore_index, logprob_T, lse_T, entropy_T,
        grad_T, entropy_grad_T,
        into_TV,
    )  # fmt: skip


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    logits_TV, target_T, temperature_T, *options = inputs
    logprob_T, entropy_T, lse_T = output
    ctx.softcap, ctx.ignore_index, return_entropy, ctx.inplace, ctx.backend = options
    ctx.mark_non_differentiable(*((lse_T,) if return_entropy else (entropy_T, lse_T)))
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(logits_TV, target_T, temperature_T, logprob_T, lse_T, entropy_T)


def _differentiate(
    ctx: Any, grad_T: Tensor | None, entropy_grad_T: Tensor | None, _: None
) -> tuple[Any, ...]:
    logits_TV, target_T, temperature_T, *found = ctx.saved_tensors
    if grad_T is None:
        grad_T = torch.zeros_like(temperature_T)
    inplace = ctx.inplace and not torch.compiler.is_compiling()
    into_TV = logits_TV.detach() if inplace else logits_TV.new_empty(logits_TV.shape)
    _backward(
        None if inplace else logits_TV, target_T, temperature_T, ctx.softcap, ctx.ignore_index,
        *found,
        grad_T, entropy_grad_T, into_TV, ctx.backend,
    )  # fmt: skip
    return into_TV, *[None] * 7


_forward.register_autograd(_differentiate, setup_context=_setup)
