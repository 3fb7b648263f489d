"""The Triton path of `logits_logprob`: one pass over the logits forward, one backward, nothing else
of size [T, V].

A target outside the vocabulary turns its log-prob, its log-sum-exp and its gradient to NaN; nothing
waits for the device. Shape suffixes: T tokens, V vocabulary.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from sppo.kernels.inputs import launching_on, only_above_0
from sppo.kernels.logits.call import Call, Upstream
from sppo.kernels.logits.gpu_kernels import logits_forward_kernel, logits_gradient_kernel
from sppo.kernels.tiles import LANE_COLUMNS, LANES

NUM_WARPS = 8


def forward(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """(log-prob, entropy, log-sum-exp), float32 [T]; the entropy is empty unless it is asked
    for.
    """
    tokens, vocabulary = call.logits_TV.shape
    temperature_T, entropy = only_above_0(call.temperature_T), call.return_entropy
    logprob_T, lse_T = torch.empty_like(temperature_T), torch.empty_like(temperature_T)
    entropy_T = torch.empty_like(temperature_T) if entropy else temperature_T.new_empty(0)
    logits_TV = _row_major(call.logits_TV)
    if tokens:
        with launching_on(logits_TV):
            logits_forward_kernel[(tokens,)](
                logits_TV, call.target_T, temperature_T, logprob_T, entropy_T, lse_T,
                vocabulary, logits_TV.stride(0), call.ignore_index, SOFTCAP=call.softcap,
                HAS_ENTROPY=entropy, K=LANE_COLUMNS, N=LANES, num_warps=NUM_WARPS,
            )  # fmt: skip
    return logprob_T, entropy_T, lse_T


def backward(call: Call, upstream: Upstream) -> None:
    """Write the gradient of the logits into `into_TV`, which has contiguous rows and may be
    `logits_TV`.
    """
    tokens, vocabulary = call.logits_TV.shape
    logits_TV, into_TV = _row_major(call.logits_TV), upstream.into_TV
    entropy_grad_T = upstream.entropy_grad_T
    if tokens:
        with launching_on(logits_TV):
            logits_gradient_kernel[(tokens, triton.cdiv(vocabulary, LANES))](
                logits_TV, into_TV, call.target_T, call.temperature_T,
                upstream.logprob_T, upstream.lse_T, upstream.entropy_T,
                upstream.grad_T.contiguous(),
                None if entropy_grad_T is None else entropy_grad_T.contiguous(),
                vocabulary, logits_TV.stride(0), into_TV.stride(0), call.ignore_index,
                SOFTCAP=call.softcap, HAS_ENTROPY=entropy_grad_T is not None, N=LANES,
                num_warps=NUM_WARPS,
            )  # fmt: skip


def _row_major(logits_TV: Tensor) -> Tensor:
    """The same numbers with contiguous rows; copied only where they are not."""
    return logits_TV if logits_TV.stride(1) == 1 else logits_TV.contiguous()
