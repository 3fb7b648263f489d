"""Fused operations, each beside its plain-torch reference. One signature each, dispatched by
device.
"""

from sppo.kernels.importance import (
    CAPS,
    WEIGHTS,
    WeightStats,
    effective_sample_size,
    sequence_weights,
)
from sppo.kernels.inputs import Backend, pick_backend
from sppo.kernels.linear_logprob import linear_logprob, linear_logprob_reference
from sppo.kernels.logits_logprob import logits_logprob, logits_logprob_reference
from sppo.kernels.segments import segment_sum
from sppo.kernels.sppo_loss import (
    LossStats,
    sequence_log_ratios,
    sequence_log_ratios_reference,
    sppo_loss,
    sppo_loss_reference,
)

__all__ = [
    "CAPS",
    "WEIGHTS",
    "Backend",
    "LossStats",
    "WeightStats",
    "effective_sample_size",
    "linear_logprob",
    "linear_logprob_reference",
    "logits_logprob",
    "logits_logprob_reference",
    "pick_backend",
    "segment_sum",
    "sequence_log_ratios",
    "sequence_log_ratios_reference",
    "sequence_weights",
    "sppo_loss",
    "sppo_loss_reference",
]
