"""The specification, against the formula written out for one token."""

from __future__ import annotations

import math

import pytest
import torch

from sppo.kernels.logits.reference import logits_logprob_reference


def test_it_is_the_formula_and_ignored_tokens_are_0() -> None:
    logits_TV = torch.tensor([[1.0, -2.0, 0.5], [7.0, 7.0, 7.0]], dtype=torch.float64)
    z = [2 * math.tanh(x / 2) / 0.5 for x in (1.0, -2.0, 0.5)]
    lse = math.log(sum(math.exp(x) for x in z))
    entropy = -sum(math.exp(x - lse) * (x - lse) for x in z)
    logprob_T, entropy_T, lse_T = logits_logprob_reference(
        logits_TV, torch.tensor([2, -100]), temperature=0.5, softcap=2.0, return_entropy=True
    )
    assert entropy_T is not None
    assert logprob_T.tolist() == pytest.approx([z[2] - lse, 0])
    assert entropy_T.tolist() == pytest.approx([entropy, 0])
    assert lse_T.tolist() == pytest.approx([lse, 0])


def test_a_token_without_a_probability_adds_nothing_to_the_entropy() -> None:
    logits_TV = torch.tensor([[0.0, 0.0, -torch.inf]])
    _, entropy_T, _ = logits_logprob_reference(logits_TV, torch.tensor([0]), return_entropy=True)
    assert entropy_T is not None
    assert entropy_T.tolist() == pytest.approx([math.log(2)])
