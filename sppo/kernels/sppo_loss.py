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
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sppo.kernels.importance import WEIGHTS, log_cap
from sppo.kernels.inputs import Backend, describe, pick_backend, require
from sppo.kernels.segments import owners, segment_mean, segment_sum


@dataclass(frozen=True, slots=True, kw_only=True)
class LossStats:
    """What the loss was made of, detached, for every completion it was given."""

    residual_N: Tensor
    delta_N: Tensor
    """Δ in nats, before any length normalisation."""
    target_N: Tensor
    """A; for `centered` the score minus its group's mean."""
    weight_N: Tensor
    clipped_N: Tensor
    """True where the cap changed the weight."""
    log_rho_N: Tensor
    """log ρ in nats, over the sequence."""
    length_N: Tensor


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
    _check_tokens(logprob_T, anchor_T, behavior_T, mask_T, cu_seqlens)
    if pick_backend(backend, logprob_T) == "torch":
        return sequence_log_ratios_reference(logprob_T, anchor_T, behavior_T, mask_T, cu_seqlens)
    tokens = (_plain(logprob_T), _plain(anchor_T.detach()), _plain(behavior_T.detach()))
    delta_N, log_rho_N, length_N = _ratios_op(*tokens, _bytes(mask_T), cu_seqlens.contiguous())
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

    `targets_N` are the A of `compute_targets`, or the scores s where `centered`. `group_offsets` [G
    + 1] are offsets into N; without them every completion is its own group. `normalizer` is the
    number of completions in the optimizer step, N by default. NaN in a token that counts makes the
    loss NaN. Raises ValueError as `sequence_log_ratios` does, and for an unknown weight mode, a cap
    ≤ 1, an eta that is not finite or a normalizer below 1.
    """
    _check_tokens(logprob_T, anchor_T, behavior_T, mask_T, cu_seqlens)
    if group_offsets is None:
        group_offsets = torch.arange(len(cu_seqlens), device=cu_seqlens.device)
    _check_groups(targets_N, cu_seqlens, group_offsets, logprob_T)
    limit = log_cap(weight_mode, cap)
    normalizer = max(len(targets_N), 1) if normalizer is None else normalizer
    if not math.isfinite(eta):
        raise ValueError(f"eta = {eta}: expected a finite number")
    if normalizer < 1:
        raise ValueError(
            f"normalizer = {normalizer}: expected the completions of a step, 1 or more"
        )
    options: dict[str, Any] = {
        "eta": eta,
        "mode": weight_mode,
        "limit": limit,
        "centered": centered,
        "length_normalized": length_normalized,
        "normalizer": normalizer,
    }
    fixed = (anchor_T.detach(), behavior_T.detach())
    if pick_backend(backend, logprob_T) == "torch":
        return sppo_loss_reference(
            logprob_T, *fixed, mask_T, cu_seqlens, targets_N.detach(), group_offsets, **options
        )
    loss, _, *stats = _loss_op(
        _plain(logprob_T), *map(_plain, fixed), _bytes(mask_T), cu_seqlens.contiguous(),
        _plain(targets_N.detach()),
        group_offsets.contiguous(), **options,
        want_gradient=torch.is_grad_enabled() and logprob_T.requires_grad,
    )  # fmt: skip
    return loss, LossStats(**dict(zip(LossStats.__slots__, stats, strict=True)))


# references ---------------------------------------------------------------------------------------


def sequence_log_ratios_reference(
    logprob_T: Tensor,
    anchor_T: Tensor,
    behavior_T: Tensor,
    mask_T: Tensor | None,
    cu_seqlens: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The specification of `sequence_log_ratios`, in plain torch. Sums are float32, or float64 for
    float64.
    """
    wide = torch.promote_types(logprob_T.dtype, torch.float32)
    logprob_T, anchor_T, behavior_T = (
        values_T.to(wide) for values_T in (logprob_T, anchor_T, behavior_T)
    )
    counts_T = torch.ones_like(logprob_T, dtype=torch.bool) if mask_T is None else mask_T != 0
    delta_T = torch.where(counts_T, logprob_T - anchor_T.detach(), 0.0)
    log_rho_T = torch.where(counts_T, (anchor_T - behavior_T).detach(), 0.0)
    sums = (
        segment_sum(values_T, cu_seqlens)
        for values_T in (delta_T, log_rho_T, counts_T.to(logprob_T.dtype))
    )
    delta_N, log_rho_N, length_N = sums
    return delta_N, log_rho_N, length_N


