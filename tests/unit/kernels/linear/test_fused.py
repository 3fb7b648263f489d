"""Small tensors are not worth compiling: the function runs as it is. Large ones are a test of their
own, for the seconds that a compiler takes (tests/integration/test_compiled_chunks.py).
"""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.kernels.linear.fused import WORTH_COMPILING, Fused


def doubled(values: Tensor, times: int = 2) -> Tensor:
    return values * times


def test_a_small_tensor_runs_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("compiled")

    monkeypatch.setattr(torch, "compile", never)
    assert Fused(doubled)(torch.ones(3), 5).tolist() == [5, 5, 5]


def test_without_a_compiler_it_runs_plain_and_asks_no_second_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def compile_nothing(plain: Any, **_: Any) -> Any:
        def fail(*_: Any) -> Tensor:
            asked.append(plain)
            raise OSError("no place for its files")

        return fail

    monkeypatch.setattr(torch, "compile", compile_nothing)
    function, large = Fused(doubled), torch.ones(WORTH_COMPILING)
    with caplog.at_level(logging.WARNING):
        assert all(float(function(large).mean()) == 2 for _ in range(2))
    assert len(asked) == 1
    assert [r.getMessage() for r in caplog.records] == [
        "doubled runs uncompiled, slower: no place for its files"
    ]
