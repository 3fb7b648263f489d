"""The element-wise part compiled: as exact as it is plain, the same bits each time, and not
needed.
"""

from __future__ import annotations

import os
import subprocess
import sys

import torch
from torch import Tensor

from sppo.kernels.linear.fused import WORTH_COMPILING
from tests.heads import chunked, reference

TOKENS, HIDDEN, VOCABULARY = 400, 32, 8192


def evaluate(function: object, dtype: torch.dtype, **options: object) -> list[Tensor]:
    """Values and gradients with all that a chunk's functions take."""
    torch.manual_seed(0)
    hidden_TH = torch.randn(TOKENS, HIDDEN).bfloat16().to(dtype).requires_grad_()
    weight_VH = torch.randn(VOCABULARY, HIDDEN).bfloat16().to(dtype).requires_grad_()
    target_T = torch.randint(VOCABULARY, (TOKENS,))
    settings = {
        "softcap": 9.0,
        "temperature": torch.linspace(0.5, 2, TOKENS),
        "return_entropy": True,
    }
    logprob_T, entropy_T, lse_T = function(hidden_TH, weight_VH, target_T, **settings, **options)  # type: ignore[operator]
    upstream_T = torch.randn(TOKENS)
    ((logprob_T + 0.5 * entropy_T) * upstream_T).sum().backward()
    assert hidden_TH.grad is not None
    assert weight_VH.grad is not None
    return [
        t.detach().double() for t in (logprob_T, entropy_T, lse_T, hidden_TH.grad, weight_VH.grad)
    ]


def test_large_chunks_are_compiled_and_as_exact() -> None:
    assert TOKENS * VOCABULARY >= WORTH_COMPILING
    wanted = evaluate(reference, torch.float64)
    first, second = (evaluate(chunked, torch.bfloat16) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    errors = [
        float((got - exact).norm() / exact.norm()) for got, exact in zip(first, wanted, strict=True)
    ]
    assert max(errors[:3]) < 1e-5
    assert max(errors[3:]) < 5e-3


def test_without_a_compiler_it_runs_plain_and_says_so_once() -> None:
    code = (
        "import torch; from sppo.kernels import Head, linear_logprob\n"
        "h, w = torch.ones(400, 8, requires_grad=True), torch.randn(8192, 8)\n"
        "y = torch.zeros(400, dtype=torch.int64)\n"
        "for _ in range(2): linear_logprob(h, y, Head(weight_VH=w))[0].sum().backward()\n"
        "print(float(h.grad.norm()))"
    )
    environment = os.environ | {
        "CXX": "/no/such/compiler",
        "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0
    assert done.stderr.count("runs uncompiled, slower: ") == 2  # one for each function
