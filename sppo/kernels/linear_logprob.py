"""Token log-probs straight from hidden states, without a [T, V] tensor of logits.

Shape suffixes: T tokens, N kept tokens, H hidden, V vocabulary.

    z = softcap(hidden · weightᵀ + bias) / temperature
    logprob_t = z[t, target_t] − lse_t,   lse_t = log Σ_v exp z[t, v],   entropy_t = lse_t − Σ_v p_tv z_tv

The vocabulary is walked in chunks; the backward pass computes the logits again. `torch_linear` and
`triton_linear` do the work.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sppo.kernels import torch_linear
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


def linear_logprob(
    hidden_TH: Tensor,
    weight_VH: Tensor,
    target_T: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    softcap: float | None = None,
    ignore_index: int = -100,
    return_entropy: bool = False,
    fast: bool = False,
    group: dist.ProcessGroup | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Log-prob of each target, the entropy if asked for, and the log-sum-exp: float32 [T], in nats.

    hidden_TH and weight_VH are of one floating dtype, target_T is int64, bias is [V], temperature a
    number or [T]. Tokens whose target is `ignore_index` are dropped before the product (on a GPU,
    which is not asked how many they are, whole tiles of them): their log-prob, entropy, log-sum-exp
    and gradient are 0. Gradients flow through log-prob and entropy to hidden, weight and bias.
    `fast` has the torch path round logits to the inputs' dtype; Triton has no use for it.

    With a `group` each of its ranks holds the rows of `weight_VH` and `bias` that follow those of
    the rank before; all else, `target_T` over the whole vocabulary included, is the same on every
    rank, and so are the results and the gradient of `hidden_TH`. Every rank makes the same calls;
    the torch path serves them.

    Raises ValueError naming the argument when shapes, dtypes or devices do not fit, and on a CPU
    for a target outside the vocabulary, a temperature that is not above 0, and NaN. Triton does not
    wait for the GPU: there such a token's results are NaN. float16 inputs need a scaled loss:
    gradients below 6e-8 vanish.
    """
    _check(hidden_TH, weight_VH, bias, group)
    check_target(target_T, hidden_TH.shape[0], hidden_TH.device)
    check_softcap(softcap)
    temperature_T = spread_temperature(temperature, hidden_TH)
    if backend == "reference":
        found = linear_logprob_reference(
            hidden_TH, weight_VH, target_T, bias=bias, temperature=temperature, softcap=softcap,
            ignore_index=ignore_index, return_entropy=return_entropy, group=group,
        )  # fmt: skip
        if not hidden_TH.is_cuda:
            check_result(found[2], hidden_TH=hidden_TH, weight_VH=weight_VH, bias=bias)
        return found
    if group is not None and backend == "auto":
        backend = "torch"
    path = pick_backend(backend, hidden_TH)
    if group is not None and path == "triton":
        raise ValueError(
            "backend 'triton' with a group: expected 'torch', which shards the vocabulary"
        )
    logprob_T, entropy_T, lse_T = _forward(
        hidden_TH, weight_VH, target_T.contiguous(), None if bias is None else bias.contiguous(),
        temperature_T,
        softcap, ignore_index, return_entropy, fast, None if group is None else group.group_name,
        path,
    )  # fmt: skip
    return logprob_T, entropy_T if return_entropy else None, lse_T


