"""The device code of `gpu`: Triton, which is not typed as Python is.

Inside these kernels logits are in units of log 2. Softcap, bias and the rest are compiled in or
out.

Shape suffixes: T tokens, S splits of the vocabulary, C columns of a chunk; BM × BN × BK as in
tiles.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sppo.kernels.device import LN2, LOG2E, LOWEST, VARYING

GROUP = tl.constexpr(8)  # tiles of tokens that share columns of the weight in the L2 cache


@triton.jit(do_not_specialize=VARYING)
def forward_kernel(
    hidden, weight, bias, target, temperature, max_ST, sum_ST, weighted_ST, picked_T,
    tokens, vocabulary, width, hidden_stride, weight_stride, first_split, ignore_index,
    SPLIT: tl.constexpr, SOFTCAP: tl.constexpr, HAS_ENTROPY: tl.constexpr, EVEN_V: tl.constexpr,
    PRECISION: tl.constexpr, TMA: tl.constexpr, PARTS: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """One tile of tokens against one split of the vocabulary."""
    row = tl.program_id(0) * BM
    split = first_split + tl.program_id(1)
    rows = row + tl.arange(0, BM)
    inside = rows < tokens
    y = tl.load(target + rows, mask=inside, other=ignore_index)
    kept = tl.max((y != ignore_index).to(tl.int32), 0) > 0
    start = split * SPLIT
    stop = tl.where(kept, tl.minimum(start + SPLIT, vocabulary), start)
    scale = LOG2E / tl.load(temperature + rows, mask=inside, other=1.0)
    if not TMA:
        hidden = tl.make_tensor_descriptor(hidden, [tokens, width], [hidden_stride, 1], [BM, BK])
        weight = tl.make_tensor_descriptor(
            weight, [vocabulary, width], [weight_stride, 1], [BN, BK]
        )
    y = y.to(tl.int32)
    top = tl.full((BM,), LOWEST, tl.float32)
    total = tl.zeros((BM,), tl.float32)
    weighted = tl.zeros((BM,), tl.float32)
    picked = tl.zeros((BM,), tl.float32)
    for column in tl.range(start, stop, BN):
        acc = _product(hidden, weight, row, column, width, PRECISION, BM, BN, BK)
        if PARTS == 1:
            top, total, weighted, picked = _absorb(
                acc, column, y, top, total, weighted, picked, scale, bias, vocabulary,
                SOFTCAP, HAS_ENTROPY, EVEN_V, BN,
            )  # fmt: skip
        else:
            left, right = _halves(acc, BM, BN)
            top, total, weighted, picked = _absorb(
                left, column, y, top, total, weighted, picked, scale, bias, vocabulary,
                SOFTCAP, HAS_ENTROPY, EVEN_V, BN // 2,
            )  # fmt: skip
            top, total, weighted, picked = _absorb(
                right, column + BN // 2, y, top, total, weighted, picked, scale, bias, vocabulary,
                SOFTCAP, HAS_ENTROPY, EVEN_V, BN // 2,
            )  # fmt: skip
    place = split.to(tl.int64) * tokens + rows
    tl.store(max_ST + place, top, mask=inside)
    tl.store(sum_ST + place, total, mask=inside)
    if HAS_ENTROPY:
        tl.store(weighted_ST + place, weighted, mask=inside)
    tl.store(picked_T + rows, picked, mask=inside & (y >= start) & (y < stop))


@triton.jit(do_not_specialize=VARYING)
def combine_kernel(
    max_ST, sum_ST, weighted_ST, picked_T, target, logprob_T, entropy_T, lse_T,
    tokens, vocabulary, splits, ignore_index, HAS_ENTROPY: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """The splits' partial results of BM tokens, put together and turned into nats."""
    rows = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    inside = rows < tokens
    place = rows
    top = tl.full((BM,), LOWEST, tl.float32)
    for _ in range(splits):
        top = tl.maximum(top, tl.load(max_ST + place, mask=inside, other=0.0))
        place += tokens
    place = rows
    total = tl.zeros((BM,), tl.float32)
    weighted = tl.zeros((BM,), tl.float32)
    for _ in range(splits):
        shift = tl.load(max_ST + place, mask=inside, other=0.0) - top
        part = tl.load(sum_ST + place, mask=inside, other=1.0)
        decay = tl.exp2(shift)
        total += decay * part
        if HAS_ENTROPY:
            weighted += decay * (
                tl.load(weighted_ST + place, mask=inside, other=0.0) + shift * part
            )
        place += tokens
    y = tl.load(target + rows, mask=inside, other=ignore_index)
    keep = y != ignore_index
    known = (y >= 0) & (y < vocabulary)
    picked = tl.load(picked_T + rows, mask=inside & known & keep, other=0.0)
    total = tl.where(keep, total, 1.0)
    nothing = top <= LOWEST  # all logits −inf
    log_total = tl.where(keep & (nothing | ~known), float("nan"), tl.log2(total))
    tl.store(logprob_T + rows, tl.where(keep, ((picked - top) - log_total) * LN2, 0.0), mask=inside)
    tl.store(lse_T + rows, tl.where(keep, (top + log_total) * LN2, 0.0), mask=inside)
    if HAS_ENTROPY:
        tl.store(
            entropy_T + rows, tl.where(keep, (log_total - weighted / total) * LN2, 0.0), mask=inside
        )


