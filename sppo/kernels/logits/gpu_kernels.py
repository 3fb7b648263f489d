"""The device code of `gpu`: Triton, which is not typed as Python is.

Shape suffixes: T tokens, V vocabulary. Logits are in nats; a row is taken some N columns at a time.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sppo.kernels.device import LN2, LOG2E, LOWEST, VARYING


@triton.jit(do_not_specialize=VARYING)
def logits_forward_kernel(
    logits, target, temperature, logprob_T, entropy_T, lse_T, vocabulary, stride, ignore_index,
    SOFTCAP: tl.constexpr, HAS_ENTROPY: tl.constexpr, K: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One token, K × N columns at a time. Each of N lanes keeps its own maximum, Σ e and Σ e·log e;
    they meet at the end. The maximum is subtracted before the scale is applied: a product that is
    rounded here and fused into a subtraction there would leave an error of the offset's size.
    """
    row = tl.program_id(0).to(tl.int64)
    y = tl.load(target + row)
    keep = y != ignore_index
    known = (y >= 0) & (y < vocabulary)
    logits += row * stride
    scale = LOG2E / tl.load(temperature + row)
    top = tl.full((N,), LOWEST, tl.float32)
    total = tl.zeros((N,), tl.float32)
    weighted = tl.zeros((N,), tl.float32)
    end = tl.where(keep, vocabulary, 0)
    full = end // (K * N) * (K * N)
    for start in tl.range(0, full, K * N):
        top, total, weighted = _absorb(
            logits, start, vocabulary, top, total, weighted, scale,
            SOFTCAP, HAS_ENTROPY, False, K, N,
        )  # fmt: skip
    for start in tl.range(full, end, N):
        top, total, weighted = _absorb(
            logits, start, vocabulary, top, total, weighted, scale, SOFTCAP, HAS_ENTROPY, True, 1, N
        )
    highest = tl.max(top, 0)
    shift = (top - highest) * scale
    decay = tl.exp2(shift)
    whole = tl.where(keep, tl.sum(total * decay, 0), 1.0)
    nothing = highest <= LOWEST  # all logits −inf
    log_total = tl.where(keep & (nothing | ~known), float("nan"), tl.log2(whole))
    picked, _ = _capped(tl.load(logits + y, mask=known & keep, other=0.0), SOFTCAP)
    logprob = ((picked - highest) * scale - log_total) * LN2
    tl.store(logprob_T + row, tl.where(keep, logprob, 0.0))
    tl.store(lse_T + row, tl.where(keep, (highest * scale + log_total) * LN2, 0.0))
    if HAS_ENTROPY:
        mean = tl.sum(decay * (weighted + total * shift), 0) / whole
        tl.store(entropy_T + row, tl.where(keep, (log_total - mean) * LN2, 0.0))


@triton.jit
def _absorb(
    logits, start, vocabulary, top, total, weighted, scale,
    SOFTCAP: tl.constexpr, HAS_ENTROPY: tl.constexpr, MASKED: tl.constexpr, K: tl.constexpr,
    N: tl.constexpr,
):  # fmt: skip
    """The lanes' running values with K more columns each."""
    columns = start + tl.arange(0, K)[:, None] * N + tl.arange(0, N)[None, :]
    raw = (
        tl.load(logits + columns, mask=columns < vocabulary, other=0.0)
        if MASKED
        else tl.load(logits + columns)
    )
    z, _ = _capped(raw, SOFTCAP)
    z = tl.maximum(z, LOWEST, propagate_nan=tl.PropagateNan.ALL)
    if MASKED:
        z = tl.where(columns < vocabulary, z, 2.0 * LOWEST)  # below every maximum: e = 0
    new_top = tl.maximum(top, tl.max(z, 0))
    shift = (top - new_top) * scale
    decay = tl.exp2(shift)
    z = (z - new_top[None, :]) * scale
    e = tl.exp2(z)
    if HAS_ENTROPY:
        weighted = decay * (weighted + total * shift) + tl.sum(e * z, 0)
    return new_top, total * decay + tl.sum(e, 0), weighted


@triton.jit(do_not_specialize=VARYING)
def logits_gradient_kernel(
    logits, gradient, target, temperature, logprob_T, lse_T, entropy_T, grad_T, entropy_grad_T,
    vocabulary, stride, gradient_stride, ignore_index,
    SOFTCAP: tl.constexpr, HAS_ENTROPY: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """N columns of one token. `gradient` may be `logits`: a program reads each element before it
    writes it.
    """
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * N + tl.arange(0, N)
    inside = columns < vocabulary
    y = tl.load(target + row)
    keep = y != ignore_index
    inverse = 1.0 / tl.load(temperature + row)
    raw = tl.load(logits + row * stride + columns, mask=inside & keep, other=0.0)
    z, slope = _capped(raw, SOFTCAP)
    z *= inverse * LOG2E
    lse = tl.where(keep, tl.load(lse_T + row) * LOG2E, -LOWEST)  # p = 0 where ignored
    z = tl.maximum(z, LOWEST, propagate_nan=tl.PropagateNan.ALL) - lse
    grad = tl.where(keep, tl.load(grad_T + row) * inverse, 0.0)
    # The target's own entry comes from the log-prob, which is exact where p is nearly 1.
    logprob = tl.maximum(tl.load(logprob_T + row), LOWEST, propagate_nan=tl.PropagateNan.ALL)
    p = tl.exp2(logprob * LOG2E)
    hit = grad * (1.0 - p)
    miss = grad
    if HAS_ENTROPY:  # dH/dz_v = −p_v (log p_v + H)
        entropy_grad = tl.where(keep, tl.load(entropy_grad_T + row) * inverse, 0.0)
        entropy = tl.load(entropy_T + row)
        hit -= entropy_grad * p * (logprob + entropy)
        miss += entropy_grad * (z * LN2 + entropy)
    d = tl.where(columns == y, hit, -tl.exp2(z) * miss)
    d *= slope
    tl.store(
        gradient + row * gradient_stride + columns, d.to(gradient.dtype.element_ty), mask=inside
    )


@triton.jit
def _capped(raw, SOFTCAP: tl.constexpr):
    """Logits under the soft cap, and its slope."""
    z = raw.to(tl.float32)
    slope = 1.0
    if SOFTCAP is not None:
        z = 1.0 - 2.0 / (
            tl.exp2(z * (2.0 * LOG2E / SOFTCAP)) + 1.0
        )  # tanh(z / SOFTCAP), to about 1e-7
        slope = 1.0 - z * z
        z *= SOFTCAP
    return z, slope
