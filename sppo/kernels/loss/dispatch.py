"""From token log-probs to the SPPO loss, its gradient and its statistics: plain torch, and one
Triton program a group.

Shape suffixes: T completion tokens of all sequences laid end to end, N completions, G groups.

    Δ_i      = Σ_t m_it (log π_θ − log π_a)                   over the tokens of completion i
    log ρ_i  = Σ_t m_it (log π_a − log μ)
    residual = Δ_i − η A_i
    residual = δ_i − mean of δ over the group, δ_i = Δ_i − η s_i   `centered`; the mean is detached
    loss     = Σ_i w_i residual_i² / (completions in the optimizer step)

The reference functions are the specification and what runs on a CPU and in float64. The Triton
forward writes the gradient with the loss, so the backward is one product, and there is no second
derivative. Formulas and their sources: docs/objective.md.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sppo.kernels.flat import schema_of
from sppo.kernels.importance import log_cap
from sppo.kernels.inputs import Backend, pick_backend
from sppo.kernels.loss.call import LossStats, Terms, Tokens
from sppo.kernels.loss.checks import check_groups, check_tokens
from sppo.kernels.loss.reference import sequence_log_ratios_reference, sppo_loss_reference
from sppo.kernels.segments import owners, segment_sum


def sequence_log_ratios(
    logprob_T: Tensor,
    anchor_T: Tensor,
    behavior_T: Tensor,
    mask_T: Tensor | None,
    cu_seqlens: Tensor,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """(Δ [N], log ρ [N], length [N] in tokens), nats; Δ carries the gradient of `logprob_T`, the
    others none.

    Tokens whose mask is 0 (bool, or 0 and 1 of any dtype) count in none of them, whatever their
    values are. `cu_seqlens` [N + 1] are offsets into T. Raises ValueError naming the argument when
    shapes, dtypes, devices or offsets do not fit; on a GPU the device itself asserts that the
    offsets do.
    """
    tokens = Tokens(logprob_T, anchor_T.detach(), behavior_T.detach(), mask_T, cu_seqlens)
    check_tokens(tokens)
    if pick_backend(backend, logprob_T) == "torch":
        return sequence_log_ratios_reference(tokens)
    delta_N, log_rho_N, length_N = _ratios_op(*_for_triton(tokens))
    return delta_N, log_rho_N, length_N


def sppo_loss(
    logprob_T: Tensor,
    anchor_T: Tensor,
    behavior_T: Tensor,
    mask_T: Tensor | None,
    cu_seqlens: Tensor,
    targets_N: Tensor,
    *,
    eta: float,
    group_offsets: Tensor | None = None,
    centered: bool = False,
    weight_mode: str = "none",
    cap: float | None = None,
    length_normalized: bool = False,
    normalizer: int | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, LossStats]:
    """The loss of whole groups, a scalar that carries the gradient of `logprob_T` alone, and its
    statistics.

    `targets_N` are the A of docs/objective.md, or the scores s where `centered`. `group_offsets`
    [G + 1] are offsets into N; without them every completion is its own group. `normalizer` is the
    number of completions in the optimizer step, by default those given of which a token counts.
    Where none does, a completion is in no sum and no mean; nor is one that `masked` rejects. NaN in
    a token that counts makes the loss NaN. Raises ValueError as `sequence_log_ratios` does, and for
    an unknown weight mode, a cap ≤ 1, an eta that is not finite or a normalizer below 1.
    """
    tokens = Tokens(logprob_T, anchor_T.detach(), behavior_T.detach(), mask_T, cu_seqlens)
    check_tokens(tokens)
    if group_offsets is None:
        group_offsets = torch.arange(len(cu_seqlens), device=cu_seqlens.device)
    check_groups(tokens, targets_N, group_offsets)
    limit = log_cap(weight_mode, cap)
    if not math.isfinite(eta):
        raise ValueError(f"eta = {eta}: expected a finite number")
    if normalizer is not None and normalizer < 1:
        raise ValueError(
            f"normalizer = {normalizer}: expected the completions of a step, 1 or more"
        )
    terms = Terms(
        target_N=targets_N.detach(),
        group_offsets=group_offsets,
        normalizer=_normalizer(tokens, normalizer),
        eta=eta,
        mode=weight_mode,
        limit=limit,
        centered=centered,
        length_normalized=length_normalized,
        want_gradient=torch.is_grad_enabled() and logprob_T.requires_grad,
    )
    if pick_backend(backend, logprob_T) == "torch":
        return sppo_loss_reference(tokens, terms)
    terms = terms._replace(
        target_N=_plain(terms.target_N), group_offsets=group_offsets.contiguous()
    )
    loss, _, *stats = _loss_op(*_for_triton(tokens), *terms)
    return loss, LossStats(**dict(zip(LossStats.__slots__, stats, strict=True)))


@torch.library.custom_op(
    "sppo::sequence_log_ratios", mutates_args=(), schema=schema_of(Tokens, results=3)
)
def _ratios_op(*flat: Any) -> tuple[Tensor, Tensor, Tensor]:
    from sppo.kernels.loss import gpu

    return gpu.sequence_log_ratios(Tokens(*flat))


@_ratios_op.register_fake
def _(*flat: Any) -> tuple[Tensor, Tensor, Tensor]:
    tokens = Tokens(*flat)
    completions = len(tokens.cu_seqlens) - 1
    delta_N, log_rho_N, length_N = (tokens.logprob_T.new_empty(completions) for _ in range(3))
    return delta_N, log_rho_N, length_N


def _save_segments(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tokens = Tokens(*inputs)
    ctx.save_for_backward(tokens.mask_T, tokens.cu_seqlens)
    ctx.tokens = len(tokens.logprob_T)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _spread_to_tokens(ctx: Any, grad_N: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    mask_T, cu_seqlens = ctx.saved_tensors
    if grad_N is None:
        return (None,) * len(Tokens._fields)
    grad_T = grad_N[owners(cu_seqlens, ctx.tokens)]
    if mask_T is not None:
        grad_T = torch.where(mask_T != 0, grad_T, 0.0)
    return grad_T, *[None] * (len(Tokens._fields) - 1)


_ratios_op.register_autograd(_spread_to_tokens, setup_context=_save_segments)


@torch.library.custom_op(
    "sppo::sppo_loss", mutates_args=(),
    schema=schema_of(Tokens, Terms, results=2 + len(LossStats.__slots__)),
)  # fmt: skip
def _loss_op(*flat: Any) -> tuple[Tensor, ...]:
    """(loss, gradient [T], the fields of LossStats in their order)."""
    from sppo.kernels.loss import gpu

    loss, gradient_T, stats = gpu.sppo_loss(*_parts(flat))
    return loss, gradient_T, *stats


@_loss_op.register_fake
def _(*flat: Any) -> tuple[Tensor, ...]:
    tokens, terms = _parts(flat)
    fields = {name: torch.empty_like(terms.target_N) for name in LossStats.__slots__}
    fields["clipped_N"] = torch.empty_like(terms.target_N, dtype=torch.bool)
    logprob_T = tokens.logprob_T
    gradient_T = logprob_T.new_empty(len(logprob_T) if terms.want_gradient else 0)
    return logprob_T.new_empty(()), gradient_T, *fields.values()


def _parts(flat: tuple[Any, ...]) -> tuple[Tokens, Terms]:
    given = len(Tokens._fields)
    return Tokens(*flat[:given]), Terms(*flat[given:])


def _save_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(output[1])
    ctx.inputs = len(inputs)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _scale_gradient(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    (gradient_T,) = ctx.saved_tensors
    return (None if grad is None else grad * gradient_T, *[None] * (ctx.inputs - 1))


_loss_op.register_autograd(_scale_gradient, setup_context=_save_gradient)


def _normalizer(tokens: Tokens, completions: int | None) -> Tensor:
    """[] float32: the completions of a step, by default those with a token that counts."""
    if completions is not None:
        return torch.full((), completions, dtype=torch.float32, device=tokens.logprob_T.device)
    length_N = tokens.cu_seqlens.diff()
    if tokens.mask_T is not None:
        length_N = segment_sum((tokens.mask_T != 0).long(), tokens.cu_seqlens)
    return (length_N > 0).sum().clamp(min=1).float()


def _for_triton(tokens: Tokens) -> Tokens:
    """Contiguous and float32, the mask uint8."""
    mask_T = tokens.mask_T
    return Tokens(
        logprob_T=_plain(tokens.logprob_T),
        anchor_T=_plain(tokens.anchor_T),
        behavior_T=_plain(tokens.behavior_T),
        mask_T=None if mask_T is None else (mask_T != 0).to(torch.uint8),
        cu_seqlens=tokens.cu_seqlens.contiguous(),
    )


def _plain(values: Tensor) -> Tensor:
    return values.float().contiguous()