def sppo_loss_reference(
    logprob_T: Tensor, anchor_T: Tensor, behavior_T: Tensor, mask_T: Tensor | None,
    cu_seqlens: Tensor,
    target_N: Tensor, group_offsets: Tensor, *, eta: float, mode: str, limit: float, centered: bool,
    length_normalized: bool, normalizer: int,
) -> tuple[Tensor, LossStats]:  # fmt: skip
    """The specification of `sppo_loss`; `limit` is the log of the cap."""
    delta_N, log_rho_N, length_N = sequence_log_ratios_reference(
        logprob_T, anchor_T, behavior_T, mask_T, cu_seqlens
    )
    weight_N, clipped_N = WEIGHTS[mode](log_rho_N, length_N, limit)
    regressed_N = delta_N / length_N.clamp(min=1) if length_normalized else delta_N
    residual_N = regressed_N - eta * target_N
    if centered:
        residual_N = residual_N - segment_mean(residual_N.detach(), group_offsets)
        target_N = target_N - segment_mean(target_N, group_offsets)
    loss = (weight_N * residual_N**2).sum() / normalizer
    return loss, LossStats(
        residual_N=residual_N.detach(),
        delta_N=delta_N.detach(),
        target_N=target_N,
        weight_N=weight_N,
        clipped_N=clipped_N,
        log_rho_N=log_rho_N,
        length_N=length_N,
    )


# operations that autograd and torch.compile see as one --------------------------------------------


