"""The device code of `gpu`: Triton, which is not typed as Python is.

Suffixes: B one block of tokens, G groups, N completions, T tokens. A program reads the tokens of
its completions once, stores what it finds of each, and then, once the mean of the group is known,
its residuals and the gradient. No atomics: every number is written by one program, and the order of
its sums does not depend on the device. Settings that are Python floats are constexpr, which never
become float64.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _segment_sums(
    logprob_T, anchor_T, behavior_T, mask, begin, end, HAS_MASK: tl.constexpr, BLOCK: tl.constexpr
):
    """(Δ, log ρ, tokens that count) of one completion, its tokens being [begin, end)."""
    delta_B = tl.zeros((BLOCK,), tl.float32)
    log_rho_B = tl.zeros((BLOCK,), tl.float32)
    count_B = tl.zeros((BLOCK,), tl.float32)
    for first in tl.range(begin, end, BLOCK):
        at_B = first + tl.arange(0, BLOCK)
        counts_B = at_B < end
        if HAS_MASK:
            counts_B = counts_B & (tl.load(mask + at_B, mask=counts_B, other=0) != 0)
        anchor_B = tl.load(anchor_T + at_B, mask=counts_B, other=0.0)
        delta_B += tl.load(logprob_T + at_B, mask=counts_B, other=0.0) - anchor_B
        log_rho_B += anchor_B - tl.load(behavior_T + at_B, mask=counts_B, other=0.0)
        count_B += counts_B.to(tl.float32)
    return tl.sum(delta_B, 0), tl.sum(log_rho_B, 0), tl.sum(count_B, 0)


@triton.jit
def _weight(log_rho, length, MODE: tl.constexpr, LIMIT: tl.constexpr):
    """(w, whether the cap changed it, whether it takes part in its group's mean):
    `sppo.kernels.importance` for one completion; LIMIT is the log of the cap.
    """
    part = length > 0.0
    if MODE == "none":
        clipped = False
        weight = 1.0
    elif MODE == "sequence":
        clipped = log_rho > LIMIT
        weight = tl.exp(tl.minimum(log_rho, LIMIT))
    else:
        log_ratio = log_rho / tl.maximum(length, 1.0)
        clipped = tl.abs(log_ratio) > LIMIT
        if MODE == "masked":
            weight = 1.0
            part = part & (clipped == 0)
        else:
            weight = tl.exp(tl.minimum(tl.maximum(log_ratio, -LIMIT), LIMIT))
    return tl.where(part, weight, 0.0), clipped, part


@triton.jit
def sequence_log_ratios_kernel(
    logprob_T, anchor_T, behavior_T, mask, cu_seqlens, delta_N, log_rho_N, length_N,
    HAS_MASK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program per completion."""
    i = tl.program_id(0)
    begin = tl.load(cu_seqlens + i).to(tl.int64)
    end = tl.load(cu_seqlens + i + 1).to(tl.int64)
    delta, log_rho, length = _segment_sums(
        logprob_T, anchor_T, behavior_T, mask, begin, end, HAS_MASK, BLOCK
    )
    tl.store(delta_N + i, delta)
    tl.store(log_rho_N + i, log_rho)
    tl.store(length_N + i, length)


@triton.jit
def sppo_loss_kernel(
    logprob_T, anchor_T, behavior_T, mask, cu_seqlens, target_N, group_offsets, normalizer,
    loss_G, gradient_T, residual_N, delta_N, shifted_N, weight_N, clipped_N, log_rho_N, length_N,
    ETA: tl.constexpr, MODE: tl.constexpr, LIMIT: tl.constexpr, CENTERED: tl.constexpr,
    LENGTH_NORMALIZED: tl.constexpr, HAS_MASK: tl.constexpr, WANT_GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One program per group; `shifted_N` receives the targets, less their group's mean where
    CENTERED.
    """
    group = tl.program_id(0)
    first = tl.load(group_offsets + group).to(tl.int64)
    last = tl.load(group_offsets + group + 1).to(tl.int64)
    residual_sum = 0.0
    target_sum = 0.0
    count = 0.0
    for i in tl.range(first, last):
        begin = tl.load(cu_seqlens + i).to(tl.int64)
        end = tl.load(cu_seqlens + i + 1).to(tl.int64)
        delta, log_rho, length = _segment_sums(
            logprob_T, anchor_T, behavior_T, mask, begin, end, HAS_MASK, BLOCK
        )
        weight, clipped, part = _weight(log_rho, length, MODE, LIMIT)
        target = tl.load(target_N + i)
        residual = delta
        if LENGTH_NORMALIZED:
            residual = delta / tl.maximum(length, 1.0)
        residual = residual - ETA * target
        residual_sum += tl.where(part, residual, 0.0)
        target_sum += tl.where(part, target, 0.0)
        count += part.to(tl.float32)
        tl.store(residual_N + i, residual)
        tl.store(delta_N + i, delta)
        tl.store(weight_N + i, weight)
        tl.store(clipped_N + i, clipped)
        tl.store(log_rho_N + i, log_rho)
        tl.store(length_N + i, length)
    tl.debug_barrier()  # what one thread stored above, all threads load below
    completions = tl.load(normalizer)
    count = tl.maximum(count, 1.0)
    loss = 0.0
    for i in tl.range(first, last):
        residual = tl.load(residual_N + i)
        target = tl.load(target_N + i)
        if CENTERED:
            residual = residual - residual_sum / count
            target = target - target_sum / count
        weight = tl.load(weight_N + i)
        loss += weight * residual * residual
        if CENTERED:
            tl.debug_barrier()  # every thread has loaded the residual that is replaced
            tl.store(residual_N + i, residual)
        tl.store(shifted_N + i, target)
        if WANT_GRADIENT:
            scale = 2.0 * weight * residual / completions
            if LENGTH_NORMALIZED:
                scale = scale / tl.maximum(tl.load(length_N + i), 1.0)
            _spread(scale, gradient_T, mask, cu_seqlens + i, HAS_MASK, BLOCK)
    tl.store(loss_G + group, loss / completions)


@triton.jit
def _spread(scale, gradient_T, mask, offset, HAS_MASK: tl.constexpr, BLOCK: tl.constexpr):
    """One completion's gradient to its tokens that count; `offset` points at where it begins."""
    begin = tl.load(offset).to(tl.int64)
    end = tl.load(offset + 1).to(tl.int64)
    for start in tl.range(begin, end, BLOCK):
        at_B = start + tl.arange(0, BLOCK)
        counts_B = at_B < end
        if HAS_MASK:
            counts_B = tl.load(mask + at_B, mask=counts_B, other=0) != 0
        tl.store(gradient_T + at_B, tl.where(counts_B, scale, 0.0), mask=at_B < end)
