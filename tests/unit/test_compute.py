"""The number format of a run: what `auto` comes to on which processor, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sppo import compute
from sppo.config import RunConfig
from sppo.errors import ConfigError

CPUINFO = (
    "processor\t: 0\nmodel name\t: some processor\nflags\t\t: fpu {flags} avx2\n\nprocessor\t: 1\n"
)


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("avx512f", "float32"),
        ("avx512_bf16", "bfloat16"),
        ("amx_bf16 amx_tile", "bfloat16"),
        ("amx_tile", "float32"),
    ],
)
def test_auto_is_bf16_where_the_processor_multiplies_it(
    flags: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(CPUINFO.format(flags=flags))
    features = compute.cpu_flags(tmp_path / "cpuinfo")
    monkeypatch.setattr(compute, "cpu_flags", lambda: features)
    run = RunConfig()
    assert compute.resolve(run, cuda=False) == found
    assert compute.resolve(run, cuda=True) == "bfloat16"
    negated = "does not multiply" in compute.reason(run, cuda=False)
    assert negated is (found == "float32")


def test_what_is_asked_for_is_taken_on_every_processor() -> None:
    for asked, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        run = compute.decided(RunConfig(compute=asked), cuda=False)  # type: ignore[arg-type]
        assert compute.dtype(run) is dtype
        assert compute.reason(run, cuda=False) == f"compute = {asked!r}"


@pytest.mark.parametrize(
    ("device", "gpus", "cuda"),
    [("auto", True, True), ("auto", False, False), ("cuda", False, True), ("cpu", True, False)],
)
def test_a_device_is_what_was_asked_for_or_what_there_is(
    device: str, gpus: bool, cuda: bool
) -> None:
    run = RunConfig(learner={"device": device})  # type: ignore[arg-type]
    assert compute.on_gpu(run, gpus=gpus) is cuda


@pytest.mark.parametrize(
    ("engine", "transport", "cuda", "decided"),
    [
        ("vllm", "auto", True, "nccl"),
        ("vllm", "auto", False, "gloo"),
        ("transformers", "auto", True, "gloo"),
        ("vllm", "gloo", True, "gloo"),
    ],
)
def test_weights_travel_over_nccl_where_both_ends_have_gpus(
    engine: str, transport: str, cuda: bool, decided: str
) -> None:
    run = RunConfig(generator={"engine": engine}, weights={"transport": transport})  # type: ignore[arg-type]
    assert compute.decided(run, cuda=cuda).weights.transport == decided


@pytest.mark.parametrize("cuda", [True, False])
@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_weights_go_through_memory_that_both_ends_have_where_they_share_a_gpu(
    engine: str, cuda: bool
) -> None:
    given: Any = {"generator": {"engine": engine}, "launch": {"share_gpu": True}}
    assert compute.decided(RunConfig(**given), cuda=cuda).weights.transport == "shared"
    given["weights"] = {"host": "10.0.0.1", "trusted_network": True}
    assert compute.decided(RunConfig(**given), cuda=cuda).weights.transport == "gloo"


def test_gpus_of_their_own_have_no_memory_together() -> None:
    run = RunConfig(weights={"transport": "shared"})  # type: ignore[arg-type]
    assert compute.decided(run, cuda=False).weights.transport == "shared"
    with pytest.raises(ConfigError, match=r"transport = 'shared': learner and .*share_gpu = true"):
        compute.decided(run, cuda=True)


def test_what_was_decided_for_a_run_is_not_decided_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "gpus_here", lambda: True)
    run = compute.decided(RunConfig(), cuda=False)
    assert run.learner.device == "cpu"
    assert compute.here(run) == run
    assert not compute.engine_on_gpu(run)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "gpus_here", lambda: False)
    with pytest.raises(ConfigError, match=r"learner\.device = 'cuda': torch sees no GPU"):
        compute.here(RunConfig(learner={"device": "cuda"}))  # type: ignore[arg-type]


def test_torch_sees_the_same_features_on_this_machine() -> None:
    here = compute.cpu_flags()
    assert ("avx512_bf16" in here) == torch.cpu._is_avx512_bf16_supported()
    assert ("amx_tile" in here) == torch.cpu._is_amx_tile_supported()


def test_without_a_list_of_features_auto_is_float32(tmp_path: Path) -> None:
    assert compute.cpu_flags(tmp_path / "none") == frozenset()


def test_whether_there_are_gpus_is_asked_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """What CUDA has been asked in a process, its forks cannot use: vLLM's engine is one."""
    import torch

    def cuda() -> int:
        raise AssertionError("CUDA was asked")

    monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", cuda, raising=False)
    monkeypatch.setattr(torch.cuda, "_is_compiled", lambda: True)
    monkeypatch.setattr(torch.cuda, "_device_count_nvml", lambda: 2)
    monkeypatch.setattr(torch.cuda, "_cached_device_count", None)
    monkeypatch.delenv("PYTORCH_NVML_BASED_CUDA_CHECK", raising=False)
    assert compute.gpus_here()
    monkeypatch.setattr(torch.cuda, "_cached_device_count", None)
    monkeypatch.setattr(torch.cuda, "_device_count_nvml", lambda: 0)
    assert not compute.gpus_here()
    assert not torch.cuda.is_initialized()