@torch.library.custom_op("sppo::sequence_log_ratios", mutates_args=())
def _ratios_op(
    logprob_T: Tensor,
    anchor_T: Tensor,
    behavior_T: Tensor,
    mask_T: Tensor | None,
    cu_seqlens: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    from sppo.kernels import triton_loss

    return triton_loss.sequence_log_ratios(logprob_T, anchor_T, behavior_T, mask_T, cu_seqlens)


@_ratios_op.register_fake
def _(
    logprob_T: Tensor,
    anchor_T: Tensor,
    behavior_T: Tensor,
    mask_T: Tensor | None,
    cu_seqlens: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    delta_N, log_rho_N, length_N = (logprob_T.new_empty(len(cu_seqlens) - 1) for _ in range(3))
    return delta_N, log_rho_N, length_N


def _save_segments(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    logprob_T, _, _, mask_T, cu_seqlens = inputs
    ctx.save_for_backward(mask_T, cu_seqlens)
    ctx.tokens = len(logprob_T)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _spread_to_tokens(ctx: Any, grad_N: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    mask_T, cu_seqlens = ctx.saved_tensors
    if grad_N is None:
        return (None,) * 5
    grad_T = grad_N[owners(cu_seqlens, ctx.tokens)]
    return (grad_T if mask_T is None else torch.where(mask_T != 0, grad_T, 0.0), *[None] * 4)


_ratios_op.register_autograd(_spread_to_tokens, setup_context=_save_segments)


@torch.library.custom_op("sppo::sppo_loss", mutates_args=())
def _loss_op(
    logprob_T: Tensor, anchor_T: Tensor, behavior_T: Tensor, mask_T: Tensor | None,
    cu_seqlens: Tensor,
    target_N: Tensor, group_offsets: Tensor, eta: float, mode: str, limit: float, centered: bool,
    length_normalized: bool, normalizer: int, want_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """(loss, gradient [T], the fields of LossStats in their order)."""
    from sppo.kernels import triton_loss

    loss, gradient_T, stats = triton_loss.sppo_loss(
        logprob_T, anchor_T, behavior_T, mask_T, cu_seqlens, target_N, group_offsets, eta=eta,
        mode=mode, limit=limit,
        centered=centered, length_normalized=length_normalized, normalizer=normalizer,
        want_gradient=want_gradient,
    )  # fmt: skip
    return loss, gradient_T, *stats  # type: ignore[return-value]


@_loss_op.register_fake
def _(
    logprob_T: Tensor, anchor_T: Tensor, behavior_T: Tensor, mask_T: Tensor | None,
    cu_seqlens: Tensor,
    target_N: Tensor, group_offsets: Tensor, eta: float, mode: str, limit: float, centered: bool,
    length_normalized: bool, normalizer: int, want_gradient: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    fields = [torch.empty_like(target_N) for _ in LossStats.__slots__]
    fields[LossStats.__slots__.index("clipped_N")] = torch.empty_like(target_N, dtype=torch.bool)
    return (
        logprob_T.new_empty(()),
        logprob_T.new_empty(len(logprob_T) if want_gradient else 0),
        *fields,
    )


def _save_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(output[1])
    ctx.inputs = len(inputs)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _scale_gradient(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    (gradient_T,) = ctx.saved_tensors
    return (None if grad is None else grad * gradient_T, *[None] * (ctx.inputs - 1))


_loss_op.register_autograd(_scale_gradient, setup_context=_save_gradient)


def _plain(values: Tensor) -> Tensor:
    return values.float().contiguous()


def _bytes(mask_T: Tensor | None) -> Tensor | None:
    return None if mask_T is None else (mask_T != 0).to(torch.uint8)


# checks -------------------------------------------------------------------------------------------


def _check_tokens(
    logprob_T: Tensor,
    anchor_T: Tensor,
    behavior_T: Tensor,
    mask_T: Tensor | None,
    cu_seqlens: Tensor,
) -> None:
    expected = f"expected a floating [{logprob_T.numel()}] on {logprob_T.device}, as logprob_T"
    if logprob_T.ndim != 1 or not logprob_T.is_floating_point():
        raise ValueError(f"logprob_T is {describe(logprob_T)}: expected a floating [T]")
    for name, values_T in (("anchor_T", anchor_T), ("behavior_T", behavior_T)):
        if _unlike(values_T, logprob_T) or not values_T.is_floating_point():
            raise ValueError(f"{name} is {describe(values_T)}: {expected}")
    if mask_T is not None and _unlike(mask_T, logprob_T):
        raise ValueError(f"mask_T is {describe(mask_T)}: {expected.replace('floating', 'bool')}")
    _check_offsets("cu_seqlens", cu_seqlens, len(logprob_T), logprob_T)


def _check_groups(
    targets_N: Tensor, cu_seqlens: Tensor, group_offsets: Tensor, logprob_T: Tensor
) -> None:
    completions = len(cu_seqlens) - 1
    if (
        targets_N.shape != (completions,)
        or targets_N.device != logprob_T.device
        or not targets_N.is_floating_point()
    ):  # fmt: skip
        raise ValueError(
            f"targets_N is {describe(targets_N)}: expected a floating [{completions}] on "
            f"{logprob_T.device},"
            " one for each completion of cu_seqlens"
        )
    _check_offsets("group_offsets", group_offsets, completions, logprob_T)


def _check_offsets(name: str, offsets: Tensor, total: int, like: Tensor) -> None:
    if (
        offsets.ndim != 1
        or not len(offsets)
        or offsets.dtype not in (torch.int32, torch.int64)
        or offsets.device != like.device
    ):
        raise ValueError(
            f"{name} is {describe(offsets)}: expected int32 or int64 offsets on {like.device}"
        )
    if not torch.compiler.is_compiling():
        whole = (offsets[0] == 0) & (offsets[-1] == total) & (offsets.diff() >= 0).all()
        require(
            whole, f"{name} {list(offsets.shape)}: expected offsets that rise from 0 to {total}"
        )


def _unlike(values_T: Tensor, logprob_T: Tensor) -> bool:
    return values_T.shape != logprob_T.shape or values_T.device != logprob_T.device
