"""The specification, against the formula written out for one token."""

from __future__ import annotations

import math

import pytest
import torch

from sppo.kernels import Head
from sppo.kernels.linear.reference import linear_logprob_reference


def test_it_is_the_formula() -> None:
    hidden_TH = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    weight_VH = torch.tensor([[0.5, 0.0], [1.0, 1.0], [-1.0, 2.0]], dtype=torch.float64)
    head = Head(
        weight_VH=weight_VH, bias=torch.tensor([0.1, 0.2, 0.3]).double(), temperature=0.8,
        softcap=3.0,
    )  # fmt: skip
    raw = [0.5 + 0.1, -1.0 + 0.2, -5.0 + 0.3]
    z = [3 * math.tanh(x / 3) / 0.8 for x in raw]
    lse = math.log(sum(math.exp(x) for x in z))
    p = [math.exp(x - lse) for x in z]
    found = linear_logprob_reference(hidden_TH, torch.tensor([1]), head, return_entropy=True)
    entropy = -sum(q * math.log(q) for q in p)
    assert [float(values_T) for values_T in found if values_T is not None] == pytest.approx(
        [z[1] - lse, entropy, lse], abs=1e-7
    )
