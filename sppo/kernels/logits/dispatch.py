"""Token log-probs from logits that exist already.

Shape suffixes: T tokens, V vocabulary.

    z = softcap(logits) / temperature
    lse_t = log Σ_v exp z[t, v],   logprob_t = z[t, target_t] − lse_t
    entropy_t = lse_t − Σ_v p_tv z_tv

`cpu` and `gpu` do the work; torch sees one operation. Where the logits come from a linear head,
`linear_logprob` needs none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sppo.kernels.flat import schema_of
from sppo.kernels.inputs import (
    DTYPES,
    Backend,
    check_result,
    check_softcap,
    check_target,
    check_whole,
    describe,
    pick_backend,
    spread_temperature,
)
from sppo.kernels.logits import cpu
from sppo.kernels.logits.call import TENSORS, Call, Upstream
from sppo.kernels.logits.reference import logits_logprob_reference


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
    _check(logits_TV, inplace_backward)
    check_target(target_T, len(logits_TV), logits_TV.device)
    check_softcap(softcap)
    temperature_T = spread_temperature(temperature, logits_TV)
    if backend == "reference":
        found = logits_logprob_reference(
            logits_TV, target_T, temperature=temperature, softcap=softcap,
            ignore_index=ignore_index, return_entropy=return_entropy,
        )  # fmt: skip
        if not logits_TV.is_cuda:
            check_result(found[2], logits_TV=logits_TV)
        return found
    call = Call(
        logits_TV=logits_TV,
        target_T=target_T.contiguous(),
        temperature_T=temperature_T,
        softcap=softcap,
        ignore_index=ignore_index,
        return_entropy=return_entropy,
        inplace_backward=inplace_backward,
        backend=pick_backend(backend, logits_TV),
    )
    logprob_T, entropy_T, lse_T = _forward(*call)
    return logprob_T, entropy_T if return_entropy else None, lse_T


def _check(logits_TV: Tensor, inplace_backward: bool) -> None:
    check_whole(logits_TV=logits_TV)
    if logits_TV.ndim != 2 or logits_TV.dtype not in DTYPES or logits_TV.shape[1] == 0:
        raise ValueError(f"logits_TV is {describe(logits_TV)}: expected float [T, V], V above 0")
    if not inplace_backward:
        return
    tokens, vocabulary = logits_TV.shape
    if not (logits_TV.stride(1) == 1 and (tokens < 2 or logits_TV.stride(0) >= vocabulary)):
        raise ValueError(
            f"logits_TV has strides {logits_TV.stride()}: inplace_backward expects contiguous rows"
        )
    if logits_TV.is_leaf and logits_TV.requires_grad:
        raise ValueError(
            "logits_TV is a leaf: inplace_backward would overwrite it with its own gradient"
        )


@torch.library.custom_op("sppo::logits_logprob", mutates_args=(), schema=schema_of(Call, results=3))
def _forward(*flat: Any) -> tuple[Tensor, Tensor, Tensor]:
    call = Call(*flat)
    if call.backend == "triton":
        from sppo.kernels.logits import gpu

        return gpu.forward(call)
    return cpu.forward(call)


@_forward.register_fake
def _(*flat: Any) -> tuple[Tensor, Tensor, Tensor]:
    call = Call(*flat)
    like_T = call.temperature_T
    entropy_T = like_T.new_empty(like_T.shape if call.return_entropy else (0,))
    return torch.empty_like(like_T), entropy_T, torch.empty_like(like_T)


@torch.library.custom_op(
    "sppo::logits_logprob_backward",
    mutates_args=("into_TV",),
    schema=schema_of(Call, Upstream, results=0, written=("into_TV",)),
)
def _backward(*flat: Any) -> None:
    """Write the gradient into `into_TV`, which may be `logits_TV`: then it is overwritten."""
    given = len(Call._fields)
    call, upstream = Call(*flat[:given]), Upstream(*flat[given:])
    if call.backend == "triton":
        from sppo.kernels.logits import gpu

        gpu.backward(call, upstream)
    else:
        cpu.backward(call, upstream)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    logprob_T, entropy_T, lse_T = output
    ctx.mark_non_differentiable(*((lse_T,) if Call(*inputs).return_entropy else (entropy_T, lse_T)))
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:TENSORS], logprob_T, lse_T, entropy_T)
    ctx.options = inputs[TENSORS:]


def _differentiate(
    ctx: Any, grad_T: Tensor | None, entropy_grad_T: Tensor | None, _: None
) -> tuple[Any, ...]:
    *given, logprob_T, lse_T, entropy_T = ctx.saved_tensors
    call = Call(*given, *ctx.options)
    if grad_T is None:
        grad_T = torch.zeros_like(logprob_T)
    inplace = call.inplace_backward and not torch.compiler.is_compiling()
    logits_TV = call.logits_TV
    into_TV = logits_TV.detach() if inplace else logits_TV.new_empty(logits_TV.shape)
    upstream = Upstream(logprob_T, lse_T, entropy_T, grad_T, entropy_grad_T, into_TV)
    _backward(*call, *upstream)
    return into_TV, *[None] * (len(call) - 1)


_forward.register_autograd(_differentiate, setup_context=_setup)
