"""Fused operations, each beside its plain-torch reference. One signature each, dispatched by device."""

from sppo.kernels.linear_logprob import linear_logprob, linear_logprob_reference
from sppo.kernels.logits_logprob import logits_logprob, logits_logprob_reference

__all__ = ["linear_logprob", "linear_logprob_reference", "logits_logprob", "logits_logprob_reference"]
