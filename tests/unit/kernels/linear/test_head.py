"""The head as one value: its factor, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sppo.kernels import Head, linear_logprob
from tests.heads import inputs

DATA = inputs(6, 8, 50, torch.float32)
HIDDEN, WEIGHT, TARGET = DATA.values()


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("temperature", [0.7, torch.linspace(0.5, 1.5, 6)])
def test_a_factor_multiplies_the_logits(backend: Any, temperature: Any) -> None:
    bias = torch.randn(50)
    plain = Head(weight_VH=4 * WEIGHT, bias=4 * bias, temperature=temperature)
    scaled = Head(weight_VH=WEIGHT, bias=bias, temperature=temperature, factor=4.0)
    wanted, _, _ = linear_logprob(HIDDEN, TARGET, plain, backend=backend)
    found, _, _ = linear_logprob(HIDDEN, TARGET, scaled, backend=backend)
    torch.testing.assert_close(found, wanted)


def test_what_logits_are_divided_by() -> None:
    head = Head(weight_VH=WEIGHT, temperature=0.5, factor=0.25)
    assert head.temperature_T(HIDDEN).tolist() == [2.0] * 6


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"weight_VH": WEIGHT[:0]}, r"weight_VH is float32 \[0, 8\] on cpu: expected \[V, 8\]"),
        ({"weight_VH": WEIGHT.double()}, "float64 .*: expected one dtype and device"),
        ({"bias": torch.zeros(50, dtype=torch.int64)}, r"bias is int64 .* expected float \[50\]"),
        ({"factor": float("nan")}, "factor is nan: expected a finite number above 0"),
        ({"factor": 2.0, "softcap": 30.0}, "expected one of both"),
        ({"softcap": 0.0}, "softcap is 0.0"),
    ],
)
def test_a_head_that_does_not_fit_is_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Head(**({"weight_VH": WEIGHT} | fields)).check(HIDDEN)
