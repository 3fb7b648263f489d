"""Token log-probs straight from hidden states, without a [T, V] tensor of logits.

Shape suffixes: T tokens, H hidden, V vocabulary.

    z = softcap(factor · (hidden · weightᵀ + bias)) / temperature
    lse_t = log Σ_v exp z[t, v],   logprob_t = z[t, target_t] − lse_t
    entropy_t = lse_t − Σ_v p_tv z_tv

The vocabulary is walked in chunks; the backward pass computes the logits again. `cpu` and `gpu` do
the work; torch sees one operation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sppo.kernels.flat import schema_of
from sppo.kernels.inputs import Backend, check_result, check_target, pick_backend
from sppo.kernels.linear import cpu
from sppo.kernels.linear.call import TENSORS, Call, Upstream
from sppo.kernels.linear.head import Head
from sppo.kernels.linear.reference import linear_logprob_reference


def linear_logprob(
    hidden_TH: Tensor,
    target_T: Tensor,
    head: Head,
    *,
    ignore_index: int = -100,
    return_entropy: bool = False,
    fast: bool = False,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Log-prob of each target, the entropy if asked for, and the log-sum-exp: float32 [T], in nats.

    hidden_TH and the head's weight are of one floating dtype, target_T is int64. Tokens whose
    target is `ignore_index` are dropped before the product (on a GPU, which is not asked how many
    they are, whole tiles of them): their log-prob, entropy, log-sum-exp and gradient are 0.
    Gradients flow through log-prob and entropy to hidden, weight and bias. `fast` has the torch
    path round logits to the inputs' dtype; Triton has no use for it.

    Raises ValueError naming the argument when shapes, dtypes or devices do not fit, and on a CPU
    for a target outside the vocabulary, a temperature that is not above 0, and NaN. Triton does not
    wait for the GPU: there such a token's results are NaN. float16 inputs need a scaled loss:
    gradients below 6e-8 vanish.
    """
    head.check(hidden_TH)
    check_target(target_T, hidden_TH.shape[0], hidden_TH.device)
    temperature_T = head.temperature_T(hidden_TH)
    if backend == "reference":
        found = linear_logprob_reference(
            hidden_TH, target_T, head, ignore_index=ignore_index, return_entropy=return_entropy
        )
        if not hidden_TH.is_cuda:
            check_result(found[2], hidden_TH=hidden_TH, weight_VH=head.weight_VH, bias=head.bias)
        return found
    call = Call(
        hidden_TH=hidden_TH,
        weight_VH=head.weight_VH,
        bias=None if head.bias is None else head.bias.contiguous(),
        temperature_T=temperature_T,
        target_T=target_T.contiguous(),
        softcap=head.softcap,
        ignore_index=ignore_index,
        return_entropy=return_entropy,
        fast=fast,
        backend=pick_backend(backend, hidden_TH),
    )
    logprob_T, entropy_T, lse_T = _forward(*call)
    return logprob_T, entropy_T if return_entropy else None, lse_T


@torch.library.custom_op("sppo::linear_logprob", mutates_args=(), schema=schema_of(Call, results=3))
def _forward(*flat: Any) -> tuple[Tensor, Tensor, Tensor]:
    call = Call(*flat)
    if call.backend == "triton":
        from sppo.kernels.linear import gpu

        return gpu.forward(call)
    return cpu.forward(call)


@_forward.register_fake
def _(*flat: Any) -> tuple[Tensor, Tensor, Tensor]:
    call = Call(*flat)
    like_T = call.temperature_T
    entropy_T = like_T.new_empty(like_T.shape if call.return_entropy else (0,))
    return torch.empty_like(like_T), entropy_T, torch.empty_like(like_T)


@torch.library.custom_op(
    "sppo::linear_logprob_backward", mutates_args=(), schema=schema_of(Call, Upstream, results=3)
)
def _backward(*flat: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of hidden, weight and bias; an empty tensor stands for one that is not needed."""
    call, upstream = _parts(flat)
    entropy_grad_T = upstream.entropy_grad_T
    upstream = upstream._replace(
        grad_T=upstream.grad_T.contiguous(),
        entropy_grad_T=None if entropy_grad_T is None else entropy_grad_T.contiguous(),
    )
    if call.backend == "triton":
        from sppo.kernels.linear import gpu

        found = gpu.backward(call, upstream)
    else:
        found = cpu.backward(call, upstream)
    empty = call.hidden_TH.new_empty
    d_hidden, d_weight, d_bias = (empty(0) if gradient is None else gradient for gradient in found)
    return d_hidden, d_weight, d_bias


@_backward.register_fake
def _(*flat: Any) -> tuple[Tensor, Tensor, Tensor]:
    call, upstream = _parts(flat)
    empty = call.hidden_TH.new_empty
    return (
        empty(call.hidden_TH.shape if upstream.need_hidden else 0),
        empty(call.weight_VH.shape if upstream.need_weight else 0),
        empty(0) if call.bias is None or not upstream.need_bias else torch.empty_like(call.bias),
    )


def _parts(flat: tuple[Any, ...]) -> tuple[Call, Upstream]:
    given = len(Call._fields)
    return Call(*flat[:given]), Upstream(*flat[given:])


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
    need_hidden, need_weight, need_bias, *_ = ctx.needs_input_grad
    upstream = Upstream(
        logprob_T=logprob_T,
        lse_T=lse_T,
        entropy_T=entropy_T,
        grad_T=torch.zeros_like(logprob_T) if grad_T is None else grad_T,
        entropy_grad_T=entropy_grad_T,
        need_hidden=need_hidden,
        need_weight=need_weight,
        need_bias=need_bias,
    )
    d_hidden, d_weight, d_bias = _backward(*call, *upstream)
    return (
        d_hidden if need_hidden else None,
        d_weight if need_weight else None,
        d_bias if need_bias else None,
        *[None] * (len(call) - 3),
    )


_forward.register_autograd(_differentiate, setup_context=_setup)
