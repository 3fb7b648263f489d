"""The specification of `logits_logprob`, in plain torch.

Shape suffixes: T tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sppo.kernels.inputs import check_values, spread_temperature


def logits_logprob_reference(
    logits_TV: Tensor,
    target_T: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    softcap: float | None = None,
    ignore_index: int = -100,
    return_entropy: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """(log-prob, entropy or None, log-sum-exp) [T] as `logits_logprob` gives them."""
    z_TV = logits_TV.to(torch.promote_types(logits_TV.dtype, torch.float32))
    if z_TV.device.type == "cpu":
        check_values(target_T, spread_temperature(temperature, z_TV), z_TV.shape[1], ignore_index)
    if softcap is not None:
        z_TV = softcap * torch.tanh(z_TV / softcap)
    z_TV = z_TV / (temperature[:, None] if isinstance(temperature, Tensor) else temperature)
    keep_T = target_T != ignore_index
    all_TV = torch.log_softmax(z_TV, -1)
    logprob_T = all_TV.gather(-1, torch.where(keep_T, target_T, 0)[:, None])[:, 0]
    logprob_T = torch.where(keep_T, logprob_T, 0.0)
    entropy_T = None
    if return_entropy:
        p_TV = all_TV.exp()
        entropy_T = -(p_TV * all_TV.masked_fill(p_TV == 0, 0.0)).sum(-1)
        entropy_T = torch.where(keep_T, entropy_T, 0.0)
    return logprob_T, entropy_T, torch.where(keep_T, torch.logsumexp(z_TV, -1), 0.0).detach()
