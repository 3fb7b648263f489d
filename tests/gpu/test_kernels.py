"""The kernels' own tests, on the device."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.gpu.conftest import ROOT, Figures

VALUES = [f"tests/kernels/test_{name}.py" for name in ("log_probs", "loss", "learner")]


@pytest.mark.gpus(1)
@pytest.mark.timeout(420)
@pytest.mark.parametrize("path", VALUES)
def test_values_and_gradients_on_the_device(path: str, figures: Figures) -> None:
    """Compare the Triton kernels with plain torch, values and every gradient, on this GPU."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "--verbosity=0", path],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    figures.add("tests passed", int(done.stdout.split(" passed")[0].split()[-1]), "")


@pytest.mark.gpus(1)
@pytest.mark.timeout(300)
def test_speed_of_the_head(figures: Figures) -> None:
    """Time log-probs of 16,384 tokens, 3,584 values over 151,936 words in bf16, forth and back."""
    import torch

    from sppo.kernels import Head, linear_logprob

    torch.manual_seed(0)
    hidden = torch.randn(16384, 3584, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(151936, 3584, device="cuda", dtype=torch.bfloat16) * 0.02
    weight.requires_grad_(True)
    targets = torch.randint(0, 151936, (16384,), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    seconds = []
    for _ in range(4):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        linear_logprob(hidden, targets, Head(weight_VH=weight))[0].sum().backward()
        end.record()
        torch.cuda.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)
        hidden.grad = weight.grad = None
    assert torch.cuda.max_memory_allocated() - before < 8 << 30
    figures.add("forward and backward", min(seconds), "s")
    figures.add("first, with compiling", seconds[0], "s")
    figures.add("peak", (torch.cuda.max_memory_allocated() - before) / 2**30, "GiB")