def linear_logprob_reference(
    hidden_TH: Tensor,
    weight_VH: Tensor,
    target_T: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    softcap: float | None = None,
    ignore_index: int = -100,
    return_entropy: bool = False,
    group: dist.ProcessGroup | None = None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The specification of `linear_logprob`, in plain torch with all logits in memory."""
    dtype = torch.promote_types(hidden_TH.dtype, torch.float32)
    if group is not None:
        weight_VH = _whole(weight_VH, group)
        bias = None if bias is None else _whole(bias, group)
    z_TV = hidden_TH.to(dtype) @ weight_VH.to(dtype).T
    if bias is not None:
        z_TV = z_TV + bias.to(dtype)
    return logprob_of_logits(z_TV, target_T, temperature, softcap, ignore_index, return_entropy)


def logprob_of_logits(
    z_TV: Tensor,
    target_T: Tensor,
    temperature: float | Tensor,
    softcap: float | None,
    ignore_index: int,
    return_entropy: bool,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """What both references share: everything after the logits."""
    if z_TV.device.type == "cpu":
        check_values(target_T, spread_temperature(temperature, z_TV), z_TV.shape[1], ignore_index)
    if softcap is not None:
        z_TV = softcap * torch.tanh(z_TV / softcap)
    z_TV = z_TV / (temperature[:, None] if isinstance(temperature, Tensor) else temperature)
    keep_T = target_T != ignore_index
    all_TV = torch.log_softmax(z_TV, -1)
    logprob_T = all_TV.gather(-1, torch.where(keep_T, target_T, 0)[:, None])[:, 0]
    logprob_T = torch.where(keep_T, logprob_T, 0.0)
    entropy_T = None
    if return_entropy:
        p_TV = all_TV.exp()
        entropy_T = -(p_TV * all_TV.masked_fill(p_TV == 0, 0.0)).sum(-1)
        entropy_T = torch.where(keep_T, entropy_T, 0.0)
    return logprob_T, entropy_T, torch.where(keep_T, torch.logsumexp(z_TV, -1), 0.0).detach()


@torch.library.custom_op("sppo::linear_logprob", mutates_args=())
def _forward(
    hidden_TH: Tensor,
    weight_VH: Tensor,
    target_T: Tensor,
    bias: Tensor | None,
    temperature_T: Tensor,
    softcap: float | None,
    ignore_index: int,
    return_entropy: bool,
    fast: bool,
    group: str | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    if backend == "triton":
        from sppo.kernels import triton_linear

        return triton_linear.forward(
            hidden_TH,
            weight_VH,
            target_T,
            bias,
            temperature_T,
            softcap,
            ignore_index,
            return_entropy,
        )
    shard = torch_linear.place(weight_VH, group)
    if target_T.device.type == "cpu":
        check_values(target_T, temperature_T, shard.vocabulary, ignore_index)
    kept_N = _kept(target_T, ignore_index)
    logprob_N, entropy_N, lse_N = torch_linear.forward(
        hidden_TH[kept_N], weight_VH, target_T[kept_N], bias, temperature_T[kept_N], softcap, fast,
        shard,
        return_entropy,
    )  # fmt: skip
    if lse_N.device.type == "cpu":
        check_result(lse_N, hidden_TH=hidden_TH, weight_VH=weight_VH, bias=bias)
    tokens = len(target_T)
    entropy_T = _restore(entropy_N, kept_N, tokens) if return_entropy else entropy_N
    return _restore(logprob_N, kept_N, tokens), entropy_T, _restore(lse_N, kept_N, tokens)


@_forward.register_fake
def _(
    hidden_TH: Tensor,
    weight_VH: Tensor,
    target_T: Tensor,
    bias: Tensor | None,
    temperature_T: Tensor,
    softcap: float | None,
    ignore_index: int,
    return_entropy: bool,
    fast: bool,
    group: str | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    entropy_T = temperature_T.new_empty(target_T.shape if return_entropy else (0,))
    return torch.empty_like(temperature_T), entropy_T, torch.empty_like(temperature_T)


@torch.library.custom_op("sppo::linear_logprob_backward", mutates_args=())
def _backward(
    hidden_TH: Tensor,
    weight_VH: Tensor,
    target_T: Tensor,
    bias: Tensor | None,
    temperature_T: Tensor,
    softcap: float | None,
    ignore_index: int,
    logprob_T: Tensor,
    lse_T: Tensor,
    entropy_T: Tensor,
    grad_T: Tensor,
    entropy_grad_T: Tensor | None,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
    fast: bool,
    group: str | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of hidden, weight and bias; an empty tensor stands for one that is not needed."""
    needs = need_hidden, need_weight, need_bias
    grad_T, entropy_grad_T = (
        grad_T.contiguous(),
        None if entropy_grad_T is None else entropy_grad_T.contiguous(),
    )
    if backend == "triton":
        from sppo.kernels import triton_linear

        found = triton_linear.backward(
            hidden_TH, weight_VH, target_T, bias, temperature_T, softcap, ignore_index, logprob_T,
            lse_T,
            entropy_T, grad_T, entropy_grad_T, needs,
        )  # fmt: skip
    else:
        kept_N = _kept(target_T, ignore_index)
        d_hidden, d_weight, d_bias = torch_linear.backward(
            hidden_TH[kept_N], weight_VH, target_T[kept_N], bias, temperature_T[kept_N], softcap,
            fast,
            torch_linear.place(weight_VH, group), logprob_T[kept_N], lse_T[kept_N],
            entropy_T[kept_N] if len(entropy_T) else entropy_T, grad_T[kept_N],
            None if entropy_grad_T is None else entropy_grad_T[kept_N], needs,
        )  # fmt: skip
        found = (
            None if d_hidden is None else _restore(d_hidden, kept_N, len(target_T)),
            d_weight,
            d_bias,
        )
    empty = hidden_TH.new_empty
    d_hidden, d_weight, d_bias = (empty(0) if gradient is None else gradient for gradient in found)
    return d_hidden, d_weight, d_bias


@_backward.register_fake
def _(
    hidden_TH: Tensor,
    weight_VH: Tensor,
    target_T: Tensor,
    bias: Tensor | None,
    temperature_T: Tensor,
    softcap: float | None,
    ignore_index: int,
    logprob_T: Tensor,
    lse_T: Tensor,
    entropy_T: Tensor,
    grad_T: Tensor,
    entropy_grad_T: Tensor | None,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
    fast: bool,
    group: str | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    empty = hidden_TH.new_empty
    return (
        empty(hidden_TH.shape) if need_hidden else empty(0),
        empty(weight_VH.shape) if need_weight else empty(0),
        torch.empty_like(bias) if need_bias and bias is not None else empty(0),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    hidden_TH, weight_VH, target_T, bias, temperature_T, *options = inputs
    logprob_T, entropy_T, lse_T = output
    ctx.softcap, ctx.ignore_index, return_entropy, *ctx.path = options
    ctx.mark_non_differentiable(*((lse_T,) if return_entropy else (entropy_T, lse_T)))
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(
        hidden_TH, weight_VH, target_T, bias, temperature_T, logprob_T, lse_T, entropy_T
    )


def _differentiate(
    ctx: Any, grad_T: Tensor | None, entropy_grad_T: Tensor | None, _: None
) -> tuple[Any, ...]:
    hidden_TH, weight_VH, target_T, bias, temperature_T, *found = ctx.saved_tensors
    need_hidden, need_weight, _, need_bias, *_ = ctx.needs_input_grad
    if grad_T is None:
        grad_T = torch.zeros_like(temperature_T)
    d_hidden, d_weight, d_bias = _backward(
        hidden_TH, weight_VH, target_T, bias, temperature_T, ctx.softcap, ctx.ignore_index, *found,
        grad_T, entropy_grad_T, need_hidden, need_weight, need_bias, *ctx.path,
    )  # fmt: skip
    return (
        d_hidden if need_hidden else None, d_weight if need_weight else None, None,
        d_bias if need_bias else None,
        *[None] * 7,
    )  # fmt: skip


_forward.register_autograd(_differentiate, setup_context=_setup)


def _kept(target_T: Tensor, ignore_index: int) -> Any:
    """An index of the tokens that count; of all of them without a copy."""
    keep_T = target_T != ignore_index
    return slice(None) if keep_T.all() else keep_T.nonzero()[:, 0]


def _restore(found_N: Tensor, kept_N: Any, tokens: int) -> Tensor:
    """Back to [T, ...], zero where ignored."""
    if isinstance(kept_N, slice):
        return found_N
    return found_N.new_zeros(tokens, *found_N.shape[1:]).index_copy(0, kept_N, found_N)


def _whole(shard_V: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The shards of all ranks, this one's with its gradient: each rank then differentiates its own
    rows alone.
    """
    parts = []
    for rank, rows in enumerate(torch_linear.shard_rows(shard_V, group)):
        own = rank == dist.get_rank(group)
        sent = shard_V.detach().clone() if own else shard_V.new_empty(rows, *shard_V.shape[1:])
        dist.broadcast(sent, group=group, group_src=rank)
        parts.append(shard_V if own else sent)
    return torch.cat(parts)


def _check(
    hidden_TH: Tensor, weight_VH: Tensor, bias: Tensor | None, group: dist.ProcessGroup | None
) -> None:
    check_whole(hidden_TH=hidden_TH, weight_VH=weight_VH, bias=bias)
    if hidden_TH.ndim != 2 or hidden_TH.dtype not in DTYPES:
        raise ValueError(f"hidden_TH is {describe(hidden_TH)}: expected float [T, H]")
    if (
        weight_VH.ndim != 2
        or weight_VH.shape[1] != hidden_TH.shape[1]
        or not (len(weight_VH) or group is not None)
    ):
        raise ValueError(
            f"weight_VH is {describe(weight_VH)}: expected [V, {hidden_TH.shape[1]}], V above 0"
        )
    if weight_VH.dtype != hidden_TH.dtype or weight_VH.device != hidden_TH.device:
        raise ValueError(
            f"weight_VH is {describe(weight_VH)}, hidden_TH {describe(hidden_TH)}: expected one "
            f"dtype and device"
        )
    expected = weight_VH.shape[:1], weight_VH.device
    if bias is not None and ((bias.shape, bias.device) != expected or not bias.is_floating_point()):
        raise ValueError(
            f"bias is {describe(bias)}: expected float [{weight_VH.shape[0]}] on {weight_VH.device}"
        )