@triton.jit(do_not_specialize=VARYING)
def gradient_kernel(
    hidden, weight, bias, target, temperature, logprob_T, lse_T, entropy_T, grad_T, entropy_grad_T,
    gradient_TC,
    tokens, columns, first_column, width, hidden_stride, weight_stride, gradient_stride,
    ignore_index,
    SOFTCAP: tl.constexpr, HAS_ENTROPY: tl.constexpr, EVEN_V: tl.constexpr,
    PRECISION: tl.constexpr, TMA: tl.constexpr, PARTS: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """One tile of a chunk of the vocabulary: the gradient with respect to hidden · weightᵀ +
    bias.
    """
    across, down = tl.cdiv(columns, BN), tl.cdiv(tokens, BM)
    program = tl.program_id(0)
    first = program // (GROUP * across) * GROUP
    group = tl.minimum(down - first, GROUP)
    row = (first + program % (GROUP * across) % group) * BM
    column = program % (GROUP * across) // group * BN
    rows = row + tl.arange(0, BM)
    inside = rows < tokens
    y = tl.load(target + rows, mask=inside, other=ignore_index)
    keep = y != ignore_index
    steps = tl.where(tl.max(keep.to(tl.int32), 0) > 0, width, 0)
    if not TMA:
        hidden = tl.make_tensor_descriptor(hidden, [tokens, width], [hidden_stride, 1], [BM, BK])
        weight = tl.make_tensor_descriptor(weight, [columns, width], [weight_stride, 1], [BN, BK])
    acc = _product(hidden, weight, row, column, steps, PRECISION, BM, BN, BK)
    scale, lse, hit, miss, entropy_grad = _upstream(
        rows, inside, keep, temperature, logprob_T, lse_T, entropy_T, grad_T, entropy_grad_T,
        HAS_ENTROPY,
    )  # fmt: skip
    y = y.to(tl.int32) - first_column
    start = gradient_TC + rows.to(tl.int64)[:, None] * gradient_stride
    if PARTS == 1:
        _store_gradient(
            acc, column, start, inside, y, scale, lse, hit, miss, entropy_grad * LN2, bias, columns,
            SOFTCAP, HAS_ENTROPY, EVEN_V, BN,
        )  # fmt: skip
    else:
        left, right = _halves(acc, BM, BN)
        _store_gradient(
            left, column, start, inside, y, scale, lse, hit, miss, entropy_grad * LN2, bias,
            columns,
            SOFTCAP, HAS_ENTROPY, EVEN_V, BN // 2,
        )  # fmt: skip
        _store_gradient(
            right, column + BN // 2, start, inside, y, scale, lse, hit, miss, entropy_grad * LN2,
            bias, columns,
            SOFTCAP, HAS_ENTROPY, EVEN_V, BN // 2,
        )  # fmt: skip


@triton.jit
def _upstream(
    rows, inside, keep, temperature, logprob_T, lse_T, entropy_T, grad_T, entropy_grad_T,
    HAS_ENTROPY: tl.constexpr,
):  # fmt: skip
    """Of each token: the factor that takes logits to z in units of log 2, lse in them, `hit` and
    `miss` of `_store_gradient`, the gradient of the entropy.
    """
    inverse = 1.0 / tl.load(temperature + rows, mask=inside, other=1.0)
    lse = tl.where(
        keep, tl.load(lse_T + rows, mask=inside, other=0.0) * LOG2E, -LOWEST
    )  # p = 0 where ignored
    miss = tl.where(keep, tl.load(grad_T + rows, mask=inside, other=0.0) * inverse, 0.0)
    entropy_grad = miss
    # The target's own entry comes from the log-prob, which is exact where p is nearly 1.
    logprob = tl.maximum(
        tl.load(logprob_T + rows, mask=inside, other=0.0), LOWEST, propagate_nan=tl.PropagateNan.ALL
    )
    p = tl.exp2(logprob * LOG2E)
    hit = miss * (1.0 - p)
    if HAS_ENTROPY:  # dH/dz_v = −p_v (log p_v + H)
        entropy_grad = tl.where(
            keep, tl.load(entropy_grad_T + rows, mask=inside, other=0.0) * inverse, 0.0
        )
        entropy = tl.load(entropy_T + rows, mask=inside, other=0.0)
        hit -= entropy_grad * p * (logprob + entropy)
        miss += entropy_grad * entropy
    return inverse * LOG2E, lse, hit, miss, entropy_grad


@triton.jit
def _product(
    hidden, weight, row, column, width,
    PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """hidden · weightᵀ: one float32 tile."""
    acc = tl.zeros((BM, BN), tl.float32)
    for k in tl.range(0, width, BK):
        acc = tl.dot(
            hidden.load([row, k]), weight.load([column, k]).T, acc, input_precision=PRECISION
        )
    return acc


@triton.jit
def _halves(acc, BM: tl.constexpr, BN: tl.constexpr):
    """The left and the right columns of a tile."""
    return tl.split(tl.permute(tl.reshape(acc, (BM, 2, BN // 2)), (0, 2, 1)))


@triton.jit
def _absorb(
    acc, column, y, top, total, weighted, picked, scale, bias, vocabulary,
    SOFTCAP: tl.constexpr, HAS_ENTROPY: tl.constexpr, EVEN_V: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """The running maximum, Σ e, Σ e·(z − maximum) and the target's logit with N more columns."""
    z, _ = _logits(acc, column, scale, bias, vocabulary, SOFTCAP, EVEN_V, N)
    here = y - column
    hit = tl.sum(tl.where(tl.arange(0, N)[None, :] == here[:, None], z, 0.0), 1)
    picked = tl.where((here >= 0) & (here < N), hit, picked)
    if bias is not None:  # a bias of −inf takes a token out of the vocabulary
        z = tl.maximum(z, LOWEST, propagate_nan=tl.PropagateNan.ALL)
    new_top = tl.maximum(top, tl.max(z, 1))
    decay = tl.exp2(top - new_top)
    z -= new_top[:, None]
    e = tl.exp2(z)
    if HAS_ENTROPY:
        weighted = decay * (weighted + total * (top - new_top)) + tl.sum(e * z, 1)
    total = total * decay + tl.sum(e, 1)
    return new_top, total, weighted, picked


@triton.jit
def _store_gradient(
    acc, column, start, inside, y, scale, lse, hit, miss, entropy_grad, bias, vocabulary,
    SOFTCAP: tl.constexpr, HAS_ENTROPY: tl.constexpr, EVEN_V: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """`hit` at the target, −p (grad + entropy_grad (log p + H)) elsewhere: in float32, rounded when
    it is stored.
    """
    z, slope = _logits(acc, column, scale, bias, vocabulary, SOFTCAP, EVEN_V, N)
    if bias is not None:
        z = tl.maximum(z, LOWEST, propagate_nan=tl.PropagateNan.ALL)
    z -= lse[:, None]
    p = tl.exp2(z)
    at = column + tl.arange(0, N)
    factor = miss[:, None]
    if HAS_ENTROPY:
        factor = factor + entropy_grad[:, None] * z
    d = tl.where(at[None, :] == y[:, None], hit[:, None], -p * factor)
    if SOFTCAP is not None:
        d *= slope
    mask = inside[:, None] if EVEN_V else inside[:, None] & (at < vocabulary)[None, :]
    tl.store(start + at[None, :], d.to(start.dtype.element_ty), mask=mask)


@triton.jit
def _logits(
    acc, column, scale, bias, vocabulary,
    SOFTCAP: tl.constexpr, EVEN_V: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Logits in units of log 2, LOWEST beyond the vocabulary, and the slope of the soft cap."""
    columns = column + tl.arange(0, N)
    if bias is not None:
        acc += tl.load(bias + columns, mask=columns < vocabulary, other=-float("inf")).to(
            tl.float32
        )[None, :]
    slope = 1.0
    if SOFTCAP is not None:
        acc = 1.0 - 2.0 / (
            tl.exp2(acc * (2.0 * LOG2E / SOFTCAP)) + 1.0
        )  # tanh(acc / SOFTCAP), to about 1e-7
        slope = 1.0 - acc * acc
        acc *= SOFTCAP
    z = acc * scale[:, None]
    if not EVEN_V and (bias is None or SOFTCAP is not None):
        z = tl.where((columns < vocabulary)[None, :], z, LOWEST)
    return z, slope
