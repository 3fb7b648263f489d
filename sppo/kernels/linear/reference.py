"""The specification of `linear_logprob`: all logits in memory, then what `logits` specifies.

Shape suffixes: T tokens, H hidden, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sppo.kernels.linear.head import Head
from sppo.kernels.logits.reference import logits_logprob_reference


def linear_logprob_reference(
    hidden_TH: Tensor,
    target_T: Tensor,
    head: Head,
    *,
    ignore_index: int = -100,
    return_entropy: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """(log-prob, entropy or None, log-sum-exp) [T] as `linear_logprob` gives them."""
    dtype = torch.promote_types(hidden_TH.dtype, torch.float32)
    logits_TV = hidden_TH.to(dtype) @ head.weight_VH.to(dtype).T
    if head.bias is not None:
        logits_TV = logits_TV + head.bias.to(dtype)
    return logits_logprob_reference(
        logits_TV, target_T, temperature=head.temperature / head.factor, softcap=head.softcap,
        ignore_index=ignore_index, return_entropy=return_entropy,
    )  # fmt: skip
