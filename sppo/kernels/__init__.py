"""Fused operations: a folder for each, with its reference in plain torch, its paths on a CPU and in
Triton, and the operation that torch sees. Shared by them: inputs, segments, importance, tiles.
"""

from sppo.kernels.importance import (
    CAPS,
    WEIGHTS,
    effective_sample_size,
    sequence_weights,
)
from sppo.kernels.inputs import Backend, pick_backend
from sppo.kernels.linear.dispatch import linear_logprob
from sppo.kernels.linear.head import Head
from sppo.kernels.logits.dispatch import logits_logprob
from sppo.kernels.loss.call import LossStats
from sppo.kernels.loss.dispatch import sequence_log_ratios, sppo_loss
from sppo.kernels.segments import segment_sum

__all__ = [
    "CAPS",
    "WEIGHTS",
    "Backend",
    "Head",
    "LossStats",
    "effective_sample_size",
    "linear_logprob",
    "logits_logprob",
    "pick_backend",
    "segment_sum",
    "sequence_log_ratios",
    "sequence_weights",
    "sppo_loss",
]
