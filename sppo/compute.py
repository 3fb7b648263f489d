"""What a run comes to on the processors there are: `learner.device`, `compute` and
`weights.transport` are decided once, for every role.

bf16 where the processor multiplies it: on GPUs, and on CPUs with AVX512_BF16 or AMX. Elsewhere a
CPU turns every bf16 number into float32 and back, and a step takes three times as long as in
float32.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sppo.config import is_loopback
from sppo.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from sppo.config import RunConfig

Compute = Literal["bfloat16", "float32"]
Transport = Literal["gloo", "nccl", "shared"]

MULTIPLIES_BF16 = {"avx512_bf16", "amx_bf16"}
"""Flags of /proc/cpuinfo; what `torch.cpu._is_avx512_bf16_supported` and `_is_amx_tile_supported`
look at.
"""


def resolve(config: RunConfig, *, cuda: bool) -> Compute:
    """What `compute` comes to for a run whose learner is on GPUs, or on this machine's CPU."""
    if config.compute != "auto":
        return config.compute
    return "bfloat16" if cuda or MULTIPLIES_BF16 & cpu_flags() else "float32"


def on_gpu(config: RunConfig, *, gpus: bool) -> bool:
    """What `learner.device` comes to, whether there are GPUs or not."""
    return config.learner.device == "cuda" or (config.learner.device == "auto" and gpus)


def placed(config: RunConfig, *, cuda: bool) -> RunConfig:
    """The configuration with `learner.device` and `weights.transport` decided. Raises ConfigError
    for memory that learner and engines would not have together.
    """
    transport = config.weights.transport
    if transport == "auto":
        transport = _transport(config, cuda=cuda)
    if transport == "shared" and cuda and not config.launch.share_gpu:
        raise ConfigError(
            "weights.transport = 'shared': learner and generators have GPUs of their own; use "
            "'auto', or launch.share_gpu = true"
        )
    device = {"device": "cuda" if cuda else "cpu"}
    return config.model_copy(
        update={
            "learner": config.learner.model_copy(update=device),
            "weights": config.weights.model_copy(update={"transport": transport}),
        }
    )


def _transport(config: RunConfig, *, cuda: bool) -> Transport:
    if config.launch.share_gpu:  # NCCL takes a GPU once
        return "shared" if is_loopback(config.weights.host) else "gloo"
    return "nccl" if cuda and config.generator.engine == "vllm" else "gloo"


def decided(config: RunConfig, *, cuda: bool) -> RunConfig:
    """The configuration with `compute` decided too."""
    return placed(config, cuda=cuda).model_copy(update={"compute": resolve(config, cuda=cuda)})


def here(config: RunConfig) -> RunConfig:
    """`decided` for a learner on this machine. Raises ConfigError if a GPU is asked for and
    missing.
    """
    if config.learner.device == "cuda" and not gpus_here():
        raise ConfigError("learner.device = 'cuda': torch sees no GPU; use 'auto' or 'cpu'")
    return decided(config, cuda=config.learner.device != "cpu" and gpus_here())


def engine_on_gpu(config: RunConfig) -> bool:
    """Whether an engine on this machine runs on a GPU; the learner may be elsewhere."""
    return config.learner.device != "cpu" and gpus_here()


def gpus_here() -> bool:
    """Whether torch sees a GPU on this machine. The driver's own list is asked: CUDA itself, once
    asked, could not be used by processes that this one forks.
    """
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    import torch

    return torch.cuda.is_available()


def dtype(config: RunConfig) -> torch.dtype:
    """The torch dtype of a configuration whose `compute` is decided."""
    import torch

    assert config.compute != "auto", "`decided` comes first"
    return torch.bfloat16 if config.compute == "bfloat16" else torch.float32


def reason(config: RunConfig, *, cuda: bool) -> str:
    """Why `compute` comes to what it does, in words."""
    if config.compute != "auto":
        return f"compute = {config.compute!r}"
    if cuda:
        return "on GPUs"
    multiplies = resolve(config, cuda=False) == "bfloat16"
    return f"this processor {'multiplies' if multiplies else 'does not multiply'} bf16"


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Features of this machine's processor, as Linux names them; none elsewhere."""
    if not path.exists():
        return frozenset()
    lines = [
        line
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.startswith(("flags", "Features"))
    ]
    return frozenset(lines[0].partition(":")[2].split()) if lines else frozenset()
