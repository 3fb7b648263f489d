"""The scan by segments and blocks is the one token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.learner import scan
from sppo.learner.skeleton import skeleton
from tests import families

GIVEN = {"delta_softplus": True, "return_last_state": True}


def inputs(length: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Two rows of three channels, each with a state of four numbers."""
    torch.manual_seed(length)
    shapes = {
        "x_BDL": (2, 3, length), "dt_BDL": (2, 3, length), "A_DN": (3, 4), "B_BNL": (2, 4, length),
        "C_BNL": (2, 4, length), "D": (3,), "z": (2, 3, length), "delta_bias": (3,),
    }  # fmt: skip
    made = {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}
    made["A_DN"] = -made["A_DN"].abs()
    return {name: value.requires_grad_() for name, value in made.items()}


def token_by_token(
    x_BDL: Tensor, dt_BDL: Tensor, A_DN: Tensor, B_BNL: Tensor, C_BNL: Tensor, D: Tensor, z: Tensor,
    delta_bias: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    dt_BDL = torch.nn.functional.softplus(dt_BDL + delta_bias[:, None])
    h_BDN, found = torch.zeros(2, 3, 4, dtype=x_BDL.dtype), []
    for t in range(x_BDL.shape[-1]):
        dt, x, B_N, C_N = (v[..., t] for v in (dt_BDL, x_BDL, B_BNL, C_BNL))
        h_BDN = (dt[..., None] * A_DN).exp() * h_BDN + (dt * x)[..., None] * B_N[:, None]
        found.append((h_BDN * C_N[:, None]).sum(-1) + D * x)
    return torch.stack(found, -1) * torch.nn.functional.silu(z), h_BDN


@pytest.mark.parametrize("length", [1, 7, 8, 20, 37])
def test_outputs_last_state_and_gradients_are_those_token_by_token(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given rows of several segments, and segments of several blocks, the last ones not whole
    monkeypatch.setattr(scan, "SEGMENT", 16)
    monkeypatch.setattr(scan, "BLOCK", 4)
    own, plain = inputs(length, torch.float32), inputs(length)
    # When both go forward and backward
    found, expected = scan.selective_scan(**own, **GIVEN), token_by_token(**plain)
    for values in (found, expected):
        sum((value * 0.5 * value).sum() for value in values).backward()
    # Then they agree
    for mine, its in zip(found, expected, strict=True):
        assert torch.allclose(mine.double(), its, rtol=1e-5, atol=1e-5)
    for name, value in plain.items():
        mine, its = own[name].grad, value.grad
        assert mine is not None
        assert its is not None
        assert (mine - its).norm() <= 1e-5 * its.norm(), name


def test_states_within_a_segment_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "SEGMENT", 16)
    kept: list[int] = []

    def pack(value: Tensor) -> Tensor:
        kept.append(value.numel())
        return value

    given = inputs(64, torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        scan.selective_scan(**given, **GIVEN)
    assert max(kept) < 2 * 3 * 64 * 4  # rows, channels, tokens, numbers of a state


@pytest.mark.parametrize("name", ["mamba", "falcon_mamba", "jamba"])
def test_layers_that_scan_do_it_so_and_other_models_do_not(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    own = scan.selective_scan

    def watched(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return own(*args, **kwargs)

    monkeypatch.setattr(scan, "selective_scan", watched)
    config = families.tiny(name)
    config.num_hidden_layers = 1
    from transformers import AutoModelForCausalLM

    plain, ours = (AutoModelForCausalLM.from_config(config).eval() for _ in range(2))
    ours.load_state_dict(plain.state_dict())
    scan.install(ours)
    ids = torch.arange(1, 60)[None]
    with torch.no_grad():
        expected = plain(input_ids=ids, use_cache=False).logits
        assert not calls
        assert torch.allclose(ours(input_ids=ids, use_cache=False).logits, expected, atol=1e-5)
    assert calls


def test_a_model_without_weights_scans_so_too(tmp_path: Path) -> None:
    from sppo import families as known

    config = families.tiny("mamba")
    module = skeleton(config, known.of(config, "mamba"))
    (mixer, *_) = [part for part in module.modules() if hasattr(part, "A_log")]
    assert mixer.forward.__wrapped__ is not None
