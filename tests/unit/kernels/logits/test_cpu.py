"""Blocks of tokens: their number changes nothing."""

from __future__ import annotations

import torch

from sppo.kernels import logits_logprob
from sppo.kernels.logits.cpu import BLOCK_BYTES


def test_tokens_of_several_blocks_are_those_of_one_each() -> None:
    torch.manual_seed(0)
    vocabulary = BLOCK_BYTES // 8 + 1  # one token a block
    logits_TV = torch.randn(1, vocabulary).expand(3, vocabulary).contiguous().requires_grad_()
    target_T = torch.tensor([5, -100, vocabulary - 1])
    logprob_T, entropy_T, lse_T = logits_logprob(logits_TV, target_T, return_entropy=True)
    (grad_TV,) = torch.autograd.grad(logprob_T.sum(), logits_TV)
    for t in (0, 2):
        leaf_TV = logits_TV.detach()[t : t + 1].requires_grad_()
        alone = logits_logprob(leaf_TV, target_T[t : t + 1], return_entropy=True)
        (alone_TV,) = torch.autograd.grad(alone[0].sum(), leaf_TV)
        assert entropy_T is not None
        assert alone[1] is not None
        assert (logprob_T[t], entropy_T[t], lse_T[t]) == (alone[0], alone[1], alone[2])
        assert torch.equal(grad_TV[t], alone_TV[0])
    assert logprob_T[1] == lse_T[1] == 0
    assert not grad_TV[1].any()
